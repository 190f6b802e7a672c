"""Parquet files of any length, written and merged by slices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl
from polars.io.plugins import register_io_source


def write_slices(slices: Iterator[pl.DataFrame], schema: Mapping[str, pl.DataType], target: Path, rows: int) -> None:
    """Write slices of a table into one file while they come, in row groups of so many rows."""

    def produce(
        _columns: list[str] | None, _predicate: pl.Expr | None, _rows: int | None, _batch: int | None
    ) -> Iterator[pl.DataFrame]:
        yield pl.DataFrame(schema=schema)
        yield from slices

    frame = register_io_source(produce, schema=schema)
    frame.sink_parquet(target, compression="zstd", row_group_size=rows, sync_on_close="all")


def merged(files: Sequence[Path], position: str, length: int, rows: int) -> Iterator[pl.DataFrame]:
    """The rows of files that are each sorted by the column `position`, in the order of it.

    It holds numbers below `length`, each once in all files. A slice has those of `rows` numbers, and reading one costs
    little where the files' row groups are small.
    """
    for start in range(0, length, rows):
        within = pl.col(position).is_between(start, start + rows, closed="left")
        yield pl.concat([pl.scan_parquet(file).filter(within) for file in files]).collect().sort(position)
