"""Sources → documents: CSV, JSON Lines or Parquet files in, one checked Parquet file out.

A document has an id, a text and the columns that were declared for it; whatever else the source holds is
kept as it was read. Ids and texts are read as strings, so that "007" stays "007". Sources are streamed, and
nothing here holds more than a slice of rows and eight bytes for each id. Messages name files, columns,
lines and ids; they never hold a text or a value.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
from polars.exceptions import PanicException, PolarsError

from llm_assets.column_types import TYPES, as_string, converted, storable
from llm_assets.errors import DeclarationError, DocumentsError, StoreError
from llm_assets.file_formats import FORMATS, SUFFIXES, Scan, jsonl_agreed, scanned, unreadable
from llm_assets.parquet import write_slices
from llm_assets.records import DOCUMENT_ID, TEXT
from llm_assets.sources import IN_BUCKET, PARTITION, Bucket, Folder, Place, SourceFile, parts

NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")
ID_CHARS_MAX = 512
SLICE_ROWS = 20_000
EXAMPLES = 5
NAMES_TOLD = 30
_NAME_LIKE = re.compile(r"[^\W\d][\w.-]{0,39}")  # no blanks: with them, names are not told from texts

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ROW = "\0row"  # beside columns of any name
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DocumentsSummary:
    """What `DocumentSource.write` wrote: rows, bytes of the file, rows without any text, files read."""

    rows: int
    bytes: int
    empty_texts: int
    files: int


@dataclass(frozen=True)
class DocumentSource:
    """Where documents come from, a partition at a time.

    `path` holds `{partition}` and perhaps `*`, and is resolved against `base`, or is an `s3://` URL, to which `s3`,
    boto3's client, is the way. `format` is csv, jsonl or parquet (None: by the suffix). `columns` declares further
    columns, name -> string, integer, number, boolean, date or datetime: they are checked and typed, and prompts may use
    them. `source` is the file that declares all this.
    """

    name: str
    path: str
    id_column: str
    text_column: str
    base: Path = Path()
    format: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    s3: Any = field(default=None, repr=False, compare=False)

    def check(self) -> None:
        """Raise one DeclarationError that lists all that is wrong with the declaration."""
        DeclarationError.raise_for(self.source, self._problems())

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """The columns that a prompt may use: id, text, declared ones."""
        declared = {name: TYPES[kind] for name, kind in self.columns.items()}
        return {DOCUMENT_ID: pl.String(), TEXT: pl.String(), **declared}

    @property
    def in_bucket(self) -> bool:
        """Whether its files are in a bucket, and `s3` is needed to have them."""
        return self.path.startswith(IN_BUCKET)

    def files(self, partition: str) -> list[SourceFile]:
        """The partition's files, in the order of their names. Raises DocumentsError for an unsafe key."""
        if not _is_name(partition):
            raise DocumentsError(
                f"{self.name}: the partition key {partition!r} cannot be part of a path; it must be neither "
                "empty nor dots, and hold no slash or backslash"
            )
        return sorted(self._place.found(self.path, partition))

    def arrived(self) -> dict[str, float]:
        """The partitions that there are files for, in order: when the last file of each was written (seconds since
        1970). Files whose names give no usable key are left out, with a warning.
        """
        found: dict[str, float] = {}
        for file in sorted(self._place.found(self.path)):
            if _is_name(file.partition):
                found[file.partition] = max(file.written, found.get(file.partition, 0))
            else:
                _LOG.warning("%s is left out: %r cannot be a partition's key; rename it", file.name, file.partition)
        return dict(sorted(found.items()))

    def looked_for(self, partition: str) -> str:
        """Where the partition's files are looked for, as a person would write it; `*` stands for all."""
        where = self.path if self.in_bucket else str(self.base / self.path)
        return where.replace(PARTITION, partition)

    def slices(self, partition: str, rows: int = SLICE_ROWS) -> Iterator[pl.DataFrame]:
        """The partition's documents by slices of at most `rows`: document_id, text, declared, others.

        Raises DocumentsError for what cannot be read, except for duplicate ids, which `write` finds.
        """
        with TemporaryDirectory() as scratch:
            for file in self._open(partition, Path(scratch)):
                yield from file.slices(rows)

    def write(self, partition: str, target: Path) -> DocumentsSummary:
        """Stream the partition into one Parquet file, which appears whole or not at all.

        A partition without files, or with empty ones, has no rows. Raises DocumentsError.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        tally = _Tally()
        with TemporaryDirectory(prefix=".", dir=target.parent) as scratch:
            files = self._open(partition, Path(scratch))
            temporary = Path(scratch) / target.name
            schema = files[0].schema if files else self.schema
            write_slices(tally.counted(files), schema, temporary, SLICE_ROWS)
            self._check_unique(temporary, tally)
            size = temporary.stat().st_size
            temporary.replace(target)
        return DocumentsSummary(tally.rows, size, tally.empty_texts, len(files))

    def _problems(self) -> Iterator[str]:
        if not NAME.fullmatch(self.name):
            yield (
                f"the name {self.name[:80]!r} must begin with a lower-case letter and have at most 60 "
                "lower-case letters, digits and underscores"
            )
        if "://" in self.path and not (self.in_bucket and _BUCKET.fullmatch(parts(self.path)[0])):
            yield f"the path {self.path!r} is no URL of a bucket; write s3://bucket/… or the path of a file"
        if PARTITION not in self.path:
            yield f"the path {self.path!r} does not say where the partition goes; write {PARTITION} in it"
        if self.format is not None and self.format not in FORMATS:
            yield f"the format {self.format!r} is unknown; there are {', '.join(FORMATS)}"
        elif self._format is None:
            yield f"the path {self.path!r} does not tell its format; add `format:` ({', '.join(FORMATS)})"
        if self.id_column == self.text_column:
            yield f"text_column and id_column are both {self.id_column!r}; they must be two columns"
        for name, kind in self.columns.items():
            if not isinstance(kind, str) or kind not in TYPES:
                yield f"columns.{name} has the type {kind!r}; known types are {', '.join(TYPES)}"
            if name in (DOCUMENT_ID, TEXT):
                yield f"the column {name!r} is declared, but every document has it anyway; remove it"

    @property
    def _place(self) -> Place:
        return Bucket(self.s3) if self.in_bucket else Folder(self.base)

    @property
    def _format(self) -> str | None:
        if self.format is not None:
            return self.format
        path = Path(self.path)
        if path.suffix == ".gz":
            inner = SUFFIXES.get(Path(path.stem).suffix)
            return inner if inner != "parquet" else None
        return SUFFIXES.get(path.suffix)

    def _open(self, partition: str, scratch: Path) -> list[_File]:
        """The partition's files that hold anything, all with the same columns; copies of some are in `scratch`."""
        kind = self._format or ""
        opened = (
            scanned(file.name, self._place.at_hand(file, scratch), kind, scratch) for file in self.files(partition)
        )
        scans = [scan for scan in opened if scan is not None]
        if self._format == "jsonl":
            scans = jsonl_agreed(scans, {self.id_column, self.text_column})
        files = [_File(self, scan) for scan in scans]
        for file in files[1:]:
            _check_same(files[0], file)
        return files

    def _check_unique(self, written: Path, tally: _Tally) -> None:
        """Raise DocumentsError when two rows have the same id."""
        hashes = tally.repeated_hashes()
        if hashes.is_empty():
            return
        ids = pl.scan_parquet(written, glob=False).select(DOCUMENT_ID).with_row_index("row")
        suspects = ids.filter(pl.col(DOCUMENT_ID).hash().is_in(hashes.implode())).collect()
        repeated = suspects.filter(pl.col(DOCUMENT_ID).is_duplicated())
        if repeated.is_empty():
            return  # two ids with one hash
        counted = repeated.group_by(DOCUMENT_ID, maintain_order=True).len()
        examples = counted[DOCUMENT_ID].head(EXAMPLES)
        rows = repeated.filter(pl.col(DOCUMENT_ID).is_in(examples.implode()))["row"]
        files = sorted({tally.file_of(row) for row in rows})
        raise DocumentsError(
            f"{self.name}: {counted.height} ids stand for more than one document, such as "
            f"{', '.join(map(repr, examples))}, in {', '.join(files)}; ids must be unique in a partition"
        )


