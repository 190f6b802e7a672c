"""A database for the ledger of each schedule: a file, or one of a Postgres server that runs when it is wanted."""

from __future__ import annotations

from pathlib import Path

from llm_assets_tests.postgres import Postgres


class Databases(Postgres):
    """Makes empty databases; the server, if one was wanted, is stopped in the end."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "postgres")

    def url_for(self, ledger: str, root: Path) -> str:
        """SQLAlchemy's URL of an empty database."""
        return f"sqlite:///{root / 'ledger.db'}" if ledger == "sqlite" else self.url()
