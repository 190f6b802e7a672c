"""What a partition needs next."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from llm_assets.records import Plan, Shard, ShardState
from llm_assets.waves import Step, next_step
from llm_assets_tests.samples import NOW, PLAN, SHARD


def shard(state: ShardState, wave: int = 1, not_before: datetime | None = None) -> Shard:
    return replace(SHARD, state=state, wave=wave, not_before=not_before)


PLANNED, SUBMITTING, SUBMITTED, ENDED, COLLECTED = (
    shard(state)
    for state in (
        ShardState.PLANNED,
        ShardState.SUBMITTING,
        ShardState.SUBMITTED,
        ShardState.ENDED,
        ShardState.COLLECTED,
    )
)
SOON = NOW + timedelta(minutes=1)
LATER = shard(ShardState.PLANNED, not_before=SOON)
PUBLISHED = replace(PLAN, published_at=NOW)


@pytest.mark.parametrize(
    ("plan", "shards", "expected"),
    [
        pytest.param(PLAN, [PLANNED], Step.SUBMIT, id="planned-and-not-sent"),
        pytest.param(PLAN, [SUBMITTED, PLANNED], Step.SUBMIT, id="half-sent"),
        pytest.param(PLAN, [LATER], Step.WAIT, id="planned-for-later"),
        pytest.param(PLAN, [SUBMITTING], Step.SUBMIT, id="claim-to-reconcile"),
        pytest.param(PLAN, [SUBMITTED], Step.WAIT, id="with-the-provider"),
        pytest.param(PLAN, [SUBMITTED, ENDED], Step.WAIT, id="wave-half-ended"),
        pytest.param(PLAN, [ENDED], Step.COLLECT, id="wave-ended"),
        pytest.param(PLAN, [replace(ENDED, not_before=SOON)], Step.WAIT, id="results-are-looked-for-later"),
        pytest.param(PLAN, [replace(ENDED, not_before=NOW)], Step.COLLECT, id="results-are-looked-for-now"),
        pytest.param(PLAN, [SUBMITTING, ENDED], Step.SUBMIT, id="a-claim-of-the-wave-is-open"),
        pytest.param(PLAN, [SUBMITTING, replace(ENDED, adopted=True)], Step.COLLECT, id="an-adopted-batch-to-prove"),
        pytest.param(PLAN, [ENDED, COLLECTED], Step.COLLECT, id="wave-half-collected"),
        pytest.param(PLAN, [ENDED, LATER], Step.COLLECT, id="ended-while-a-shard-waits-for-room"),
        pytest.param(PLAN, [ENDED, shard(ShardState.SUBMITTED, 2)], Step.COLLECT, id="another-wave-is-on-its-way"),
        pytest.param(PLAN, [], Step.COLLECT, id="all-collected-not-published"),
        pytest.param(replace(PLAN, pending=1), [], Step.SUBMIT, id="next-wave-is-due"),
        pytest.param(replace(PLAN, pending=1, not_before=SOON), [], Step.WAIT, id="next-wave-waits-for-room"),
        pytest.param(replace(PLAN, pending=1), [SUBMITTED], Step.WAIT, id="next-wave-waits-for-this-one"),
        pytest.param(PUBLISHED, [], Step.NOTHING, id="published"),
        pytest.param(PUBLISHED, [COLLECTED], Step.NOTHING, id="published-and-collected"),
        pytest.param(PUBLISHED, [ENDED], Step.COLLECT, id="an-old-prompts-answers-are-taken-home"),
        pytest.param(replace(PLAN, held="billing"), [PLANNED], Step.HELD, id="held"),
        pytest.param(replace(PLAN, held="billing", pending=1), [], Step.HELD, id="held-before-the-next-wave"),
        pytest.param(replace(PLAN, held="billing"), [ENDED], Step.COLLECT, id="held-but-paid-for"),
        pytest.param(replace(PLAN, held="billing"), [SUBMITTING], Step.SUBMIT, id="held-but-a-claim-is-open"),
        pytest.param(replace(PLAN, held="billing"), [SUBMITTED], Step.WAIT, id="held-while-a-batch-is-on-its-way"),
        pytest.param(replace(PLAN, held="billing"), [], Step.COLLECT, id="held-with-nothing-left-to-send"),
    ],
)
def test_next_step(plan: Plan, shards: list[Shard], expected: Step) -> None:
    assert next_step(plan, shards, NOW) is expected