# -- one source file ---------------------------------------------------------------------------------------


class _File:
    """A source file, read as a source's documents. Raises DocumentsError when columns do not fit."""

    def __init__(self, source: DocumentSource, scan: Scan) -> None:
        self.path, self._source, self._scan = scan.path, source, scan
        self._check_columns()
        named = {source.id_column, source.text_column, *source.columns}
        others = {name: dtype for name, dtype in scan.schema.items() if name not in named}
        self.schema = source.schema | {name: storable(dtype) for name, dtype in others.items()}

    def slices(self, rows: int) -> Iterator[pl.DataFrame]:
        """The documents of this file."""
        row = 0
        try:
            for batch in self._scan.frame.collect_batches(chunk_size=rows, maintain_order=True):
                for piece in batch.iter_slices(rows):
                    yield self._documents(piece, row)
                    row += piece.height
        except (PolarsError, OSError) as error:
            raise unreadable(self.path, self._scan.read, self._scan.format, error) from None

    def _check_columns(self) -> None:
        source, there = self._source, self._scan.schema
        needed = (source.id_column, source.text_column, *source.columns)
        if missing := [name for name in needed if name not in there]:
            raise DocumentsError(
                f"{self.path}: there is no column {', '.join(map(repr, missing))}; the file has {_listed(there)}"
            )
        for name, named in ((DOCUMENT_ID, source.id_column), (TEXT, source.text_column)):
            if name in there and name != named and name not in (source.id_column, source.text_column):
                raise DocumentsError(
                    f"{self.path}: the file has a column {name!r}, but {named!r} is declared to be it; "
                    "rename one of them in the source"
                )
        for name in (source.id_column, source.text_column):
            if there[name].is_nested() or there[name] == pl.Binary:
                held = there[name].base_type().__name__.lower()
                raise DocumentsError(f"{self.path}: the column {name!r} holds {held}s; expected strings")

    def _documents(self, batch: pl.DataFrame, first_row: int) -> pl.DataFrame:
        """A slice of the file as documents; `first_row` counts from 0."""
        source = self._source
        batch = batch.with_row_index(_ROW, offset=first_row + 1)
        if self._scan.format == "csv":
            batch = batch.filter(~pl.all_horizontal(pl.exclude(_ROW).is_null()))  # blank lines
        documents = batch.select(
            pl.col(_ROW),
            as_string(pl.col(source.id_column), self._scan.schema[source.id_column]).alias(DOCUMENT_ID),
            as_string(pl.col(source.text_column), self._scan.schema[source.text_column]).alias(TEXT),
            *(
                converted(pl.col(name), self._scan.schema[name], kind).alias(name)
                for name, kind in source.columns.items()
            ),
            *(pl.col(name).cast(dtype) for name, dtype in self.schema.items() if name not in source.schema),
        )
        self._check_ids(documents)
        self._check_values(batch, documents)
        return documents.drop(_ROW)

    def _check_ids(self, documents: pl.DataFrame) -> None:
        identifier = pl.col(DOCUMENT_ID)
        blank = documents.filter(identifier.is_null() | (identifier.str.strip_chars() == ""))[_ROW]
        if not blank.is_empty():
            raise DocumentsError(
                f"{self.path}: {blank.len()} rows have no id in the column {self._source.id_column!r}, the first "
                f"is row {blank[0]}; every document needs one"
            )
        long = documents.filter(identifier.str.len_chars() > ID_CHARS_MAX)[_ROW]
        if not long.is_empty():
            raise DocumentsError(
                f"{self.path}: the id in row {long[0]} has more than {ID_CHARS_MAX} characters; is "
                f"{self._source.id_column!r} the column of ids?"
            )

    def _check_values(self, read: pl.DataFrame, documents: pl.DataFrame) -> None:
        """Every declared value that was there must have become one of its type."""
        for name, kind in self._source.columns.items():
            there = read[name].is_not_null()
            if read[name].dtype == pl.String and kind != "string":
                there &= read[name].str.strip_chars() != ""
            lost = documents[_ROW].filter(there & documents[name].is_null())
            if not lost.is_empty():
                raise DocumentsError(
                    f"{self.path}: row {lost[0]} holds no {kind} in the column {name!r}, which is declared as such"
                )


