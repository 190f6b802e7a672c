"""Ended batches → exactly one outcome per request.

    download to disk ──▶ take in by custom_id ──▶ results.parquet ──▶ ledger: collected ──▶ publication.py

The ledger moves on only after the file is in place, so all of this may be interrupted anywhere and repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

import polars as pl
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from llm_assets.answers import Intake, outcomes, read_lines, same_outcome, take_in
from llm_assets.enrichment import Enrichment
from llm_assets.errors import (
    DownloadIncomplete,
    IllegalTransition,
    LLMAssetsError,
    NotThere,
    TransientError,
)
from llm_assets.history import asked_for, naming_damage, sent_fingerprints
from llm_assets.ledger import VANISHED
from llm_assets.platform import Platform
from llm_assets.polling import poll
from llm_assets.prices import decoded
from llm_assets.progress import Oddities, Progress
from llm_assets.providers import FILE_NOT_VISIBLE
from llm_assets.publication import publish
from llm_assets.records import (
    Batch,
    BatchCounts,
    BatchState,
    FailureKind,
    Fingerprint,
    Reason,
    Shard,
    ShardState,
)
from llm_assets.retries import KIND_OF
from llm_assets.spending import priced, spent_on
from llm_assets.trail import of_shard, span, tell

# A capacity refusal is tried again after this time, doubled with each refusal, up to the maximum.
CAPACITY_WAIT = timedelta(minutes=1)
CAPACITY_WAIT_MAX = timedelta(hours=1)
# A batch that was refused so often for lack of room may be larger than the whole queue: its requests go into others of
# half its size (see draft.py).
CAPACITY_REFUSALS = 5
# When results that should be there are looked for again.
_LOOK_AGAIN = timedelta(minutes=1)
_DOWNLOADS = 3
_SHORT = "short_results"
_CALLS_MAX = 25


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
            with span("collect", **of_shard(shard)):
                oddities += _collect(platform, enrichment, shard)
    plan = platform.ledger.plan(enrichment.name, partition)
    if plan is None:
        raise LLMAssetsError(
            f"{enrichment.name} {partition} has no plan: materialize {enrichment.name}/batches for it first"
        )
    return publish(platform, enrichment, plan, oddities)


def _collect(platform: Platform, enrichment: Enrichment, shard: Shard) -> Oddities:
    """Bring home what came back for a shard."""
    assert shard.batch_id is not None
    try:
        batch = platform.client_of(shard).batch(shard.batch_id)
    except NotThere as error:
        if shard.code == VANISHED or platform.missing_for_good(shard, error):
            return _vanished(platform, enrichment, shard)
        return _later(platform, shard)
    if batch.state is BatchState.IN_PROGRESS:
        return Oddities()
    if batch.state is BatchState.FAILED:
        return _refused(platform, enrichment, shard, batch)
    sent = sent_fingerprints(platform.store, shard)
    try:
        intake = _fetch(platform, enrichment, shard, batch, sent)
    except NotThere as error:
        if not platform.missing_for_good(shard, error):
            return _later(platform, shard)
        return _fail_as_a_whole(platform, enrichment, shard, Reason.RESULTS_GONE, error.code, str(error))
    if intake is None:
        return _later(platform, shard)
    platform.ledger.there(shard)
    if _is_disproved(shard, intake):
        _disprove(platform, shard)
        return Oddities(intake.unknown)
    is_whole = intake.found >= expected_results(batch.counts, intake.sent)
    table = outcomes(sent, intake, shard.wave, batch.rest if is_whole else None)
    _keep(platform, enrichment, shard, table)
    return Oddities(intake.unknown + intake.unreadable, intake.conflicts)


def _fetch(
    platform: Platform, enrichment: Enrichment, shard: Shard, batch: Batch, sent: Sequence[Fingerprint]
) -> Intake | None:
    """Download and read a batch's results, each time from the start.

    None when they break off, or are fewer than the provider says, and may still become complete.
    """
    client, dialect = platform.client_of(shard), platform.dialect_of(shard)
    output = enrichment.output if asked_for(shard, enrichment.output) else None
    broken = retry_if_exception_type((DownloadIncomplete, TransientError))
    intake = Intake()
    try:
        for attempt in Retrying(retry=broken, stop=stop_after_attempt(_DOWNLOADS), reraise=True):
            with attempt, platform.store.files.scratch() as folder:
                intake = take_in(read_lines(client.download(batch, folder)), shard.key, sent, dialect, output)
                _check_complete(shard, batch, intake)
    except (DownloadIncomplete, TransientError) as error:
        # What breaks off is no answer at all; what is whole and short is one when it stays so.
        gone = platform.missing_for_good(shard, error)
        return intake if gone and error.code == _SHORT else None
    return intake


def expected_results(counts: BatchCounts, sent: int) -> int:
    """How many results an ended batch of so many requests should have. Pure.

    Counts that do not add up to what was sent say nothing about that.
    """
    return min(counts.finished, sent) if counts.total >= sent else sent


def _check_complete(shard: Shard, batch: Batch, intake: Intake) -> None:
    """Lines that nobody asked for do not stand in for missing ones; alone, they disprove an adopted batch."""
    expected = expected_results(batch.counts, intake.sent)
    if intake.found < expected and not _is_disproved(shard, intake):
        problem = f"results of {intake.found} requests, expected {expected}"
        raise DownloadIncomplete(f"batch {batch.batch_id}: {problem}", code=_SHORT)


def _is_disproved(shard: Shard, intake: Intake) -> bool:
    """Whether the batch that was believed to be the shard's answers somebody else."""
    return shard.adopted and intake.unknown > 0 and not intake.found


