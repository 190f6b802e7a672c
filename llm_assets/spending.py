"""Results → what they cost: a column of dollars for every request, and the sums that the ledger keeps. Pure."""

from __future__ import annotations

import polars as pl

from llm_assets.prices import Price, batch_usd, standard_usd, uncached_usd
from llm_assets.records import Spent

_SUMMED = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cost_usd")


def priced(results: pl.DataFrame, price: Price) -> pl.DataFrame:
    """Results (RESULTS_SCHEMA) with `cost_usd` as it follows from their tokens."""
    return results.with_columns(batch_usd(price).alias("cost_usd"))


def spent_on(results: pl.DataFrame, line_bytes: pl.Series, price: Price) -> Spent:
    """What a shard's results (priced, in the order of sending) used; `line_bytes` are the lengths of its requests."""
    length, read, wrote = pl.col("bytes").cast(pl.Float64), pl.col("input_tokens"), pl.col("output_tokens")
    sums = (
        results.with_columns(line_bytes.alias("bytes"))
        .filter((read > 0) | (wrote > 0))
        .select(
            pl.len().alias("billed"),
            pl.col(*_SUMMED, "bytes").sum(),
            standard_usd(price).sum().alias("standard_usd"),
            uncached_usd(price).sum().alias("uncached_usd"),
            (length * length).sum().alias("bytes_bytes"),
            (length * read).sum().alias("bytes_input"),
            (length * wrote).sum().alias("bytes_output"),
        )
    )
    return Spent(requests=results.height, **sums.row(0, named=True))