def _is_name(partition: str) -> bool:
    """Whether a partition's key can be a part of a file's name, and so leads into no other folder."""
    return not set("/\\\0") & set(partition) and partition.strip(". ") != ""


def _listed(names: Collection[str]) -> str:
    """Column names for a message, where they are no more than names: without a header line they would be the first
    document's values.
    """
    if not names:
        return "no columns"
    if not all(_NAME_LIKE.fullmatch(name) for name in names):
        return f"{len(names)} columns, not all with plain names: does it begin with a line of names?"
    told = [repr(name) for name in names][:NAMES_TOLD]
    more = len(names) - len(told)
    return ", ".join(told + [f"{more} more"] * (more > 0))


def _check_same(first: _File, other: _File) -> None:
    """Raise DocumentsError when two files of a partition do not have the same columns."""
    if first.schema == other.schema:
        return
    names = sorted(first.schema.keys() ^ other.schema.keys())
    if names:
        what = f"only one of them has {_listed(names)}"
    else:
        changed = [name for name in first.schema if first.schema[name] != other.schema[name]]
        if not changed:
            return  # the same columns in another order
        what = f"they have different types in {_listed(changed)}"
    raise DocumentsError(
        f"{first.path} and {other.path} belong to one partition but differ: {what}; give them the same columns"
    )


