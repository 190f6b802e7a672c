"""The ledger's tables, as the newest migration leaves them."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa


class UtcDateTime(sa.TypeDecorator[datetime]):
    """Aware UTC datetimes, also where the database drops the zone (SQLite)."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        # Postgres gives the zone of the session.
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Words(sa.TypeDecorator[str]):
    """Others' words: what no database stores (NUL, halves of characters) is replaced, not a reason to lose the rest."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        return value and value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


metadata = sa.MetaData()

plans = sa.Table(
    "plans",
    metadata,
    sa.Column("enrichment", sa.Text, primary_key=True),
    sa.Column("partition", sa.Text, primary_key=True),
    sa.Column("plan_id", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("inputs", sa.Text, nullable=False, server_default=""),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("documents", sa.BigInteger, nullable=False),
    sa.Column("requests", sa.BigInteger, nullable=False),
    sa.Column("wave", sa.Integer, nullable=False),
    sa.Column("rounds", sa.Integer, nullable=False),
    sa.Column("pending", sa.BigInteger, nullable=False),
    sa.Column("held", Words, nullable=False),
    sa.Column("planned_at", UtcDateTime, nullable=False),
    sa.Column("published_at", UtcDateTime),
    sa.Column("released_at", UtcDateTime),
    sa.Column("not_before", UtcDateTime),
)

shards = sa.Table(
    "shards",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("enrichment", sa.Text, nullable=False),
    sa.Column("partition", sa.Text, nullable=False),
    sa.Column("wave", sa.Integer, nullable=False),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("endpoint", sa.Text, nullable=False),
    sa.Column("model_name", sa.Text, nullable=False, server_default=""),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("requests", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("tokens", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("expected_usd", sa.Double, nullable=False, server_default="0"),
    sa.Column("at_most_usd", sa.Double, nullable=False, server_default="0"),
    sa.Column("charge_usd", sa.Double, nullable=False, server_default="0"),
    sa.Column("charged_at", UtcDateTime),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("claimed_at", UtcDateTime),
    sa.Column("not_before", UtcDateTime),
    sa.Column("staged_id", sa.Text),
    sa.Column("batch_id", sa.Text, unique=True),
    sa.Column("past_batches", sa.JSON, nullable=False),
    sa.Column("adopted", sa.Boolean, nullable=False),
    sa.Column("submitted_at", UtcDateTime),
    sa.Column("asked_at", UtcDateTime),
    sa.Column("ended_at", UtcDateTime),
    sa.Column("collected_at", UtcDateTime),
    sa.Column("finished", sa.BigInteger, nullable=False),
    sa.Column("deadline_s", sa.BigInteger),
    sa.Column("cancelled_at", UtcDateTime),
    sa.Column("missing_since", UtcDateTime),
    sa.Column("missing_at", UtcDateTime),
    sa.Column("missing_looks", sa.Integer, nullable=False, server_default="0"),
    sa.Column("schema_digest", sa.Text, nullable=False, server_default=""),
    sa.Column("results", sa.Text, nullable=False, server_default=""),
    sa.Column("swept_at", UtcDateTime),
    sa.Column("forgotten_at", UtcDateTime),
    sa.Column("code", Words, nullable=False),
    sa.Column("message", Words, nullable=False),
    sa.Column("plan_digest", sa.Text, nullable=False, server_default=""),
    sa.Column("mode", sa.Text, nullable=False, server_default="batch"),
    sa.Column("rates", sa.Text, nullable=False, server_default=""),
    sa.Index("shards_of_a_partition", "enrichment", "partition"),
    sa.Index("shards_by_state", "state"),
    # Both begin with what is null for few: the sweep must not grow with history.
    sa.Index("shards_to_sweep", "enrichment", "swept_at", "collected_at"),
    sa.Index("shards_to_forget", "enrichment", "forgotten_at", "collected_at"),
    sa.Index("shards_by_collection", "enrichment", "collected_at"),
    sa.Index("shards_by_charge", "charged_at"),
)

# What the results of each collected shard used and cost: written along with its state, and so exactly once.
spending = sa.Table(
    "spending",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("enrichment", sa.Text, nullable=False),
    sa.Column("partition", sa.Text, nullable=False),
    sa.Column("provider", sa.Text, nullable=False),
    sa.Column("model_name", sa.Text, nullable=False),
    sa.Column("collected_at", UtcDateTime, nullable=False),
    sa.Column("requests", sa.BigInteger, nullable=False),
    sa.Column("billed", sa.BigInteger, nullable=False),
    sa.Column("input_tokens", sa.BigInteger, nullable=False),
    sa.Column("output_tokens", sa.BigInteger, nullable=False),
    sa.Column("cache_read_tokens", sa.BigInteger, nullable=False),
    sa.Column("cache_write_tokens", sa.BigInteger, nullable=False),
    sa.Column("cost_usd", sa.Double, nullable=False),
    sa.Column("standard_usd", sa.Double, nullable=False),
    sa.Column("uncached_usd", sa.Double, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("bytes_bytes", sa.Double, nullable=False),
    sa.Column("bytes_input", sa.Double, nullable=False),
    sa.Column("bytes_output", sa.Double, nullable=False),
    sa.Index("spending_of_a_partition", "enrichment", "partition"),
    sa.Index("spending_of_an_enrichment", "enrichment", "collected_at"),
    sa.Index("spending_by_time", "collected_at"),
)

# What operators decided about shards whose outcome nobody could find out; rows are only ever added.
decisions = sa.Table(
    "decisions",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("key", sa.Text, nullable=False, index=True),
    sa.Column("decided_at", UtcDateTime, nullable=False),
    sa.Column("decision", sa.Text, nullable=False),
    sa.Column("batch_id", sa.Text),
    sa.Column("operator", sa.Text, nullable=False),
)

# One row, made once: which ledger this is. A store names its ledger by this.
ledger = sa.Table("ledger", metadata, sa.Column("id", sa.Text, primary_key=True))


def in_partition(table: sa.Table, enrichment: str, partition: str) -> sa.ColumnElement[bool]:
    """The rows of a partition of an enrichment."""
    return (table.c.enrichment == enrichment) & (table.c.partition == partition)
