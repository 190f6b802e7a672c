"""The ledger: what was intended, sent, ended and collected. The only SQL of the project.

`plans` has a row for each partition of an enrichment, `shards` a row for each shard (tables.py). A shard's state is
one column, changed in one function (`Ledger._advance`) that locks the row and allows only the transitions of
`TRANSITIONS`: of two runs that try the same change, one succeeds. What is reserved
and spent is in `Ledger.money` (money.py).

What a request asked and got is not here but in the store's Parquet files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy as sa

from llm_assets.errors import IllegalTransition, PlanConflict
from llm_assets.ledger.database import open_database
from llm_assets.ledger.money import Money, write_spent
from llm_assets.ledger.presence import presence_of
from llm_assets.ledger.tables import UtcDateTime, decisions, in_partition, ledger, plans, shards
from llm_assets.records import ACTIVE, Batch, Mode, Plan, Shard, ShardState, Spent

# From which states a shard may come into each state.
TRANSITIONS: dict[ShardState, frozenset[ShardState]] = {
    ShardState.PLANNED: frozenset({ShardState.SUBMITTING, ShardState.ENDED}),  # released
    ShardState.SUBMITTING: frozenset({ShardState.PLANNED, ShardState.ENDED}),  # claimed; disproved
    ShardState.SUBMITTED: frozenset({ShardState.SUBMITTING, ShardState.PLANNED}),  # given up before its reply came
    ShardState.ENDED: frozenset({ShardState.SUBMITTED}),
    ShardState.COLLECTED: frozenset({ShardState.ENDED}),
    ShardState.REJECTED: frozenset({ShardState.SUBMITTING}),
}
# The code of a shard whose batch its provider does not know any more.
VANISHED = "vanished"
# So many looks that all missed something say that it is gone, however far apart they were.
LOOKS_ENOUGH = 4


Record = TypeVar("Record", Plan, Shard)


class Ledger:
    """All that is known about plans and shards, in one database.

    `url` is SQLAlchemy's: `sqlite:///path/ledger.db`, `postgresql+psycopg://…`. `clock` gives aware datetimes.
    Opening it brings its schema up to date (migrations). Raises IllegalTransition and PlanConflict where somebody else
    was faster; database errors pass through.
    """

    def __init__(self, url: str, clock: Callable[[], datetime]) -> None:
        self._engine = open_database(url)
        self._clock = clock
        self._presence = presence_of(self._engine)
        self.money = Money(self._engine, clock)

    def close(self) -> None:
        """Give the connections back. Who made claims through this ledger is gone from now on."""
        self._presence.close()
        self._engine.dispose()

    @property
    def url(self) -> str:
        """Where the ledger is, without a password."""
        return self._engine.url.render_as_string()

    @property
    def id(self) -> str:
        """Which ledger this is; another one at the same place has another id."""
        with self._engine.connect() as connection:
            found: str = connection.execute(sa.select(ledger.c.id)).scalar_one()
            return found

    # -- plans

    def plan(self, enrichment: str, partition: str) -> Plan | None:
        """The current plan of a partition, if there is one."""
        found = self._rows(plans, Plan, in_partition(plans, enrichment, partition))
        return found[0] if found else None

    def plans(self, enrichment: str | None = None, *, open_only: bool = False) -> list[Plan]:
        """The plans of an enrichment or of all; `open_only` leaves out the published."""
        conditions: list[sa.ColumnElement[bool]] = []
        if enrichment is not None:
            conditions.append(plans.c.enrichment == enrichment)
        if open_only:
            conditions.append(plans.c.published_at.is_(None))
        return self._rows(plans, Plan, sa.and_(sa.true(), *conditions))

    def record_plan(
        self, plan: Plan, new_shards: Sequence[Shard], *, replaces: Plan | None, withdraws: Sequence[str] = ()
    ) -> None:
        """Write a plan and the shards of its wave in one transaction.

        `replaces` is the plan that the decision was based on, `withdraws` the keys of planned shards that it takes
        back. Raises PlanConflict when the plan is no longer current or such a shard no longer just planned.
        """
        try:
            with self._engine.begin() as connection:
                self._replace_plan(connection, plan, replaces)
                self._withdraw(connection, plan, withdraws)
                if new_shards:
                    connection.execute(sa.insert(shards), [_values(shard) for shard in new_shards])
        except sa.exc.IntegrityError as error:
            raise PlanConflict(_conflict(plan)) from error

    def _replace_plan(self, connection: sa.Connection, plan: Plan, replaces: Plan | None) -> None:
        if replaces is None:
            connection.execute(sa.insert(plans).values(**_values(plan)))
            return
        changed = connection.execute(sa.update(plans).where(_current(replaces)).values(**_values(plan)))
        if changed.rowcount != 1:
            raise PlanConflict(_conflict(plan))

    def _withdraw(self, connection: sa.Connection, plan: Plan, keys: Sequence[str]) -> None:
        for key in keys:
            planned = (shards.c.key == key) & (shards.c.state == ShardState.PLANNED)
            if connection.execute(sa.delete(shards).where(planned)).rowcount != 1:
                raise PlanConflict(_conflict(plan))

    def record_due(self, plan: Plan, *, pending: int, held: str, not_before: datetime | None = None) -> None:
        """Record how many requests the next wave is due for, and from when on; for this plan only.

        A hold is set here, never lifted.
        """
        self._update_plan(plan, pending=pending, not_before=not_before, **({"held": held} if held else {}))

    def hold(self, plan: Plan, reason: str) -> None:
        """Send nothing more for this plan until somebody acts."""
        self._update_plan(plan, held=reason)

    @contextmanager
    def publishing(self, plan: Plan) -> Iterator[None]:
        """Inside, the tables of this plan take their places in the store; at the end it counts as published.

        Nobody else can plan the partition meanwhile. Raises PlanConflict, before anything is in place, when the plan
        is no longer current.
        """
        with self._engine.begin() as connection:
            done = {"pending": 0, "held": "", "not_before": None, "published_at": self._clock()}
            if connection.execute(sa.update(plans).where(_current(plan)).values(**done)).rowcount != 1:
                raise PlanConflict(_conflict(plan))
            yield

    def take_back(self, plan: Plan, keys: Sequence[str], *, pending: int) -> Plan:
        """Take back shards that are planned and not sent: so many requests are due in another wave. Returns the plan.

        Raises PlanConflict when one of them is no longer just planned, or the plan no longer current.
        """
        with self._engine.begin() as connection:
            self._withdraw(connection, plan, keys)
            self._replace_plan(connection, replace(plan, pending=pending), plan)
        return replace(plan, pending=pending)

    @contextmanager
    def rewriting(self, plan: Plan, current: Plan) -> Iterator[None]:
        """Inside, tables of the current plan are replaced in the store; at the end `plan` is the current one.

        Nobody else can plan or publish the partition meanwhile. Raises PlanConflict, before anything is in place, when
        somebody did since `current` was read.
        """
        same = plans.c.published_at.is_not_distinct_from(sa.literal(current.published_at, UtcDateTime))
        with self._engine.begin() as connection:
            changed = connection.execute(sa.update(plans).where(_current(current) & same).values(**_values(plan)))
            if changed.rowcount != 1:
                raise PlanConflict(_conflict(plan))
            yield

    def _update_plan(self, plan: Plan, **changes: Any) -> None:
        this = in_partition(plans, plan.enrichment, plan.partition) & (plans.c.plan_id == plan.plan_id)
        with self._engine.begin() as connection:
            connection.execute(sa.update(plans).where(this & (plans.c.wave == plan.wave)).values(**changes))

    # -- shards

    def shard(self, key: str) -> Shard:
        """One shard. Raises KeyError when there is none of this key."""
        found = self._rows(shards, Shard, shards.c.key == key)
        if not found:
            raise KeyError(key)
        return found[0]

    def shards(self, enrichment: str, partition: str) -> list[Shard]:
        """All shards of a partition, in the order of waves."""
        return self._rows(shards, Shard, in_partition(shards, enrichment, partition))

    def unfinished_claims(self) -> list[Shard]:
        """The shards of all partitions whose outcome is not known."""
        return self._rows(shards, Shard, shards.c.state == ShardState.SUBMITTING)

    def active_shards(self) -> list[Shard]:
        """The shards of all partitions that are not done, oldest first."""
        return self._rows(shards, Shard, shards.c.state.in_(ACTIVE))

    def queue(self, provider: str, model_name: str | None) -> list[Shard]:
        """The shards of all partitions that are planned or with this provider, for one model or for all."""
        wanted = (shards.c.provider == provider) & (shards.c.mode == Mode.BATCH) & shards.c.state.in_(ACTIVE)
        return self._rows(shards, Shard, wanted & (shards.c.model_name == model_name if model_name else sa.true()))

    def known_batches(self, batch_ids: Iterable[str]) -> frozenset[str]:
        """Which of these batch ids belong to a shard already."""
        query = sa.select(shards.c.batch_id).where(shards.c.batch_id.in_(list(batch_ids)))
        with self._engine.connect() as connection:
            return frozenset(connection.execute(query).scalars())

    def is_gone(self, owner: str) -> bool:
        """Whether this owner of claims is proven to be gone: its process died, or closed its ledger."""
        return self._presence.is_gone(owner)

    @property
    def lingers(self) -> timedelta:
        """How long an owner who is gone may still be sending: its proof may be a broken connection only."""
        return self._presence.lingers

    def claim(self, key: str, *, owner: str, account: str) -> bool:
        """Take a planned shard for sending with this account. False when somebody else was faster.

        The owner's name must be nobody else's, ever: while this ledger is open it is known to be at work.
        """
        self._presence.enter(owner)
        claim: dict[str, Any] = {"owner": owner, "account": account, "claimed_at": self._clock(), "not_before": None}
        claim |= {"code": "", "message": ""}
        try:
            self._advance(key, ShardState.SUBMITTING, **claim)
        except IllegalTransition:
            return False
        return True

    def take_over(self, shard: Shard, owner: str, *, not_before: datetime) -> bool:
        """Take an unfinished claim from an owner who is dead. False when somebody else did it first.

        Nobody knows when the dead owner's call was made: it is not given up before `not_before`, unless an earlier
        heir has set a time.
        """
        self._presence.enter(owner)
        theirs = (
            (shards.c.key == shard.key) & (shards.c.state == ShardState.SUBMITTING) & (shards.c.owner == shard.owner)
        )
        with self._engine.begin() as connection:
            until = sa.func.coalesce(shards.c.not_before, sa.literal(not_before, UtcDateTime))
            taken = connection.execute(sa.update(shards).where(theirs).values(owner=owner, not_before=until))
        return bool(taken.rowcount == 1)

    def staged(self, key: str, staged_id: str, *, owner: str) -> None:
        """The shard's file lies at the provider under this id; says nothing of a claim that is another's by now."""
        self._note(key, owner=owner, staged_id=staged_id)

    def unsettled(self, key: str, message: str, *, owner: str, not_before: datetime | None = None) -> None:
        """The outcome of the owner's claim is unknown, and is not given up before a time; `message` says why."""
        self._note(key, owner=owner, message=message, **({"not_before": not_before} if not_before else {}))

    def progress(self, key: str, finished: int) -> None:
        """So many requests are finished, as the provider counts."""
        self._note(key, finished=finished)

    def asked(self, keys: Sequence[str]) -> None:
        """The provider has just said how these shards stand."""
        with self._engine.begin() as connection:
            connection.execute(sa.update(shards).where(shards.c.key.in_(keys)).values(asked_at=self._clock()))

    def submitted(self, key: str, batch: Batch, *, adopted: bool = False) -> None:
        """The provider has the shard; `adopted` when that is a guess that the results will prove."""
        facts: dict[str, Any] = {"batch_id": batch.batch_id, "submitted_at": self._clock(), "not_before": None}
        facts["adopted"] = adopted
        self._advance(key, ShardState.SUBMITTED, code="", message="", **facts)

    def disproved(self, shard: Shard, owner: str, *, not_before: datetime) -> None:
        """The adopted batch is not the shard's: its outcome is as unknown as before, and not given up before a time."""
        self._presence.enter(owner)
        facts: dict[str, Any] = {"owner": owner, "not_before": not_before}
        self._advance(shard.key, ShardState.SUBMITTING, of_batch=shard.batch_id, leaves_batch=True, **facts)

    def released(
        self,
        key: str,
        *,
        of_owner: str | None = None,
        of_batch: str | None = None,
        code: str = "",
        message: str = "",
        not_before: datetime | None = None,
    ) -> None:
        """Nothing of this shard is at the provider (any more): it is to be sent, not before a time.

        Said by who claimed it (`of_owner`), or of a batch that it was in (`of_batch`).
        """
        facts: dict[str, Any] = {"owner": "", "not_before": not_before, "code": code, "message": message}
        self._advance(key, ShardState.PLANNED, of_owner=of_owner, of_batch=of_batch, leaves_batch=True, **facts)

    def waits(self, key: str, message: str, *, not_before: datetime) -> None:
        """A planned shard is not sent before a time; `message` says why."""
        planned = (shards.c.key == key) & (shards.c.state == ShardState.PLANNED)
        with self._engine.begin() as connection:
            connection.execute(sa.update(shards).where(planned).values(message=message, not_before=not_before))

    def forget_staged(self, key: str) -> None:
        """The staged file is of no use: the next claim uploads again."""
        self._note(key, staged_id=None)

    def ended(self, key: str, batch: Batch) -> None:
        """The provider is done with the shard."""
        self._advance(
            key,
            ShardState.ENDED,
            of_batch=batch.batch_id,
            not_before=None,
            missing_since=None,
            missing_at=None,
            missing_looks=0,
            ended_at=self._clock(),
            finished=batch.counts.finished,
            code=batch.code,
            message=batch.message,
        )

    def missing(self, shard: Shard, message: str, *, forgotten_after: timedelta) -> datetime:
        """The provider did not have the shard's batch, or not all of its results. Returns since when that is so.

        Only looks in a row count: when the last one is longer ago than `forgotten_after`, they begin anew; but after
        LOOKS_ENOUGH of them, who looks seldom need not look more often.
        """
        now = self._clock()
        this = (shards.c.key == shard.key) & (shards.c.batch_id == shard.batch_id)
        lately = shards.c.missing_at >= sa.literal(now - forgotten_after, UtcDateTime)
        in_a_row = lately | (shards.c.missing_looks >= LOOKS_ENOUGH)
        facts = {
            "missing_looks": shards.c.missing_looks + 1,
            "missing_since": sa.case((in_a_row, shards.c.missing_since), else_=sa.literal(now, UtcDateTime)),
            "missing_at": now,
            "message": sa.case((in_a_row, shards.c.message), else_=sa.literal(message)),
        }
        with self._engine.begin() as connection:
            connection.execute(sa.update(shards).where(this).values(**facts))
        return self.shard(shard.key).missing_since or now

    def there(self, shard: Shard) -> None:
        """The provider has after all what was missing."""
        if shard.missing_since is not None:
            self._note(shard.key, missing_since=None, missing_at=None, missing_looks=0, message="")

    def deferred(self, shard: Shard, *, not_before: datetime) -> None:
        """The results of the shard are to be fetched later."""
        this = (shards.c.key == shard.key) & (shards.c.batch_id == shard.batch_id)
        with self._engine.begin() as connection:
            connection.execute(sa.update(shards).where(this).values(not_before=not_before))

    def cancelled(self, shard: Shard) -> None:
        """The provider was asked to stop working on the shard."""
        self._note(shard.key, cancelled_at=self._clock())

    def vanished(self, shard: Shard, message: str) -> None:
        """The provider does not know the shard's batch any more: it has ended, without results."""
        facts: dict[str, Any] = {"ended_at": self._clock(), "not_before": None, "code": VANISHED, "message": message}
        facts |= {"missing_since": None, "missing_at": None, "missing_looks": 0}
        self._advance(shard.key, ShardState.ENDED, of_batch=shard.batch_id, **facts)

    def collected(self, shard: Shard, results: str, spent: Spent | None = None, *, is_final: bool = True) -> None:
        """Every request of the shard has its outcome in the store's table `results`, for what was `spent`.

        Unless that `is_final`, the budgets go on counting the most that it may have cost.
        """
        facts: dict[str, Any] = {"collected_at": self._clock(), "results": results, "adopted": False}
        facts |= {"charge_usd": spent.cost_usd} if spent and is_final else {}
        self._advance(shard.key, ShardState.COLLECTED, of_batch=shard.batch_id, spent=spent, **facts)

    def rejected(self, key: str, results: str, *, of_owner: str, code: str, message: str, billed: bool = False) -> None:
        """The provider refused the shard for good, and its outcomes are in the store's table `results`.

        `billed` when it may have been paid for all the same, as nobody knows what became of it.
        """
        facts: dict[str, Any] = {"collected_at": self._clock(), "results": results}
        facts |= {} if billed else {"charge_usd": 0.0}
        self._advance(key, ShardState.REJECTED, of_owner=of_owner, code=code, message=message, **facts)

    # -- operators

    def transfer(self, provider: str, account: str, *, to: str) -> None:
        """What was sent to a provider with one account and is not collected is another's from now on."""
        theirs = (shards.c.provider == provider) & (shards.c.account == account) & shards.c.state.in_(ACTIVE)
        with self._engine.begin() as connection:
            connection.execute(sa.update(shards).where(theirs).values(account=to))

    def decided(self, key: str, decision: str, *, batch_id: str | None, operator: str) -> None:
        """Write down what somebody decided, before it is done: about a shard, an account, or documents to forget."""
        row = {"key": key, "decision": decision, "batch_id": batch_id, "operator": operator}
        with self._engine.begin() as connection:
            connection.execute(sa.insert(decisions).values(decided_at=self._clock(), **row))

    def decisions(self, key: str) -> list[tuple[datetime, str, str | None, str]]:
        """What was decided about a shard, in order: when, what, for which batch, by whom."""
        columns = (decisions.c.decided_at, decisions.c.decision, decisions.c.batch_id, decisions.c.operator)
        query = sa.select(*columns).where(decisions.c.key == key).order_by(decisions.c.number)
        with self._engine.connect() as connection:
            return [(at, decision, batch, who) for at, decision, batch, who in connection.execute(query)]

    # -- what is done: what it took, and what is still kept of it

    def unswept(self, enrichment: str, *, until: datetime, limit: int) -> list[Shard]:
        """Shards that were done by then and whose request files are still kept, the oldest first."""
        return self._done(enrichment, shards.c.swept_at.is_(None) & (shards.c.collected_at <= until), limit)

    def collected_since(self, enrichment: str, since: datetime) -> list[Shard]:
        """The shards of all partitions whose results came since then, the newest first."""
        done = (shards.c.enrichment == enrichment) & (shards.c.state == ShardState.COLLECTED)
        query = sa.select(shards).where(done & (shards.c.collected_at >= since)).order_by(shards.c.collected_at.desc())
        with self._engine.connect() as connection:
            return [_record(Shard, dict(row)) for row in connection.execute(query).mappings()]

    def turnarounds(self, enrichment: str, *, limit: int) -> list[timedelta]:
        """How long the batches took whose results came last."""
        done = (shards.c.enrichment == enrichment) & (shards.c.state == ShardState.COLLECTED)
        known = shards.c.submitted_at.is_not(None) & shards.c.ended_at.is_not(None)
        query = sa.select(shards.c.submitted_at, shards.c.ended_at).where(done & known)
        with self._engine.connect() as connection:
            latest = connection.execute(query.order_by(shards.c.collected_at.desc()).limit(limit))
            return [ended - submitted for submitted, ended in latest]

    def swept(self, key: str) -> None:
        """The shard's request file is deleted."""
        self._note(key, swept_at=self._clock())

    def unforgotten(self, enrichment: str, *, since: datetime, limit: int) -> list[Shard]:
        """Shards that were done since then and of which the provider may still keep something, the oldest first."""
        return self._done(enrichment, shards.c.forgotten_at.is_(None) & (shards.c.collected_at >= since), limit)

    def forgotten(self, key: str) -> None:
        """What the provider kept of the shard is deleted, or is left to it."""
        self._note(key, forgotten_at=self._clock())

    def _done(self, enrichment: str, condition: sa.ColumnElement[bool], limit: int) -> list[Shard]:
        done = (shards.c.enrichment == enrichment) & shards.c.state.in_((ShardState.COLLECTED, ShardState.REJECTED))
        query = sa.select(shards).where(done & condition).order_by(shards.c.collected_at).limit(limit)
        with self._engine.connect() as connection:
            return [_record(Shard, dict(row)) for row in connection.execute(query).mappings()]

    # -- how a row changes, and how it is read

    def _advance(
        self,
        key: str,
        to: ShardState,
        *,
        of_owner: str | None = None,
        of_batch: str | None = None,
        leaves_batch: bool = False,
        spent: Spent | None = None,
        **facts: Any,
    ) -> None:
        this = shards.c.key == key
        try:
            with self._engine.begin() as connection:
                row = connection.execute(sa.select(shards).where(this).with_for_update()).mappings().one_or_none()
                if row is None:
                    raise IllegalTransition(f"shard {key} cannot become {to}: it is withdrawn")
                now = _record(Shard, dict(row))
                if not _may_become(to, now, of_batch):
                    raise IllegalTransition(f"shard {key} cannot become {to}: it is {now.state}")
                if of_owner not in (None, now.owner):
                    raise IllegalTransition(f"shard {key} cannot become {to}: its claim is {now.owner}'s by now")
                if leaves_batch:
                    past = [*now.past_batches, *([now.batch_id] if now.batch_id else [])]
                    facts |= {"batch_id": None, "past_batches": past, "adopted": False}
                    facts |= {"missing_since": None, "missing_at": None, "missing_looks": 0}
                connection.execute(sa.update(shards).where(this).values(state=to, **facts))
                if spent:
                    write_spent(connection, now, spent, facts["collected_at"])
        except sa.exc.IntegrityError as error:
            batch_id = facts.get("batch_id")
            raise IllegalTransition(f"shard {key} cannot become {to}: batch {batch_id} is another shard's") from error

    def _note(self, key: str, *, owner: str | None = None, **facts: Any) -> None:
        this = (shards.c.key == key) & (sa.true() if owner is None else shards.c.owner == owner)
        with self._engine.begin() as connection:
            connection.execute(sa.update(shards).where(this).values(**facts))

    def _rows(self, table: sa.Table, record: type[Record], condition: sa.ColumnElement[bool]) -> list[Record]:
        order = (shards.c.wave, shards.c.path) if table is shards else (plans.c.enrichment, plans.c.partition)
        with self._engine.connect() as connection:
            found = connection.execute(sa.select(table).where(condition).order_by(*order)).mappings()
            return [_record(record, dict(row)) for row in found]


