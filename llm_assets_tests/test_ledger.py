"""The ledger: legal transitions only, one winner among many, a plan and its shards together."""

import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from llm_assets.errors import IllegalTransition, PlanConflict
from llm_assets.ledger import TRANSITIONS, Ledger
from llm_assets.ledger.database import open_database
from llm_assets.records import Batch, BatchCounts, BatchState, ShardState
from llm_assets_tests.samples import NOW, PLAN, SHARD

BATCH = Batch("batch_1", BatchState.IN_PROGRESS, NOW, BatchCounts(total=2))


@dataclass(slots=True)
class Clock:
    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(ledger_url: str, clock: Clock) -> Iterator[Ledger]:
    opened = Ledger(ledger_url, clock)
    yield opened
    opened.close()


def claim(ledger: Ledger, key: str = "k", owner: str = "me") -> bool:
    return ledger.claim(key, owner=owner, account="a")


def of_batch(ledger: Ledger) -> str | None:
    """What an ended shard has to be told to become something else."""
    shard = ledger.shard("k")
    return shard.batch_id if shard.state is ShardState.ENDED else None


CHANGES: dict[ShardState, Callable[[Ledger], object]] = {
    ShardState.PLANNED: lambda ledger: ledger.released("k", of_batch=of_batch(ledger)),
    ShardState.SUBMITTING: lambda ledger: ledger._advance("k", ShardState.SUBMITTING, of_batch=of_batch(ledger)),
    ShardState.SUBMITTED: lambda ledger: ledger.submitted("k", BATCH),
    ShardState.ENDED: lambda ledger: ledger.ended("k", BATCH),
    ShardState.COLLECTED: lambda ledger: ledger.collected(ledger.shard("k"), "results"),
    ShardState.REJECTED: lambda ledger: ledger.rejected(
        "k", "results", of_owner=ledger.shard("k").owner, code="", message=""
    ),
}


@pytest.mark.parametrize("to", ShardState, ids=lambda state: f"to-{state}")
@pytest.mark.parametrize("start", ShardState, ids=lambda state: f"from-{state}")
def test_only_the_listed_transitions_are_possible(ledger: Ledger, start: ShardState, to: ShardState) -> None:
    ledger.record_plan(PLAN, [replace(SHARD, state=start, batch_id="batch_1")], replaces=None)
    if start in TRANSITIONS[to]:
        CHANGES[to](ledger)
        assert ledger.shard("k").state is to
    else:
        with pytest.raises(IllegalTransition, match=f"cannot become {to}: it is {start}"):
            CHANGES[to](ledger)
        assert ledger.shard("k").state is start


def test_a_shard_and_its_plan_come_back_as_they_were_written(ledger: Ledger) -> None:
    shard = replace(SHARD, not_before=NOW, past_batches=("b1", "b2"), message="later")
    ledger.record_plan(PLAN, [shard], replaces=None)
    assert ledger.plan("e", "p") == PLAN
    assert ledger.shards("e", "p") == [shard]


def test_of_many_claims_one_succeeds(ledger: Ledger) -> None:
    ledger.record_plan(PLAN, [SHARD], replaces=None)
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda number: claim(ledger, owner=f"run {number}"), range(16)))
    assert won.count(True) == 1
    assert ledger.shard("k").owner == f"run {won.index(True)}"


def test_an_ended_shard_cannot_be_claimed(ledger: Ledger) -> None:
    ledger.record_plan(PLAN, [replace(SHARD, state=ShardState.ENDED, batch_id="batch_1")], replaces=None)
    assert not claim(ledger)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda ledger: ledger.ended("k", replace(BATCH, batch_id="old")), id="ended"),
        pytest.param(lambda ledger: ledger.released("k", of_batch="old"), id="released"),
        pytest.param(lambda ledger: ledger.vanished(replace(SHARD, batch_id="old"), "gone"), id="vanished"),
    ],
)
def test_what_was_read_of_a_former_batch_does_not_change_the_present_one(
    ledger: Ledger, change: Callable[[Ledger], object]
) -> None:
    ledger.record_plan(PLAN, [replace(SHARD, state=ShardState.SUBMITTED, batch_id="new")], replaces=None)
    with pytest.raises(IllegalTransition):
        change(ledger)
    assert (ledger.shard("k").state, ledger.shard("k").batch_id) == (ShardState.SUBMITTED, "new")


