"""Parquet files of any length, written and merged by slices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl
from polars.io.plugins import register_io_source

# For tables of fingerprints and short answers: no larger than with zstd's usual level, in two thirds of the time.
ZSTD_LEVEL = 1


class SliceWriter:
    """A table whose slices, at least one, come as by-products: kept on disk in parts until it is written into one file.

    Where slices are all that a loop makes, `write_slices` takes them from it.
    """

    def __init__(self, folder: Path, rows: int) -> None:
        """`folder` is for the parts, of about `rows` rows each, and outlives the writer."""
        self._folder = folder
        self._rows = rows
        self._slices: list[pl.DataFrame] = []
        self._parts: list[Path] = []

    def add(self, piece: pl.DataFrame) -> None:
        """Append rows."""
        self._slices.append(piece)
        if sum(piece.height for piece in self._slices) >= self._rows:
            self._keep()

    def write(self, target: Path) -> None:
        """Write all rows, in the order in which they came."""
        self._keep()
        pl.scan_parquet(self._parts, glob=False).sink_parquet(
            target, compression="zstd", compression_level=ZSTD_LEVEL, row_group_size=self._rows
        )

    def _keep(self) -> None:
        if self._slices:
            part = self._folder / f"{len(self._parts):06}.parquet"
            pl.concat(self._slices).write_parquet(part, compression="lz4")
            self._parts.append(part)
            self._slices.clear()


def write_slices(slices: Iterator[pl.DataFrame], schema: Mapping[str, pl.DataType], target: Path, rows: int) -> None:
    """Write slices of a table into one file while they come, in row groups of so many rows."""

    def produce(
        _columns: list[str] | None, _predicate: pl.Expr | None, _rows: int | None, _batch: int | None
    ) -> Iterator[pl.DataFrame]:
        yield pl.DataFrame(schema=schema)  # or a table without rows would have no columns
        yield from slices

    frame = register_io_source(produce, schema=schema)
    frame.sink_parquet(target, compression="zstd", row_group_size=rows, sync_on_close="all")


def merged(tables: Sequence[pl.LazyFrame], position: str, length: int, rows: int) -> Iterator[pl.DataFrame]:
    """The rows of tables that are each sorted by the column `position`, in the order of it.

    It holds numbers below `length`, each once in all tables. A slice has those of `rows` numbers, and reading one costs
    little where the tables are files with small row groups.
    """
    for start in range(0, length, rows):
        within = pl.col(position).is_between(start, start + rows, closed="left")
        yield pl.concat([table.filter(within) for table in tables]).collect().sort(position)
