"""A plan, where its requests stand, and what came back → the rows of `enriched` and `failed`. Pure."""

from __future__ import annotations

import polars as pl

from llm_assets.enrichment import Enrichment
from llm_assets.evidence import UNSUPPORTED
from llm_assets.records import DOCUMENT_ID, FAILED_SCHEMA
from llm_assets.retries import Standing, kind_of
from llm_assets.text_limit import WAS_CUT

# Where a document stands in its table: the order of what is made of it.
POSITION = "position"
_TYPED_ROWS = 20_000
_NOT_LOOKED = pl.Series([None], dtype=pl.List(pl.String()))
_USED = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cost_usd")


def tables(
    enrichment: Enrichment,
    wants: pl.DataFrame,
    standings: pl.DataFrame,
    results: pl.LazyFrame,
    answers: pl.LazyFrame,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """`enriched` and `failed` of a partition whose every request has a final outcome. Pure.

    `wants` is the plan (PLAN_SCHEMA and the kept columns) with the position of each document, which both tables begin
    with; `results` may lack the texts that `answers` has. Tokens and dollars are those of all attempts, and stand at
    the first of several documents that share a request, so that a sum over both tables is what was used.
    """
    spent = _spent(results)
    first = pl.col("fingerprint").is_null() | pl.col("fingerprint").is_first_distinct()
    used = [pl.when(first).then(pl.col(name)).otherwise(0).fill_null(0).alias(name) for name in _USED]
    rows = wants.join(
        standings.select("fingerprint", "standing", "attempts", last_reason="reason"), on="fingerprint", how="left"
    )
    rows = rows.join(spent, on="fingerprint", how="left").sort(POSITION).with_columns(used)
    answered = pl.col("standing").fill_null("") == Standing.ANSWERED
    return _enriched(enrichment, rows.filter(answered), answers), _failed(enrichment, rows.filter(~answered), results)


def _enriched(enrichment: Enrichment, rows: pl.DataFrame, answers: pl.LazyFrame) -> pl.DataFrame:
    found = (
        answers.filter(pl.col("reason").is_null())
        .select("fingerprint", "answer", "model", "wave")
        .unique("fingerprint", keep="first", maintain_order=True)
        .collect()
    )
    rows = rows.join(found, on="fingerprint", how="left").sort(POSITION)
    # By slices: decoding takes several times what it leaves.
    starts = range(0, max(rows.height, 1), _TYPED_ROWS)
    typed = pl.concat([enrichment.output.typed(rows["answer"].slice(start, _TYPED_ROWS)) for start in starts])
    return pl.concat(
        [
            rows.select(POSITION, DOCUMENT_ID, *enrichment.keep),
            typed,
            *([pl.DataFrame({UNSUPPORTED: _NOT_LOOKED.new_from_index(0, rows.height)})] if enrichment.evidence else []),
            *([rows.select(WAS_CUT)] if enrichment.cuts else []),
            rows.select("model", "wave", *_USED, "fingerprint"),
        ],
        how="horizontal",
    )


def _failed(enrichment: Enrichment, rows: pl.DataFrame, results: pl.LazyFrame) -> pl.DataFrame:
    last = (
        results.filter(pl.col("reason").is_not_null())
        .sort("wave", maintain_order=True)
        .unique("fingerprint", keep="last")
        .select("fingerprint", "model", "provider_type", last_message="message")
        .collect()
    )
    rows = rows.join(last, on="fingerprint", how="left").sort(POSITION)
    rows = rows.with_columns(
        pl.coalesce("reason", "last_reason").alias("reason"),
        pl.coalesce("message", "last_message").alias("message"),
        pl.col("provider_type", "model").fill_null(""),
        pl.col("attempts").fill_null(0),
    ).with_columns(kind_of(pl.col("reason")).alias("kind"))
    return rows.select(
        POSITION, *[pl.col(name).cast(dtype) for name, dtype in FAILED_SCHEMA.items()], *enrichment.keep, "fingerprint"
    )


def _spent(results: pl.LazyFrame) -> pl.DataFrame:
    """Tokens and dollars a fingerprint, over all its attempts."""
    return results.group_by("fingerprint").agg(pl.col(*_USED).sum()).collect()
