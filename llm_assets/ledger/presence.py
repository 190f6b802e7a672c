"""Who is at work: each owner of claims holds a lock that the system itself takes from it when its process dies.

A free lock is the proof that its owner is gone, on whatever host or in whatever container it was: names of processes
prove nothing there. Names are never used again, so that what is gone stays gone.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from contextlib import suppress
from datetime import timedelta
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import quote
from weakref import ref

import sqlalchemy as sa
from filelock import FileLock, Timeout

from llm_assets.errors import LedgerError


class Presence(ABC):
    """The locks of the owners that one ledger was opened for."""

    # How long an owner whose lock is free may still be at work.
    lingers: timedelta

    @abstractmethod
    def enter(self, owner: str) -> None:
        """Hold the owner's lock from now on. Raises LedgerError when another process holds it."""

    @abstractmethod
    def is_gone(self, owner: str) -> bool:
        """Whether nobody holds the owner's lock: it closed, died, or never had one."""

    @abstractmethod
    def close(self) -> None:
        """Give all locks back."""


def presence_of(engine: sa.Engine) -> Presence:
    """The kind that suits the database."""
    if engine.dialect.name == "postgresql":
        return Sessions(engine)
    ledger = Path(str(engine.url.database)).resolve()
    return Files(ledger.with_name(f"{ledger.name}.owners"))


class Files(Presence):
    """Beside a SQLite file: a locked file for each owner. The kernel holds the lock until the process ends."""

    lingers = timedelta()

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, FileLock] = {}
        self._changing = Lock()

    def enter(self, owner: str) -> None:
        """Make the owner's file and lock it."""
        with self._changing:
            if owner in self._held and self._held[owner].is_locked:  # a forked child has its parent's locks unlocked
                return
            self._folder.mkdir(exist_ok=True)
            lock = self._lock(owner)
            try:
                lock.acquire()
            except Timeout as error:
                raise LedgerError(_taken(owner)) from error
            self._held[owner] = lock

    def is_gone(self, owner: str) -> bool:
        """Try the lock; the file of an owner who is gone is removed."""
        path = self._path(owner)
        if not path.exists():
            return True
        lock = self._lock(owner)
        try:
            lock.acquire()
        except Timeout:
            return not path.exists()  # somebody else proved it in the same moment
        _remove(lock)
        return True

    def close(self) -> None:
        """Remove the files and unlock them."""
        with self._changing:
            for lock in self._held.values():
                if lock.is_locked:
                    _remove(lock)
            self._held.clear()

    def _path(self, owner: str) -> Path:
        return self._folder / f"{quote(owner, safe='')}.lock"

    def _lock(self, owner: str) -> FileLock:
        # Only a lock of the system proves anything: a file system that has none is an error, not a reason to guess.
        return FileLock(self._path(owner), blocking=False, thread_local=False, fallback_to_soft=False)


def _remove(lock: FileLock) -> None:
    # While it is locked: whoever had opened it meanwhile finds that it has no name any more.
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


class Sessions(Presence):
    """On Postgres: advisory locks of a session of its own. The server holds them until the connection ends.

    The connection must lead to the server itself: a pooler that hands sessions around would hand the locks around.
    """

    # A connection may break while its process lives and sends. Its calls end by themselves: within an hour 256 MB, the
    # most that a provider takes, have gone through at half a megabit a second, and its answer has come.
    lingers = timedelta(hours=1)

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._session: Any = None
        self._held: set[str] = set()
        self._changing = Lock()

    def enter(self, owner: str) -> None:
        """Take the lock in the session; in a new one, if the session broke."""
        with self._changing:
            if not self._is_alive():
                self._held.clear()
                self._session = self._open_session()
            if owner in self._held:
                return
            if not self._session.execute("SELECT pg_try_advisory_lock(%s)", [_number(owner)]).fetchone()[0]:
                raise LedgerError(_taken(owner))
            self._held.add(owner)

    def is_gone(self, owner: str) -> bool:
        """Try the lock, together with whoever else tries it."""
        number = sa.cast(_number(owner), sa.BigInteger)
        with self._engine.begin() as connection:
            return bool(connection.scalar(sa.select(sa.func.pg_try_advisory_xact_lock_shared(number))))

    def close(self) -> None:
        """End the session."""
        with self._changing:
            if self._session is not None:
                self._session.close()
            self._session = None
            self._held.clear()

    def _is_alive(self) -> bool:
        if self._session is None:
            return False
        with suppress(self._driver.OperationalError):
            self._session.execute("SELECT 1")
            return True
        self._session.close()
        return False

    def _open_session(self) -> Any:
        arguments, options = self._engine.dialect.create_connect_args(self._engine.url)
        session = self._driver.connect(*arguments, **options, autocommit=True)
        session.execute(_WISHES)
        # A child has a copy of the connection, which would outlive this process and hold its locks. What is registered
        # here stays for the life of the process: hence the weak reference.
        os.register_at_fork(after_in_child=_Leaving(ref(session)))
        return session

    @property
    def _driver(self) -> Any:
        return self._engine.dialect.loaded_dbapi


class _Leaving:
    """Takes a forked child's copy of a connection away from it without a word to the server."""

    def __init__(self, session: ref[Any]) -> None:
        self._session = session

    def __call__(self) -> None:
        session = self._session()
        if session is not None and not session.closed:
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, session.fileno(), inheritable=False)
            os.close(nothing)


# A host that lost power is noticed within a minute, and a quiet session is not ended. Each where the server knows it.
_WISHES = """
    SELECT set_config(name, wish, false)
    FROM pg_settings
    JOIN (VALUES ('tcp_keepalives_idle', '20'), ('tcp_keepalives_interval', '10'), ('tcp_keepalives_count', '3'),
        ('idle_session_timeout', '0')) AS wishes (name, wish) USING (name)
"""


def _number(owner: str) -> int:
    """The 64 bits by which Postgres knows the owner's lock."""
    return int.from_bytes(blake2b(owner.encode(), digest_size=8).digest(), signed=True)


def _taken(owner: str) -> str:
    return (
        f"{owner} is at work in another process already, or its broken connection to the ledger is not noticed yet. "
        "Each process opens a platform of its own; after a broken connection try again in a minute"
    )
