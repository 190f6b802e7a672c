"""Outcomes so far → the tables `enriched` and `failed` of a partition, or what is still due.

Both tables take their places at once, while nobody can plan the partition; until every document has its outcome,
nothing is published.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import polars as pl

from llm_assets.enrichment import Enrichment
from llm_assets.errors import LLMAssetsError, PlanConflict
from llm_assets.history import partition_standings, results_so_far
from llm_assets.platform import Platform
from llm_assets.records import DOCUMENT_ID, FAILED_SCHEMA, FailureKind, Plan, Reason, Shard, ShardState
from llm_assets.retries import Standing, kind_of

# When requests that were refused one by one for lack of room are sent again.
_ROOM_WAIT = timedelta(hours=1)
# So few first answers say nothing about the rest.
_EVIDENCE_MIN = 20
_HOPELESS = (FailureKind.PERMANENT, FailureKind.REPAIRABLE)
_TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a partition is, in documents, requests and tokens.

    `requests` counts the plan's distinct requests by standing; `failures` documents by reason once published, and
    requests by their last reason before. `strays` counts result lines that no request of ours was waiting for, and
    `conflicts` those that say something else than an earlier line for the same request, which counts.
    """

    documents: int = 0
    enriched: int = 0
    failed: int = 0
    published: bool = False
    wave: int = 0
    requests: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    held: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    strays: int = 0
    conflicts: int = 0


@dataclass(frozen=True, slots=True)
class Oddities:
    """Result lines that were not taken in; see Progress."""

    strays: int = 0
    conflicts: int = 0

    def __add__(self, other: Oddities) -> Oddities:
        return Oddities(self.strays + other.strays, self.conflicts + other.conflicts)


def settle(platform: Platform, enrichment: Enrichment, plan: Plan, oddities: Oddities) -> Progress:
    """Publish when every document has an outcome; otherwise record what is due."""
    wants = platform.store.scan(plan.path)
    wanted = wants.select("fingerprint").drop_nulls().unique().collect()["fingerprint"]
    standings = partition_standings(platform, enrichment, plan.partition, rounds=plan.rounds, wanted=wanted)
    counts = Counter(standings["standing"].to_list())
    refused = _held(standings)
    unsettled = counts[Standing.WAITING] + counts[Standing.DUE] + counts[Standing.HELD]
    shards = platform.ledger.shards(plan.enrichment, plan.partition)
    results = results_so_far(platform.store, shards, enrichment.output)
    if unsettled:
        held = refused or _hopeless(enrichment, plan, shards, standings, results)
        due = counts[Standing.DUE] + counts[Standing.HELD]
        platform.ledger.settle(plan, pending=due, held=held, not_before=_next_wave(standings, platform.clock()))
        return _unfinished(plan, standings, results, oddities, plan.held or held)
    _check_kept(enrichment, plan, wants)
    enriched, failed = tables(enrichment, wants.collect(), standings, results)
    _assert_nothing_lost(plan, enriched, failed)
    try:
        _publish(platform, plan, enriched, failed)
    except PlanConflict:  # the newer plan will be published by who made it
        return _unfinished(plan, standings, results, oddities, "")
    return _finished(plan, standings, enriched, failed, oddities)


def _publish(platform: Platform, plan: Plan, enriched: pl.DataFrame, failed: pl.DataFrame) -> None:
    """Put both tables in place while nobody else can plan, so that an older plan's never take a newer one's places."""
    store = platform.store
    with ExitStack() as files:
        for path, table in (
            (store.enriched(plan.enrichment, plan.partition), enriched),
            (store.failed(plan.enrichment, plan.partition), failed),
        ):
            table.write_parquet(files.enter_context(store.writing(path)), compression="zstd")
        with platform.ledger.publishing(plan):
            files.close()  # both tables are whole, and take their places now


def _check_kept(enrichment: Enrichment, plan: Plan, wants: pl.LazyFrame) -> None:
    unknown = sorted(set(enrichment.keep) - set(wants.collect_schema()))
    if unknown:
        raise LLMAssetsError(
            f"{plan.enrichment} keeps {', '.join(unknown)} now, but {plan.partition} was planned without; materialize "
            f"{plan.enrichment}/batches for it again: nothing is asked again for that"
        )


def _next_wave(standings: pl.DataFrame, now: datetime) -> datetime | None:
    """When what is due may be sent: later, when some of it was refused for lack of room."""
    no_room = (pl.col("standing") == Standing.DUE) & (pl.col("kind") == FailureKind.CAPACITY)
    return None if standings.filter(no_room).is_empty() else now + _ROOM_WAIT


def _hopeless(
    enrichment: Enrichment, plan: Plan, shards: Sequence[Shard], standings: pl.DataFrame, results: pl.LazyFrame
) -> str:
    """Why the rest should not be sent: most requests of the last wave failed at their first try, by their own fault.

    Empty when there is nothing left to send, when too few came back to tell, or when somebody has acted since.
    """
    planned = any(shard.state is ShardState.PLANNED for shard in shards)
    due = not standings.filter(pl.col("standing") == Standing.DUE).is_empty()
    fresh = [s for s in shards if s.collected_at and (plan.released_at is None or s.collected_at > plan.released_at)]
    if not fresh or not (planned or due):
        return ""
    wave = max(shard.wave for shard in fresh)
    first = (
        results.filter(pl.col("wave") == wave)
        .join(results.filter(pl.col("wave") < wave), on="fingerprint", how="anti")
        .join(standings.lazy(), on="fingerprint", how="semi")
        .select("reason", kind_of(pl.col("reason")).alias("kind"))
        .collect()
    )
    failed = first.filter(pl.col("kind").is_in([kind.value for kind in _HOPELESS]))
    if first.height < _EVIDENCE_MIN or failed.height <= enrichment.hold_above * first.height:
        return ""
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in _tally(failed["reason"].to_list()).items())
    return f"{failed.height:,} of the first {first.height:,} requests failed ({reasons}): look at prompt and schema"


