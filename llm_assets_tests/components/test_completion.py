"""When the sensor asks for another run of the same work, and what it says when nothing is due."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from llm_assets.components.completion import Attempt, idle, next_attempt
from llm_assets.polling import Poll
from llm_assets.records import ShardState
from llm_assets_tests.samples import SHARD

NOW = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)
DONE, FAILED, STARTED, QUEUED = (
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.QUEUED,
)


def ago(seconds: int) -> datetime:
    return NOW - timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        pytest.param([], 1, id="never-tried"),
        pytest.param([Attempt(STARTED, None)], None, id="in-flight"),
        pytest.param([Attempt(QUEUED, None)], None, id="queued"),
        pytest.param([Attempt(FAILED, ago(999)), Attempt(STARTED, None)], None, id="in-flight-after-a-failure"),
        pytest.param([Attempt(DONE, ago(5))], None, id="just-done-and-still-due"),
        pytest.param([Attempt(DONE, ago(30))], 2, id="done-and-still-due"),
        pytest.param([Attempt(FAILED, ago(59))], None, id="failed-a-moment-ago"),
        pytest.param([Attempt(FAILED, ago(60))], 2, id="failed-a-minute-ago"),
        pytest.param([Attempt(FAILED, ago(999)), Attempt(FAILED, ago(60))], None, id="waits-longer-each-time"),
        pytest.param([Attempt(FAILED, ago(999)), Attempt(FAILED, ago(120))], 3, id="second-failure"),
        pytest.param([Attempt(FAILED, ago(3599))] * 20, None, id="an-hour-at-most-not-yet"),
        pytest.param([Attempt(FAILED, ago(3600))] * 20, 21, id="an-hour-at-most"),
        pytest.param([Attempt(FAILED, None)], 2, id="its-process-died"),
    ],
)
def test_next_attempt(runs: list[Attempt], expected: int | None) -> None:
    assert next_attempt(runs, NOW) == expected


def test_a_tick_says_how_long_the_longest_wait_for_news_is() -> None:
    sent = replace(SHARD, state=ShardState.SUBMITTED, submitted_at=ago(900))
    shards = [
        replace(sent, provider="anthropic", asked_at=ago(20)),
        replace(sent, provider="openai", asked_at=ago(400)),
        replace(sent, provider="openai", asked_at=ago(10)),
        replace(SHARD, state=ShardState.ENDED, submitted_at=ago(5000)),
    ]
    assert idle(Poll(calls=4), shards, NOW) == (
        "3 batches in flight, 4 provider calls, nothing is due; longest without news: 400 s"
    )
    assert idle(Poll(), [], NOW).endswith("0 s")
