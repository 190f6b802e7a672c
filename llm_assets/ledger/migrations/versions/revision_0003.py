"""How a shard is sent: as a batch, or in real time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column; what was sent before were batches."""
    op.add_column("shards", sa.Column("mode", sa.Text, nullable=False, server_default="batch"))
