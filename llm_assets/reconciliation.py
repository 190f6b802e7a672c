"""Claims whose outcome is unknown → what really happened, by asking the provider. Never by sending again.

A claim is unfinished when its run died, or when the reply to `create` did not arrive. Where the provider carries
metadata (OpenAI) the submission key in it finds the batch exactly. Where it does not (Anthropic), a batch of the
right size and age is adopted, and its results prove it by their custom_ids or disprove it (collection.py): a
disproved claim is as open as before, and the batch is free for the next. Only when there is no candidate, none that
another claim of the same size may have adopted in error, and the visibility delay is over, is the shard sent again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from llm_assets.errors import IllegalTransition
from llm_assets.platform import Platform, is_dead
from llm_assets.providers import Client
from llm_assets.records import Batch, Shard, ShardState

# How far the provider's clock and ours may be apart.
CLOCK_SKEW = timedelta(hours=2)
# How long after a claim its batch may have been created: a slow upload, a machine that was asleep.
CREATION_WINDOW = timedelta(hours=24)
_PAGES_MAX = 50


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
    ours = [b for b in batches if b.batch_id not in taken and b.batch_id not in shard.past_batches]
    if stamped:
        candidates = [batch for batch in ours if batch.stamp == shard.key]
    else:
        candidates = [b for b in ours if b.counts.total == shard.requests and _of_this_claim(shard, b)]
    if candidates:
        return Adopt(candidates[-1])
    may_appear_until = max(shard.claimed_at + visibility_delay, shard.not_before or shard.claimed_at)
    return Release() if now >= may_appear_until and not rivals else Wait()


def _of_this_claim(shard: Shard, batch: Batch) -> bool:
    assert shard.claimed_at is not None
    earliest, latest = shard.claimed_at - CLOCK_SKEW, shard.claimed_at + CREATION_WINDOW
    return earliest <= batch.created_at <= latest


def reconcile_partition(platform: Platform, enrichment: str, partition: str) -> list[Verdict]:
    """Settle the unfinished claims of a partition, except those of runs that may be alive.

    Listing errors pass through: they are no proof that nothing was created.
    """
    unfinished = [
        shard
        for shard in platform.ledger.shards(enrichment, partition)
        if shard.state is ShardState.SUBMITTING and _is_ours_to_settle(platform, shard)
    ]
    return [_reconcile(platform, platform.ledger.shard(shard.key)) for shard in unfinished]


def _is_ours_to_settle(platform: Platform, shard: Shard) -> bool:
    if shard.owner == platform.owner:
        return True
    patience = platform.clock() + platform.visibility_delay
    return is_dead(shard.owner) and platform.ledger.take_over(shard, platform.owner, not_before=patience)


def _reconcile(platform: Platform, shard: Shard) -> Verdict:
    client = platform.client(shard.provider, shard.endpoint)
    if client.account != shard.account:
        return _unsettled(
            platform,
            shard,
            Wait(),
            f"claimed with account {shard.account}, the key that is set now is of account {client.account}; "
            "set the former key again to find out whether the batch exists",
        )
    batches = _batches_since(client, shard)
    taken = platform.ledger.known_batches(batch.batch_id for batch in batches)
    stamped = platform.dialect_of(shard).carries_stamp
    decision = verdict(
        shard,
        batches,
        taken,
        stamped=stamped,
        rivals=not stamped and _has_rivals(platform, shard),
        now=platform.clock(),
        visibility_delay=platform.visibility_delay,
    )
    match decision:
        case Adopt(batch):
            with suppress(IllegalTransition):  # another claim took it at the same moment: the next look tells
                platform.ledger.submitted(shard.key, batch, adopted=not stamped)
        case Release():
            platform.ledger.released(shard.key, message="the provider has no batch of this claim")
        case Wait():
            _unsettled(platform, shard, decision, "the provider lists no batch of this claim yet")
    return decision


def _has_rivals(platform: Platform, shard: Shard) -> bool:
    return any(
        other.adopted and other.account == shard.account and other.requests == shard.requests
        for other in platform.ledger.active_shards()
    )


def _unsettled(platform: Platform, shard: Shard, decision: Verdict, message: str) -> Verdict:
    platform.ledger.unsettled(shard.key, message)
    return decision


def _batches_since(client: Client, shard: Shard) -> list[Batch]:
    """The account's batches since shortly before the claim, newest first."""
    assert shard.claimed_at is not None
    since, cursor = shard.claimed_at - CLOCK_SKEW, None
    found: list[Batch] = []
    for _ in range(_PAGES_MAX):
        page = client.batches(cursor)
        found += page.batches
        cursor = page.cursor
        if cursor is None or any(batch.created_at < since for batch in page.batches):
            return found
    raise IllegalTransition(
        f"shard {shard.key}: more than {_PAGES_MAX} pages of batches since its claim at {shard.claimed_at:%F %T}; "
        "its outcome must be settled by hand"
    )
