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

from llm_assets.fingerprints import holds, number, numbers
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
        self._shards = _newest(store, shards)
        self._oldest = oldest
        self._index = self._read_index()

    def known(self, fingerprints: pl.Series) -> pl.Series:
        """Which of these requests (a column of fingerprints, null for none) have an answer here."""
        known = self._index["number"]
        return holds(known, fingerprints if known.is_empty() else numbers(fingerprints))

    def write(self, fingerprints: pl.Series, path: Path) -> None:
        """Write the answers to these requests, all of them known, as results (RESULTS_SCHEMA) that used nothing."""
        write_slices(self._taken(fingerprints), pl.Schema(RESULTS_SCHEMA), path, _SLICE_ROWS)

    def _taken(self, fingerprints: pl.Series) -> Iterator[pl.DataFrame]:
        wanted = pl.DataFrame({"fingerprint": fingerprints, "number": numbers(fingerprints)})
        found = wanted.join(self._index, on="number", how="inner")
        for (place,), rows in found.group_by("shard"):
            answers = self._answers([self._shards[int(str(place))]]).join(
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
        numbered = self._answers(self._shards).select(number(pl.col("fingerprint")).alias("number"), "shard")
        return numbered.sort("number", "shard").unique("number", keep="first", maintain_order=True).collect()

    def _answers(self, shards: Sequence[Shard]) -> pl.LazyFrame:
        """The answers of these shards (RESULTS_SCHEMA) with `shard`, the place of theirs.

        All files are read at once: there may be one a day, and each takes its time when it is read by itself.
        """
        if not shards:
            return pl.LazyFrame(schema=RESULTS_SCHEMA | {"shard": pl.UInt32()})
        paths = [self._store.results(shard) for shard in shards]
        files = [self._store.files.where(path) for path in paths]
        origin = pl.DataFrame(
            {"file": files, "shard": range(len(files)), "collected_at": [shard.collected_at for shard in shards]},
            schema_overrides={"shard": pl.UInt32, "collected_at": pl.Datetime("us", "UTC")},
        )
        results = self._store.files.scan(
            paths,
            schema=RESULTS_SCHEMA,
            missing_columns="insert",
            extra_columns="ignore",
            include_file_paths="file",
        )
        return (
            results.filter(pl.col("reason").is_null() & pl.col("judged").fill_null(True))
            .join(origin.lazy(), on="file")
            .with_columns(pl.coalesce("answered_at", "collected_at").alias("answered_at"))
            .filter(pl.col("answered_at") >= self._oldest)
            .drop("file", "collected_at")
        )


def _newest(store: Store, shards: Sequence[Shard]) -> list[Shard]:
    """The first of these shards whose results are there; old partitions may have been deleted."""
    newest, requests = [], 0
    for shard in shards:
        if requests >= ANSWERS_MAX:
            break
        if store.files.exists(store.results(shard)):
            newest.append(shard)
            requests += shard.requests
    return newest
