"""What became of a claim whose outcome is unknown: the verdict, from what the provider lists."""

from dataclasses import replace
from datetime import timedelta

import pytest

from llm_assets.reconciliation import Adopt, Release, Verdict, Wait, verdict
from llm_assets.records import Batch, BatchCounts, BatchState, ShardState
from llm_assets_tests import samples

CLAIMED = samples.NOW
DELAY = timedelta(minutes=2)
SHARD = replace(
    samples.SHARD,
    requests=100,
    state=ShardState.SUBMITTING,
    claimed_at=CLAIMED,
    past_batches=("past",),
    staged_id="file",
)
BATCH = Batch("b", BatchState.IN_PROGRESS, CLAIMED + timedelta(seconds=3), BatchCounts(total=100))


def batch(batch_id: str, **changes: object) -> Batch:
    return replace(BATCH, batch_id=batch_id, **changes)  # type: ignore[arg-type]


OURS = batch("ours", stamp="k", counts=BatchCounts(total=7))
OF_OUR_FILE = batch("ours", stamp=None, staged_id="file")


def test_a_call_that_took_long_may_show_its_batch_as_long_after_its_end() -> None:
    slow = replace(SHARD, not_before=CLAIMED + timedelta(minutes=10))
    found = [
        verdict(
            slow, [], (), stamped=True, rivals=False, now=CLAIMED + timedelta(minutes=minutes), visibility_delay=DELAY
        )
        for minutes in (3, 9, 10)
    ]
    assert found == [Wait(), Wait(), Release()]


def test_a_claim_is_not_given_up_while_another_may_hold_its_batch() -> None:
    late = CLAIMED + timedelta(hours=1)
    assert verdict(SHARD, [], (), stamped=False, rivals=True, now=late, visibility_delay=DELAY) == Wait()


def test_a_stamp_is_believed_whatever_the_clocks_say() -> None:
    early = replace(OURS, created_at=CLAIMED - timedelta(days=1))
    found = verdict(SHARD, [early], (), stamped=True, rivals=False, now=CLAIMED, visibility_delay=DELAY)
    assert found == Adopt(early)


@pytest.mark.parametrize(
    ("stamped", "batches", "minutes", "expected"),
    [
        pytest.param(True, [batch("x", stamp="other"), OURS], 0, Adopt(OURS), id="stamp-finds-it-whatever-its-size"),
        pytest.param(True, [OF_OUR_FILE], 9, Adopt(OF_OUR_FILE), id="a-server-without-stamps-names-the-file"),
        pytest.param(True, [replace(OF_OUR_FILE, staged_id="theirs")], 9, Release(), id="another-file"),
        pytest.param(True, [replace(OF_OUR_FILE, stamp="theirs")], 9, Release(), id="our-file-with-another-stamp"),
        pytest.param(True, [batch("x", stamp="other")], 5, Release(), id="stamp-of-another"),
        pytest.param(True, [batch("x")], 5, Release(), id="stamps-are-carried-and-this-has-none"),
        pytest.param(True, [], 1, Wait(), id="not-visible-yet"),
        pytest.param(True, [], 2, Release(), id="nothing-after-the-delay"),
        pytest.param(False, [BATCH], 0, Adopt(BATCH), id="size-and-age"),
        pytest.param(False, [batch("x", counts=BatchCounts(total=99))], 5, Release(), id="other-size"),
        pytest.param(False, [batch("x", created_at=CLAIMED - timedelta(hours=3))], 5, Release(), id="before-it"),
        pytest.param(False, [batch("x", created_at=CLAIMED + timedelta(hours=25))], 5, Release(), id="long-after-it"),
        pytest.param(False, [batch("taken")], 5, Release(), id="another-shards"),
        pytest.param(False, [batch("past")], 5, Release(), id="disproved-before"),
        pytest.param(False, [batch("a"), batch("b")], 5, Adopt(batch("b")), id="two-candidates-the-elder-first"),
        pytest.param(False, [batch("a"), batch("taken")], 5, Adopt(batch("a")), id="one-of-two-is-another-shards"),
    ],
)
def test_verdict(stamped: bool, batches: list[Batch], minutes: int, expected: Verdict) -> None:
    now = CLAIMED + timedelta(minutes=minutes)
    assert (
        verdict(SHARD, batches, {"taken"}, stamped=stamped, rivals=False, now=now, visibility_delay=DELAY) == expected
    )
