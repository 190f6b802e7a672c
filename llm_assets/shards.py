"""Requests → shards: files that a provider takes, within its limits of count and bytes.

A request's line is written once, here, and uploaded from the file. Where the files lie and what becomes of them
is the caller's business.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from llm_assets.providers import Dialect
from llm_assets.records import Fingerprint, Quota, ShardLimits

# Few texts have more tokens than one in so many bytes; and a document must fit into a shard, whatever the quota.
_BYTES_PER_TOKEN = 2
_BYTES_MIN = 1_000_000
_WRITE_BYTES = 1 << 20


def custom_id(key: str, fingerprint: Fingerprint) -> str:
    """What a request is called in a batch: which shard it is of, and which request."""
    return f"{key}-{fingerprint}"


def fingerprint_of(custom_id: str, key: str) -> Fingerprint | None:
    """The request that a result of this shard is for; None when it belongs to another shard, or to nobody."""
    found_key, _, fingerprint = custom_id.rpartition("-")
    return Fingerprint(fingerprint) if found_key == key else None


@dataclass(slots=True)
class PackedShard:
    """A shard file: what it holds, in the order of its lines, and its size in bytes."""

    key: str
    path: Path
    requests_max: int
    fingerprints: list[Fingerprint] = field(default_factory=list)
    line_bytes: list[int] = field(default_factory=list)
    bytes: int = 0


class Packer:
    """Appends requests to an open shard file, and opens the next when it is full.

    `new_shard` gives a submission key and the path to write to. Every request fits alone: requests.py made sure.
    """

    def __init__(self, dialect: Dialect, limits: ShardLimits, new_shard: Callable[[], tuple[str, Path]]) -> None:
        self._dialect = dialect
        self._format = dialect.shard_format
        self._limits = limits
        self._new_shard = new_shard
        self._open: tuple[PackedShard, BinaryIO] | None = None
        self._finished: list[PackedShard] = []

    def add(self, fingerprint: Fingerprint, body: bytes) -> None:
        """Write one request."""
        shard, file = self._open or self._next()
        # 256 is more than what a line adds to its body (custom_id, method, url) and the footer to the file.
        if len(shard.fingerprints) >= shard.requests_max or shard.bytes + len(body) + 256 > self._limits.bytes:
            self.close()
            shard, file = self._next()
        line = self._dialect.line(custom_id(shard.key, fingerprint), body)
        if shard.fingerprints:
            line = self._format.separator + line
        file.write(line)
        shard.fingerprints.append(fingerprint)
        shard.line_bytes.append(len(line))
        shard.bytes += len(line)

    def close(self) -> None:
        """Finish the open shard, if there is one."""
        if self._open is None:
            return
        shard, file = self._open
        file.write(self._format.footer)
        shard.bytes += len(self._format.footer)
        # The ledger will say that this file is there: after a power cut it must be.
        file.flush()
        os.fsync(file.fileno())
        file.close()
        self._finished.append(shard)
        self._open = None

    def abandon(self) -> None:
        """Let go of the open shard as it is: its file is about to be removed."""
        if self._open is not None:
            _, file = self._open
            self._open = None
            with suppress(OSError):  # on a full disk, what is still to be written cannot be
                file.close()

    def take_finished(self) -> list[PackedShard]:
        """The shards that were finished since the last call."""
        finished, self._finished = self._finished, []
        return finished

    def _next(self) -> tuple[PackedShard, BinaryIO]:
        key, path = self._new_shard()
        file = path.open("wb", buffering=_WRITE_BYTES)
        file.write(self._format.header)
        self._open = PackedShard(key, path, self._requests_max(key), bytes=len(self._format.header)), file
        return self._open

    def _requests_max(self, key: str) -> int:
        """At most a hundredth below the limit, and seldom the same for two shards.

        A provider that carries no stamp tells a lost batch from others only by its size.
        """
        spread = 1 if self._dialect.carries_stamp else self._limits.requests // 100 + 1
        return self._limits.requests - int(key, 16) % spread


def limits_for(
    dialect: Dialect, lower: ShardLimits | None, refused: int | None = None, quotas: Sequence[Quota] = ()
) -> ShardLimits:
    """The provider's limits, or the lower ones that an enrichment declares, or that its quotas at the provider leave.

    Half of `refused` requests, where the provider never had room for a shard of so many.
    """
    lower = lower or dialect.limits
    requests = min(lower.requests, dialect.limits.requests)
    size = min(lower.bytes, dialect.limits.bytes)
    if refused is not None:
        requests = min(requests, max(1, refused // 2))
    for quota in quotas:
        requests = min(requests, quota.requests or requests)
        size = min(size, max(quota.tokens * _BYTES_PER_TOKEN, _BYTES_MIN)) if quota.tokens else size
    return ShardLimits(requests=requests, bytes=size)
