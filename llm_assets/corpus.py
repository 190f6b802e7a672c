"""One large file → slices of it, each a partition of its own: a corpus of millions is no million partitions."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from pathlib import Path

import polars as pl
from polars.exceptions import PolarsError

from llm_assets.errors import DocumentsError

_READERS = {
    ".csv": lambda path: pl.scan_csv(path, infer_schema=False, glob=False),
    ".jsonl": lambda path: pl.scan_ndjson(glob.escape(str(path)), infer_schema_length=None),
    ".ndjson": lambda path: pl.scan_ndjson(glob.escape(str(path)), infer_schema_length=None),
    ".parquet": lambda path: pl.scan_parquet(path, glob=False),
}
_READ_ROWS = 20_000


def slice_file(source: Path, folder: Path, rows: int) -> Iterator[Path]:
    """Write the rows of a CSV, JSON Lines or Parquet file into Parquet files of so many rows each, in their order:
    `00001.parquet` and so on. Each appears whole or not at all. Yields them as they come.

    Raises DocumentsError for what cannot be read, and when the folder holds Parquet files already.
    """
    if source.suffix not in _READERS:
        raise DocumentsError(f"{source}: the format is unknown; there are {', '.join(_READERS)}")
    if any(folder.glob("*.parquet")):
        raise DocumentsError(f"{folder} holds Parquet files already; slice into an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield from _written(_READERS[source.suffix](source), folder, rows)
    except (PolarsError, OSError) as error:
        raise DocumentsError(f"{source}: cannot be read ({type(error).__name__}); is the file complete?") from None


def _written(table: pl.LazyFrame, folder: Path, rows: int) -> Iterator[Path]:
    waiting, number = pl.DataFrame(schema=table.collect_schema()), 0
    for batch in table.collect_batches(chunk_size=_READ_ROWS, maintain_order=True):
        waiting = pl.concat([waiting, batch])
        while waiting.height >= rows:
            number += 1
            yield _write(waiting.head(rows), folder / f"{number:05}.parquet")
            waiting = waiting.slice(rows)
    if not waiting.is_empty():
        yield _write(waiting, folder / f"{number + 1:05}.parquet")


def _write(frame: pl.DataFrame, path: Path) -> Path:
    # Hidden, so that nobody takes in what is still being written.
    temporary = path.with_name(f".{path.name}")
    frame.write_parquet(temporary, compression="zstd")
    return temporary.replace(path)
