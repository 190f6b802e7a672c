"""Where partitions are: from ledger rows to what a person reads."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from llm_assets.console import asked_lines, caveat_lines
from llm_assets.published import Outcome, together
from llm_assets.records import Plan, Shard, ShardState
from llm_assets.status import Asked, InFlight, about, asked_lately, in_flight, partition_status
from llm_assets.waves import Step

NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)
PLAN = Plan(
    enrichment="labels",
    partition="2026-11-01",
    plan_id="p",
    digest="d",
    path="plan.parquet",
    documents=102,
    requests=100,
    wave=1,
    planned_at=NOW,
)
SHARD = Shard(
    key="0123456789ab",
    enrichment="labels",
    partition="2026-11-01",
    wave=1,
    provider="anthropic",
    endpoint="messages",
    requests=60,
    bytes=6_000,
    path="wave-01/0123456789ab",
)


def shard(state: ShardState, requests: int = 60, finished: int = 0, not_before: datetime | None = None) -> Shard:
    return replace(SHARD, state=state, requests=requests, finished=finished, not_before=not_before)


@pytest.mark.parametrize(
    ("plan", "shards", "step", "done", "in_flight", "finished", "due"),
    [
        pytest.param(PLAN, [shard(ShardState.PLANNED, 100)], Step.SUBMIT, 0, 0, 0, 100, id="planned"),
        pytest.param(
            PLAN,
            [shard(ShardState.PLANNED, 100, not_before=NOW + timedelta(minutes=1))],
            Step.WAIT,
            0,
            0,
            0,
            100,
            id="later",
        ),
        pytest.param(PLAN, [shard(ShardState.SUBMITTING, 100)], Step.SUBMIT, 0, 100, 0, 0, id="unknown"),
        pytest.param(PLAN, [shard(ShardState.SUBMITTED, 100, 30)], Step.WAIT, 30, 100, 30, 0, id="in flight"),
        pytest.param(
            PLAN,
            [shard(ShardState.SUBMITTED, 60, 10), shard(ShardState.ENDED, 40)],
            Step.WAIT,
            50,
            100,
            50,
            0,
            id="one of two has ended",
        ),
        pytest.param(PLAN, [shard(ShardState.ENDED, 100)], Step.COLLECT, 100, 100, 100, 0, id="ended"),
        pytest.param(replace(PLAN, pending=7), [], Step.SUBMIT, 93, 0, 0, 7, id="the next wave is due"),
        pytest.param(
            replace(PLAN, pending=7, held="no money"),
            [shard(ShardState.COLLECTED, 100, 100)],
            Step.HELD,
            93,
            0,
            0,
            7,
            id="held",
        ),
        pytest.param(replace(PLAN, published_at=NOW), [], Step.NOTHING, 100, 0, 0, 0, id="published"),
        pytest.param(
            replace(PLAN, requests=3),
            [shard(ShardState.SUBMITTED, 100)],
            Step.WAIT,
            0,
            100,
            0,
            0,
            id="more in flight than is still wanted",
        ),
    ],
)
def test_partition_status(
    plan: Plan, shards: list[Shard], step: Step, done: int, in_flight: int, finished: int, due: int
) -> None:
    found = partition_status(plan, shards, NOW)

    assert found.step is step
    assert (found.requests_done, found.requests_in_flight) == (done, in_flight)
    assert (found.requests_finished, found.requests_due) == (finished, due)
    assert found.documents == 102


TOOK = timedelta(hours=2)


def sent(hours_ago: float, requests: int = 100) -> Shard:
    return replace(shard(ShardState.SUBMITTED, requests), submitted_at=NOW - timedelta(hours=hours_ago))


@pytest.mark.parametrize(
    ("shards", "waiting", "hours"),
    [
        pytest.param([], 0, None, id="nothing is left"),
        pytest.param([sent(0.5)], 0, 1.5, id="in flight"),
        pytest.param([sent(0.5), sent(1.5)], 0, 1.5, id="the last of two"),
        pytest.param([sent(9)], 0, 0, id="later than lately"),
        pytest.param([], 100, 2, id="to be sent"),
        pytest.param([sent(1), shard(ShardState.PLANNED, 900)], 900, 2, id="to be sent beside"),
        pytest.param(
            [sent(1), replace(shard(ShardState.PLANNED, 250), message="no room")], 250, 1 + 3 * 2, id="no room beside"
        ),
    ],
)
def test_about_when_all_is_done(shards: list[Shard], waiting: int, hours: float | None) -> None:
    expected = None if hours is None else NOW + timedelta(hours=hours)
    assert about(shards, waiting, TOOK, NOW) == expected


def test_a_provider_that_is_experimental_is_named() -> None:
    found = partition_status(PLAN, [replace(shard(ShardState.SUBMITTED), provider="mistral")], NOW)
    (line,) = caveat_lines([found, found])
    assert "mistral is experimental" in line.plain
    assert not caveat_lines([partition_status(PLAN, [shard(ShardState.SUBMITTED)], NOW)])


def test_outcomes_add_up_and_the_longest_counts_its_waves() -> None:
    one = Outcome(
        documents=3,
        enriched=2,
        failed=1,
        waves=1,
        input_tokens=30,
        output_tokens=4,
        cost_usd=0.25,
        failures={"refusal": 1},
        tables=("a",),
    )
    other = replace(one, waves=3, failures={"refusal": 1, "expired": 4}, tables=("b",))

    both = together([one, other])

    assert (both.documents, both.enriched, both.failed, both.waves) == (6, 4, 2, 3)
    assert (both.input_tokens, both.output_tokens, both.cost_usd) == (60, 8, 0.5)
    assert list(both.failures.items()) == [("expired", 4), ("refusal", 2)]
    assert both.tables == ("a", "b")
    assert together([]).documents == 0


HOUR = timedelta(hours=1)
SENT = replace(SHARD, state=ShardState.SUBMITTED, submitted_at=NOW, deadline_s=26 * 3600, finished=5)
NOTHING: dict[str, Any] = {"batches": 0, "ended": 0, "requests": 0, "finished": 0}
NEVER: dict[str, Any] = {"since": None, "expected_at": None, "deadline_at": None}


@pytest.mark.parametrize(
    ("shards", "takes", "found"),
    [
        pytest.param([], HOUR, NOTHING | NEVER, id="nothing"),
        pytest.param([shard(ShardState.PLANNED), shard(ShardState.COLLECTED)], HOUR, NOTHING | NEVER, id="not-there"),
        pytest.param(
            [SENT, replace(SENT, submitted_at=NOW + HOUR)],
            2 * HOUR,
            {"batches": 2, "ended": 0, "requests": 120, "finished": 10, "since": NOW}
            | {"expected_at": NOW + 3 * HOUR, "deadline_at": NOW + 27 * HOUR},
            id="the-last-one-counts",
        ),
        pytest.param(
            [SENT],
            None,
            {"batches": 1, "ended": 0, "requests": 60, "finished": 5, "since": NOW}
            | {"expected_at": None, "deadline_at": NOW + 26 * HOUR},
            id="no-history",
        ),
        pytest.param(
            [replace(SENT, state=ShardState.ENDED)],
            HOUR,
            {"batches": 1, "ended": 1, "requests": 60, "finished": 60} | NEVER | {"since": NOW},
            id="waits-for-nobody",
        ),
        pytest.param(
            [replace(SHARD, state=ShardState.SUBMITTING, claimed_at=NOW)],
            HOUR,
            {"batches": 1, "ended": 0, "requests": 60, "finished": 0} | NEVER | {"since": NOW},
            id="unknown",
        ),
    ],
)
def test_since_when_and_until_about_when(shards: list[Shard], takes: timedelta | None, found: dict[str, Any]) -> None:
    assert in_flight(shards, takes) == InFlight(**found)


# -- whether somebody looks after what is in flight


def asked(minutes: int | None, provider: str = "openai", state: ShardState = ShardState.SUBMITTED) -> Shard:
    """A shard that was sent two hours ago, and asked about some minutes ago."""
    at = None if minutes is None else NOW - timedelta(minutes=minutes)
    return replace(SHARD, provider=provider, state=state, submitted_at=NOW - timedelta(hours=2), asked_at=at)


def test_the_batch_that_nobody_asked_about_for_longest_counts() -> None:
    shards = [asked(1), asked(30), asked(2), asked(99, state=ShardState.ENDED), asked(None, "anthropic")]
    assert asked_lately(shards) == [
        Asked("anthropic", 1, None, NOW - timedelta(hours=2)),
        Asked("openai", 3, NOW - timedelta(minutes=1), NOW - timedelta(minutes=30)),
    ]
    assert asked_lately([]) == []


@pytest.mark.parametrize(("minutes", "is_wrong"), [(9, False), (11, True)])
def test_batches_that_nobody_asks_about_are_a_question(minutes: int, is_wrong: bool) -> None:
    (line,) = asked_lines(asked_lately([asked(minutes), asked(0)]), NOW)
    assert line.plain.startswith(f"openai: 2 in flight, last asked about 0.0 s ago, one of them not for {minutes} min")
    assert ("is the daemon running" in line.plain) is is_wrong
