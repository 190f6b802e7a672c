"""Replies and reading of requests that both vendors share: JSON fast, files as streams, bodies to disk."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from random import SystemRandom
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

_CHUNK_BYTES = 1 << 20


class BodyTooLarge(Exception):
    """A body that is over the limit; it was read to its end all the same, so that the client hears of it."""


def json_reply(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON reply."""
    return Response(orjson.dumps(content), status, headers, media_type="application/json")


def file_reply(path: Path, media_type: str, *, share: float, shuffled: bool) -> Response:
    """A file, streamed, with its length said beforehand; of a `share` below 1 only that much, in whole lines."""
    if shuffled:
        lines = path.read_bytes().splitlines(keepends=True)
        SystemRandom().shuffle(lines)
        return Response(b"".join(lines[: int(len(lines) * share)]), media_type=media_type)
    length = path.stat().st_size
    if share < 1:
        length = _line_end_before(path, int(length * share))
    return StreamingResponse(_chunks(path, length), headers={"content-length": str(length)}, media_type=media_type)


def _line_end_before(path: Path, position: int) -> int:
    with path.open("rb") as file:
        return file.read(position).rfind(b"\n") + 1


async def _chunks(path: Path, length: int) -> AsyncIterator[bytes]:
    # Read here and not in a thread: a local file, in bites of a millisecond.
    with path.open("rb") as file:
        while length > 0 and (chunk := file.read(min(length, _CHUNK_BYTES))):
            length -= len(chunk)
            yield chunk


async def body_to_disk(request: Request, folder: Path, bytes_max: int) -> Path:
    """The body in a file of its own in `folder`. BodyTooLarge when it is over the limit."""
    path = folder / secrets.token_hex(8)
    received = 0
    try:
        with path.open("wb") as file:
            async for chunk in request.stream():
                received += len(chunk)
                if received <= bytes_max:
                    file.write(chunk)
    except ClientDisconnect:
        path.unlink(missing_ok=True)
        raise
    if received > bytes_max:
        path.unlink()
        raise BodyTooLarge
    return path


def new_key() -> str:
    """The part of an id that is unique."""
    return secrets.token_hex(12)
