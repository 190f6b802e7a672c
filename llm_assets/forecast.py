"""Lengths of requests → the tokens and dollars that they will take, judged by what earlier ones took. Pure.

Tokens are taken for a line over bytes: what every request brings along, and what each byte of its own adds. The line is
the least-squares fit over an enrichment's earlier requests, of which the ledger keeps the sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from llm_assets.prices import Price, batch_usd, standard_usd
from llm_assets.records import Spent

# Before there is anything to judge by: four bytes a token, and answers that use half of their room.
_BYTES_PER_TOKEN = 4
_ROOM_USED = 0.5
EVIDENCE_MIN = 20


@dataclass(frozen=True, slots=True)
class Line:
    """`base + per_byte × bytes` tokens a request."""

    base: float
    per_byte: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """How many tokens a request of some length reads and writes, and which shares of those read are a prompt cache's.

    `evidence` counts the requests that this was learned from; 0 for a guess.
    """

    input: Line
    output: Line
    cache_read: float = 0.0
    cache_write: float = 0.0
    evidence: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What requests will use and cost: `usd` through the batch API, `standard_usd` in real time, `at_most_usd` if every
    byte were a token and every answer as long as it may be.
    """

    requests: int
    input_tokens: int
    output_tokens: int
    usd: float
    standard_usd: float
    at_most_usd: float


def estimate_from(history: Spent, max_tokens: int, evidence_min: int = EVIDENCE_MIN) -> Estimate:
    """What earlier requests say about the next ones; a guess where there are fewer than `evidence_min`."""
    if history.billed < evidence_min:
        return Estimate(Line(0, 1 / _BYTES_PER_TOKEN), Line(max_tokens * _ROOM_USED, 0))
    read = history.input_tokens or 1
    return Estimate(
        input=_fit(history, history.input_tokens, history.bytes_input),
        output=_fit(history, history.output_tokens, history.bytes_output),
        cache_read=history.cache_read_tokens / read,
        cache_write=history.cache_write_tokens / read,
        evidence=history.billed,
    )


def sample(used: Sequence[tuple[int, int, int]]) -> Spent:
    """The sums of a few requests: the length of each one's line, the tokens that it read, and those that it wrote."""
    return Spent(
        billed=len(used),
        bytes=sum(length for length, _, _ in used),
        input_tokens=sum(read for _, read, _ in used),
        output_tokens=sum(wrote for _, _, wrote in used),
        bytes_bytes=sum(float(length) * length for length, _, _ in used),
        bytes_input=sum(float(length) * read for length, read, _ in used),
        bytes_output=sum(float(length) * wrote for length, _, wrote in used),
    )


def with_counted(estimate: Estimate, counted: Spent) -> Estimate:
    """An estimate whose tokens read are those that the provider has counted for some requests."""
    return replace(estimate, input=_fit(counted, counted.input_tokens, counted.bytes_input))


def caching_pays(prefix: str, tokens_min: int, cached: Spent) -> bool:
    """Whether the prefix that requests share is worth marking for a provider's cache.

    It has to be long enough for it, and the requests that were `cached` lately must not have cost more than they would
    have without: what is written and seldom found again does. Few requests are no evidence.
    """
    if len(prefix.encode()) < tokens_min * _BYTES_PER_TOKEN:
        return False
    return cached.billed < EVIDENCE_MIN or cached.cost_usd <= cached.uncached_usd * (1 + 1e-9)


def forecast(
    line_bytes: pl.Series, estimate: Estimate, price: Price, max_tokens: int | pl.Series, *, cached: bool = False
) -> Forecast:
    """What requests with lines of these lengths will take, with room for `max_tokens`: each, or one by one.

    `cached` when they may write to a prompt cache, which costs more than reading.
    """
    requests = pl.DataFrame({"bytes": line_bytes.cast(pl.Float64)}).with_columns(
        pl.lit(max_tokens).cast(pl.Float64).alias("room")
    )
    read = _tokens(estimate.input)
    expected = requests.select(
        read.alias("input_tokens"),
        pl.min_horizontal(_tokens(estimate.output), "room").alias("output_tokens"),
        (read * estimate.cache_read).alias("cache_read_tokens"),
        (read * estimate.cache_write).alias("cache_write_tokens"),
        (read * estimate.cache_write).alias("cache_write_1h_tokens"),
    )
    sums = expected.select(
        pl.col("input_tokens", "output_tokens").sum(),
        batch_usd(price).sum().alias("usd"),
        standard_usd(price).sum().alias("standard_usd"),
    ).row(0, named=True)
    # Nothing that is read from a cache costs more than what is not; what is written to it may cost more, or less.
    at_most = max(_worst_usd(requests, price, written=written) for written in {False, cached})
    return Forecast(
        requests=requests.height,
        input_tokens=round(sums["input_tokens"]),
        output_tokens=round(sums["output_tokens"]),
        usd=sums["usd"],
        standard_usd=sums["standard_usd"],
        at_most_usd=at_most,
    )


def _worst_usd(requests: pl.DataFrame, price: Price, *, written: bool) -> float:
    """What requests cost if every byte is a token, all of them `written` to the cache, and every answer is as long as
    it may be.
    """
    worst = requests.select(
        pl.col("bytes").alias("input_tokens"),
        pl.col("room").alias("output_tokens"),
        pl.lit(0.0).alias("cache_read_tokens"),
        (pl.col("bytes") * written).alias("cache_write_tokens"),
        (pl.col("bytes") * written).alias("cache_write_1h_tokens"),
    )
    return float(worst.select(batch_usd(price).sum()).item())


def _tokens(line: Line) -> pl.Expr:
    return pl.max_horizontal(line.base + line.per_byte * pl.col("bytes"), pl.lit(0.0))


def _fit(history: Spent, tokens: int, bytes_tokens: float) -> Line:
    """The least-squares line; through the mean where lengths hardly differ or more bytes would mean fewer tokens."""
    count, length = history.billed, history.bytes
    spread = count * history.bytes_bytes - float(length) ** 2
    mean = tokens / count
    if spread <= 1e-6 * float(length) ** 2:
        return Line(0.0, tokens / length if length else 0.0) if tokens > length / 100 else Line(mean, 0.0)
    slope = (count * bytes_tokens - float(length) * tokens) / spread
    return Line(mean - slope * length / count, slope) if slope > 0 else Line(mean, 0.0)