def _later(platform: Platform, shard: Shard) -> Oddities:
    platform.ledger.deferred(shard, not_before=platform.clock() + _LOOK_AGAIN)
    return Oddities()


def _vanished(platform: Platform, enrichment: Enrichment, shard: Shard) -> Oddities:
    """The provider forgot the batch: its requests are for the next wave, unless it was only believed to be theirs."""
    if shard.adopted:
        _disprove(platform, shard)
        return Oddities()
    message = shard.message or f"the provider does not know batch {shard.batch_id} any more"
    return _fail_as_a_whole(platform, enrichment, shard, Reason.MISSING_RESULT, VANISHED, message)


def _disprove(platform: Platform, shard: Shard) -> None:
    patience = platform.clock() + platform.visibility_delay
    with suppress(IllegalTransition):
        platform.ledger.disproved(shard, platform.owner, not_before=patience)


def _refused(platform: Platform, enrichment: Enrichment, shard: Shard, batch: Batch) -> Oddities:
    """The provider took the batch and then refused it as a whole; nothing of it was processed."""
    reason = platform.dialect_of(shard).batch_reason(batch.code)
    no_room = KIND_OF[reason] is FailureKind.CAPACITY
    often = len(shard.past_batches) + 1 >= CAPACITY_REFUSALS
    if not no_room or (often and shard.requests > 1 and batch.code != FILE_NOT_VISIBLE):
        return _fail_as_a_whole(platform, enrichment, shard, reason, batch.code, batch.message)
    if batch.code == FILE_NOT_VISIBLE:
        platform.ledger.forget_staged(shard.key)
    later = platform.clock() + min(CAPACITY_WAIT * 2 ** len(shard.past_batches), CAPACITY_WAIT_MAX)
    with suppress(IllegalTransition):  # another run was faster
        platform.ledger.released(
            shard.key, of_batch=batch.batch_id, code=batch.code, message=batch.message, not_before=later
        )
    return Oddities()


def _fail_as_a_whole(
    platform: Platform, enrichment: Enrichment, shard: Shard, reason: Reason, code: str, message: str
) -> Oddities:
    sent = sent_fingerprints(platform.store, shard)
    _keep(platform, enrichment, shard, same_outcome(sent, reason, code, message, shard.wave))
    return Oddities()


def _keep(platform: Platform, enrichment: Enrichment, shard: Shard, table: pl.DataFrame) -> None:
    """Write a shard's outcomes, priced, to a table of this run's own, which counts when the ledger takes its name."""
    # Without rates it was planned by an older release, and was a batch.
    price = decoded(shard.rates) if shard.rates else enrichment.price_at(shard.submitted_at or platform.clock())
    table = priced(table, price)
    lengths = platform.store.scan(platform.store.requests(shard)).select("bytes").collect()["bytes"]
    # What was lost may have been billed: nobody will ever know.
    lost = table["reason"].is_in([Reason.RESULTS_GONE, Reason.MISSING_RESULT, Reason.INTERRUPTED]).any()
    spent = spent_on(table, lengths, price)
    results = platform.store.write_results(shard, table, collector=platform.new_key())
    try:
        platform.ledger.collected(shard, results, spent, is_final=not lost)
    except IllegalTransition:  # another run has collected it, or sent it again, in the meantime
        platform.store.files.delete(results)
        return
    tell("collected", **of_shard(shard), failed=table["reason"].count(), cost_usd=spent.cost_usd)
