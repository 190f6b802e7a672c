"""The ledger's schema in named steps, from each released form to the next; the newest leaves what tables.py says.

A step is a file in `versions`, never changed once it was released. A new one: add the file with the next number, change
tables.py alike, name the number in database.HEAD. The tests hold the three together.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from llm_assets.errors import LedgerError

# What was released before there were migrations.
UNVERSIONED = "0001"
# Alembic keeps what it is doing in its modules: one upgrade at a time in a process.
_ALEMBIC = Lock()


def upgrade(connection: sa.Connection) -> None:
    """Take all steps that are left, within the connection's transaction.

    Raises LedgerError when the ledger is newer than this code.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    script = ScriptDirectory.from_config(config)
    found = MigrationContext.configure(connection).get_current_revision()
    known = [step.revision for step in script.walk_revisions()]
    if found is not None and found not in known:
        raise LedgerError(
            f"the ledger {connection.engine.url.render_as_string()} has the schema {found}; this version of llm_assets "
            f"knows those up to {known[0]}. A newer version has upgraded it: install that one, or restore the ledger "
            "as it was before. Nothing was changed"
        )
    with _ALEMBIC:
        if found is None and sa.inspect(connection).has_table("plans"):
            command.stamp(config, UNVERSIONED)
        command.upgrade(config, "head")
