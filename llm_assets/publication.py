"""Outcomes so far → the tables `enriched` and `failed` of a partition, or what is still due.

Both tables take their places at once, while nobody can plan the partition; until every document has its outcome,
nothing is published.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from llm_assets.enrichment import Enrichment
from llm_assets.errors import LLMAssetsError, PlanConflict
from llm_assets.evidence import unsupported
from llm_assets.history import inputs_of, parts_of, requests_in_flight, results_so_far, standings_of
from llm_assets.outcome_tables import POSITION, tables
from llm_assets.output_schema import ANSWER_BYTES
from llm_assets.parquet import merged, write_slices
from llm_assets.platform import Platform
from llm_assets.progress import Oddities, Progress, Tally, counts
from llm_assets.records import DOCUMENT_ID, TEXT, FailureKind, Plan, Shard, ShardState
from llm_assets.retries import Standing, kind_of
from llm_assets.text_limit import WAS_CUT
from llm_assets.trail import Fact, of_plan, span, tell

# When requests that were refused one by one for lack of room are sent again.
_ROOM_WAIT = timedelta(hours=1)
# So few first answers say nothing about the rest.
_EVIDENCE_MIN = 20
_HOPELESS = (FailureKind.PERMANENT, FailureKind.REPAIRABLE)
_MERGED_ROWS = 50_000
_ROWS_MIN = 2_000
_PART_GROUP_ROWS = 5_000
_LATELY = timedelta(days=90)


def publish(platform: Platform, enrichment: Enrichment, plan: Plan, oddities: Oddities) -> Progress:
    """Publish when every document has an outcome; otherwise record what is due."""
    with span("publish", **of_plan(plan)):
        progress = _published_or_due(platform, enrichment, plan, oddities)
        facts = {"enriched": progress.enriched, "failed": progress.failed} if progress.published else {}
        due = progress.requests.get(Standing.DUE, 0) + progress.requests.get(Standing.HELD, 0)
        told: dict[str, Fact] = {"documents": plan.documents, **facts, "due": due, "held": bool(progress.held)}
        tell("published" if progress.published else "unfinished", **of_plan(plan), **told)
    return progress


def _published_or_due(platform: Platform, enrichment: Enrichment, plan: Plan, oddities: Oddities) -> Progress:
    shards = platform.ledger.shards(plan.enrichment, plan.partition)
    results = results_so_far(platform.store, shards, enrichment.output)
    with platform.store.files.scratch() as folder:
        tally, parts = _counted(platform, enrichment, plan, requests_in_flight(platform.store, shards), results, folder)
        is_published = not tally.open and _put_in_place(platform, enrichment, plan, parts, tally)
    if is_published:
        progress = tally.finished(plan, oddities)
    else:
        held = _record_due(platform, enrichment, plan, shards, results, tally) if tally.open else ""
        progress = tally.unfinished(plan, results, oddities, plan.held or held)
    return replace(progress, **_money(platform, enrichment, plan, shards, tally))


def _counted(
    platform: Platform,
    enrichment: Enrichment,
    plan: Plan,
    in_flight: pl.LazyFrame,
    results: pl.LazyFrame,
    folder: Path,
) -> tuple[Tally, _Parts]:
    """Where all requests stand, part by part, and both tables, which are whole when none of them is open."""
    tally, rows = Tally(), _rows_of(enrichment, platform.part_requests)
    conditions = parts_of(plan.requests, rows)
    parts = _Parts(folder, _rows_of(enrichment, _MERGED_ROWS), len(conditions))
    planned = platform.store.scan(plan.path).with_row_index(POSITION)
    if len(conditions) > 1:
        planned = _by_fingerprint(planned, plan.documents, rows, folder)
    for part in conditions:
        wants = planned.filter(part)
        wanted = wants.select("fingerprint").drop_nulls().unique().collect()["fingerprint"]
        # Read once, and without what takes most of the room.
        known = results.filter(part).select(pl.exclude("answer")).collect().lazy()
        standings = standings_of(enrichment, wanted, known, in_flight.filter(part), rounds=plan.rounds)
        tally.count(standings, wants)
        if not tally.open:
            _check_kept(enrichment, plan, wants)
            enriched, failed = tables(enrichment, wants.collect(), standings, known, results.filter(part))
            tally.count_tables(enriched, failed)
            parts.add(enriched, failed)
    return tally, parts


def _record_due(
    platform: Platform,
    enrichment: Enrichment,
    plan: Plan,
    shards: Sequence[Shard],
    results: pl.LazyFrame,
    tally: Tally,
) -> str:
    """Write down what is due, and when. Returns why nothing more is to be sent until somebody acts; empty when all is
    well.
    """
    held = tally.held()
    unsent = tally.requests[Standing.DUE] or any(shard.state is ShardState.PLANNED for shard in shards)
    if not held and unsent:
        held = _hopeless(enrichment, plan, shards, platform.store.scan(plan.path), results)
    later = platform.clock() + _ROOM_WAIT if tally.no_room else None
    platform.ledger.record_due(plan, pending=tally.pending, held=held, not_before=later)
    return held


def _money(
    platform: Platform, enrichment: Enrichment, plan: Plan, shards: Sequence[Shard], tally: Tally
) -> dict[str, Any]:
    """What was paid for the partition, and what was not."""
    lately = platform.ledger.money.spent(plan.enrichment, since=platform.clock() - _LATELY)
    shared = max(0, tally.enriched - tally.requests[Standing.ANSWERED])
    reused = sum(shard.requests for shard in shards if shard.wave == 0)
    return {
        "spent": platform.ledger.money.spent(plan.enrichment, plan.partition),
        "saved_usd": (shared + reused) * lately.cost_usd / max(lately.billed, 1),
    }


class _Parts:
    """Both tables of a partition while they are made part by part, each part in the order of the documents.

    Of many parts each waits on disk; one alone stays in memory.
    """

    def __init__(self, folder: Path, slice_rows: int, count: int) -> None:
        self._folder, self._slice_rows, self._is_alone = folder, slice_rows, count == 1
        self._enriched: list[pl.LazyFrame] = []
        self._failed: list[pl.LazyFrame] = []

    def add(self, enriched: pl.DataFrame, failed: pl.DataFrame) -> None:
        for name, table, parts in (("enriched", enriched, self._enriched), ("failed", failed, self._failed)):
            if table.height or not parts:  # one is needed for its columns
                parts.append(self._kept(f"{name}-{len(parts):03}", table))

    def write(
        self, enriched: Path, failed: Path, documents: int, finished: Callable[[pl.DataFrame], pl.DataFrame]
    ) -> None:
        """Write the tables, all parts merged into the order of the documents; `finished` is what answers go through."""
        for target, parts, last in ((enriched, self._enriched, finished), (failed, self._failed, _unchanged)):
            schema = parts[0].drop(POSITION).collect_schema()
            slices = (last(piece).drop(POSITION) for piece in merged(parts, POSITION, documents, self._slice_rows))
            write_slices(slices, schema, target, self._slice_rows)

    def _kept(self, name: str, table: pl.DataFrame) -> pl.LazyFrame:
        if self._is_alone:
            return table.lazy()
        file = self._folder / f"{name}.parquet"
        table.write_parquet(file, compression="lz4", row_group_size=_PART_GROUP_ROWS)
        return pl.scan_parquet(file, glob=False)


def _by_fingerprint(planned: pl.LazyFrame, documents: int, rows: int, folder: Path) -> pl.LazyFrame:
    """The rows of a plan in pieces that are sorted by fingerprint: of each, only a part is read for some requests."""
    pieces = []
    for start in range(0, documents, rows):
        pieces.append(folder / f"planned-{start:012}.parquet")
        piece = planned.slice(start, rows).collect().sort("fingerprint", POSITION)
        piece.write_parquet(pieces[-1], compression="lz4", row_group_size=_PART_GROUP_ROWS)
    return pl.scan_parquet(pieces, glob=False)


def _put_in_place(platform: Platform, enrichment: Enrichment, plan: Plan, parts: _Parts, tally: Tally) -> bool:
    """Put both tables in place while nobody else can plan, so that an older plan's never take a newer one's places.

    False, and nothing done, where a newer plan was made meanwhile: who made it will publish that one.
    """
    _assert_nothing_lost(plan, tally)
    store = platform.store
    with suppress(PlanConflict), ExitStack() as files:
        enriched = files.enter_context(store.files.writing(store.enriched(plan.enrichment, plan.partition)))
        failed = files.enter_context(store.files.writing(store.failed(plan.enrichment, plan.partition)))
        parts.write(enriched, failed, plan.documents, _finishing(platform, enrichment, plan))
        with platform.ledger.publishing(plan):
            files.close()  # both tables are whole, and take their places now
        return True
    return False


def _rows_of(enrichment: Enrichment, rows: int) -> int:
    """How many rows take the memory of so many with answers of the usual length."""
    return max(_ROWS_MIN, rows * ANSWER_BYTES // max(ANSWER_BYTES, enrichment.output.answer_bytes))


def _unchanged(piece: pl.DataFrame) -> pl.DataFrame:
    return piece


def _finishing(platform: Platform, enrichment: Enrichment, plan: Plan) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """What slices of `enriched` go through, where evidence is declared.

    Where what the plan was made from has changed since, the texts may be others: then nothing is said.
    """
    if enrichment.evidence and plan.inputs and plan.inputs == inputs_of(platform, enrichment, plan.partition):
        return partial(_flagged, platform, enrichment, plan)
    return _unchanged


def _flagged(platform: Platform, enrichment: Enrichment, plan: Plan, piece: pl.DataFrame) -> pl.DataFrame:
    """A slice of `enriched` with what its documents' texts do not support."""
    if piece.is_empty():
        return piece
    store, first, last = platform.store, piece[POSITION].min(), piece[POSITION].max()
    assert isinstance(first, int)
    assert isinstance(last, int)
    texts = (
        store.scan(store.documents(enrichment.documents, plan.partition))
        .select(DOCUMENT_ID, TEXT)
        .with_row_index(POSITION)
        .slice(first, last - first + 1)
        .collect()
    )
    found = piece.select(POSITION, DOCUMENT_ID).join(
        texts, on=[POSITION, DOCUMENT_ID], how="left", maintain_order="left"
    )
    return piece.with_columns(unsupported(piece, enrichment.evidence, found[TEXT]))


