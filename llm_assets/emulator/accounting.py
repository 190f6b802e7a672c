"""The referee: which batches were accepted, which rows are billed, and whether any content was paid twice.

A content is a request without its custom_id, known by its digest. Digests are added up when somebody asks, so that the
load that is measured does not pay for the measuring.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from llm_assets.emulator.cache import UNUSED, CacheUse
from llm_assets.emulator.clock import rfc3339
from llm_assets.emulator.intake import RowIndex, content_digest, mapped
from llm_assets.emulator.models import Reply
from llm_assets.emulator.rows import Kind, unpack_outcomes
from llm_assets.emulator.storage import Row, Storage

_TOTALS = ("batches", "requests", "billed", "input_tokens", "output_tokens")
_SUMS = """SELECT provider, COUNT(*) AS batches, COALESCE(SUM(rows), 0) AS requests, COALESCE(SUM(billed), 0) AS billed,
    COALESCE(SUM(input_tokens), 0) AS input_tokens, COALESCE(SUM(output_tokens), 0) AS output_tokens
    FROM batches WHERE accepted = 1 GROUP BY provider"""
_CONTENTS = """SELECT COUNT(*) AS contents, COALESCE(SUM(accepted > 1), 0) AS accepted_more_than_once,
    COALESCE(SUM(billed > 1), 0) AS billed_more_than_once, COALESCE(MAX(accepted), 0) AS accepted_most,
    COALESCE(MAX(billed), 0) AS billed_most FROM digests"""


_ADD = "INSERT INTO digests VALUES (?, ?, ?) ON CONFLICT (digest) DO UPDATE SET {}"
_NOT_YET = (Kind.MISSING, False, 0, 0, UNUSED)


class Accounting:
    """Counts calls as they come, and everything else from what is stored."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._folding = threading.Lock()
        self.calls: Counter[str] = Counter()
        self._asked: Counter[str] = Counter()

    def totals(self) -> dict[str, Any]:
        """Sums over everything."""
        self._fold()
        providers = {row.pop("provider"): row for row in self._storage.query(_SUMS)}
        sums = {name: sum(row[name] for row in providers.values()) for name in _TOTALS}
        statuses = self._storage.query("SELECT status, COUNT(*) AS n FROM batches GROUP BY status")
        return {
            **sums,
            "providers": providers,
            "contents": self._storage.query(_CONTENTS)[0],
            "statuses": {row["status"]: row["n"] for row in statuses},
            "calls": dict(self.calls),
            "asked": dict(self._asked),
        }

    def asked(self, content: Mapping[str, Any], reply: Reply) -> None:
        """A request was answered outside of any batch, and is billed at the standard price."""
        self._asked.update(requests=1, input_tokens=reply.input_tokens, output_tokens=reply.output_tokens)
        with self._folding:
            self._storage.execute_many(
                _ADD.format("accepted = accepted + 1, billed = billed + 1"), [(content_digest(content), 1, 1)]
            )

    def reset(self) -> None:
        """Forget what is counted here and not stored."""
        self.calls.clear()
        self._asked.clear()

    def batches(self) -> list[dict[str, Any]]:
        """Every batch that was stored, oldest first; one that failed its validation was not accepted."""
        return [_batch(row) for row in self._storage.query("SELECT * FROM batches ORDER BY seq")]

    def rows(self) -> Iterator[bytes]:
        """A JSON line for every row of every accepted batch."""
        for batch in self._storage.query("SELECT * FROM batches WHERE accepted = 1 ORDER BY seq"):
            yield from self._rows_of(batch)

    def contents(self, *, billed_min: int = 0, accepted_min: int = 0) -> Iterator[bytes]:
        """A JSON line for every content: how often it was accepted and billed."""
        self._fold()
        sql = "SELECT * FROM digests WHERE billed >= ? AND accepted >= ?"
        for row in self._storage.query(sql, billed_min, accepted_min):
            yield orjson.dumps(row | {"digest": row["digest"].hex()}) + b"\n"

    def _rows_of(self, batch: Row) -> Iterator[bytes]:
        folder = self._storage.batch_folder(batch["id"])
        index = RowIndex.load(folder / "rows")
        outcomes = _outcomes(folder) if batch["status"] == "ended" else [_NOT_YET] * len(index)
        with mapped(Path(batch["body"])) as view:
            for row, (kind, billed, read, wrote, cache) in enumerate(outcomes):
                offset, length, digest = index.entry(row)
                line = {"batch_id": batch["id"], "custom_id": orjson.loads(view[offset : offset + length])["custom_id"]}
                line |= {"digest": digest.hex(), "outcome": "processing" if not kind else kind.name.lower()}
                line |= {"billed": billed, "input_tokens": read, "output_tokens": wrote}
                line |= {"cache_read_tokens": cache.read, "cache_write_tokens": cache.written}
                line |= {"cache_write_1h_tokens": cache.kept}
                yield orjson.dumps(line) + b"\n"

    def _fold(self) -> None:
        """Add the digests of batches that were not added yet."""
        with self._folding:
            for batch in self._storage.query("SELECT * FROM batches WHERE accepted = 1 AND folded_accepted = 0"):
                self._add(batch, "accepted", self._index(batch).digests())
            for batch in self._storage.query("SELECT * FROM batches WHERE status = 'ended' AND folded_billed = 0"):
                outcomes = _outcomes(self._storage.batch_folder(batch["id"]))
                digests = zip(self._index(batch).digests(), outcomes, strict=True)
                self._add(batch, "billed", (digest for digest, outcome in digests if outcome[1]))

    def _add(self, batch: Row, column: str, digests: Iterator[bytes]) -> None:
        first = (1, 0) if column == "accepted" else (0, 1)
        # In order of the digests, neighbours share pages of the tree.
        rows = [(digest, *first) for digest in sorted(digests)]
        with self._storage.transaction():
            self._storage.execute_many(
                _ADD.format(f"{column} = {column} + 1"),
                rows,
            )
            self._storage.update("batches", batch["id"], {f"folded_{column}": 1})

    def _index(self, batch: Row) -> RowIndex:
        return RowIndex.load(self._storage.batch_folder(batch["id"]) / "rows")


def _outcomes(folder: Path) -> list[tuple[Kind, bool, int, int, CacheUse]]:
    return unpack_outcomes((folder / "outcomes").read_bytes())


def _batch(row: Row) -> dict[str, Any]:
    return {
        "provider": row["provider"],
        "id": row["id"],
        "created_at": rfc3339(row["created_at"]),
        "ended_at": rfc3339(row["facts"].get("ended_at")),
        "status": row["facts"].get("ending", row["status"]),
        "accepted": bool(row["accepted"]),
        "deleted": bool(row["deleted"]),
        "requests": row["rows"],
        "billed": row["billed"],
        "input_tokens": row["input_tokens"],
        "output_tokens": row["output_tokens"],
        "metadata": row["facts"].get("metadata"),
        "faults": [name for name, _ in row["facts"].get("faults", ())],
    }
