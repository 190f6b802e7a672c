"""Answers that other partitions of an enrichment have already: the same request is not paid for again.

What may be reused is looked up in the results of the partitions that were collected last. An answer that is taken over
stands in the partition's own results from then on, with its age, so tomorrow's partition finds it in today's: how far
back anybody looks is bounded, whatever the history.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import polars as pl

from llm_assets.history import results_so_far
from llm_assets.parquet import write_slices
from llm_assets.records import RESULTS_SCHEMA, Shard
from llm_assets.store import Store

# The newest answers are looked at, up to so many: 24 bytes of memory each.
ANSWERS_MAX = 5_000_000
_USED_NOTHING = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "cost_usd",
)
_SLICE_ROWS = 50_000


class Answers:
    """The answers in the results of `shards`, the newest first, that are not older than `oldest`."""

    def __init__(self, store: Store, shards: Sequence[Shard], oldest: datetime) -> None:
        self._store = store
        self._shards = shards
        self._oldest = oldest
        self._index = self._read_index()

    def known(self, fingerprints: pl.Series) -> pl.Series:
        """Which of these requests (a column of fingerprints, null for none) have an answer here."""
        numbers = self._index["number"]
        if numbers.is_empty():
            return pl.repeat(False, len(fingerprints), eager=True)
        wanted = _numbers(fingerprints)
        places = numbers.search_sorted(wanted.fill_null(0)).clip(0, len(numbers) - 1)
        return (numbers.gather(places) == wanted).fill_null(False)

    def write(self, fingerprints: pl.Series, path: Path) -> None:
        """Write the answers to these requests, all of them known, as results (RESULTS_SCHEMA) that used nothing."""
        write_slices(self._taken(fingerprints), pl.Schema(RESULTS_SCHEMA), path, _SLICE_ROWS)

    def _taken(self, fingerprints: pl.Series) -> Iterator[pl.DataFrame]:
        wanted = pl.DataFrame({"fingerprint": fingerprints, "number": _numbers(fingerprints)})
        found = wanted.join(self._index, on="number", how="inner")
        for (place,), rows in found.group_by("shard"):
            answers = self._answers(self._shards[int(str(place))]).join(
                rows.lazy().select("fingerprint"), on="fingerprint", how="semi"
            )
            yield (
                answers.unique("fingerprint", keep="first")
                .with_columns(
                    pl.lit(0, dtype=pl.Int32).alias("wave"),
                    *(pl.lit(0, dtype=RESULTS_SCHEMA[name]).alias(name) for name in _USED_NOTHING),
                )
                .select(pl.col(name).cast(dtype) for name, dtype in RESULTS_SCHEMA.items())
                .collect()
            )

    def _read_index(self) -> pl.DataFrame:
        """`number` (a fingerprint as one) and `shard` (its place among the shards), sorted by the first."""
        slices = [pl.DataFrame(schema={"number": pl.UInt128, "shard": pl.UInt32})]
        rows = 0
        for place, shard in enumerate(self._shards):
            if not self._store.exists(self._store.results(shard)):
                continue  # old partitions may have been deleted
            fingerprints = self._answers(shard).select("fingerprint").collect()["fingerprint"]
            slices.append(
                pl.DataFrame({"number": _numbers(fingerprints), "shard": place}, schema_overrides={"shard": pl.UInt32})
            )
            rows += fingerprints.len()
            if rows >= ANSWERS_MAX:
                break
        return pl.concat(slices).unique("number", keep="first", maintain_order=True).sort("number")

    def _answers(self, shard: Shard) -> pl.LazyFrame:
        return (
            results_so_far(self._store, [shard])
            .filter(pl.col("reason").is_null() & pl.col("judged"))
            .with_columns(pl.col("answered_at").fill_null(pl.lit(shard.collected_at, dtype=pl.Datetime("us", "UTC"))))
            .filter(pl.col("answered_at") >= self._oldest)
        )


def _numbers(fingerprints: pl.Series) -> pl.Series:
    """Fingerprints as numbers, which are a third of their size and sort fast."""
    return fingerprints.to_frame("fingerprint").select(pl.col("fingerprint").str.to_integer(base=16, dtype=pl.UInt128))[
        "fingerprint"
    ]
