"""Where partitions are: from ledger rows to what a person reads."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from llm_assets.records import Plan, Shard, ShardState
from llm_assets.status import Outcome, partition_status, together
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
