"""A plan and a shard, of which tests change what matters to them."""

from datetime import UTC, datetime

from llm_assets.records import Plan, Shard

NOW = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)
PLAN = Plan(
    enrichment="e",
    partition="p",
    plan_id="first",
    digest="d",
    path="plan",
    documents=2,
    requests=2,
    wave=1,
    planned_at=NOW,
)
SHARD = Shard(key="k", enrichment="e", partition="p", wave=1, provider="x", endpoint="/", requests=2, bytes=9, path="k")
