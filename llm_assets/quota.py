"""A provider's queue: whether there is room in it for another shard. Pure.

Who asks for room and gets none asks again later, and nobody who came after it goes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from llm_assets.records import Quota, Shard, ShardState

# How soon a shard that found no room asks again. Batches take hours.
ASKS_AGAIN = timedelta(minutes=10)
_IN_THE_QUEUE = (ShardState.SUBMITTING, ShardState.SUBMITTED)


def no_room(shard: Shard, others: Sequence[Shard], quota: Quota, refused: frozenset[str], now: datetime) -> str:
    """Why a planned shard has to wait, or nothing.

    `others` are the active shards of the same provider, and of the same model where the quota is a model's; `refused`
    names those that the provider had no room for: until they are in, what is queued now is all that it takes.
    """
    queued = [other for other in others if other.state in _IN_THE_QUEUE]
    waiting = [other for other in others if other.state is ShardState.PLANNED and other.key != shard.key]
    # Of those that were refused the oldest tries again, or all would wait for each other.
    first = [other for other in waiting if shard.key not in refused or _came_before(other, shard)]
    if any(other.key in refused and _asks(other, now) for other in first):
        return "the provider's queue is full: it refused another batch for lack of room"
    if any(_asks(other, now) and _came_before(other, shard) for other in waiting):
        return "others wait longer for room in the provider's queue"
    if not queued:
        return ""  # what is too large for an empty queue will not get smaller by waiting
    for unit, most in (("requests", quota.requests), ("tokens", quota.tokens)):
        found = sum(getattr(other, unit) for other in queued)
        if most is not None and found + getattr(shard, unit) > most:
            return f"the quota is {most:,} queued {unit}, {found:,} are queued and this has {getattr(shard, unit):,}"
    return ""


def _asks(shard: Shard, now: datetime) -> bool:
    """Whether a shard was refused room lately; one that nobody sends any more stands in nobody's way."""
    return shard.not_before is not None and shard.not_before > now - 2 * ASKS_AGAIN


def _came_before(one: Shard, other: Shard) -> bool:
    return (one.charged_at is not None and other.charged_at is not None) and (
        (one.charged_at, one.path) < (other.charged_at, other.path)
    )