# -- writing and reading the one file ----------------------------------------------------------------------


class _Tally:
    """What is counted while documents pass by."""

    def __init__(self) -> None:
        self.rows = 0
        self.empty_texts = 0
        self._hashes: list[pl.Series] = []
        self._ends: list[tuple[int, str]] = []

    def counted(self, files: list[_File]) -> Iterator[pl.DataFrame]:
        for file in files:
            for documents in file.slices(SLICE_ROWS):
                self.rows += documents.height
                text = documents[TEXT].fill_null("").str.strip_chars()
                self.empty_texts += int((text == "").sum())
                self._hashes.append(documents[DOCUMENT_ID].hash())
                yield documents.select(list(files[0].schema))
            self._ends.append((self.rows, file.path))

    def repeated_hashes(self) -> pl.Series:
        hashes = pl.concat(self._hashes) if self._hashes else pl.Series(dtype=pl.UInt64)
        return hashes.filter(hashes.is_duplicated()).unique()

    def file_of(self, row: int) -> str:
        return next(path for end, path in self._ends if row < end)


def read_documents(path: Path, rows: int = SLICE_ROWS) -> Iterator[pl.DataFrame]:
    """The documents of a file that `DocumentSource.write` wrote, in its order, `rows` at a time.

    They are those of one table, also when another takes its place meanwhile. Raises StoreError for a damaged one.
    """
    try:
        with path.open("rb") as file:
            # Not `collect_batches`: it reads hundreds of megabytes ahead.
            table = pl.scan_parquet(file, glob=False)
            for start in range(0, table.select(pl.len()).collect().item(), SLICE_ROWS):
                yield from table.slice(start, SLICE_ROWS).collect().iter_slices(rows)
    except (PolarsError, PanicException, OSError) as error:
        raise StoreError(
            f"{path} cannot be read ({type(error).__name__}); materialize these documents again, or put back a copy"
        ) from None
