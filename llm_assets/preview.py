"""A few documents asked in real time, and what all of them would cost: the dry run that catches a broken prompt.

Nothing is planned, and nothing is written. What is asked here is paid at the standard price and is in no table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import polars as pl

from llm_assets.answers import judge
from llm_assets.draft import Known, answers_elsewhere, document_slices, estimate_requests, is_cached, rooms
from llm_assets.enrichment import Enrichment
from llm_assets.errors import CapacityError, OutcomeUnknown, RequestRejected, TransientError
from llm_assets.fingerprints import FingerprintSet
from llm_assets.forecast import Estimate, Forecast, estimate_from, forecast, sample, with_counted
from llm_assets.planning import known_requests
from llm_assets.platform import Platform
from llm_assets.prices import standard_usd
from llm_assets.providers import Dialect
from llm_assets.records import DOCUMENT_ID, TEXT, Amendment, Fingerprint, Reason, Result, Usage
from llm_assets.requests import Renderer
from llm_assets.reuse import Answers
from llm_assets.shards import limits_for
from llm_assets.status import lately

_AT_ONCE = 4
_COUNTED = 50
_CUSTOM_ID_LENGTH = 45


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A document and what came of asking about it. `answer` is what was said when it obeys the schema; `text` is never
    for a log. `bytes` is the length of the request's line in a shard.
    """

    document_id: str
    bytes: int
    text: str
    answer: dict[str, Any] | None
    reason: str
    message: str
    usage: Usage
    standard_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What a partition would take. `left_out` requests are answered or waiting already, `reused` have their answer in
    another partition; the forecast is of the rest.

    It was learned from `evidence` earlier requests, or, where there are none, from those `asked` now; else
    it is a guess. What is read is learned from requests whose tokens the provider has `counted`, if any.

    `retries` is how often each request was sent lately, and `hours` how long batches took lately, None
    when there were none.
    """

    documents: int
    failed_before: int
    left_out: int
    reused: int
    forecast: Forecast
    evidence: int
    asked: int
    counted: int
    retries: float
    hours: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsent:
    """Documents, the `lengths` of the request lines that they still need, and how many tokens each answer has `room`
    for; the rest is counted as in an Outlook.
    """

    documents: int
    failed_before: int
    left_out: int
    reused: int
    lengths: pl.Series
    room: pl.Series


def outlook(
    platform: Platform,
    enrichment: Enrichment,
    partition: str,
    asked: Sequence[Answered] = (),
    counted: Sequence[tuple[int, int]] = (),
) -> Outlook:
    """What a partition would take if it were materialized now. Its documents come from the store.

    The answers of `ask_some` and the counts of `count_some` make it better where there is no history.
    """
    found = unsent(
        platform,
        enrichment,
        document_slices(platform, enrichment, partition),
        known_requests(platform, enrichment, partition),
        answers_elsewhere(platform, enrichment, partition),
    )
    earlier = estimate_requests(platform, enrichment)
    recent = lately(platform, enrichment.name, enrichment.model_name)
    return Outlook(
        documents=found.documents,
        failed_before=found.failed_before,
        left_out=found.left_out,
        reused=found.reused,
        forecast=forecast_of(platform, enrichment, [found], _learned(earlier, enrichment, asked, counted)),
        evidence=earlier.evidence,
        asked=0 if earlier.evidence else len(asked),
        counted=len(counted),
        retries=recent.retries,
        hours=recent.hours,
    )


def unsent(
    platform: Platform,
    enrichment: Enrichment,
    slices: Iterable[pl.DataFrame],
    known: Known,
    elsewhere: Answers,
) -> Unsent:
    """What of some documents would be sent."""
    dialect = platform.dialect(enrichment.provider, enrichment.endpoint)
    renderer = _renderer(enrichment, dialect, known.amendments)
    line = _line_bytes(dialect)
    documents = failed = left_out = reused = 0
    lengths, room = [pl.Series(dtype=pl.Int64)], [pl.Series(dtype=pl.Int64)]
    seen = FingerprintSet()
    for slice_ in slices:
        rendered = renderer.render(slice_)
        documents += rendered.plan.height
        failed += rendered.plan["fingerprint"].null_count()
        fingerprints = pl.Series(list(rendered.bodies), dtype=pl.String)
        is_new, is_left_out = seen.add(fingerprints), known.left_out.holds(fingerprints)
        is_known = elsewhere.known(fingerprints) & ~known.useless.holds(fingerprints)
        left_out += int((is_new & is_left_out).sum())
        reused += int((is_new & ~is_left_out & is_known).sum())
        sizes = pl.Series([len(body) + line for body in rendered.bodies.values()], dtype=pl.Int64)
        is_sent = is_new & ~is_left_out & ~is_known
        lengths.append(sizes.filter(is_sent))
        room.append(rooms(enrichment, list(rendered.bodies), known.amendments).filter(is_sent))
    return Unsent(
        documents=documents,
        failed_before=failed,
        left_out=left_out,
        reused=reused,
        lengths=pl.concat(lengths),
        room=pl.concat(room),
    )


def _renderer(
    enrichment: Enrichment, dialect: Dialect, amendments: Mapping[Fingerprint, Amendment] | None = None
) -> Renderer:
    """What renders as planning does: within the limits that a shard of the enrichment has."""
    limits = limits_for(dialect, enrichment.shard_limits(enrichment.mode), quotas=enrichment.quotas)
    return Renderer(enrichment, dialect, limits.bytes, amendments)


def forecast_of(platform: Platform, enrichment: Enrichment, found: Sequence[Unsent], estimate: Estimate) -> Forecast:
    """What all of these requests would take if they were sent now."""
    nothing = pl.Series(dtype=pl.Int64)
    return forecast(
        pl.concat([nothing, *(each.lengths for each in found)]),
        estimate,
        enrichment.price_at(platform.clock(), enrichment.mode),
        pl.concat([nothing, *(each.room for each in found)]),
        cached=is_cached(platform, enrichment),
    )


def _learned(
    earlier: Estimate, enrichment: Enrichment, asked: Sequence[Answered], counted: Sequence[tuple[int, int]]
) -> Estimate:
    used = [
        (each.bytes, each.usage.input_tokens, each.usage.output_tokens) for each in asked if each.usage.input_tokens
    ]
    estimate = earlier if earlier.evidence else estimate_from(sample(used), enrichment.max_tokens, evidence_min=1)
    return with_counted(estimate, sample([(length, read, 0) for length, read in counted])) if counted else estimate


def _line_bytes(dialect: Dialect) -> int:
    """How many bytes a line adds to its body."""
    return len(dialect.line("-" * _CUSTOM_ID_LENGTH, b"")) + len(dialect.shard_format.separator)


def count_some(platform: Platform, enrichment: Enrichment, partition: str) -> list[tuple[int, int]]:
    """The lengths of the lines of a few requests, and how many tokens they read, as the provider counts them for free.

    They are taken from all over the partition. Raises ProviderError; RequestRejected where nothing counts tokens.
    """
    client = platform.client(enrichment.provider, enrichment.endpoint)
    dialect = platform.dialect(enrichment.provider, enrichment.endpoint)
    path = platform.store.documents(enrichment.documents, partition)
    every = platform.store.scan(path).select(pl.len()).collect().item() // _COUNTED + 1
    some = platform.store.scan(path).gather_every(every).collect()
    bodies = _renderer(enrichment, dialect).render(some).bodies.values()
    lengths = [len(body) + _line_bytes(dialect) for body in bodies]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(zip(lengths, threads.map(client.count_tokens, bodies), strict=True))


def ask_some(platform: Platform, enrichment: Enrichment, partition: str, count: int) -> list[Answered]:
    """Ask about the first `count` documents that can be asked, a few at once. Raises SystemicError."""
    client = platform.client(enrichment.provider, enrichment.endpoint)

    def answer(one: tuple[str, str, bytes]) -> Answered:
        document_id, text, body = one
        dialect = platform.dialect(enrichment.provider, enrichment.endpoint)
        try:
            result = judge(dialect.result(client.ask(body)), enrichment.output)
        except RequestRejected as error:
            result = Result("", reason=Reason.INVALID_REQUEST, provider_type=error.code, message=str(error))
        except (CapacityError, OutcomeUnknown, TransientError) as error:  # the others' answers are paid, and shown
            result = Result("", reason=Reason.API_ERROR, provider_type=error.code, message=str(error))
        return _answered(platform, enrichment, document_id, text, result, len(body) + _line_bytes(dialect))

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(threads.map(answer, _first(platform, enrichment, partition, count)))


def _first(platform: Platform, enrichment: Enrichment, partition: str, count: int) -> list[tuple[str, str, bytes]]:
    """Id, text and request of the first documents that can be asked."""
    found: list[tuple[str, str, bytes]] = []
    for document, body in _requests(platform, enrichment, partition):
        found.append((str(document[DOCUMENT_ID]), str(document[TEXT]), body))
        if len(found) == count:
            break
    return found


def _requests(platform: Platform, enrichment: Enrichment, partition: str) -> Iterator[tuple[dict[str, Any], bytes]]:
    dialect = platform.dialect(enrichment.provider, enrichment.endpoint)
    renderer = _renderer(enrichment, dialect)
    for documents in document_slices(platform, enrichment, partition):
        for one in documents.iter_slices(1):
            for body in renderer.render(one).bodies.values():
                yield one.row(0, named=True), body


def _answered(
    platform: Platform, enrichment: Enrichment, document_id: str, text: str, result: Result, line_bytes: int
) -> Answered:
    usage = result.usage
    tokens = pl.DataFrame({name: [getattr(usage, name)] for name in usage.__struct_fields__})
    price = enrichment.price_at(platform.clock())
    return Answered(
        document_id=document_id,
        bytes=line_bytes,
        text=text,
        answer=enrichment.output.shown(result.text) if result.reason is None and result.text else None,
        reason=result.reason or "",
        message=result.message,
        usage=usage,
        standard_usd=tokens.select(standard_usd(price)).item(),
    )
