"""Connections to the ledger's database: SQLite in a file, or Postgres."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa


def connect(url: str) -> sa.Engine:
    """An engine whose transactions are those that the ledger counts on."""
    engine = sa.create_engine(url)
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_immediate)
    return engine


def _prepare_sqlite(connection: Any, _: Any) -> None:
    # The driver must not open transactions by itself: it would begin them deferred, and a deferred one that
    # wants to write after it has read fails at once instead of waiting for its turn.
    connection.isolation_level = None
    connection.execute("PRAGMA busy_timeout = 30000")
    connection.execute("PRAGMA journal_mode = WAL")
    # The ledger is written before the network is touched: it must be on disk by then.
    connection.execute("PRAGMA synchronous = FULL")


def _begin_immediate(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
