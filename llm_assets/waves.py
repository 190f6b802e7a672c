"""A partition's shards and plan → what it needs next. Pure; the sensor and the command line both ask here.

plan ──▶ SUBMIT ──▶ WAIT ──▶ COLLECT ──▶ published: NOTHING
  next wave is due: ▲───────────┘        refused account: HELD
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

from llm_assets.records import Plan, Shard, ShardState

_NOT_ENDED = frozenset({ShardState.SUBMITTING, ShardState.SUBMITTED})


class Step(StrEnum):
    """What a partition needs next."""

    SUBMIT = "submit"  # shards to send or to reconcile, or a wave to plan
    COLLECT = "collect"  # results to take in, or tables to publish
    WAIT = "wait"  # for the provider, or for a time
    HELD = "held"  # for somebody to act
    NOTHING = "nothing"


def next_step(plan: Plan, shards: Sequence[Shard], now: datetime) -> Step:
    """What a partition needs next, from its plan and its active shards (the collected ones may be among them).

    Collecting goes before sending: what is paid for is taken home first.
    """
    if collectable(shards, now):
        return Step.COLLECT
    states = {shard.state for shard in shards}
    if ShardState.SUBMITTING in states:
        return Step.SUBMIT
    planned = [shard for shard in shards if shard.state is ShardState.PLANNED]
    if plan.held and (planned or plan.pending):
        return Step.HELD
    if any(_is_due(shard.not_before, now) for shard in planned):
        return Step.SUBMIT
    if planned or states & {ShardState.SUBMITTED, ShardState.ENDED}:
        return Step.WAIT
    if plan.pending:
        return Step.SUBMIT if _is_due(plan.not_before, now) else Step.WAIT
    return Step.COLLECT if plan.published_at is None else Step.NOTHING


def collectable(shards: Sequence[Shard], now: datetime) -> bool:
    """Whether it is time to fetch results: of a wave with which the provider is done, or to prove an adopted batch.

    An adopted batch does not wait for its wave: other claims of its size are settled only when it is proven.
    """
    by_wave: dict[int, set[ShardState]] = defaultdict(set)
    for shard in shards:
        by_wave[shard.wave].add(shard.state)
    return any(
        shard.state is ShardState.ENDED
        and _is_due(shard.not_before, now)
        and (shard.adopted or not by_wave[shard.wave] & _NOT_ENDED)
        for shard in shards
    )


def _is_due(not_before: datetime | None, now: datetime) -> bool:
    return not_before is None or not_before <= now
