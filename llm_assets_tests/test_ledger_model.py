"""The ledger against a model that fits in a head: several runs act on one partition, from what each last saw."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import count

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from llm_assets.errors import IllegalTransition, LedgerError, PlanConflict
from llm_assets.ledger import LOOKS_ENOUGH, VANISHED, Ledger
from llm_assets.records import Batch, BatchCounts, BatchState, Plan, Shard, ShardState
from llm_assets_tests.samples import NOW, PLAN, SHARD

PLANNED, SUBMITTING, SUBMITTED, ENDED, COLLECTED, REJECTED = ShardState
LEGAL = {
    (PLANNED, SUBMITTING),
    (PLANNED, SUBMITTED),
    (SUBMITTING, SUBMITTED),
    (SUBMITTING, PLANNED),
    (SUBMITTING, REJECTED),
    (SUBMITTED, ENDED),
    (ENDED, COLLECTED),
    (ENDED, PLANNED),
    (ENDED, SUBMITTING),
}
FORGOTTEN_AFTER = timedelta(minutes=3)
EXAMPLES = {"sqlite": 100, "postgres": 20}

ACTORS = st.sampled_from(["ann", "bob"])
NUMBERS = st.integers(0, 2)  # which shard of those seen, which batch of the few there are
YES_OR_NO = st.booleans()


@dataclass(slots=True)
class Clock:
    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now


@dataclass(frozen=True, slots=True)
class Seen:
    """What an actor read of the partition, maybe long ago."""

    plan: Plan | None = None
    shards: tuple[Shard, ...] = ()


class Runs(RuleBasedStateMachine):
    """`plan` and `shards` are the model: what the ledger must hold after each step, whole rows."""

    def __init__(self, ledger: Ledger, clock: Clock, partition: str) -> None:
        super().__init__()
        self.ledger, self.clock, self.partition = ledger, clock, partition
        self.plan: Plan | None = None
        self.shards: dict[str, Shard] = {}
        self.seen: dict[str, Seen] = {}
        self.states: dict[str, ShardState] = {}
        self.names = count()

    @initialize()
    def first_plan(self) -> None:
        self.look("ann")
        self.replan("ann", 2, withdraws=False)
        for actor in ("ann", "bob"):
            self.look(actor)

    # -- what actors do

    @rule(actor=ACTORS)
    def look(self, actor: str) -> None:
        shards = tuple(self.ledger.shards("e", self.partition))
        self.seen[actor] = Seen(self.ledger.plan("e", self.partition), shards)

    @rule(actor=ACTORS, shards=st.integers(0, 2), withdraws=YES_OR_NO)
    def replan(self, actor: str, shards: int, withdraws: bool) -> None:
        seen = self.seen[actor]
        name = f"{self.partition}-{next(self.names)}"
        wave = seen.plan.wave + 1 if seen.plan else 1
        plan = replace(PLAN, partition=self.partition, plan_id=name, wave=wave, planned_at=self.clock())
        new = [
            replace(SHARD, key=f"{name}-{n}", path=f"{name}-{n}", partition=self.partition, wave=wave)
            for n in range(shards)
        ]
        gone = [shard.key for shard in seen.shards if withdraws and shard.state is PLANNED]
        wins = self._is_current(seen.plan) and all(self._state(key) is PLANNED for key in gone)
        self._tries(
            wins,
            PlanConflict,
            lambda: self.ledger.record_plan(plan, new, replaces=seen.plan, withdraws=gone),
        )
        if wins:
            self.plan = plan
            self.shards = {key: shard for key, shard in self.shards.items() if key not in gone}
            self.shards |= {shard.key: shard for shard in new}

    @rule(actor=ACTORS, pending=st.integers(0, 2), held=st.sampled_from(["", "systemic"]))
    def settle(self, actor: str, pending: int, held: str) -> None:
        if (plan := self.seen[actor].plan) is None:
            return
        self.ledger.record_due(plan, pending=pending, held=held)
        self._change_plan(plan, pending=pending, not_before=None, **({"held": held} if held else {}))

    @rule(actor=ACTORS)
    def hold(self, actor: str) -> None:
        if (plan := self.seen[actor].plan) is not None:
            self.ledger.hold(plan, "systemic")
            self._change_plan(plan, held="systemic")

    @rule(actor=ACTORS)
    def publish(self, actor: str) -> None:
        if (plan := self.seen[actor].plan) is None:
            return
        wins = self._is_current(plan)

        def publish() -> None:
            with self.ledger.publishing(plan):
                pass

        self._tries(wins, PlanConflict, publish)
        if wins:
            self._change_plan(plan, pending=0, held="", not_before=None, published_at=self.clock())

    @rule(actor=ACTORS, number=NUMBERS)
    def claim(self, actor: str, number: int) -> None:
        if shard := self._shard(actor, number):
            wins = self._state(shard.key) is PLANNED
            assert self.ledger.claim(shard.key, owner=actor, account="a") is wins
            if wins:
                facts = {"owner": actor, "account": "a", "claimed_at": self.clock(), "not_before": None}
                self._change(shard.key, state=SUBMITTING, code="", message="", **facts)

    @rule(actor=ACTORS, number=NUMBERS)
    def take_over(self, actor: str, number: int) -> None:
        if shard := self._shard(actor, number):
            now = self.shards.get(shard.key)
            wins = now is not None and now.state is SUBMITTING and now.owner == shard.owner
            later = self.clock() + timedelta(hours=1)
            assert self.ledger.take_over(shard, actor, not_before=later) is wins
            if wins and now:
                self._change(shard.key, owner=actor, not_before=now.not_before or later)

    @rule(actor=ACTORS, number=NUMBERS)
    def staged(self, actor: str, number: int) -> None:
        if shard := self._shard(actor, number):
            self.ledger.staged(shard.key, f"file of {actor}", owner=actor)
            if self._owner(shard.key) == actor:
                self._change(shard.key, staged_id=f"file of {actor}")

    @rule(actor=ACTORS, number=NUMBERS, batch=NUMBERS, adopted=YES_OR_NO)
    def submitted(self, actor: str, number: int, batch: int, adopted: bool) -> None:
        if shard := self._shard(actor, number):
            found = self._batch(batch)
            free = all(other.batch_id != found.batch_id for other in self.shards.values())
            facts = {"batch_id": found.batch_id, "submitted_at": self.clock(), "not_before": None, "adopted": adopted}
            self._advance(
                shard,
                SUBMITTED,
                free and self._state(shard.key) in (SUBMITTING, PLANNED),
                lambda: self.ledger.submitted(shard.key, found, adopted=adopted),
                **facts | {"code": "", "message": ""},
            )

    @rule(actor=ACTORS, number=NUMBERS)
    def disproved(self, actor: str, number: int) -> None:
        if (shard := self._shard(actor, number)) and shard.batch_id:
            self._advance(
                shard,
                SUBMITTING,
                self._is(shard, ENDED),
                lambda: self.ledger.disproved(shard, actor, not_before=self.clock()),
                **{"owner": actor, "not_before": self.clock()},
                **self._without_batch(shard),
            )

    @rule(actor=ACTORS, number=NUMBERS, of_batch=YES_OR_NO)
    def released(self, actor: str, number: int, of_batch: bool) -> None:
        if shard := self._shard(actor, number):
            batch_id = shard.batch_id if of_batch else None
            by = None if batch_id else actor
            self._advance(
                shard,
                PLANNED,
                self._state(shard.key) is (ENDED if batch_id else SUBMITTING)
                and batch_id in (None, self.shards[shard.key].batch_id)
                and by in (None, self._owner(shard.key)),
                lambda: self.ledger.released(
                    shard.key, of_owner=by, of_batch=batch_id, code="full", not_before=self.clock()
                ),
                **{"owner": "", "code": "full", "message": "", "not_before": self.clock()},
                **self._without_batch(shard),
            )

    @rule(actor=ACTORS, number=NUMBERS)
    def ended(self, actor: str, number: int) -> None:
        if (shard := self._shard(actor, number)) and shard.batch_id:
            batch = replace(self._batch(0), batch_id=shard.batch_id, code="", message="done")
            facts = {"finished": 2, "ended_at": self.clock(), "code": "", "message": "done"}
            self._end(shard, lambda: self.ledger.ended(shard.key, batch), **facts)

    @rule(actor=ACTORS, number=NUMBERS)
    def vanished(self, actor: str, number: int) -> None:
        if (shard := self._shard(actor, number)) and shard.batch_id:
            facts = {"ended_at": self.clock(), "code": VANISHED, "message": "gone"}
            self._end(shard, lambda: self.ledger.vanished(shard, "gone"), **facts)

    @rule(actor=ACTORS, number=NUMBERS)
    def missing(self, actor: str, number: int) -> None:
        shard = self._shard(actor, number)
        if shard is None or shard.batch_id is None or shard.key not in self.shards:
            return
        since = self.ledger.missing(shard, "not there", forgotten_after=FORGOTTEN_AFTER)
        now = self.shards[shard.key]
        if now.batch_id == shard.batch_id:
            lately = now.missing_at is not None and now.missing_at >= self.clock() - FORGOTTEN_AFTER
            in_a_row = lately or now.missing_looks >= LOOKS_ENOUGH
            expected = now.missing_since if in_a_row else self.clock()
            facts = {"missing_since": expected, "missing_at": self.clock(), "missing_looks": now.missing_looks + 1}
            self._change(shard.key, message="not there", **facts)
            assert since == expected

    @rule(actor=ACTORS, number=NUMBERS)
    def collected(self, actor: str, number: int) -> None:
        if (shard := self._shard(actor, number)) and shard.batch_id:
            self._advance(
                shard,
                COLLECTED,
                self._is(shard, ENDED),
                lambda: self.ledger.collected(shard, f"table of {actor}"),
                **{"results": f"table of {actor}", "collected_at": self.clock(), "adopted": False},
            )

    @rule(actor=ACTORS, number=NUMBERS)
    def rejected(self, actor: str, number: int) -> None:
        if shard := self._shard(actor, number):
            self._advance(
                shard,
                REJECTED,
                self._state(shard.key) is SUBMITTING and self._owner(shard.key) == actor,
                lambda: self.ledger.rejected(shard.key, f"table of {actor}", of_owner=actor, code="bad", message="no"),
                **{"results": f"table of {actor}", "collected_at": self.clock(), "code": "bad", "message": "no"},
            )

    @rule(actor=ACTORS, number=NUMBERS, steps=st.integers(1, 4))
    def work(self, actor: str, number: int, steps: int) -> None:
        """As most runs do: look, and do what is next. What others saw grows old."""
        for _ in range(steps):
            self.look(actor)
            match (shard := self._shard(actor, number)) and shard.state:
                case ShardState.PLANNED:
                    self.claim(actor, number)
                case ShardState.SUBMITTING:
                    self.submitted(actor, number, next(self.names), adopted=True)
                case ShardState.SUBMITTED:
                    self.ended(actor, number)
                case ShardState.ENDED:
                    self.collected(actor, number)
            self.states_change_as_they_may_and_the_last_ones_never()

    @rule(actor=ACTORS, number=NUMBERS)
    def send_again(self, actor: str, number: int) -> None:
        """In another batch than some may still believe."""
        self.look(actor)
        self.released(actor, number, of_batch=True)
        self.states_change_as_they_may_and_the_last_ones_never()
        self.work(actor, number, steps=2)

    @rule(minutes=st.integers(1, 5))
    def time_passes(self, minutes: int) -> None:
        self.clock.now += timedelta(minutes=minutes)

    # -- what must hold after each step

    @invariant()
    def the_ledger_is_as_the_model_says(self) -> None:
        found = self.ledger.shards("e", self.partition)
        assert {shard.key: shard for shard in found} == self.shards
        assert self.ledger.plan("e", self.partition) == self.plan

    @invariant()
    def a_batch_is_one_shards(self) -> None:
        batches = [shard.batch_id for shard in self.ledger.shards("e", self.partition) if shard.batch_id]
        assert len(batches) == len(set(batches))

    @invariant()
    def states_change_as_they_may_and_the_last_ones_never(self) -> None:
        found = {shard.key: shard.state for shard in self.ledger.shards("e", self.partition)}
        changes = {(self.states[key], state) for key, state in found.items() if key in self.states}
        assert {change for change in changes if change[0] is not change[1]} <= LEGAL
        assert all(self.states[key] is PLANNED for key in self.states.keys() - found.keys())  # withdrawn
        self.states = found

    # -- the model

    def _shard(self, actor: str, number: int) -> Shard | None:
        shards = self.seen[actor].shards
        return shards[number % len(shards)] if shards else None

    def _batch(self, number: int) -> Batch:
        return Batch(f"{self.partition}-batch-{number}", BatchState.ENDED, NOW, BatchCounts(total=2, succeeded=2))

    def _owner(self, key: str) -> str | None:
        shard = self.shards.get(key)
        return shard.owner if shard else None

    def _state(self, key: str) -> ShardState | None:
        return self.shards[key].state if key in self.shards else None

    def _is(self, shard: Shard, state: ShardState) -> bool:
        """Whether a shard is in this state now, and in the batch that it was seen in."""
        return self._state(shard.key) is state and self.shards[shard.key].batch_id == shard.batch_id

    def _is_current(self, plan: Plan | None) -> bool:
        return (plan and (plan.plan_id, plan.wave)) == (self.plan and (self.plan.plan_id, self.plan.wave))

    def _without_batch(self, shard: Shard) -> dict[str, object]:
        now = self.shards.get(shard.key, shard)
        past = (*now.past_batches, *([now.batch_id] if now.batch_id else []))
        unmissed = {"missing_since": None, "missing_at": None, "missing_looks": 0}
        return {"batch_id": None, "past_batches": past, "adopted": False, **unmissed}

    def _change(self, key: str, **facts: object) -> None:
        if key in self.shards:
            self.shards[key] = replace(self.shards[key], **facts)  # type: ignore[arg-type]

    def _change_plan(self, seen: Plan, **facts: object) -> None:
        if self.plan and self._is_current(seen):
            self.plan = replace(self.plan, **facts)  # type: ignore[arg-type]

    def _end(self, shard: Shard, act: Callable[[], None], **facts: object) -> None:
        nothing = dict.fromkeys(("not_before", "missing_since", "missing_at")) | {"missing_looks": 0}
        self._advance(shard, ENDED, self._is(shard, SUBMITTED), act, **nothing, **facts)

    def _advance(self, shard: Shard, to: ShardState, wins: bool, act: Callable[[], None], **facts: object) -> None:
        self._tries(wins, IllegalTransition, act)
        if wins:
            self._change(shard.key, state=to, **facts)

    def _tries(self, wins: bool, error: type[LedgerError], act: Callable[[], None]) -> None:
        if wins:
            act()
        else:
            with pytest.raises(error):
                act()


def test_whatever_runs_do_the_ledger_is_as_the_model_says(ledger_url: str) -> None:
    clock = Clock()
    ledger = Ledger(ledger_url, clock)
    partitions = count()
    bounded = settings(
        max_examples=EXAMPLES["sqlite" if ledger_url.startswith("sqlite") else "postgres"],
        stateful_step_count=40,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],  # each step is durable on disk
    )

    def runs() -> Runs:
        return Runs(ledger, clock, f"p{next(partitions)}")

    run_state_machine_as_test(runs, settings=bounded)  # type: ignore[arg-type]  # it only ever calls it
    ledger.close()
