"""What is not kept for ever: request files, which hold documents' text, and on demand what the providers keep.

Only what belongs to shards that are done is deleted, and never what the promises rest on: plans, and the tables of
what was asked and what came back, stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta

import polars as pl

from llm_assets.enrichment import Enrichment
from llm_assets.errors import NotThere, ProviderError, RequestRejected, StoreError
from llm_assets.platform import Platform
from llm_assets.records import BatchState, Reason, Shard

# What one sweep takes on at least; the next one goes on from there. After a partition with many shards it takes on
# twice as many: else large ones would leave more behind with each day.
_SWEEP_MIN = 50
_SWEEP_TIMES = 2
# After this time the providers have deleted everything themselves.
PROVIDERS_KEEP = timedelta(days=30)
# A file of a shard that the ledger does not know may be one of a plan that is being written.
PLANNING_MAX = timedelta(days=1)
_HOLDS_TEXT = "it holds documents' text"
# Outcomes that prove nothing about which batch was whose, or whether there is one.
_NO_PROOF = (Reason.MISSING_RESULT, Reason.RESULTS_GONE, Reason.ABANDONED)


def sweep(platform: Platform, enrichment: Enrichment, partition: str) -> list[str]:
    """Delete a part of what an enrichment keeps no longer; for when a partition of it has been published.

    Returns what did not work, in words for people. It is tried again with the next sweep, or not worth it.
    """
    most = max(_SWEEP_MIN, _SWEEP_TIMES * len(platform.ledger.shards(enrichment.name, partition)))
    return [
        *_delete_request_files(platform, enrichment, most),
        *_delete_strangers(platform, enrichment, partition),
        *_delete_left_behind(platform, enrichment, partition),
        *(_forget_batches(platform, enrichment, most) if enrichment.delete_at_provider else ()),
    ]


def _delete_request_files(platform: Platform, enrichment: Enrichment, most: int) -> Iterator[str]:
    until = platform.clock() - timedelta(days=enrichment.request_files_days)
    for shard in platform.ledger.unswept(enrichment.name, until=until, limit=most):
        if problem := _delete(platform, platform.request_file(shard)):
            yield problem
            return
        platform.ledger.swept(shard.key)


def _delete_strangers(platform: Platform, enrichment: Enrichment, partition: str) -> Iterator[str]:
    """The request files of plans that were never recorded, as their runs were killed or were slower than others."""
    until = platform.clock() - max(timedelta(days=enrichment.request_files_days), PLANNING_MAX)
    known = {shard.key for shard in platform.ledger.shards(enrichment.name, partition)}
    for key, file in platform.store.request_files(enrichment.name, partition):
        if file.modified <= until and key not in known and (problem := _delete(platform, file.path)):
            yield problem
            return


def _delete_left_behind(platform: Platform, enrichment: Enrichment, partition: str) -> Iterator[str]:
    """What was being downloaded or written when a process was killed. Nobody works at one thing for a day."""
    until = platform.clock() - PLANNING_MAX
    for problem in platform.store.tidy(enrichment.name, partition, enrichment.documents, until):
        yield f"{problem}; {_HOLDS_TEXT}"
        return


def _delete(platform: Platform, path: str) -> str:
    """Delete a file, if it is there. Returns why it could not be done."""
    try:
        platform.store.files.delete(path)
    except StoreError as error:
        return f"{error}; {_HOLDS_TEXT}"
    return ""


def _forget_batches(platform: Platform, enrichment: Enrichment, most: int) -> Iterator[str]:
    since = platform.clock() - PROVIDERS_KEEP
    for shard in platform.ledger.unforgotten(enrichment.name, since=since, limit=most):
        try:
            if problem := _forget(platform, shard):
                yield problem
        except RequestRejected as error:
            yield f"batch {shard.batch_id} stays at the provider until it expires: {error}"
        except ProviderError as error:
            yield f"batch {shard.batch_id} stays at the provider for now: {error}"
            return
        platform.ledger.forgotten(shard.key)


def _forget(platform: Platform, shard: Shard) -> str:
    """Delete what the provider keeps of a shard, if it is proven to be the shard's. Returns why it was not done."""
    if not _is_proven(platform, shard):
        return ""
    client = platform.client_of(shard)
    batch = None
    if shard.batch_id is not None:
        with suppress(NotThere):
            batch = client.batch(shard.batch_id)
    if batch is not None and batch.state is BatchState.IN_PROGRESS:
        return f"batch {shard.batch_id} stays until it expires: it is still in progress"
    client.forget(batch, staged=shard.staged_id)
    return ""


def _is_proven(platform: Platform, shard: Shard) -> bool:
    """Whether anything came back that can only be this shard's: an adopted batch may have been somebody else's."""
    no_proof = pl.col("reason").is_in(_NO_PROOF).fill_null(False)
    rows = platform.store.scan(platform.store.results(shard)).select((~no_proof).any())
    return bool(rows.collect().item())
