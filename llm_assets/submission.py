"""Planned shards → batches. Intent is written before the network is touched, and nothing is ever sent on a guess.

    claim (ledger: submitting) ──▶ stage ──▶ create: one POST ──▶ record (ledger: submitted)
                                                 └── outcome unknown: stays claimed, see reconciliation.py

Sending is safe to repeat, to interrupt anywhere, and to run twice at once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from llm_assets.answers import same_outcome
from llm_assets.errors import (
    CapacityError,
    IllegalTransition,
    NotThere,
    OutcomeUnknown,
    ProviderError,
    RequestRejected,
    SystemicError,
    TransientError,
)
from llm_assets.history import sent_fingerprints
from llm_assets.platform import Platform
from llm_assets.providers import FILE_NOT_VISIBLE, TOO_LARGE, Client
from llm_assets.quota import ASKS_AGAIN, no_room
from llm_assets.records import (
    Batch,
    Mode,
    Plan,
    Quota,
    Reason,
    Shard,
    ShardState,
)
from llm_assets.trail import of_shard, span, tell

RETRY_LATER = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Sent:
    """What one call of `send_planned` did: shards by how it went, and requests and bytes that were accepted."""

    batch_ids: tuple[str, ...] = ()
    requests: int = 0
    bytes: int = 0
    unknown: int = 0  # shards whose outcome must be reconciled
    later: int = 0  # shards that wait for room or for the provider
    rejected: int = 0


def send_planned(platform: Platform, plan: Plan, quotas: Sequence[Quota] = (), at_once: int | None = None) -> Sent:
    """Send the shards of a partition that are planned and due, unless the plan is held, as far as the provider's queue
    has room for them; in real time so many requests `at_once`.

    Raises SystemicError, after it has put the plan on hold, when the account or the model is refused.
    """
    sent = Sent()
    if plan.held:
        return sent
    now = platform.clock()
    shards = platform.ledger.shards(plan.enrichment, plan.partition)
    for shard in sorted(shards, key=lambda shard: shard.charged_at or now):
        if shard.state is not ShardState.PLANNED or (shard.not_before and shard.not_before > now):
            continue
        if shard.charged_at is None or not shard.is_of(plan):
            continue  # no budget has room for it yet, or nobody wants it any more
        if shard.mode is Mode.BATCH and (reason := _no_room(platform, shard, quotas)):
            platform.ledger.waits(shard.key, reason, not_before=now + ASKS_AGAIN)
            sent = replace(sent, later=sent.later + 1)
            continue
        try:
            sent = _send(platform, shard, sent, at_once)
        except SystemicError as error:
            platform.ledger.hold(plan, f"{error.code}: {error}")
            raise
    return sent


def _no_room(platform: Platform, shard: Shard, quotas: Sequence[Quota]) -> str:
    """Why a shard has to wait for the provider's queue, by any of its quotas. Two runs that ask at once may both be let
    in: the provider refuses what is too much, and it is sent later.
    """
    for quota in quotas:
        others = platform.ledger.queue(shard.provider, quota.model_name)
        refused = frozenset(other.key for other in others if other.past_batches and platform.had_no_room(other))
        if reason := no_room(shard, others, quota, refused, platform.clock()):
            return reason
    return ""


def _send(platform: Platform, shard: Shard, sent: Sent, at_once: int | None) -> Sent:
    client = platform.sender(shard, at_once)
    if not platform.store.files.exists(platform.request_file(shard)):
        return replace(sent, later=sent.later + 1)  # the next plan writes it anew
    with platform.store.files.reading(platform.request_file(shard)) as file:
        if not platform.ledger.claim(shard.key, owner=platform.owner, account=client.account):
            return sent
        with span("submit", **of_shard(shard)):
            return _post(platform, client, shard, file, sent)


def _post(platform: Platform, client: Client, shard: Shard, file: Path, sent: Sent) -> Sent:
    """Send a shard that was claimed."""
    try:
        staged = shard.staged_id or _left_behind(client, shard, file) or client.stage(file)
        if staged:
            platform.ledger.staged(shard.key, staged, owner=platform.owner)
        batch = client.create(file, staged=staged, stamp=shard.key)
    except OutcomeUnknown as error:
        # The call may have taken minutes: what it created may show from now on, not only from the claim on.
        patience = platform.clock() + platform.visible_after(shard)
        platform.ledger.unsettled(shard.key, str(error), owner=platform.owner, not_before=patience)
        _tell_refusal("unsettled", shard, error)
        return replace(sent, unknown=sent.unknown + 1)
    except (CapacityError, TransientError) as error:
        _release(platform, shard, error)
        _tell_refusal("postponed", shard, error)
        return replace(sent, later=sent.later + 1)
    except RequestRejected as error:
        _reject(platform, shard, error)
        _tell_refusal("rejected", shard, error)
        return replace(sent, rejected=sent.rejected + 1)
    except SystemicError as error:
        _give_back(platform, shard, error, not_before=None)
        _tell_refusal("refused", shard, error)
        raise
    _record(platform, client, shard, batch)
    tell("submitted", **of_shard(replace(shard, batch_id=batch.batch_id)), bytes=shard.bytes)
    return replace(
        sent,
        batch_ids=(*sent.batch_ids, batch.batch_id),
        requests=sent.requests + shard.requests,
        bytes=sent.bytes + shard.bytes,
    )


def _tell_refusal(event: str, shard: Shard, error: ProviderError) -> None:
    tell(event, logging.WARNING, **of_shard(shard), code=error.code or type(error).__name__)


def _left_behind(client: Client, shard: Shard, file: Path) -> str | None:
    """What a former claim uploaded without living to write it down: nobody else would ever use or remove it."""
    if shard.claimed_at is None or shard.code == FILE_NOT_VISIBLE:
        return None  # there was no claim, or its file is known to be of no use
    with suppress(NotThere, RequestRejected):  # a server that does not list files
        return client.find_staged(file.name)
    return None


def _record(platform: Platform, client: Client, shard: Shard, batch: Batch) -> None:
    """Write down the batch. Where the claim was taken for dead and sent by another, this one is one too many."""
    try:
        platform.ledger.submitted(shard.key, batch)
    except IllegalTransition:
        if platform.ledger.known_batches([batch.batch_id]):
            return  # who took the claim over has found the batch
        with suppress(ProviderError):
            client.cancel(batch.batch_id)
        raise


def _release(platform: Platform, shard: Shard, error: ProviderError) -> None:
    if error.code == FILE_NOT_VISIBLE == shard.code:
        # The second time that the staged file is not found: it is not late but gone, and uploading is free.
        platform.ledger.forget_staged(shard.key)
    wait = timedelta(seconds=error.retry_after_s) if error.retry_after_s else RETRY_LATER
    _give_back(platform, shard, error, not_before=platform.clock() + wait)


def _give_back(platform: Platform, shard: Shard, error: ProviderError, *, not_before: datetime | None) -> None:
    facts: dict[str, Any] = {"code": error.code, "message": str(error), "not_before": not_before}
    with suppress(IllegalTransition):  # the claim was taken for dead, and is another's to give back
        platform.ledger.released(shard.key, of_owner=platform.owner, **facts)


def _reject(platform: Platform, shard: Shard, error: ProviderError) -> None:
    """Give every request of a refused shard its outcome; the table is in place before the ledger says so."""
    reason = Reason.INVALID_REQUEST
    if error.code == TOO_LARGE:  # smaller shards may pass, until one document is too large by itself
        reason = Reason.CAPACITY if shard.requests > 1 else Reason.DOCUMENT_TOO_LARGE
    outcomes = same_outcome(sent_fingerprints(platform.store, shard), reason, error.code, str(error), shard.wave)
    results = platform.store.write_results(shard, outcomes, collector=platform.new_key())
    with suppress(IllegalTransition):
        platform.ledger.rejected(shard.key, results, of_owner=platform.owner, code=error.code, message=str(error))
