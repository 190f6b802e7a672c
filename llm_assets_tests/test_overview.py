"""All partitions at once: what is left of them, and how far they are, against what each says by itself."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from llm_assets.documents import DocumentSource
from llm_assets.overview import Part, overview
from llm_assets.platform import Platform
from llm_assets.preview import outlook
from llm_assets.prices import declared_price
from llm_assets.records import ShardLimits
from llm_assets.status import overall, statuses
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.platforms import LABELS, Time, finish, go_on, submit, write_documents

DAYS = ("2026-11-01", "2026-11-02", "2026-11-03", "2026-11-04", "2026-11-05")
SHARDS_OF_TWO = replace(LABELS, limits=ShardLimits(requests=2, bytes=1 << 20))


def texts(day: str) -> list[str | None]:
    return [f"{day}: {word}" for word in ("good", "bad", "so-so")]


@pytest.fixture
def source(tmp_path: Path) -> DocumentSource:
    """Files of two partitions, of which nothing was materialized."""
    for day in DAYS[3:]:
        rows = pl.DataFrame({"id": [f"d{number}" for number in range(3)], "body": texts(day)})
        rows.write_csv(tmp_path / f"{day}.csv")
    return DocumentSource(name="texts", path="{partition}.csv", id_column="id", text_column="body", base=tmp_path)


def money(part: Part) -> tuple[float, float, float]:
    return part.usd, part.at_most_usd, part.standard_usd


def counts(part: Part) -> Part:
    return replace(part, usd=0, at_most_usd=0, standard_usd=0)


def test_what_is_left_is_the_sum_of_what_each_partition_takes(
    empty: Platform, emulator: Emulator, source: DocumentSource
) -> None:
    finished, sent, new = DAYS[:3]
    for day in (finished, sent, new):
        write_documents(empty, texts(day), day)
    submit(empty, LABELS, finished)
    finish(empty, LABELS, finished)
    other = replace(LABELS, name="other")  # which has nothing to do with it
    submit(empty, other, finished)
    finish(empty, other, finished)
    emulator.hold()
    try:
        submit(empty, LABELS, sent)
        submit(empty, other, sent)
        before = emulator.accounting()
        told: list[str] = []
        found = overview(empty, LABELS, [*DAYS, "2026-12-31"], source, told.append)
    finally:
        emulator.hold(held=False)

    assert emulator.accounting() == before
    assert told == [*DAYS[2:], "2026-12-31"]
    assert (found.finished, found.held, found.without_documents) == (1, 0, 1)
    alone = outlook(empty, LABELS, new).forecast
    assert money(found.unplanned) == pytest.approx((3 * alone.usd, 3 * alone.at_most_usd, 3 * alone.standard_usd))
    assert counts(found.unplanned) == Part(partitions=3, documents=9, to_send=9)
    (shard,) = empty.ledger.shards(LABELS.name, sent)
    half = shard.expected_usd  # what batches cost
    assert money(found.planned) == pytest.approx((half, shard.at_most_usd, 2 * half))
    assert counts(found.planned) == Part(partitions=1, documents=3, in_flight=3)
    assert found.spent_usd == pytest.approx(empty.ledger.money.cost_by_partition()[LABELS.name, finished])
    assert found.hours is not None


def test_what_is_in_flight_would_cost_in_real_time_what_it_would_have_when_it_was_sent(
    empty: Platform, emulator: Emulator
) -> None:
    price = declared_price({"batch": {"input": 1, "output": 1}, "standard": {"input": 4, "output": 4}})
    write_documents(empty, texts(DAYS[0]), DAYS[0])
    emulator.hold()
    try:
        submit(empty, replace(LABELS, price=price), DAYS[0])
        found = overview(empty, LABELS, DAYS[:1])
    finally:
        emulator.hold(held=False)
    assert found.planned.standard_usd == pytest.approx(4 * found.planned.usd)


def test_what_another_partition_has_answered_is_not_counted(empty: Platform) -> None:
    for day in DAYS[:2]:
        write_documents(empty, ["good", "bad"] if day == DAYS[0] else ["good", "so-so"], day)
    submit(empty, LABELS, DAYS[0])
    finish(empty, LABELS, DAYS[0])
    found = overview(empty, LABELS, DAYS[:2])
    assert (found.unplanned.to_send, found.reused) == (1, 1)


def test_the_next_wave_of_what_came_back_is_counted(empty: Platform, emulator: Emulator) -> None:
    emulator.faults([{"fault": "overloaded", "match": "good", "times": 1}])
    write_documents(empty, texts(DAYS[0]), DAYS[0])
    submit(empty, LABELS, DAYS[0])
    while not (plan := empty.ledger.plan(LABELS.name, DAYS[0])) or not plan.pending:
        go_on(empty, LABELS, DAYS[0])
    found = overview(empty, LABELS, DAYS[:1])
    assert (found.planned.partitions, found.planned.to_send, found.planned.in_flight) == (1, 1, 0)
    assert 0 < found.planned.usd < found.planned.at_most_usd


def test_what_is_held_is_counted(empty: Platform) -> None:
    write_documents(empty, texts(DAYS[0]), DAYS[0])
    submit(empty, replace(LABELS, partition_budget_usd=1e-9), DAYS[0])
    found = overview(empty, LABELS, DAYS[:1])
    assert (found.held, found.planned.to_send) == (1, 3)


def test_progress_over_all_partitions(empty: Platform, emulator: Emulator, time: Time) -> None:
    for day in DAYS[:2]:
        write_documents(empty, texts(day), day)
    submit(empty, SHARDS_OF_TWO, DAYS[0])
    finish(empty, SHARDS_OF_TWO, DAYS[0])
    emulator.hold()
    try:
        submit(empty, SHARDS_OF_TWO, DAYS[1])
        found = overall(empty, LABELS.name, statuses(empty, LABELS.name))
    finally:
        emulator.hold(held=False)
    assert (found.partitions, found.published, found.held) == (2, 1, 0)
    assert (found.requests, found.done, found.in_flight, found.waiting) == (6, 3, 3, 0)
    assert found.cost_usd > 0
    assert found.about is not None
    assert found.hours is not None
    assert abs(found.about - time() - timedelta(hours=found.hours)) < timedelta(minutes=1)
