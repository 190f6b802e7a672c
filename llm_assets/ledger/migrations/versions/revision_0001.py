"""The tables of the first release, which made them without naming a version."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make `plans` and `shards`."""
    op.create_table(
        "plans",
        sa.Column("enrichment", sa.Text, primary_key=True),
        sa.Column("partition", sa.Text, primary_key=True),
        sa.Column("plan_id", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("documents", sa.BigInteger, nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("wave", sa.Integer, nullable=False),
        sa.Column("rounds", sa.Integer, nullable=False),
        sa.Column("pending", sa.BigInteger, nullable=False),
        sa.Column("held", sa.Text, nullable=False),
        sa.Column("planned_at", _TIME, nullable=False),
        sa.Column("published_at", _TIME),
    )
    op.create_table(
        "shards",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("enrichment", sa.Text, nullable=False),
        sa.Column("partition", sa.Text, nullable=False),
        sa.Column("wave", sa.Integer, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("claimed_at", _TIME),
        sa.Column("not_before", _TIME),
        sa.Column("staged_id", sa.Text),
        sa.Column("batch_id", sa.Text, unique=True),
        sa.Column("past_batches", sa.JSON, nullable=False),
        sa.Column("adopted", sa.Boolean, nullable=False),
        sa.Column("submitted_at", _TIME),
        sa.Column("ended_at", _TIME),
        sa.Column("collected_at", _TIME),
        sa.Column("finished", sa.BigInteger, nullable=False),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
    )
    op.create_index("shards_of_a_partition", "shards", ["enrichment", "partition"])
    op.create_index("shards_by_state", "shards", ["state"])
