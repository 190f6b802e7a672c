"""How a shard is sent, as a batch or in real time, and at which price."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns; what was sent before were batches, at the price of when they are collected."""
    op.add_column("shards", sa.Column("mode", sa.Text, nullable=False, server_default="batch"))
    op.add_column("shards", sa.Column("rates", sa.Text, nullable=False, server_default=""))