def test_of_many_plans_one_is_recorded_with_its_shards(ledger: Ledger) -> None:
    def record(number: int) -> bool:
        plan = replace(PLAN, plan_id=str(number))
        try:
            ledger.record_plan(plan, [replace(SHARD, key=f"k{number}")], replaces=None)
        except PlanConflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(record, range(16)))
    assert won.count(True) == 1
    assert [shard.key for shard in ledger.shards("e", "p")] == [f"k{won.index(True)}"]


def test_a_plan_based_on_an_older_one_is_refused_whole(ledger: Ledger) -> None:
    ledger.record_plan(PLAN, [], replaces=None)
    ledger.record_plan(replace(PLAN, wave=2), [], replaces=PLAN)
    with pytest.raises(PlanConflict, match="planned by another run"):
        ledger.record_plan(replace(PLAN, plan_id="late", wave=2), [SHARD], replaces=PLAN)
    assert ledger.shards("e", "p") == []


def test_a_shard_that_was_claimed_meanwhile_cannot_be_withdrawn(ledger: Ledger) -> None:
    ledger.record_plan(PLAN, [SHARD], replaces=None)
    claim(ledger)
    with pytest.raises(PlanConflict):
        ledger.record_plan(replace(PLAN, plan_id="new"), [], replaces=PLAN, withdraws=["k"])
    assert ledger.shard("k").state is ShardState.SUBMITTING
    current = ledger.plan("e", "p")
    assert current is not None
    assert current.plan_id == "first"


def test_a_withdrawn_shard_is_gone(ledger: Ledger) -> None:
    ledger.record_plan(PLAN, [SHARD], replaces=None)
    ledger.record_plan(replace(PLAN, plan_id="new"), [], replaces=PLAN, withdraws=["k"])
    assert ledger.shards("e", "p") == []


def test_a_shard_that_another_run_withdrew_can_neither_be_claimed_nor_submitted(ledger: Ledger) -> None:
    ledger.record_plan(PLAN, [SHARD], replaces=None)
    ledger.record_plan(replace(PLAN, plan_id="new"), [], replaces=PLAN, withdraws=["k"])
    assert not claim(ledger)
    with pytest.raises(IllegalTransition, match="it is withdrawn"):
        ledger.submitted("k", BATCH)


def test_of_two_claims_that_adopt_one_batch_the_second_learns_that_it_is_taken(ledger: Ledger) -> None:
    ledger.record_plan(PLAN, [SHARD, replace(SHARD, key="l")], replaces=None)
    assert claim(ledger)
    assert claim(ledger, "l")
    ledger.submitted("k", BATCH, adopted=True)
    with pytest.raises(IllegalTransition, match="batch batch_1 is another shard's"):
        ledger.submitted("l", BATCH, adopted=True)
    assert ledger.shard("l").state is ShardState.SUBMITTING


def test_a_providers_words_that_no_database_takes_are_kept_as_far_as_they_go(ledger: Ledger) -> None:
    ledger.record_plan(PLAN, [SHARD], replaces=None)
    ledger.unsettled("k", "busy\0 \ud800now", owner="")
    assert ledger.shard("k").message == "busy\N{REPLACEMENT CHARACTER} ?now"


def test_a_released_shard_remembers_the_batch_that_was_not_its_own(ledger: Ledger) -> None:
    ledger.record_plan(PLAN, [SHARD], replaces=None)
    claim(ledger)
    ledger.submitted("k", BATCH)
    ledger.ended("k", BATCH)
    ledger.released("k", of_batch="batch_1", code="token_limit_exceeded", not_before=NOW + timedelta(minutes=1))
    shard = ledger.shard("k")
    assert (shard.batch_id, shard.past_batches, shard.owner) == (None, ("batch_1",), "")


