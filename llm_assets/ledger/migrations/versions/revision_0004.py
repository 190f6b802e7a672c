"""When a shard's batch was last asked about."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column."""
    op.add_column("shards", sa.Column("asked_at", sa.DateTime(timezone=True)))
