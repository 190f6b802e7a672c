"""The store: tables and files under one root. Files appear whole or not at all, and are never changed.

    ledger-id                                                         which ledger knows what was sent from here
    documents/<documents>/<partition>.parquet
    enrichments/<name>/batches/<partition>/plan-<id>.parquet          what the partition wants
    enrichments/<name>/batches/<partition>/wave-01/<key>.json(l)      a shard, as it is sent
    enrichments/<name>/batches/<partition>/wave-01/<key>.answers.jsonl
    enrichments/<name>/batches/<partition>/wave-01/<key>.requests.parquet
    enrichments/<name>/batches/<partition>/wave-01/<key>.<collector>.results.parquet
    enrichments/<name>/enriched/<partition>.parquet
    enrichments/<name>/failed/<partition>.parquet
    evaluations/<name>/answers.parquet, scores.parquet, comparison.html, accepted.parquet, verdicts.parquet
    spending/<day>.parquet

Every file is plain Parquet (zstd) or JSON and can be read without this project. What a path means is known here
and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote

import polars as pl

from llm_assets.errors import StoreError
from llm_assets.parquet import ZSTD_LEVEL
from llm_assets.records import Shard
from llm_assets.store.contents import Kept, kept
from llm_assets.store.files import Entry, Files
from llm_assets.store.folder import Folder

# What polars raises over a table that is damaged or changed while it is read. Its panics are no `Exception`s.
DAMAGE = (pl.exceptions.PolarsError, pl.exceptions.PanicException)

# Small enough that a part of a partition's results is read without the others (history.parts_of).
_RESULTS_GROUP_ROWS = 5_000
_SIFTED_GROUP_ROWS = 5_000
# File systems take 255 bytes, and a table that is being written is called `.<segment>.parquet.<8 characters>`.
_SEGMENT_BYTES_MAX = 255 - len("..parquet.12345678")


class Store:
    """Tables and files under `root`: a folder, or `s3://bucket/prefix`. Paths that leave here are relative to it,
    with `/`. What is done with `files` as such is described there.
    """

    def __init__(self, root: str | Path) -> None:
        self.files: Files = _files_at(str(root))

    # -- names

    def documents(self, name: str, partition: str) -> str:
        """The table of documents of a partition."""
        return f"documents/{name}/{_segment(partition)}.parquet"

    def document_partitions(self, name: str) -> set[str]:
        """The partitions that a table of documents has."""
        paths = (PurePosixPath(entry.path) for entry in self.files.listed(f"documents/{name}"))
        return {unquote(path.stem) for path in paths if path.suffix == ".parquet"}

    def enriched(self, enrichment: str, partition: str) -> str:
        """The table of answers of a partition."""
        return f"enrichments/{enrichment}/enriched/{_segment(partition)}.parquet"

    def failed(self, enrichment: str, partition: str) -> str:
        """The table of failures of a partition."""
        return f"enrichments/{enrichment}/failed/{_segment(partition)}.parquet"

    def evaluation(self, name: str, file: str) -> str:
        """One of an evaluation's files."""
        return f"evaluations/{_segment(name)}/{file}"

    def spending(self, day: str) -> str:
        """The table of what was spent on a day."""
        return f"spending/{_segment(day)}.parquet"

    def plan(self, enrichment: str, partition: str, plan_id: str) -> str:
        """The table of what a partition wants."""
        return f"{self._batches(enrichment, partition)}/plan-{plan_id}.parquet"

    def shard(self, enrichment: str, partition: str, wave: int, key: str) -> str:
        """The stem of a shard's files."""
        return f"{self._batches(enrichment, partition)}/wave-{wave:02d}/{key}"

    def requests(self, shard: Shard) -> str:
        """The table of what a shard asked."""
        return f"{shard.path}.requests.parquet"

    def results(self, shard: Shard) -> str:
        """The table of what came back for a shard."""
        return shard.results or f"{shard.path}.results.parquet"  # so it was called before the ledger named it

    def _batches(self, enrichment: str, partition: str) -> str:
        return f"enrichments/{enrichment}/batches/{_segment(partition)}"

    def ledger_id(self, first: str) -> str:
        """Which ledger knows what was sent from here: the `first` that the store was ever opened with."""
        return self.files.create("ledger-id", f"{first}\n").strip()

    def request_files(self, enrichment: str, partition: str) -> Iterator[tuple[str, Entry]]:
        """The files of a partition's shards as they are sent, each with its shard's key."""
        for entry in self.files.listed(self._batches(enrichment, partition)):
            path = PurePosixPath(entry.path)
            if path.match("wave-*/*.json*"):
                yield path.name.partition(".")[0], entry

    def contents(self) -> Iterator[Kept]:
        """All files that hold something of documents, with what they hold of whom."""
        for entry in self.files.listed(""):
            if (found := kept(entry)) is not None:
                yield found

    def tidy(self, enrichment: str, partition: str, documents: str, until: datetime) -> Iterator[str]:
        """Delete what processes that were killed before `until` have left: scratch folders, and files that did not
        take their places. Yields what could not be deleted, and why.
        """
        folders = (
            self._batches(enrichment, partition),
            f"enrichments/{enrichment}/enriched",
            f"enrichments/{enrichment}/failed",
            f"documents/{documents}",
        )
        return self.files.tidy(folders, until)

    # -- tables

    @contextmanager
    def sifting(self, table: Kept, condition: pl.Expr, target: str | None = None) -> Iterator[None]:
        """The rows of a table that meet a condition take its place, or that of `target`, when the block ends.

        Raises StoreError, and changes nothing, when the table is damaged or was replaced meanwhile.
        """
        with self.files.writing(target or table.path) as temporary:
            try:
                rows = self.scan(table.path).filter(condition)
                rows.sink_parquet(temporary, compression="zstd", row_group_size=_SIFTED_GROUP_ROWS)
            except DAMAGE as error:
                raise self._unreadable(table.path) from error
            yield
            if self.files.modified(table.path) != table.modified:
                raise StoreError(f"{table.path} was replaced while it was read, and is as it was: try again")

    def write(self, path: str, frame: pl.DataFrame, *, group_rows: int | None = None) -> None:
        """Write a table, whole or not at all; in row groups of so many rows, or of polars' choice."""
        with self.files.writing(path) as temporary:
            frame.write_parquet(temporary, compression="zstd", compression_level=ZSTD_LEVEL, row_group_size=group_rows)

    def write_results(self, shard: Shard, table: pl.DataFrame, *, collector: str) -> str:
        """Write what came back for a shard; its path. Each collector has a table of its own, and the ledger says which
        counts. Sorted, so that a part of a partition's requests is a part of the file (history.parts_of).
        """
        path = f"{shard.path}.{collector}.results.parquet"
        self.write(path, table.sort("fingerprint"), group_rows=_RESULTS_GROUP_ROWS)
        return path

    def scan(self, path: str) -> pl.LazyFrame:
        """A table of which only the schema is read yet. Raises StoreError when it is not there, or is no table.

        Damage within its columns shows only when they are read, as polars' own error: see `check`.
        """
        table = self.files.scan([path])
        try:
            table.collect_schema()
        except FileNotFoundError:
            raise StoreError(
                f"{path} is not in the store at {self.files.where()}; materialize what is upstream of it"
            ) from None
        except (*DAMAGE, OSError) as error:
            raise self._unreadable(path) from error
        return table

    def scan_files(self, paths: Sequence[str], **options: Any) -> pl.LazyFrame:
        """Several tables at once, none of which is looked at yet; `options` are polars'."""
        return self.files.scan(paths, **options)

    def check(self, enrichment: str, partition: str) -> None:
        """Read every table of a partition. Raises StoreError for the first that is damaged."""
        for entry in self.files.listed(self._batches(enrichment, partition)):
            if not entry.path.endswith(".parquet"):
                continue
            table = self.scan(entry.path)
            try:
                rows = table.select(pl.len()).collect().item()
                heights = [table.select(column).collect().height for column in table.collect_schema()]
            except DAMAGE as error:
                raise self._unreadable(entry.path) from error
            if any(height != rows for height in heights):  # some damage only makes a column shorter
                raise self._unreadable(entry.path)

    def _unreadable(self, path: str) -> StoreError:
        """Why a table cannot be read. Raises StoreError itself where the file cannot be had at all."""
        self.files.exists(path)
        return StoreError(
            f"{path} in the store at {self.files.where()} is damaged and cannot be read: put back a copy of it. A "
            "table of documents, of answers or of failures can be materialized again instead"
        )

    def scan_all(self, paths: Sequence[str], schema: dict[str, pl.DataType]) -> pl.LazyFrame:
        """Several tables of one schema as one; a column that an older table lacks is null there."""
        return pl.concat([pl.LazyFrame(schema=schema), *map(self.scan, paths)], how="diagonal")


def _files_at(root: str) -> Files:
    if "://" not in root:
        return Folder(Path(root))
    from llm_assets.store.bucket import Bucket  # half a second of imports, for who has one

    return Bucket(root)


def _segment(partition: str) -> str:
    """A partition key as one path segment: no separator, no way up. Raises StoreError when no file can be called so."""
    segment = quote(partition, safe="|:, ")
    if len(segment) > _SEGMENT_BYTES_MAX:
        raise StoreError(
            f"the partition key {partition[:40]!r}… takes {len(segment)} bytes in a file's name, where "
            f"{_SEGMENT_BYTES_MAX} are possible; use a shorter one (what is no ASCII takes six or more a character)"
        )
    # What begins with a dot is hidden: it would be taken for something that is still being written.
    return f"%2E{segment[1:]}" if segment.startswith(".") else segment