@pytest.mark.parametrize("ended", [False, True], ids=["in-flight", "ended"])
def test_who_gives_up_a_claim_does_not_take_back_the_batch_that_it_has_by_now(ledger: Ledger, ended: bool) -> None:
    ledger.record_plan(PLAN, [SHARD], replaces=None)
    claim(ledger, owner="slow")
    assert ledger.take_over(ledger.shard("k"), "heir", not_before=NOW)
    ledger.submitted("k", BATCH)  # the slow run's reply, after its heir has read that there is no batch
    if ended:
        ledger.ended("k", BATCH)
    with pytest.raises(IllegalTransition, match="cannot become planned"):
        ledger.released("k", of_owner="heir")
    assert (ledger.shard("k").batch_id, ledger.shard("k").past_batches) == ("batch_1", ())


def test_what_was_missed_of_a_former_batch_is_not_held_against_the_next(ledger: Ledger, clock: Clock) -> None:
    ledger.record_plan(PLAN, [SHARD], replaces=None)
    claim(ledger)
    ledger.submitted("k", BATCH, adopted=True)
    ledger.ended("k", BATCH)
    ledger.missing(ledger.shard("k"), "not there", forgotten_after=timedelta(minutes=3))
    ledger.disproved(ledger.shard("k"), "run", not_before=NOW)
    ledger.submitted("k", replace(BATCH, batch_id="batch_2"), adopted=True)
    clock.now += timedelta(minutes=2)
    since = ledger.missing(ledger.shard("k"), "not there", forgotten_after=timedelta(minutes=3))
    assert since == clock.now


def test_a_dead_owners_claim_is_taken_over_once(ledger: Ledger) -> None:
    ledger.record_plan(PLAN, [SHARD], replaces=None)
    claim(ledger, owner="dead")
    seen = ledger.shard("k")
    assert ledger.take_over(seen, "heir", not_before=NOW)
    assert not ledger.take_over(seen, "late heir", not_before=NOW)
    assert ledger.shard("k").owner == "heir"


def test_what_a_settled_plan_says_is_not_written_over_a_newer_one(ledger: Ledger) -> None:
    ledger.record_plan(PLAN, [], replaces=None)
    newer = replace(PLAN, plan_id="newer")
    ledger.record_plan(newer, [], replaces=PLAN)
    ledger.record_due(PLAN, pending=5, held="old news")
    with pytest.raises(PlanConflict), ledger.publishing(PLAN):
        pytest.fail("an older plan's tables took their places")
    assert ledger.plan("e", "p") == newer


def test_published_plans_are_not_open(ledger: Ledger) -> None:
    ledger.record_plan(PLAN, [], replaces=None)
    assert ledger.plans(open_only=True) == [PLAN]
    with ledger.publishing(PLAN):
        pass
    assert ledger.plans(open_only=True) == []
    assert [plan.published_at for plan in ledger.plans("e")] == [NOW]


def test_the_ledger_outlives_its_process(ledger_url: str) -> None:
    first = Ledger(ledger_url, lambda: NOW)
    first.record_plan(PLAN, [SHARD], replaces=None)
    first.close()
    second = Ledger(ledger_url, lambda: NOW)
    assert second.shards("e", "p") == [SHARD]
    second.close()


@pytest.mark.parametrize(
    "late",
    [
        pytest.param(lambda ledger: ledger.released("k", of_owner="late"), id="released"),
        pytest.param(
            lambda ledger: ledger.rejected("k", "results", of_owner="late", code="", message=""), id="rejected"
        ),
    ],
)
def test_who_lost_a_claim_does_not_give_it_back(ledger: Ledger, late: Callable[[Ledger], object]) -> None:
    ledger.record_plan(PLAN, [SHARD], replaces=None)
    claim(ledger, owner="late")
    assert ledger.take_over(ledger.shard("k"), "heir", not_before=NOW)
    with pytest.raises(IllegalTransition, match="heir"):
        late(ledger)
    ledger.staged("k", "file", owner="late")
    ledger.unsettled("k", "no reply", owner="late")
    shard = ledger.shard("k")
    assert (shard.owner, shard.staged_id, shard.message) == ("heir", None, "")


def test_a_sqlite_ledger_is_on_disk_before_the_network_is_touched(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'ledger.db'}")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
    engine.dispose()


def test_a_sqlite_transaction_takes_its_turn_before_it_reads(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'ledger.db'}")
    with closing(sqlite3.connect(tmp_path / "ledger.db", timeout=0)) as other:
        with engine.begin(), pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.execute("BEGIN IMMEDIATE")
    engine.dispose()
