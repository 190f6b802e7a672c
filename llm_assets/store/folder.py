"""A store in a folder of this machine, or of a disk that machines share."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from llm_assets.errors import StoreError
from llm_assets.store.files import Entry, Journals

_CHUNK_BYTES = 1 << 20


class Folder:
    """Files in a folder: see `Files`. What is being written is hidden beside the file that it is to be."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    def prepare(self) -> None:
        """Make the folder."""
        self._root.mkdir(parents=True, exist_ok=True)

    def is_empty(self) -> bool:
        """Whether nothing is in the folder, or there is none."""
        return not self._root.is_dir() or not any(self._root.iterdir())

    def where(self, path: str = "") -> str:
        """The file's absolute path."""
        return str(self._root / path)

    def exists(self, path: str) -> bool:
        """Whether the file is there."""
        return (self._root / path).is_file()

    def modified(self, path: str) -> datetime | None:
        """When the file was."""
        file = self._root / path
        return _modified(file) if file.is_file() else None

    @contextmanager
    def reading(self, path: str) -> Iterator[Path]:
        """The file itself."""
        yield self._root / path

    def chunks(self, path: str) -> Iterator[bytes]:
        """What is in the file."""
        with (self._root / path).open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk

    @contextmanager
    def writing(self, path: str) -> Iterator[Path]:
        """A hidden file beside it."""
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            self.take(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def take(self, file: Path, path: str) -> None:
        """Rename it."""
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        _flush_to_disk(file)
        file.replace(target)
        _flush_to_disk(target.parent)

    def create(self, path: str, content: str) -> str:
        """A link is made once, whoever else tries."""
        target = self._root / path
        if not target.is_file():
            handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=self._root)
            os.close(handle)
            temporary = Path(name)
            try:
                temporary.write_text(content)
                _flush_to_disk(temporary)
                with suppress(FileExistsError):
                    os.link(temporary, target)
            finally:
                temporary.unlink()
            _flush_to_disk(self._root)
        return target.read_text()

    def move(self, old: str, new: str) -> None:
        """Rename it."""
        (self._root / old).replace(self._root / new)

    def delete(self, path: str) -> None:
        """Unlink it."""
        _delete(self._root / path)

    def listed(self, folder: str) -> Iterator[Entry]:
        """What is not hidden."""
        for file in sorted((self._root / folder).rglob("*")):
            with suppress(FileNotFoundError):
                if file.is_file() and not file.name.startswith("."):
                    yield Entry(file.relative_to(self._root).as_posix(), _modified(file))

    def tidy(self, folders: Sequence[str], until: datetime) -> Iterator[str]:
        """Scratch folders, and what is hidden."""
        hidden = (path for folder in folders for path in (self._root / folder).rglob(".*"))
        for path in (*self._root.glob(".scratch-*"), *hidden):
            with suppress(FileNotFoundError):
                if _modified(path) > until:
                    continue
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                    continue
                try:
                    _delete(path)
                except StoreError as error:
                    yield str(error)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A hidden folder on the store's own disk, so that files can be taken from it by a rename."""
        self._root.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".scratch-", dir=self._root))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def scan(self, paths: Sequence[str], **options: Any) -> pl.LazyFrame:
        """Parquet files as one table."""
        return pl.scan_parquet([self._root / path for path in paths], glob=False, **options)

    @property
    def journals(self) -> Journals:
        """Files that are appended to."""
        return _Journals(self._root)


class _Journals:
    """Journals that are files: see `Journals`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextmanager
    def begin(self, path: str) -> Iterator[Callable[[bytes], None]]:
        """Each line is with the system, which outlives this process, when it was added."""
        with (self._root / path).open("wb") as file:

            def add(line: bytes) -> None:
                file.write(line + b"\n")
                file.flush()

            yield add
            os.fsync(file.fileno())

    def modified(self, path: str) -> datetime | None:
        """When the file was."""
        file = self._root / path
        return _modified(file) if file.is_file() and file.stat().st_size else None

    def chunks(self, path: str) -> Iterator[bytes]:
        """What is in the file."""
        return Folder(self._root).chunks(path)


def _modified(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path} cannot be deleted ({error.strerror})") from None


def _flush_to_disk(path: Path) -> None:
    # The ledger moves on only after the file is in place; after a power cut it must still be.
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
