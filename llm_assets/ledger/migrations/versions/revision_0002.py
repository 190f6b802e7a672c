"""What plans are made from, deadlines, retention, what is missing, operators' decisions; and a ledger's identity."""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add the columns, `decisions` and `ledger`."""
    op.add_column("plans", sa.Column("inputs", sa.Text, nullable=False, server_default=""))
    op.add_column("plans", sa.Column("released_at", _TIME))
    op.add_column("plans", sa.Column("not_before", _TIME))
    op.add_column("shards", sa.Column("deadline_s", sa.BigInteger))
    op.add_column("shards", sa.Column("cancelled_at", _TIME))
    op.add_column("shards", sa.Column("missing_since", _TIME))
    op.add_column("shards", sa.Column("missing_at", _TIME))
    op.add_column("shards", sa.Column("schema_digest", sa.Text, nullable=False, server_default=""))
    op.add_column("shards", sa.Column("results", sa.Text, nullable=False, server_default=""))
    op.add_column("shards", sa.Column("swept_at", _TIME))
    op.add_column("shards", sa.Column("forgotten_at", _TIME))
    op.create_index("shards_to_sweep", "shards", ["enrichment", "swept_at", "collected_at"])
    op.create_index("shards_to_forget", "shards", ["enrichment", "forgotten_at", "collected_at"])
    op.create_table(
        "decisions",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("key", sa.Text, nullable=False, index=True),
        sa.Column("decided_at", _TIME, nullable=False),
        sa.Column("decision", sa.Text, nullable=False),
        sa.Column("batch_id", sa.Text),
        sa.Column("operator", sa.Text, nullable=False),
    )
    ledger = op.create_table("ledger", sa.Column("id", sa.Text, primary_key=True))
    op.bulk_insert(ledger, [{"id": secrets.token_hex(16)}])
