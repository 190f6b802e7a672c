"""What came of published partitions, and what was spent: read from their tables and the ledger, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime

import polars as pl

from llm_assets.platform import Platform
from llm_assets.records import DOCUMENT_ID, FAILED_SCHEMA, FailureKind, Plan
from llm_assets.store import Store

# What was spent: a row for each enrichment, provider and model.
SPENDING_SCHEMA: dict[str, pl.DataType] = {
    "enrichment": pl.String(),
    "provider": pl.String(),
    "model_name": pl.String(),
    "requests": pl.Int64(),
    "billed": pl.Int64(),
    "input_tokens": pl.Int64(),
    "output_tokens": pl.Int64(),
    "cache_read_tokens": pl.Int64(),
    "cache_write_tokens": pl.Int64(),
    "cost_usd": pl.Float64(),
    "standard_usd": pl.Float64(),
    "uncached_usd": pl.Float64(),
}


def spending_table(platform: Platform, *, since: datetime | None = None, until: datetime | None = None) -> pl.DataFrame:
    """What was spent on the results that came in within a time, by enrichment, provider and model (SPENDING_SCHEMA)."""
    found = platform.ledger.money.spent_by_model(since=since, until=until)
    rows = [
        dict(zip(("enrichment", "provider", "model_name"), names, strict=True)) | asdict(spent)
        for names, spent in found.items()
    ]
    return pl.DataFrame([{name: row[name] for name in SPENDING_SCHEMA} for row in rows], schema=SPENDING_SCHEMA)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a published partition, or of several: documents, waves, tokens and US dollars of all attempts, and
    the tables.

    `failures` counts documents by reason, the most frequent first.
    """

    documents: int
    enriched: int
    failed: int
    waves: int
    input_tokens: int
    output_tokens: int
    cost_usd: float
    failures: dict[str, int]
    tables: tuple[str, ...]


def outcome(store: Store, plan: Plan) -> Outcome:
    """What came of a published partition, read from its tables."""
    paths = (store.enriched(plan.enrichment, plan.partition), store.failed(plan.enrichment, plan.partition))
    enriched, failed = (
        store.scan(path).select(pl.len(), pl.col("input_tokens", "output_tokens", "cost_usd").sum()).collect().row(0)
        for path in paths
    )
    reasons = store.scan(paths[1]).select("reason").collect()["reason"].to_list()
    return Outcome(
        documents=plan.documents,
        enriched=enriched[0],
        failed=failed[0],
        waves=plan.wave,
        input_tokens=enriched[1] + failed[1],
        output_tokens=enriched[2] + failed[2],
        cost_usd=enriched[3] + failed[3],
        failures=dict(Counter(reasons).most_common()),
        tables=tuple(store.files.where(path) for path in paths),
    )


def permanent_failures(platform: Platform, enrichment: str, partition: str) -> str:
    """Which published failures are not asked again, however often somebody asks for it; empty when there are none."""
    plan = platform.ledger.plan(enrichment, partition)
    if plan is None or plan.published_at is None:
        return ""
    failed = platform.store.scan(platform.store.failed(enrichment, partition))
    reasons = failed.filter(pl.col("kind") == FailureKind.PERMANENT).select("reason").collect()["reason"]
    if reasons.is_empty():
        return ""
    counted = ", ".join(f"{reason} {count:,}" for reason, count in Counter(reasons.to_list()).most_common())
    return f"{reasons.len():,} failed for good and are not asked again ({counted}): change the document or the prompt"


def failures(platform: Platform, enrichment: str, partition: str | None = None) -> pl.DataFrame:
    """The failed documents of an enrichment's published partitions: `partition` and the columns of `failed` that say
    what happened.
    """
    plans = [
        plan for plan in platform.ledger.plans(enrichment) if plan.published_at and partition in (None, plan.partition)
    ]
    columns = [DOCUMENT_ID, "kind", "reason", "provider_type", "message", "attempts"]
    tables = [
        platform.store.scan(platform.store.failed(enrichment, plan.partition)).select(
            pl.lit(plan.partition).alias("partition"), *columns
        )
        for plan in plans
    ]
    schema = {"partition": pl.String(), **{name: FAILED_SCHEMA[name] for name in columns}}
    return pl.concat([pl.LazyFrame(schema=schema), *tables]).collect()


def together(outcomes: Iterable[Outcome]) -> Outcome:
    """Several outcomes as one: sums, and the most waves that any needed."""
    found = list(outcomes)
    failures: Counter[str] = Counter()
    for each in found:
        failures.update(each.failures)
    return Outcome(
        documents=sum(each.documents for each in found),
        enriched=sum(each.enriched for each in found),
        failed=sum(each.failed for each in found),
        waves=max((each.waves for each in found), default=0),
        input_tokens=sum(each.input_tokens for each in found),
        output_tokens=sum(each.output_tokens for each in found),
        cost_usd=sum(each.cost_usd for each in found),
        failures=dict(failures.most_common()),
        tables=tuple(path for each in found for path in each.tables),
    )
