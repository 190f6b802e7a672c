"""Claims whose outcome is unknown → what really happened, by asking the provider. Never by sending again.

Where the provider carries metadata (OpenAI) the submission key in it finds the batch exactly. Where it does not
(Anthropic), a batch of the right size and age is adopted, and its results prove it by their custom_ids or disprove it
(collection.py): a disproved claim is as open as before, and the batch is free for the next. Only when there is no
candidate, none that another claim of the same size may have adopted in error, and the visibility delay is over, is the
shard sent again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from llm_assets.claims import batches_since, candidates, proven_by_results, take_claim
from llm_assets.errors import IllegalTransition, SystemicError
from llm_assets.platform import Platform
from llm_assets.records import Batch, Shard, ShardState


@dataclass(frozen=True, slots=True)
class Adopt:
    """The shard is in this batch."""

    batch: Batch


@dataclass(frozen=True, slots=True)
class Release:
    """The provider has nothing of this shard."""


@dataclass(frozen=True, slots=True)
class Wait:
    """The batch may still become visible."""


Verdict = Adopt | Release | Wait


def verdict(
    shard: Shard,
    batches: Sequence[Batch],
    taken: Collection[str],
    *,
    stamped: bool,
    rivals: bool,
    now: datetime,
    visibility_delay: timedelta,
) -> Verdict:
    """What became of an unfinished claim, from the provider's batches since then.

    `taken` are batch ids that belong to other shards, `stamped` says whether batches carry their submission key,
    `rivals` whether a claim of the same size holds a batch that it has not proven yet. Pure.
    """
    assert shard.claimed_at is not None
    if found := candidates(shard, batches, taken, stamped=stamped):
        return Adopt(found[-1])
    may_appear_until = max(shard.claimed_at + visibility_delay, shard.not_before or shard.claimed_at)
    return Release() if now >= may_appear_until and not rivals else Wait()


def reconcile_partition(platform: Platform, enrichment: str, partition: str) -> list[Verdict]:
    """Settle the unfinished claims of a partition, except those of runs that may be alive.

    Listing errors pass through: they are no proof that nothing was created.
    """
    unfinished = [
        shard
        for shard in platform.ledger.shards(enrichment, partition)
        if shard.state is ShardState.SUBMITTING and take_claim(platform, shard)
    ]
    return [_reconcile(platform, platform.ledger.shard(shard.key)) for shard in unfinished]


def _reconcile(platform: Platform, shard: Shard) -> Verdict:
    try:
        client = platform.client_of(shard)
    except SystemicError as error:
        return _unsettled(platform, shard, Wait(), str(error))
    batches, unread = batches_since(client, shard)
    taken = platform.ledger.known_batches(batch.batch_id for batch in batches)
    stamped = platform.is_stamped(shard)
    found = verdict(
        shard,
        batches,
        taken,
        stamped=stamped,
        rivals=not stamped and _has_rivals(platform, shard),
        now=platform.clock(),
        visibility_delay=platform.visible_after(shard),
    )
    if (
        isinstance(found, Release)
        and not stamped
        and (batch := proven_by_results(platform, client, shard, batches, taken))
    ):
        found = Adopt(batch)
    if isinstance(found, Release) and unread:  # one of those may be the batch that is looked for
        return _unsettled(platform, shard, Wait(), f"{unread} batches that the provider lists cannot be read")
    match found:
        case Adopt(batch):
            with suppress(IllegalTransition):  # another claim took it at the same moment: the next look tells
                platform.ledger.submitted(shard.key, batch, adopted=not stamped)
        case Release():
            with suppress(IllegalTransition):
                message = "the provider has no batch of this claim"
                platform.ledger.released(shard.key, of_owner=platform.owner, message=message)
        case Wait():
            _unsettled(platform, shard, found, "the provider lists no batch of this claim yet")
    return found


def _has_rivals(platform: Platform, shard: Shard) -> bool:
    return any(
        other.adopted and other.account == shard.account and other.requests == shard.requests
        for other in platform.ledger.active_shards()
    )


def _unsettled(platform: Platform, shard: Shard, found: Verdict, message: str) -> Verdict:
    platform.ledger.unsettled(shard.key, message, owner=platform.owner)
    return found