def _assert_nothing_lost(plan: Plan, tally: Tally) -> None:
    if plan.documents != tally.enriched + tally.failed:
        raise LLMAssetsError(
            f"{plan.enrichment} {plan.partition}: {plan.documents} documents, but {tally.enriched} enriched and "
            f"{tally.failed} failed; nothing was published. This is a defect: keep the store and report it."
        )


def _check_kept(enrichment: Enrichment, plan: Plan, wants: pl.LazyFrame) -> None:
    kept = {*enrichment.keep, *((WAS_CUT,) if enrichment.cuts else ())}
    unknown = sorted(kept - set(wants.collect_schema()))
    if unknown:
        raise LLMAssetsError(
            f"{plan.enrichment} keeps {', '.join(unknown)} now, but {plan.partition} was planned without; materialize "
            f"{plan.enrichment}/batches for it again: nothing is asked again for that"
        )


def _hopeless(
    enrichment: Enrichment, plan: Plan, shards: Sequence[Shard], wanted: pl.LazyFrame, results: pl.LazyFrame
) -> str:
    """Why the rest should not be sent: most requests of the last wave failed at their first try, by their own fault.

    Empty when too few came back to tell, or when somebody has acted since.
    """
    fresh = [s for s in shards if s.collected_at and (plan.released_at is None or s.collected_at > plan.released_at)]
    if not fresh:
        return ""
    wave = max(shard.wave for shard in fresh)
    first = (
        results.filter(pl.col("wave") == wave)
        .join(results.filter(pl.col("wave") < wave), on="fingerprint", how="anti")
        .join(wanted, on="fingerprint", how="semi")
        .select("reason", kind_of(pl.col("reason")).alias("kind"))
        .collect()
    )
    failed = first.filter(pl.col("kind").is_in([kind.value for kind in _HOPELESS]))
    if first.height < _EVIDENCE_MIN or failed.height <= enrichment.hold_above * first.height:
        return ""
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in counts(failed["reason"]).most_common())
    return f"{failed.height:,} of the first {first.height:,} requests failed ({reasons}): look at prompt and schema"