def tables(
    enrichment: Enrichment, wants: pl.DataFrame, standings: pl.DataFrame, results: pl.LazyFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """`enriched` and `failed` of a partition whose every request has a final outcome. Pure.

    `wants` is the plan (PLAN_SCHEMA and the kept columns). Tokens are those of all attempts, and stand at the first
    of several documents that share a request, so that a sum over both tables is what was used.
    """
    wants = wants.with_row_index("position")
    spent = _spent(results)
    first = pl.col("fingerprint").is_null() | pl.col("fingerprint").is_first_distinct()
    tokens = [pl.when(first).then(pl.col(name)).otherwise(0).fill_null(0).alias(name) for name in _TOKENS]
    rows = wants.join(
        standings.select("fingerprint", "standing", "attempts", last_reason="reason"), on="fingerprint", how="left"
    )
    rows = rows.join(spent, on="fingerprint", how="left").sort("position").with_columns(tokens)
    answered = pl.col("standing").fill_null("") == Standing.ANSWERED
    return _enriched(enrichment, rows.filter(answered), results), _failed(enrichment, rows.filter(~answered), results)


def _enriched(enrichment: Enrichment, rows: pl.DataFrame, results: pl.LazyFrame) -> pl.DataFrame:
    answers = (
        results.filter(pl.col("reason").is_null())
        .select("fingerprint", "answer", "model", "wave")
        .unique("fingerprint", keep="first", maintain_order=True)
        .collect()
    )
    rows = rows.join(answers, on="fingerprint", how="left").sort("position")
    typed = enrichment.output.typed(rows["answer"])
    return pl.concat(
        [
            rows.select(DOCUMENT_ID, *enrichment.keep),
            typed,
            rows.select("model", "wave", *_TOKENS, "fingerprint"),
        ],
        how="horizontal",
    )


def _failed(enrichment: Enrichment, rows: pl.DataFrame, results: pl.LazyFrame) -> pl.DataFrame:
    last = (
        results.filter(pl.col("reason").is_not_null())
        .sort("wave", maintain_order=True)
        .unique("fingerprint", keep="last")
        .select("fingerprint", "model", last_message="message", provider_type="provider_type")
        .collect()
    )
    rows = rows.join(last, on="fingerprint", how="left").sort("position")
    rows = rows.with_columns(
        pl.coalesce("reason", "last_reason").alias("reason"),
        pl.coalesce("message", "last_message").alias("message"),
        pl.col("provider_type", "model").fill_null(""),
        pl.col("attempts").fill_null(0),
    ).with_columns(kind_of(pl.col("reason")).alias("kind"))
    return rows.select(
        *[pl.col(name).cast(dtype) for name, dtype in FAILED_SCHEMA.items()], *enrichment.keep, "fingerprint"
    )


def _spent(results: pl.LazyFrame) -> pl.DataFrame:
    """Tokens a fingerprint, over all its attempts."""
    return results.group_by("fingerprint").agg(pl.col(*_TOKENS).sum()).collect()


def _held(standings: pl.DataFrame) -> str:
    """Why nothing more is to be sent: the account or the model was refused, or what was paid for is gone."""
    reasons = standings.filter(pl.col("standing") == Standing.HELD)["reason"]
    gone = (reasons == Reason.RESULTS_GONE).sum()
    if gone:
        return f"the results of {gone:,} requests are gone at the provider, and asking again would pay for them again"
    return f"refused by the provider: {', '.join(reasons.unique().sort())}" if len(reasons) else ""


def _assert_nothing_lost(plan: Plan, enriched: pl.DataFrame, failed: pl.DataFrame) -> None:
    if plan.documents != enriched.height + failed.height:
        raise LLMAssetsError(
            f"{plan.enrichment} {plan.partition}: {plan.documents} documents, but {enriched.height} enriched and "
            f"{failed.height} failed; nothing was published. This is a defect: keep the store and report it."
        )


def _unfinished(plan: Plan, standings: pl.DataFrame, results: pl.LazyFrame, oddities: Oddities, held: str) -> Progress:
    counts = Counter(standings["standing"].to_list())
    used = results.select(pl.col("input_tokens", "output_tokens").sum()).collect()
    unanswered = standings.filter((pl.col("standing") != Standing.ANSWERED) & pl.col("reason").is_not_null())
    return Progress(
        documents=plan.documents,
        wave=plan.wave,
        requests=dict(counts),
        failures=_tally(unanswered["reason"].to_list()),
        held=held,
        input_tokens=used["input_tokens"].item(),
        output_tokens=used["output_tokens"].item(),
        strays=oddities.strays,
        conflicts=oddities.conflicts,
    )


def _finished(
    plan: Plan, standings: pl.DataFrame, enriched: pl.DataFrame, failed: pl.DataFrame, oddities: Oddities
) -> Progress:
    return Progress(
        documents=plan.documents,
        enriched=enriched.height,
        failed=failed.height,
        published=True,
        wave=plan.wave,
        requests=dict(Counter(standings["standing"].to_list())),
        failures=_tally(failed["reason"].to_list()),
        input_tokens=int(enriched["input_tokens"].sum()) + int(failed["input_tokens"].sum()),
        output_tokens=int(enriched["output_tokens"].sum()) + int(failed["output_tokens"].sum()),
        strays=oddities.strays,
        conflicts=oddities.conflicts,
    )


def _tally(reasons: Sequence[str]) -> dict[str, int]:
    """How often each reason occurs, the most frequent first."""
    return dict(Counter(reasons).most_common())
