"""All partitions of an enrichment at once: what those that are not finished would take, before anything is sent.

What is planned is known from the ledger. What is not is read and rendered, from the store, or from the files themselves
where it was not materialized yet. Nothing is planned, and nothing is written.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from llm_assets.documents import DocumentSource
from llm_assets.draft import Known, answers_elsewhere, document_slices, estimate_requests
from llm_assets.enrichment import Enrichment
from llm_assets.forecast import Estimate, forecast
from llm_assets.planning import known_requests
from llm_assets.platform import Platform
from llm_assets.preview import Unsent, forecast_of, unsent
from llm_assets.prices import decoded
from llm_assets.records import Plan, Shard, ShardState
from llm_assets.reuse import Answers
from llm_assets.status import lately


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some partitions: documents, requests that are to be sent or with the provider, and what these will cost, in US
    dollars: about, at most, and what the same would in real time.
    """

    partitions: int = 0
    documents: int = 0
    to_send: int = 0
    in_flight: int = 0
    usd: float = 0.0
    at_most_usd: float = 0.0
    standard_usd: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What is left to do for an enrichment.

    `finished` partitions are published, and those `without_documents` have no file or table to read; both are not among
    the others. `reused` requests of those that are not planned have their answer in another partition. `spent_usd` is
    what all partitions have cost so far. The rest is as in a preview's Outlook.
    """

    unplanned: Part
    planned: Part
    finished: int
    held: int
    without_documents: int
    reused: int
    spent_usd: float
    evidence: int
    retries: float
    hours: float | None


def overview(
    platform: Platform,
    enrichment: Enrichment,
    partitions: Collection[str],
    source: DocumentSource | None = None,
    told: Callable[[str], None] = lambda partition: None,
) -> Overview:
    """What all of these partitions would take, and those that were ever planned. `source` is where documents come from
    that are not in the store; `told` gets the name of each partition that is about to be read.
    """
    plans = {plan.partition: plan for plan in platform.ledger.plans(enrichment.name)}
    unfinished = [plan for plan in plans.values() if plan.published_at is None]
    estimate = estimate_requests(platform, enrichment)
    reader = _Reader(platform, enrichment, source)
    new: list[Unsent] = []
    for partition in sorted(set(partitions) - plans.keys()):
        told(partition)
        if slices := reader.slices(partition):
            new.append(reader.read(slices, Known()))
    due: list[Unsent] = []
    for plan in unfinished:
        if plan.pending and (slices := reader.slices(plan.partition)):
            told(plan.partition)
            due.append(reader.read(slices, known_requests(platform, enrichment, plan.partition)))
    costs = platform.ledger.money.cost_by_partition()
    recent = lately(platform, enrichment.name, enrichment.model_name)
    return Overview(
        unplanned=_unplanned(platform, enrichment, new, estimate),
        planned=_planned(platform, enrichment, unfinished, due, estimate),
        finished=len(plans) - len(unfinished),
        held=sum(bool(plan.held) for plan in unfinished),
        without_documents=reader.missing,
        reused=sum(found.reused for found in new),
        spent_usd=sum(usd for (name, _), usd in costs.items() if name == enrichment.name),
        evidence=estimate.evidence,
        retries=recent.retries,
        hours=recent.hours,
    )


class _Reader:
    """Reads partitions one after the other; what they have in common is looked up once."""

    def __init__(self, platform: Platform, enrichment: Enrichment, source: DocumentSource | None) -> None:
        self._platform, self._enrichment, self._source = platform, enrichment, source
        self._stored = platform.store.document_partitions(enrichment.documents)
        self._arrived = source.arrived() if source else {}
        self._answers: Answers | None = None
        self.missing = 0

    def slices(self, partition: str) -> Iterator[pl.DataFrame] | None:
        """The documents of a partition; None, and counted, where there are none to read."""
        if partition in self._stored:
            return document_slices(self._platform, self._enrichment, partition)
        if self._source is not None and partition in self._arrived:
            return self._source.slices(partition)
        self.missing += 1
        return None

    def read(self, slices: Iterator[pl.DataFrame], known: Known) -> Unsent:
        """What of these documents is to be sent."""
        if self._answers is None:
            self._answers = answers_elsewhere(self._platform, self._enrichment, None)
        return unsent(self._platform, self._enrichment, slices, known, self._answers)


def _unplanned(platform: Platform, enrichment: Enrichment, found: Sequence[Unsent], estimate: Estimate) -> Part:
    expected = forecast_of(platform, enrichment, found, estimate)
    return Part(
        partitions=len(found),
        documents=sum(each.documents for each in found),
        to_send=expected.requests,
        usd=expected.usd,
        at_most_usd=expected.at_most_usd,
        standard_usd=expected.standard_usd,
    )


def _planned(
    platform: Platform, enrichment: Enrichment, plans: Sequence[Plan], due: Sequence[Unsent], estimate: Estimate
) -> Part:
    """What was reserved when it was planned, and the next waves of what came back."""
    names = {plan.partition for plan in plans}
    active = [s for s in platform.ledger.active_shards() if s.enrichment == enrichment.name and s.partition in names]
    planned = [shard for shard in active if shard.state is ShardState.PLANNED]
    again = forecast_of(platform, enrichment, due, estimate)
    return Part(
        partitions=len(plans),
        documents=sum(plan.documents for plan in plans),
        to_send=sum(shard.requests for shard in planned) + sum(plan.pending for plan in plans),
        in_flight=sum(shard.requests for shard in active) - sum(shard.requests for shard in planned),
        usd=sum(shard.expected_usd for shard in active) + again.usd,
        at_most_usd=sum(shard.at_most_usd for shard in active) + again.at_most_usd,
        standard_usd=_in_real_time(platform, enrichment, active, estimate) + again.standard_usd,
    )


def _in_real_time(platform: Platform, enrichment: Enrichment, shards: Sequence[Shard], estimate: Estimate) -> float:
    """What planned shards would cost in real time: as many times their price as a request of average length does."""
    by_rates: dict[str, list[Shard]] = defaultdict(list)
    for shard in shards:
        by_rates[shard.rates].append(shard)
    total = 0.0
    for rates, those in by_rates.items():
        price = decoded(rates) if rates else enrichment.price_at(platform.clock())
        lengths = pl.Series([shard.bytes // max(1, shard.requests) for shard in those])
        average = forecast(lengths, estimate, price, enrichment.max_tokens)
        times = average.standard_usd / average.usd if average.usd else 0.0
        total += times * sum(shard.expected_usd for shard in those)
    return total
