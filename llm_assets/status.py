"""Where partitions are, read from the ledger and the store: what the command line and the pages of assets show.

Reads only. Nothing here knows Dagster, and nothing is printed.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from statistics import median

import polars as pl

from llm_assets.history import results_so_far
from llm_assets.platform import Platform
from llm_assets.providers import NAMES, caveat
from llm_assets.records import ACTIVE, IN_FLIGHT, REQUESTS_SCHEMA, Plan, Shard, ShardState
from llm_assets.waves import Step, next_step

_LATELY = timedelta(days=90)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionStatus:
    """How far a partition is.

    `requests` are all that it wants, `requests_done` those that nothing more is expected of now. In flight is what
    the provider has, `requests_finished` of it as the provider counts (Anthropic: 0 until the batch ends);
    `requests_due` wait to be sent. `cost_usd` is what was paid for what has come back. `caveats` are those of the
    providers that are at work on it.
    """

    enrichment: str
    partition: str
    documents: int
    requests: int
    requests_done: int
    wave: int
    batches_in_flight: int
    requests_in_flight: int
    requests_finished: int
    requests_due: int
    step: Step
    held: str
    published_at: datetime | None
    cost_usd: float = 0.0
    caveats: tuple[str, ...] = ()


def partition_status(plan: Plan, shards: Sequence[Shard], now: datetime) -> PartitionStatus:
    """The status of a plan with its active shards (others may be among them). Pure."""
    in_flight = [shard for shard in shards if shard.state in IN_FLIGHT]
    requests_in_flight = sum(shard.requests for shard in in_flight)
    finished = sum(_finished(shard) for shard in in_flight)
    due = plan.pending + sum(shard.requests for shard in shards if shard.state is ShardState.PLANNED)
    return PartitionStatus(
        enrichment=plan.enrichment,
        partition=plan.partition,
        documents=plan.documents,
        requests=plan.requests,
        requests_done=max(0, plan.requests - (requests_in_flight - finished) - due),
        wave=plan.wave,
        batches_in_flight=len(in_flight),
        requests_in_flight=requests_in_flight,
        requests_finished=finished,
        requests_due=due,
        step=next_step(plan, shards, now),
        held=plan.held,
        published_at=plan.published_at,
        caveats=tuple(sorted({f"{s.provider} is {known}" for s in shards if (known := _caveat(s.provider))})),
    )


def _caveat(provider: str) -> str:
    # A ledger may hold what an older or newer release has sent.
    return caveat(provider) if provider in NAMES else ""


def _finished(shard: Shard) -> int:
    return shard.requests if shard.state is ShardState.ENDED else min(shard.finished, shard.requests)


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """What a provider has of a partition: `finished` of the requests as it counts them (Anthropic: 0 until the end).

    `since` is when the oldest batch was sent. The last of them is expected at `expected_at`, judged by how long others
    of the enrichment took (None before any came back), and cancelled at `deadline_at` if it is not done by then.
    """

    batches: int
    ended: int
    requests: int
    finished: int
    since: datetime | None
    expected_at: datetime | None
    deadline_at: datetime | None


def in_flight(shards: Sequence[Shard], takes: timedelta | None) -> InFlight:
    """What of these shards is in flight, where a batch usually `takes` so long. Pure."""
    there = [shard for shard in shards if shard.state in IN_FLIGHT]
    waited = [shard for shard in there if shard.state is ShardState.SUBMITTED]
    sent = [shard.submitted_at for shard in waited if shard.submitted_at]
    begun = [at for shard in there if (at := shard.submitted_at or shard.claimed_at)]
    deadlines = [
        shard.submitted_at + timedelta(seconds=shard.deadline_s)
        for shard in waited
        if shard.submitted_at and shard.deadline_s
    ]
    return InFlight(
        batches=len(there),
        ended=sum(shard.state is ShardState.ENDED for shard in there),
        requests=sum(shard.requests for shard in there),
        finished=sum(_finished(shard) for shard in there),
        since=min(begun, default=None),
        expected_at=max(sent) + takes if sent and takes is not None else None,
        deadline_at=max(deadlines, default=None),
    )


_TURNAROUNDS = 50


def usual_turnaround(platform: Platform, enrichment: str) -> timedelta | None:
    """How long a batch of the enrichment takes: the median of the last ones; None before any came back."""
    seconds = [took.total_seconds() for took in platform.ledger.turnarounds(enrichment, limit=_TURNAROUNDS)]
    return timedelta(seconds=median(seconds)) if seconds else None


def statuses(platform: Platform, enrichment: str | None = None) -> list[PartitionStatus]:
    """All partitions that were ever planned, of one enrichment or of all, in the order of their names."""
    by_partition: dict[tuple[str, str], list[Shard]] = defaultdict(list)
    plans = platform.ledger.plans(enrichment)
    for shard in platform.ledger.active_shards():
        by_partition[shard.enrichment, shard.partition].append(shard)
    now, costs = platform.clock(), platform.ledger.money.cost_by_partition()
    return [
        replace(
            partition_status(plan, by_partition[plan.enrichment, plan.partition], now),
            cost_usd=costs.get((plan.enrichment, plan.partition), 0.0),
        )
        for plan in plans
    ]


@dataclass(frozen=True, slots=True)
class Asked:
    """Whether somebody looks after a provider's batches: `asked_at` is when it last said anything about one of them,
    `unasked_since` when it was last asked about the one that waits the longest, or that one was sent.
    """

    provider: str
    batches: int
    asked_at: datetime | None
    unasked_since: datetime


def asked_lately(shards: Sequence[Shard]) -> list[Asked]:
    """How it stands with the batches in flight among these shards, by provider. Pure."""
    by_provider: dict[str, list[Shard]] = defaultdict(list)
    for shard in shards:
        if shard.state is ShardState.SUBMITTED and shard.submitted_at:
            by_provider[shard.provider].append(shard)
    return [
        Asked(
            provider,
            len(found),
            max((shard.asked_at for shard in found if shard.asked_at), default=None),
            min(shard.asked_at or shard.submitted_at for shard in found if shard.submitted_at),
        )
        for provider, found in sorted(by_provider.items())
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lately:
    """What the last 90 days say of an enrichment: how often each request was sent, and how many hours batches took
    (the median, None when there were none).
    """

    retries: float
    hours: float | None


def lately(platform: Platform, enrichment: str, model_name: str | None = None) -> Lately:
    """How an enrichment fared in the last 90 days, with one model or with all."""
    sent = _sent_lately(platform, enrichment, model_name)
    by_partition: dict[str, list[Shard]] = {}
    for shard in sent:
        by_partition.setdefault(shard.partition, []).append(shard)
    once = sum(_distinct(platform, shards) for shards in by_partition.values())
    return Lately(retries=sum(shard.requests for shard in sent) / once if once else 1.0, hours=_hours(sent))


def _sent_lately(platform: Platform, enrichment: str, model_name: str | None = None) -> list[Shard]:
    shards = platform.ledger.collected_since(enrichment, platform.clock() - _LATELY)
    return [shard for shard in shards if shard.wave and model_name in (None, shard.model_name)]


def _hours(sent: Sequence[Shard]) -> float | None:
    took = [(s.ended_at - s.submitted_at).total_seconds() / 3600 for s in sent if s.ended_at and s.submitted_at]
    return median(took) if took else None


def _distinct(platform: Platform, shards: Sequence[Shard]) -> int:
    """How many requests there are in the shards of a partition; within one wave none is sent again."""
    if len({shard.wave for shard in shards}) == 1:
        return sum(shard.requests for shard in shards)
    store = platform.store
    asked = store.scan_all([store.requests(shard) for shard in shards], REQUESTS_SCHEMA)
    return int(asked.select(pl.col("fingerprint").n_unique()).collect().item())


@dataclass(frozen=True, slots=True, kw_only=True)
class Overall:
    """How far all partitions together are that were ever planned.

    Of `requests`, some are `done`, some the provider has, the rest is `waiting` to be sent. `about` is when that may be
    over if batches take `hours`, as they did lately; None where there are none to judge by, or nothing is left.
    """

    partitions: int
    published: int
    held: int
    requests: int
    done: int
    in_flight: int
    waiting: int
    cost_usd: float
    hours: float | None
    about: datetime | None


def overall(platform: Platform, enrichment: str, partitions: Sequence[PartitionStatus]) -> Overall:
    """How far an enrichment is, from the statuses of all its partitions."""
    shards = [shard for shard in platform.ledger.active_shards() if shard.enrichment == enrichment]
    hours = _hours(_sent_lately(platform, enrichment))
    waiting = sum(each.requests_due for each in partitions if not each.held)
    return Overall(
        partitions=len(partitions),
        published=sum(each.step is Step.NOTHING for each in partitions),
        held=sum(bool(each.held) for each in partitions),
        requests=sum(each.requests for each in partitions),
        done=sum(each.requests_done for each in partitions),
        in_flight=sum(each.requests_in_flight - each.requests_finished for each in partitions),
        waiting=sum(each.requests_due for each in partitions),
        cost_usd=sum(each.cost_usd for each in partitions),
        hours=hours,
        about=None if hours is None else about(shards, waiting, timedelta(hours=hours), platform.clock()),
    )


def about(shards: Sequence[Shard], waiting: int, took: timedelta, now: datetime) -> datetime | None:
    """When active shards, and so many requests that wait, may be done if a batch takes so long; None when nothing is
    left. Pure.

    What waits goes at once, unless the provider's queue has no room: then as much at a time as is in flight now.
    """
    flying = [shard for shard in shards if shard.state is ShardState.SUBMITTED]
    ends = [max(now, shard.submitted_at + took) for shard in flying if shard.submitted_at]
    if not waiting:
        return max(ends, default=None)
    requests = sum(shard.requests for shard in flying)
    is_full = any(shard.state is ShardState.PLANNED and shard.message for shard in shards)
    if not (is_full and requests):
        return max([*ends, now + took])
    return max([*ends, now]) + took * math.ceil(waiting / requests)


def tokens_so_far(platform: Platform, enrichment: str, partition: str) -> int:
    """Tokens read and written by all that was collected for a partition."""
    shards = [s for s in platform.ledger.shards(enrichment, partition) if s.state not in ACTIVE]
    results = results_so_far(platform.store, shards)
    used = results.select((pl.col("input_tokens") + pl.col("output_tokens")).sum()).collect()
    return int(used.item())
