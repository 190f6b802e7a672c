"""What an unfinished claim is known by among a provider's batches: its stamp, its file, its size and age, its results.

A claim is unfinished when its run died, or when the reply to `create` did not arrive: the provider may have the shard.
Nothing is settled here; reconciliation.py and decisions.py do that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from datetime import timedelta

from llm_assets.answers import read_lines
from llm_assets.errors import NotThere, OutcomeUnknown
from llm_assets.platform import Platform
from llm_assets.providers import Client
from llm_assets.records import Batch, BatchState, Shard
from llm_assets.shards import fingerprint_of

# How far the provider's clock and ours may be apart.
CLOCK_SKEW = timedelta(hours=2)
# How long after a claim its batch may have been created: a slow upload, a machine that was asleep.
CREATION_WINDOW = timedelta(hours=24)
_PAGES_MAX = 50
# How far a provider's count of a batch's requests may be off, or a hundredth of them.
_WRONG_COUNT_MAX = 3


def candidates(shard: Shard, batches: Iterable[Batch], taken: Collection[str], *, stamped: bool) -> list[Batch]:
    """The batches that a claim may be in, in the order given. Pure.

    `taken` are batch ids that belong to other shards, `stamped` says whether batches carry their submission key.
    """
    ours = [b for b in batches if b.batch_id not in taken and b.batch_id not in shard.past_batches]
    if stamped:
        return [batch for batch in ours if batch.stamp == shard.key or of_its_file(shard, batch)]
    return [batch for batch in ours if batch.counts.total == shard.requests and _of_this_claim(shard, batch)]


def of_its_file(shard: Shard, batch: Batch) -> bool:
    """Whether a batch was made of the file that was uploaded for the shard: not all servers give back the stamp."""
    return batch.stamp is None and batch.staged_id is not None and batch.staged_id == shard.staged_id


def _of_this_claim(shard: Shard, batch: Batch) -> bool:
    assert shard.claimed_at is not None
    earliest, latest = shard.claimed_at - CLOCK_SKEW, shard.claimed_at + CREATION_WINDOW
    return earliest <= batch.created_at <= latest


def is_answered_by(platform: Platform, client: Client, shard: Shard, batch: Batch) -> bool:
    """Whether a batch's results are this shard's. One line tells: a batch is one shard."""
    dialect = platform.dialect_of(shard)
    with platform.store.files.scratch() as folder:
        for line in read_lines(client.download(batch, folder)):
            with suppress(ValueError):
                return fingerprint_of(dialect.result(line).custom_id, shard.key) is not None
    return False


def proven_by_results(
    platform: Platform, client: Client, shard: Shard, batches: Iterable[Batch], taken: Collection[str]
) -> Batch | None:
    """An ended batch of nearly the shard's size that answers it: counts can be wrong, results name who they are for."""
    for batch in batches:
        near = abs(batch.counts.total - shard.requests) <= max(_WRONG_COUNT_MAX, shard.requests // 100)
        free = batch.batch_id not in taken and batch.batch_id not in shard.past_batches
        if near and free and batch.state is BatchState.ENDED and _of_this_claim(shard, batch):
            with suppress(NotThere):
                if is_answered_by(platform, client, shard, batch):
                    return batch
    return None


def take_claim(platform: Platform, shard: Shard) -> bool:
    """Make a claim this platform's own to settle, if its owner is proven to be gone. False when it is not."""
    if shard.owner == platform.owner:
        return True
    ledger = platform.ledger
    patience = platform.clock() + ledger.lingers + platform.visible_after(shard)
    return ledger.is_gone(shard.owner) and ledger.take_over(shard, platform.owner, not_before=patience)


def batches_since(client: Client, shard: Shard) -> tuple[list[Batch], int]:
    """The account's batches since shortly before the claim, newest first, and how many more cannot be read."""
    assert shard.claimed_at is not None
    since, cursor = shard.claimed_at - CLOCK_SKEW, None
    found: list[Batch] = []
    unread = 0
    for _ in range(_PAGES_MAX):
        page = client.batches(cursor)
        unread += page.unread
        found += page.batches
        cursor = page.cursor
        if cursor is None or any(batch.created_at < since for batch in page.batches):
            return found, unread
    raise OutcomeUnknown(
        f"shard {shard.key}: more than {_PAGES_MAX} pages of batches since its claim at {shard.claimed_at:%F %T}; "
        "its outcome must be settled by hand"
    )
