"""A partition's shards and plan → what it needs next. Pure; the sensor and the command line both ask here.

plan ──▶ SUBMIT ──▶ WAIT ──▶ COLLECT ──▶ published: NOTHING
  next wave is due: ▲───────────┘        refused account: HELD
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum

from llm_assets.records import Plan, Shard, ShardState

_WITH_THE_PROVIDER = (ShardState.SUBMITTING, ShardState.SUBMITTED)


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
    if ended_waves(shards):
        return Step.COLLECT
    if any(shard.state is ShardState.SUBMITTING for shard in shards):
        return Step.SUBMIT
    planned = [shard for shard in shards if shard.state is ShardState.PLANNED]
    if plan.held and (planned or plan.pending):
        return Step.HELD
    if any(shard.not_before is None or shard.not_before <= now for shard in planned):
        return Step.SUBMIT
    if planned or any(shard.state in _WITH_THE_PROVIDER for shard in shards):
        return Step.WAIT
    if plan.pending:
        return Step.SUBMIT
    return Step.COLLECT if plan.published_at is None else Step.NOTHING


def ended_waves(shards: Iterable[Shard]) -> list[int]:
    """The waves that can be collected: the provider is done with all that was sent, and there is something."""
    by_wave: dict[int, set[ShardState]] = defaultdict(set)
    for shard in shards:
        by_wave[shard.wave].add(shard.state)
    open_states = {ShardState.SUBMITTING, ShardState.SUBMITTED}
    return sorted(wave for wave, states in by_wave.items() if ShardState.ENDED in states and not states & open_states)
