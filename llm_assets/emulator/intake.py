"""Bodies and files → rows on disk: where each request lies, and a digest of what it asks.

Raw JSON is kept as it came. A row index says offset, length and content digest of each row, 44 bytes a row, so that
results can be made in any order without holding the requests in memory.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from struct import Struct
from typing import Any

import orjson

DIGEST_BYTES = 32
_ENTRY = Struct(f"<QI{DIGEST_BYTES}s")
_READ_BYTES = 1 << 20
_HEAD, _FOOT = b'{"requests":[', b"]}"


class BodyProblem(ValueError):
    """A body that is not what the API takes; the message is the vendor's."""


class TooManyRows(ValueError):
    """More requests than a batch may have."""


def content_digest(content: Any) -> bytes:
    """The same for the same request, whatever its custom_id and the order of its keys."""
    return sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).digest()


@dataclass
class RowIndex:
    """Offsets, lengths and digests of rows, in the order they were sent."""

    packed: bytearray = field(default_factory=bytearray)

    def add(self, offset: int, length: int, digest: bytes) -> None:
        """Append a row."""
        self.packed += _ENTRY.pack(offset, length, digest)

    def __len__(self) -> int:
        return len(self.packed) // _ENTRY.size

    def entry(self, row: int) -> tuple[int, int, bytes]:
        """(offset, length, digest) of a row."""
        offset, length, digest = _ENTRY.unpack_from(self.packed, row * _ENTRY.size)
        return offset, length, digest

    def digests(self) -> Iterator[bytes]:
        """The digests of all rows."""
        return (digest for _, _, digest in _ENTRY.iter_unpack(self.packed))

    def save(self, path: Path) -> None:
        """Write the index."""
        path.write_bytes(self.packed)

    @classmethod
    def load(cls, path: Path) -> RowIndex:
        """Read an index that was saved."""
        return cls(bytearray(path.read_bytes()))


@contextmanager
def mapped(path: Path) -> Iterator[Any]:
    """A file's bytes, without reading them into memory; an empty file is empty bytes."""
    if path.stat().st_size == 0:
        yield b""
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        yield view


Check = Callable[[int, Any], None]


def index_requests(body: Path, new_check: Callable[[], Check], rows_max: int) -> RowIndex:
    """The rows of `{"requests":[…]}`. A check, fresh for each reading, raises BodyProblem for a row that is wrong.

    A body with one request a line is read line by line; any other is parsed whole and written anew, line by line.
    """
    index = _by_line(body, new_check(), rows_max)
    return index if index is not None else _parsed_whole(body, new_check(), rows_max)


def _by_line(body: Path, check: Check, rows_max: int) -> RowIndex | None:
    index = RowIndex()
    with body.open("rb", buffering=_READ_BYTES) as file:
        offset = len(first := file.readline())
        if first.rstrip() != _HEAD:
            return None
        more = True
        for line in file:
            stripped = line.rstrip()
            if not more:
                return index if stripped == _FOOT and not file.read(1) else None
            more = stripped.endswith(b",")
            raw = stripped[:-1] if more else stripped
            row = _loaded(raw)
            if row is None:
                return None
            if len(index) >= rows_max:
                raise TooManyRows
            check(len(index), row)
            index.add(offset, len(raw), content_digest(row["params"]))
            offset += len(line)
    return None


def _loaded(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None


def _parsed_whole(body: Path, check: Check, rows_max: int) -> RowIndex:
    requests = _requests(body)
    if len(requests) > rows_max:
        raise TooManyRows
    index, offset = RowIndex(), 0
    with body.open("wb") as file:
        for number, row in enumerate(requests):
            check(number, row)
            raw = orjson.dumps(row)
            index.add(offset, len(raw), content_digest(row["params"]))
            offset += file.write(raw + b"\n")
    return index


def _requests(body: Path) -> list[Any]:
    try:
        found = orjson.loads(body.read_bytes())
    except orjson.JSONDecodeError as error:
        raise BodyProblem(f"The request body is not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise BodyProblem("The request body must be a JSON object")
    if "requests" not in found:
        raise BodyProblem("requests: Field required")
    for name in found:
        if name != "requests":
            raise BodyProblem(f"{name}: Extra inputs are not permitted")
    requests = found["requests"]
    if not isinstance(requests, list):
        raise BodyProblem("requests: Input should be a valid list")
    if not requests:
        raise BodyProblem("requests: List should have at least 1 item after validation, not 0")
    return requests
