"""Ended batches → exactly one outcome per request; complete partitions → the tables `enriched` and `failed`.

    download to disk ──▶ take in by custom_id ──▶ results.parquet ──▶ ledger: collected
                                                                        │ every request has its final outcome
                                                          enriched, failed ──▶ ledger: published

The ledger moves on only after the file is in place, so all of this may be interrupted anywhere and repeated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

import polars as pl
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from llm_assets.answers import Intake, outcomes, read_lines, same_outcome, take_in
from llm_assets.enrichment import Enrichment
from llm_assets.errors import (
    DownloadIncomplete,
    IllegalTransition,
    LLMAssetsError,
    NotThere,
    SystemicError,
    TransientError,
)
from llm_assets.history import asked_for, naming_damage, partition_standings, results_so_far, sent_fingerprints
from llm_assets.ledger import VANISHED
from llm_assets.platform import Platform
from llm_assets.polling import NOT_THERE_TOLERANCE, poll
from llm_assets.providers import FILE_NOT_VISIBLE, Client
from llm_assets.records import (
    DOCUMENT_ID,
    FAILED_SCHEMA,
    Batch,
    BatchState,
    FailureKind,
    Plan,
    Reason,
    Shard,
    ShardState,
)
from llm_assets.retries import KIND_OF, Standing, kind_of

# A capacity refusal is tried again after this time, doubled with each refusal, up to the maximum.
CAPACITY_WAIT = timedelta(minutes=1)
CAPACITY_WAIT_MAX = timedelta(hours=1)
_DOWNLOADS = 3
_CALLS_MAX = 25
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


@naming_damage
def collect_partition(platform: Platform, enrichment: Enrichment, partition: str) -> Progress:
    """Take in what has ended, and publish the partition's tables when every document has an outcome.

    Raises LLMAssetsError when the partition was never planned, ProviderError when results cannot be fetched now.
    """
    shards = platform.ledger.shards(enrichment.name, partition)
    poll(platform, shards, calls_max=_CALLS_MAX)
    oddities = Oddities()
    for shard in platform.ledger.shards(enrichment.name, partition):
        if shard.state is ShardState.ENDED:
            oddities += _collect(platform, enrichment, shard)
    plan = platform.ledger.plan(enrichment.name, partition)
    if plan is None:
        raise LLMAssetsError(
            f"{enrichment.name} {partition} has no plan: materialize {enrichment.name}/batches for it first"
        )
    return _settle(platform, enrichment, plan, oddities)


# -- one shard


def _collect(platform: Platform, enrichment: Enrichment, shard: Shard) -> Oddities:
    """Bring home what came back for a shard."""
    assert shard.batch_id is not None
    client = platform.client(shard.provider, shard.endpoint)
    if client.account != shard.account:
        raise SystemicError(
            f"batch {shard.batch_id} was submitted with another key or base URL than is set now; "
            f"set {shard.provider.upper()}_API_KEY (and _BASE_URL) as they were to collect it",
            code="other_account",
        )
    try:
        batch = client.batch(shard.batch_id)
    except NotThere:
        if shard.code != VANISHED and not _missing_for_long(platform, shard):
            raise
        return _fail_as_a_whole(platform, shard, Reason.MISSING_RESULT)
    platform.ledger.there(shard)
    if batch.state is BatchState.IN_PROGRESS:
        return Oddities()
    if batch.state is BatchState.FAILED:
        return _refused(platform, shard, batch)
    intake = _fetch(platform, client, shard, batch)
    if shard.adopted and intake.unknown and not intake.by_fingerprint:
        patience = platform.clock() + platform.visibility_delay
        platform.ledger.disproved(shard, platform.owner, not_before=patience)
        return Oddities(intake.unknown)
    sent = sent_fingerprints(platform.store, shard)
    output = enrichment.output if asked_for(shard, enrichment.output) else None
    table = outcomes(sent, intake, output, shard.wave)
    _keep(platform, shard, table)
    return Oddities(intake.unknown + intake.unreadable, intake.conflicts)


def _fetch(platform: Platform, client: Client, shard: Shard, batch: Batch) -> Intake:
    """Download and read a batch's results; again from the start when they end before the provider's count."""
    sent = sent_fingerprints(platform.store, shard)
    dialect = platform.dialect_of(shard)
    short = retry_if_exception_type((DownloadIncomplete, TransientError))
    intake = Intake()
    for attempt in Retrying(retry=short, stop=stop_after_attempt(_DOWNLOADS), wait=wait_exponential(0.2), reraise=True):
        with attempt, platform.store.scratch() as folder:
            intake = take_in(read_lines(client.download(batch, folder)), shard.key, sent, dialect)
            last = attempt.retry_state.attempt_number == _DOWNLOADS
            distinct = len(intake.by_fingerprint) + intake.unknown
            if distinct < batch.counts.finished and not last:
                raise DownloadIncomplete(
                    f"batch {batch.batch_id}: results of {distinct} requests, expected {batch.counts.finished}"
                )
    return intake


def _refused(platform: Platform, shard: Shard, batch: Batch) -> Oddities:
    """The provider took the batch and then refused it as a whole; nothing of it was processed."""
    reason = platform.dialect_of(shard).batch_reason(batch.code)
    if KIND_OF[reason] is not FailureKind.CAPACITY:
        return _fail_as_a_whole(platform, shard, reason)
    if batch.code == FILE_NOT_VISIBLE:
        platform.ledger.forget_staged(shard.key)
    wait = min(CAPACITY_WAIT * 2 ** len(shard.past_batches), CAPACITY_WAIT_MAX)
    later = platform.clock() + wait
    platform.ledger.released(
        shard.key, of_batch=batch.batch_id, code=batch.code, message=batch.message, not_before=later
    )
    return Oddities()


def _fail_as_a_whole(platform: Platform, shard: Shard, reason: Reason) -> Oddities:
    sent = sent_fingerprints(platform.store, shard)
    table = same_outcome(sent, reason, shard.code, shard.message, shard.wave)
    _keep(platform, shard, table)
    return Oddities()


def _keep(platform: Platform, shard: Shard, table: pl.DataFrame) -> None:
    """Write a shard's outcomes, unless another run has collected it, or sent it again, in the meantime."""
    now = platform.ledger.shard(shard.key)
    if (now.state, now.batch_id) != (ShardState.ENDED, shard.batch_id):
        return
    platform.store.write(platform.store.results(shard), table)
    with suppress(IllegalTransition):
        platform.ledger.collected(shard)


def _missing_for_long(platform: Platform, shard: Shard) -> bool:
    now = platform.clock()
    return now >= platform.ledger.missing(shard, until=now + NOT_THERE_TOLERANCE)


# -- the partition


def _settle(platform: Platform, enrichment: Enrichment, plan: Plan, oddities: Oddities) -> Progress:
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
        platform.ledger.settle(plan, pending=counts[Standing.DUE] + counts[Standing.HELD], held=refused)
        return _unfinished(plan, standings, results, oddities, plan.held or refused)
    enriched, failed = tables(enrichment, wants.collect(), standings, results)
    _assert_nothing_lost(plan, enriched, failed)
    platform.store.write(platform.store.enriched(plan.enrichment, plan.partition), enriched)
    platform.store.write(platform.store.failed(plan.enrichment, plan.partition), failed)
    platform.ledger.published(plan)
    return _finished(plan, standings, enriched, failed, oddities)


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
    """Why nothing more is to be sent: the account or the model was refused, row by row."""
    reasons = standings.filter(pl.col("standing") == Standing.HELD)["reason"].unique().sort().to_list()
    return f"refused by the provider: {', '.join(reasons)}" if reasons else ""


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
