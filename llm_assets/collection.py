"""Ended batches → exactly one outcome per request; complete partitions → the tables `enriched` and `failed`.

    download to disk ──▶ take in by custom_id ──▶ results.parquet ──▶ ledger: collected
                                                                        │ every request has its final outcome
                                                          enriched, failed ──▶ ledger: published

The ledger moves on only after the file is in place, so all of this may be interrupted anywhere and repeated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import polars as pl
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from llm_assets.answers import Intake, outcomes, read_lines, same_outcome, take_in
from llm_assets.enrichment import Enrichment
from llm_assets.errors import (
    DownloadIncomplete,
    IllegalTransition,
    LLMAssetsError,
    NotThere,
    PlanConflict,
    SystemicError,
    TransientError,
)
from llm_assets.history import asked_for, naming_damage, partition_standings, results_so_far, sent_fingerprints
from llm_assets.ledger import VANISHED
from llm_assets.platform import Platform
from llm_assets.polling import poll
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
# A batch that was refused so often for lack of room may be larger than the whole queue: its requests go into others of
# half its size (see submission.py).
CAPACITY_REFUSALS = 5
# When results that should be there are looked for again.
_LOOK_AGAIN = timedelta(minutes=1)
_DOWNLOADS = 3
_SHORT = "short_results"
# So few first answers say nothing about the rest.
_EVIDENCE_MIN = 20
_HOPELESS = (FailureKind.PERMANENT, FailureKind.REPAIRABLE)
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
    now = platform.clock()
    for shard in platform.ledger.shards(enrichment.name, partition):
        if shard.state is ShardState.ENDED and not (shard.not_before and shard.not_before > now):
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
    except NotThere as error:
        if shard.code == VANISHED or platform.is_gone(shard, error):
            return _vanished(platform, shard)
        return _later(platform, shard)
    if batch.state is BatchState.IN_PROGRESS:
        return Oddities()
    if batch.state is BatchState.FAILED:
        return _refused(platform, shard, batch)
    try:
        intake = _fetch(platform, client, shard, batch)
    except NotThere as error:
        if not platform.is_gone(shard, error):
            return _later(platform, shard)
        return _fail_as_a_whole(platform, shard, Reason.RESULTS_GONE, error.code, str(error))
    if intake is None:
        return _later(platform, shard)
    platform.ledger.there(shard)
    if shard.adopted and intake.unknown and not intake.by_fingerprint:
        _disprove(platform, shard)
        return Oddities(intake.unknown)
    sent = sent_fingerprints(platform.store, shard)
    output = enrichment.output if asked_for(shard, enrichment.output) else None
    table = outcomes(sent, intake, output, shard.wave)
    _keep(platform, shard, table)
    return Oddities(intake.unknown + intake.unreadable, intake.conflicts)


def _fetch(platform: Platform, client: Client, shard: Shard, batch: Batch) -> Intake | None:
    """Download and read a batch's results, each time from the start.

    None when they break off, or are fewer than the provider says, and may still become complete.
    """
    sent = sent_fingerprints(platform.store, shard)
    dialect = platform.dialect_of(shard)
    broken = retry_if_exception_type((DownloadIncomplete, TransientError))
    intake = Intake()
    try:
        for attempt in Retrying(retry=broken, stop=stop_after_attempt(_DOWNLOADS), reraise=True):
            with attempt, platform.store.scratch() as folder:
                intake = take_in(read_lines(client.download(batch, folder)), shard.key, sent, dialect)
                _check_complete(batch, intake)
    except (DownloadIncomplete, TransientError) as error:
        # What breaks off is no answer at all; what is whole and short is one when it stays so.
        gone = platform.is_gone(shard, error)
        return intake if gone and error.code == _SHORT else None
    return intake


def _check_complete(batch: Batch, intake: Intake) -> None:
    distinct = len(intake.by_fingerprint) + intake.unknown
    if distinct < batch.counts.finished:
        found = f"results of {distinct} requests, expected {batch.counts.finished}"
        raise DownloadIncomplete(f"batch {batch.batch_id}: {found}", code=_SHORT)


def _later(platform: Platform, shard: Shard) -> Oddities:
    platform.ledger.deferred(shard, not_before=platform.clock() + _LOOK_AGAIN)
    return Oddities()


def _vanished(platform: Platform, shard: Shard) -> Oddities:
    """The provider forgot the batch: its requests are for the next wave, unless it was only believed to be theirs."""
    if shard.adopted:
        _disprove(platform, shard)
        return Oddities()
    message = shard.message or f"the provider does not know batch {shard.batch_id} any more"
    return _fail_as_a_whole(platform, shard, Reason.MISSING_RESULT, VANISHED, message)


def _disprove(platform: Platform, shard: Shard) -> None:
    patience = platform.clock() + platform.visibility_delay
    with suppress(IllegalTransition):
        platform.ledger.disproved(shard, platform.owner, not_before=patience)


def _refused(platform: Platform, shard: Shard, batch: Batch) -> Oddities:
    """The provider took the batch and then refused it as a whole; nothing of it was processed."""
    reason = platform.dialect_of(shard).batch_reason(batch.code)
    no_room = KIND_OF[reason] is FailureKind.CAPACITY
    often = len(shard.past_batches) + 1 >= CAPACITY_REFUSALS
    if not no_room or (often and shard.requests > 1 and batch.code != FILE_NOT_VISIBLE):
        return _fail_as_a_whole(platform, shard, reason, batch.code, batch.message)
    if batch.code == FILE_NOT_VISIBLE:
        platform.ledger.forget_staged(shard.key)
    later = platform.clock() + min(CAPACITY_WAIT * 2 ** len(shard.past_batches), CAPACITY_WAIT_MAX)
    with suppress(IllegalTransition):  # another run was faster
        platform.ledger.released(
            shard.key, of_batch=batch.batch_id, code=batch.code, message=batch.message, not_before=later
        )
    return Oddities()


def _fail_as_a_whole(platform: Platform, shard: Shard, reason: Reason, code: str, message: str) -> Oddities:
    sent = sent_fingerprints(platform.store, shard)
    _keep(platform, shard, same_outcome(sent, reason, code, message, shard.wave))
    return Oddities()


def _keep(platform: Platform, shard: Shard, table: pl.DataFrame) -> None:
    """Write a shard's outcomes to a table of this run's own, which counts when the ledger takes its name."""
    results = platform.store.new_results(shard, platform.new_key())
    platform.store.write(results, table)
    try:
        platform.ledger.collected(shard, results)
    except IllegalTransition:  # another run has collected it, or sent it again, in the meantime
        platform.store.local(results).unlink()


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
            files.close()


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
    return None if standings.filter(no_room).is_empty() else now + CAPACITY_WAIT_MAX


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
