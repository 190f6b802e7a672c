"""What a store needs of the place that it is in: files under a root, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import polars as pl


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, and when it was last written (UTC)."""

    path: str
    modified: datetime


class Files(Protocol):
    """Files under one root; paths are relative to it, with `/`. All verbs raise StoreError for what does not work."""

    def prepare(self) -> None:
        """Make the root where that is for us to do."""

    def is_empty(self) -> bool:
        """Whether nothing is kept here. Looks, and makes nothing."""

    def where(self, path: str = "") -> str:
        """The whole name of a file, or of the root: an absolute path, or a URL."""

    def exists(self, path: str) -> bool:
        """Whether a file is there, which is to say: whether it is there whole."""

    def modified(self, path: str) -> datetime | None:
        """When a file was last written (UTC), as `listed` says it; None where there is none."""

    def reading(self, path: str) -> AbstractContextManager[Path]:
        """The file on this machine's disk, under its own name, until the block ends."""

    def chunks(self, path: str) -> Iterator[bytes]:
        """What is in a file, piece by piece."""

    def writing(self, path: str) -> AbstractContextManager[Path]:
        """A temporary file that takes the place of `path` when the block ends well, and goes when it does not."""

    def take(self, file: Path, path: str) -> None:
        """Let a file of a scratch folder take the place of `path`."""

    def create(self, path: str, content: str) -> str:
        """Write a short text where there is none yet. What is there then: another may have been first."""

    def move(self, old: str, new: str) -> None:
        """Give a file another name."""

    def delete(self, path: str) -> None:
        """Delete a file, if it is there."""

    def listed(self, folder: str) -> Iterator[Entry]:
        """All files in a folder and those in it, in the order of their names."""

    def tidy(self, folders: Sequence[str], until: datetime) -> Iterator[str]:
        """Delete what processes that were killed left in these folders, and scratch, if it is older. Yields what
        could not be deleted and why.
        """

    def scratch(self) -> AbstractContextManager[Path]:
        """A folder on this machine's disk for what is not kept, gone when the block ends."""

    def scan(self, paths: Sequence[str], **options: Any) -> pl.LazyFrame:
        """Parquet files as one table; `options` are polars'."""

    @property
    def journals(self) -> Journals:
        """The files that grow."""


class Journals(Protocol):
    """Files of lines that are kept from when they are written, whatever becomes of who writes them."""

    def begin(self, path: str) -> AbstractContextManager[Callable[[bytes], None]]:
        """A journal without lines, and what adds one to it."""

    def modified(self, path: str) -> datetime | None:
        """When a journal got its last line (UTC); None where there is no journal, or none with a line."""

    def chunks(self, path: str) -> Iterator[bytes]:
        """What is in a journal, piece by piece. The last line may have been cut."""
