"""CSV, JSON Lines and Parquet files → lazy frames, and what is known of a file that cannot be read.

Messages name files, lines and types; they never hold a text or a value, as those of polars do.
"""

from __future__ import annotations

import csv
import glob
import gzip
import io
import re
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import orjson
import polars as pl
from polars.exceptions import NoDataError, PolarsError

from llm_assets.errors import DocumentsError

FORMATS = ("csv", "jsonl", "parquet")
SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class Scan:
    """A source file that holds something, and its columns as they are read; `path` is its whole name, `read` the file
    or a copy of it.
    """

    path: str
    read: Path
    format: str
    frame: pl.LazyFrame
    schema: dict[str, pl.DataType]


def scanned(path: str, read: Path, kind: str, scratch: Path) -> Scan | None:
    """The file as a lazy frame; None when there is nothing in it. Raises DocumentsError."""
    try:
        if kind == "csv":
            frame = pl.scan_csv(read, infer_schema=False, glob=False)
        elif kind == "jsonl":
            # Polars maps these into memory: a file that is cut meanwhile would end the process.
            read = _copied(read, scratch)
            if _is_blank(read):
                return None
            _check_surrogates(path, read)
            frame = _ndjson(read, None)
        else:
            frame = pl.scan_parquet(read, glob=False)
        return Scan(path, read, kind, frame, dict(frame.collect_schema()))
    except NoDataError:
        return None
    except (PolarsError, OSError, EOFError, zlib.error) as error:
        raise unreadable(path, read, kind, error) from None


def _copied(file: Path, scratch: Path) -> Path:
    """The file in `scratch`, where nobody changes it."""
    if file.parent == scratch:
        return file
    return Path(shutil.copyfile(file, scratch / f"{len(list(scratch.iterdir()))}{file.suffix}"))


def _ndjson(path: Path, schema: dict[str, pl.DataType] | None) -> pl.LazyFrame:
    return pl.scan_ndjson(glob.escape(str(path)), schema=schema, infer_schema_length=None)


def jsonl_agreed(scans: list[Scan], strings: set[str]) -> list[Scan]:
    """JSON Lines leave out what they do not know: all files get the columns of all, some read as strings."""
    if not scans:
        return []
    empty = [pl.DataFrame(schema=scan.schema) for scan in scans]
    try:
        agreed = pl.concat(empty, how="diagonal_relaxed").schema
    except PolarsError:
        raise DocumentsError(
            f"{scans[0].path} and {len(scans) - 1} more files of its partition hold a column whose values have "
            "no common type"
        ) from None
    # Parquet has no objects without keys: columns that hold some stay JSON texts.
    strings = {name for name in strings if name in agreed and not agreed[name].is_nested()}
    strings |= {name for name, dtype in agreed.items() if _holds_no_keys(dtype)}
    schema = {name: pl.String() if name in strings else dtype for name, dtype in agreed.items()}
    return [Scan(scan.path, scan.read, scan.format, _ndjson(scan.read, schema), schema) for scan in scans]


def unreadable(path: str, read: Path, kind: str, error: Exception) -> DocumentsError:
    """What is known about a file that cannot be read, in our words: polars quotes values."""
    expected, fault = {
        "csv": ("UTF-8, as many fields in a row as in the header, quotes doubled inside quotes", _csv_fault),
        "jsonl": ("UTF-8, one JSON object a line, one type for each key", _jsonl_fault),
        "parquet": ("a complete Parquet file", _no_fault),
    }[kind]
    try:
        line = fault(read)
    except (OSError, EOFError, zlib.error) as broken:
        return DocumentsError(f"{path}: cannot be read ({type(broken).__name__}); is the file complete?")
    where = f" from line {line} on" if line else ""
    return DocumentsError(f"{path}: cannot be read as {kind}{where}; expected {expected} ({type(error).__name__})")


def _no_fault(_path: Path) -> int | None:
    return None


def _jsonl_fault(path: Path) -> int | None:
    """The number of the first line that is no JSON object."""
    with _bytes(path) as lines:
        wrong = (number for number, line in enumerate(lines, start=1) if line.strip() and not _is_object(line))
        return next(wrong, None)


def _csv_fault(path: Path) -> int | None:
    """The number of the line at which a row with too many fields, a stray quote or no UTF-8 is met."""
    with _bytes(path) as file:
        reader = csv.reader(io.TextIOWrapper(file, "utf-8-sig", newline=""), strict=True)
        try:
            fields = len(next(reader, ()))
            return next((reader.line_num for row in reader if len(row) > fields), None)
        except (csv.Error, UnicodeDecodeError):
            return reader.line_num + 1


def _bytes(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _is_blank(path: Path) -> bool:
    with _bytes(path) as lines:
        return not any(line.strip() for line in lines)


def _check_surrogates(path: str, read: Path) -> None:
    """Raise DocumentsError for a lone surrogate escape, which polars reads as a NUL character."""
    with _bytes(read) as lines:
        for number, line in enumerate(lines, start=1):
            if _SURROGATE_ESCAPE.search(line) and not _is_object(line):
                raise DocumentsError(
                    f"{path}: line {number} is no JSON object, perhaps for half of a surrogate pair (\\ud800 to "
                    "\\udfff); write the character itself or leave it out"
                )


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(orjson.loads(line), dict)
    except orjson.JSONDecodeError:
        return False


def _holds_no_keys(dtype: object) -> bool:
    """Whether a struct without fields is anywhere in a type."""
    if isinstance(dtype, pl.Struct):
        return not dtype.fields or any(_holds_no_keys(inner.dtype) for inner in dtype.fields)
    return isinstance(dtype, pl.List) and _holds_no_keys(dtype.inner)