def _current(plan: Plan) -> sa.ColumnElement[bool]:
    """The row of a plan, if it is still the partition's and stands as it did."""
    this = in_partition(plans, plan.enrichment, plan.partition) & (plans.c.plan_id == plan.plan_id)
    return this & (plans.c.wave == plan.wave) & (plans.c.rounds == plan.rounds)


def _may_become(to: ShardState, shard: Shard, of_batch: str | None) -> bool:
    if to is ShardState.SUBMITTING and (shard.state is ShardState.PLANNED) is not (of_batch is None):
        return False  # two ways lead here, and a claim must not take the other's
    if to is ShardState.PLANNED and (shard.state is ShardState.ENDED) is not (of_batch is not None):
        return False  # who gives up a claim knows nothing of the batch that it may have got meanwhile
    # What was read of one batch must not change a shard that was sent again in another meanwhile.
    return shard.state in TRANSITIONS[to] and of_batch in (None, shard.batch_id)


def _values(record: Plan | Shard) -> dict[str, Any]:
    values = asdict(record)
    if isinstance(record, Shard):
        values["past_batches"] = list(record.past_batches)
    return values


def _record(record: type[Record], row: dict[str, Any]) -> Record:
    if record is Shard:
        row |= {"state": ShardState(row["state"]), "mode": Mode(row["mode"])}
        row |= {"past_batches": tuple(row["past_batches"])}
    return record(**{column.name: row[column.name] for column in fields(record)})


def _conflict(plan: Plan) -> str:
    return (
        f"{plan.enrichment} {plan.partition} was planned by another run in the meantime; nothing of this run's plan "
        "was sent. Materialize it again to see what is left."
    )
