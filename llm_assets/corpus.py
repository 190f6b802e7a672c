"""One large file → slices of it, each a partition of its own: a corpus of millions is no million partitions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
from polars.exceptions import PolarsError

from llm_assets.errors import DocumentsError
from llm_assets.file_formats import SUFFIXES, Scan, jsonl_agreed, scanned, unreadable

_READ_ROWS = 20_000


def slice_file(source: Path, folder: Path, rows: int) -> Iterator[Path]:
    """Write the rows of a CSV, JSON Lines or Parquet file into Parquet files of so many rows each, in their order:
    `00001.parquet` and so on. Yields them as they come; they appear together, when the last is written, or not at all.

    Raises DocumentsError for what cannot be read or has no rows, and when the folder holds Parquet files already.
    """
    if source.suffix not in SUFFIXES:
        raise DocumentsError(f"{source}: the format is unknown; there are {', '.join(SUFFIXES)}")
    if any(not path.name.startswith(".") for path in folder.glob("*.parquet")):
        raise DocumentsError(f"{folder} holds Parquet files already; slice into an empty folder")
    kind = SUFFIXES[source.suffix]
    # As its own folder is the one for copies, none is made: it may be as large as the disk.
    scan = scanned(str(source), source, kind, source.parent)
    if scan is not None and kind == "jsonl":
        (scan,) = jsonl_agreed([scan], set())
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    try:
        for path in _written(scan, folder, rows) if scan else ():
            written.append(path)
            yield path
        if not written:
            raise DocumentsError(f"{source}: holds no rows; is it the right file, and are its lines ended by \\n?")
        for path in written:
            _hidden(path).replace(path)
    except (PolarsError, OSError) as error:
        raise unreadable(str(source), source, kind, error) from None
    finally:
        for path in written:
            _hidden(path).unlink(missing_ok=True)


def _written(scan: Scan, folder: Path, rows: int) -> Iterator[Path]:
    waiting, number = pl.DataFrame(schema=scan.schema), 0
    is_blank = pl.all_horizontal(pl.all().is_null())
    for batch in scan.frame.collect_batches(chunk_size=_READ_ROWS, maintain_order=True):
        # A blank line of a CSV file is read as a row.
        waiting = pl.concat([waiting, batch.filter(~is_blank) if scan.format == "csv" else batch])
        while waiting.height >= rows:
            number += 1
            yield _write(waiting.head(rows), folder / f"{number:05}.parquet")
            waiting = waiting.slice(rows)
    if not waiting.is_empty():
        yield _write(waiting, folder / f"{number + 1:05}.parquet")


def _hidden(path: Path) -> Path:
    """Where nobody takes in what is still being written."""
    return path.with_name(f".{path.name}")


def _write(frame: pl.DataFrame, path: Path) -> Path:
    frame.write_parquet(_hidden(path), compression="zstd")
    return path
