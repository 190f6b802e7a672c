"""The state that survives a restart: a SQLite database for what is known, files for what was sent and answered.

    emulator.db     batches, files, settings, how often faults fired, content digests
    incoming/       bodies that are being received
    bodies/         what clients sent, as they sent it; OpenAI's files under their ids
    batches/<id>/   rows (offsets and digests), outcomes, answers of slow models, results

A batch is acknowledged only after its row is committed and its body is on disk.
"""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

_SCHEMA = """
CREATE TABLE IF NOT EXISTS batches (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, provider TEXT NOT NULL, status TEXT NOT NULL,
    rows INTEGER NOT NULL, created_at REAL NOT NULL, body TEXT NOT NULL, facts TEXT NOT NULL,
    deleted INTEGER NOT NULL DEFAULT 0, accepted INTEGER NOT NULL DEFAULT 0,
    billed INTEGER NOT NULL DEFAULT 0,
    input_tokens INTEGER NOT NULL DEFAULT 0, output_tokens INTEGER NOT NULL DEFAULT 0,
    folded_accepted INTEGER NOT NULL DEFAULT 0, folded_billed INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS batches_open ON batches (provider, status);
CREATE TABLE IF NOT EXISTS files (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, filename TEXT NOT NULL, purpose TEXT NOT NULL,
    bytes INTEGER NOT NULL, created_at REAL NOT NULL, expires_at REAL, path TEXT NOT NULL,
    deleted INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS fired (rule TEXT NOT NULL, content BLOB NOT NULL, times INTEGER NOT NULL,
    PRIMARY KEY (rule, content)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS digests (digest BLOB PRIMARY KEY, accepted INTEGER NOT NULL, billed INTEGER NOT NULL)
    WITHOUT ROWID;
"""
_TABLES = ("batches", "files", "settings", "fired", "digests")

Row = dict[str, Any]


class Storage:
    """One state directory. All methods may be called from any thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._lock = threading.RLock()
        self._make_folders()
        self._db = sqlite3.connect(self.folder / "emulator.db", check_same_thread=False, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode=WAL")
        # The emulator must survive being killed, not a power cut.
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)
        shutil.rmtree(self.incoming, ignore_errors=True)
        self._make_folders()

    @property
    def incoming(self) -> Path:
        """Where bodies are received; emptied at every start."""
        return self.folder / "incoming"

    @property
    def bodies(self) -> Path:
        """Where bodies stay."""
        return self.folder / "bodies"

    def batch_folder(self, batch_id: str) -> Path:
        """Where everything about a batch is kept; made when missing."""
        folder = self.folder / "batches" / batch_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()

    def clear(self) -> None:
        """Forget everything."""
        with self.transaction():
            for table in _TABLES:
                self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - names from the tuple above
        for name in ("incoming", "bodies", "batches"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        self._make_folders()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; nested ones join the outer."""
        with self._lock:
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def insert(self, table: str, row: Mapping[str, Any]) -> None:
        """Add a row; dicts and lists become JSON."""
        names, marks = ", ".join(row), ", ".join("?" * len(row))
        with self._lock:
            self._db.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", _values(row))  # noqa: S608

    def update(self, table: str, row_id: str, changes: Mapping[str, Any]) -> None:
        """Change some columns of the row with that id."""
        columns = ", ".join(f"{name} = ?" for name in changes)
        with self._lock:
            self._db.execute(f"UPDATE {table} SET {columns} WHERE id = ?", [*_values(changes), row_id])  # noqa: S608

    def row(self, table: str, row_id: str) -> Row | None:
        """The row with that id."""
        found = self.query(f"SELECT * FROM {table} WHERE id = ?", row_id)  # noqa: S608
        return found[0] if found else None

    def query(self, sql: str, *values: Any) -> list[Row]:
        """The rows of a SELECT; the column `facts` is decoded."""
        with self._lock:
            return [_decoded(dict(row)) for row in self._db.execute(sql, values)]

    def execute_many(self, sql: str, rows: Iterator[Any] | list[Any]) -> None:
        """One statement for many rows, in a transaction."""
        with self.transaction():
            self._db.executemany(sql, rows)

    def next_sequence(self, table: str) -> int:
        """The number that the next row of this table will have."""
        found = self.query("SELECT seq FROM sqlite_sequence WHERE name = ?", table)
        return int(found[0]["seq"]) + 1 if found else 1

    def setting(self, name: str) -> Any:
        """A setting that was kept, None when it was not."""
        found = self.query("SELECT value FROM settings WHERE name = ?", name)
        return orjson.loads(found[0]["value"]) if found else None

    def keep_setting(self, name: str, value: Any) -> None:
        """Keep a setting over restarts."""
        with self._lock:
            self._db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, orjson.dumps(value).decode()))

    def _make_folders(self) -> None:
        for folder in (self.folder, self.incoming, self.bodies, self.folder / "batches"):
            folder.mkdir(parents=True, exist_ok=True)


def _values(row: Mapping[str, Any]) -> list[Any]:
    return [orjson.dumps(value).decode() if isinstance(value, dict | list) else value for value in row.values()]


def _decoded(row: Row) -> Row:
    if "facts" in row:
        row["facts"] = orjson.loads(row["facts"])
    return row
