"""What plans are made from, money, deadlines, retention, what is missing, decisions; and a ledger's identity."""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_TIME = sa.DateTime(timezone=True)
_COUNTS = ("requests", "billed", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "bytes")
_SUMS = ("cost_usd", "standard_usd", "uncached_usd", "bytes_bytes", "bytes_input", "bytes_output")


def upgrade() -> None:
    """Add the columns, `decisions` and `ledger`."""
    op.add_column("plans", sa.Column("inputs", sa.Text, nullable=False, server_default=""))
    op.add_column("plans", sa.Column("released_at", _TIME))
    op.add_column("plans", sa.Column("not_before", _TIME))
    op.add_column("shards", sa.Column("deadline_s", sa.BigInteger))
    op.add_column("shards", sa.Column("cancelled_at", _TIME))
    op.add_column("shards", sa.Column("missing_since", _TIME))
    op.add_column("shards", sa.Column("missing_at", _TIME))
    op.add_column("shards", sa.Column("missing_looks", sa.Integer, nullable=False, server_default="0"))
    op.add_column("shards", sa.Column("schema_digest", sa.Text, nullable=False, server_default=""))
    op.add_column("shards", sa.Column("results", sa.Text, nullable=False, server_default=""))
    op.add_column("shards", sa.Column("swept_at", _TIME))
    op.add_column("shards", sa.Column("forgotten_at", _TIME))
    op.add_column("shards", sa.Column("model_name", sa.Text, nullable=False, server_default=""))
    op.add_column("shards", sa.Column("tokens", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("shards", sa.Column("expected_usd", sa.Double, nullable=False, server_default="0"))
    op.add_column("shards", sa.Column("at_most_usd", sa.Double, nullable=False, server_default="0"))
    op.add_column("shards", sa.Column("charge_usd", sa.Double, nullable=False, server_default="0"))
    op.add_column("shards", sa.Column("charged_at", _TIME))
    op.add_column("shards", sa.Column("plan_digest", sa.Text, nullable=False, server_default=""))
    op.create_index("shards_by_collection", "shards", ["enrichment", "collected_at"])
    op.create_index("shards_by_charge", "shards", ["charged_at"])
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
    op.create_table(
        "spending",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("enrichment", sa.Text, nullable=False),
        sa.Column("partition", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("model_name", sa.Text, nullable=False),
        sa.Column("collected_at", _TIME, nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in _COUNTS),
        *(sa.Column(name, sa.Double, nullable=False) for name in _SUMS),
    )
    op.create_index("spending_of_a_partition", "spending", ["enrichment", "partition"])
    op.create_index("spending_of_an_enrichment", "spending", ["enrichment", "collected_at"])
    op.create_index("spending_by_time", "spending", ["collected_at"])
    ledger = op.create_table("ledger", sa.Column("id", sa.Text, primary_key=True))
    op.bulk_insert(ledger, [{"id": secrets.token_hex(16)}])
