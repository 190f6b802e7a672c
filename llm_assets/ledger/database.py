"""Connections to the ledger's database: SQLite in a file, or Postgres. Opened, its schema is that of tables.py."""

from __future__ import annotations

import secrets
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

from llm_assets.errors import LedgerError
from llm_assets.ledger.tables import ledger, metadata, plans

if TYPE_CHECKING:
    from collections.abc import Iterator

# The revision of migrations/versions that this code works with. Compared at every opening; Alembic itself, which takes
# longer to import than all else that opening does, is only needed where a ledger is of another one.
HEAD = "0004"
BUSY_SECONDS_MAX = 30
# The advisory lock under which Postgres ledgers are upgraded: any number that nobody else uses.
_UPGRADES = 4_773_081_562


# Alembic's own, as it makes it.
_VERSION = sa.Table("alembic_version", sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True))


def open_database(url: str) -> sa.Engine:
    """An engine whose transactions are those that the ledger counts on, its schema brought up to date.

    Raises LedgerError when the database is of a newer version of this code, cannot be a ledger, or be reached.
    """
    engine = _engine(sa.make_url(url))
    try:
        _reach(engine)
        if _revision(engine) != HEAD:
            _upgrade(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _reach(engine: sa.Engine) -> None:
    try:
        engine.connect().close()
    except sa.exc.OperationalError as error:
        said = str(error.orig).strip().partition("\n")[0]
        raise LedgerError(
            f"the ledger at {engine.url.render_as_string()} cannot be opened: {said}. Is the database up, and are "
            "address, user and password those of LLM_ASSETS_LEDGER_URL?"
        ) from error


def _engine(url: sa.URL) -> sa.Engine:
    match url.get_backend_name():
        case "sqlite" if url.database and url.database != ":memory:":
            engine = sa.create_engine(url)
            sa.event.listen(engine, "connect", _prepare_sqlite)
            sa.event.listen(engine, "begin", _begin_immediate)
            return engine
        case "postgresql" | "postgres":
            # Every change is one conditional statement, or locks the row that it read: this level is enough, and unlike
            # the stricter ones it lets the loser of a race see that it lost.
            with _driver_expected():
                url = url.set(drivername="postgresql+psycopg")
                return sa.create_engine(url, isolation_level="READ COMMITTED", pool_pre_ping=True)
    raise LedgerError(
        f"{url.render_as_string()} cannot be a ledger: expected sqlite:///<path of a file> or "
        "postgresql://<user>@<host>/<database>"
    )


@contextmanager
def _driver_expected() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise LedgerError(
            "the ledger is on Postgres, and its driver psycopg is not installed: pip install 'llm-assets[postgres]'"
        ) from error


def _prepare_sqlite(connection: Any, _: Any) -> None:
    # The driver must not open transactions by itself: it would begin them deferred, and a deferred one that
    # wants to write after it has read fails at once instead of waiting for its turn.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS_MAX * 1000}")
    # Of two processes that turn a new file to WAL at the same moment one is refused at once, whatever the timeout.
    turns = Retrying(
        retry=retry_if_exception(_is_busy),
        wait=wait_random(0.001, 0.02),
        stop=stop_after_delay(BUSY_SECONDS_MAX),
        reraise=True,
    )
    turns(connection.execute, "PRAGMA journal_mode = WAL")
    # The ledger is written before the network is touched: it must be on disk by then.
    connection.execute("PRAGMA synchronous = FULL")


def _is_busy(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY


def _begin_immediate(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _revision(engine: sa.Engine) -> str | None:
    try:
        with engine.connect() as connection:
            return connection.scalar(sa.select(_VERSION))
    except (sa.exc.OperationalError, sa.exc.ProgrammingError):
        return None  # no such table; whatever else is wrong shows when the schema is made


def _upgrade(engine: sa.Engine) -> None:
    """Bring the schema up to date: all of it or nothing, and of several processes one while the others wait."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":  # SQLite's transactions wait for each other anyway
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_UPGRADES)))
        found = set(sa.inspect(connection).get_table_names())
        if not found & {plans.name, _VERSION.name}:
            _create(connection)
        elif _VERSION.name not in found or connection.scalar(sa.select(_VERSION)) != HEAD:
            from llm_assets.ledger import migrations

            migrations.upgrade(connection)


def _create(connection: sa.Connection) -> None:
    """What all migrations leave of an empty database."""
    metadata.create_all(connection)
    connection.execute(sa.insert(ledger).values(id=secrets.token_hex(16)))
    _VERSION.create(connection)
    connection.execute(sa.insert(_VERSION).values(version_num=HEAD))
