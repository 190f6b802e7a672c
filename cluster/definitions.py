"""What the hosts run: documents in a bucket, asked about through both providers."""

from __future__ import annotations

import os
from dataclasses import replace

import dagster as dg

from llm_assets.components.completion import completion_sensor
from llm_assets.components.documents import documents_asset
from llm_assets.components.enrichment_assets import asset_key, enrichment_definitions
from llm_assets.components.resources import PlatformResource, s3_resource
from llm_assets.documents import DocumentSource
from llm_assets.records import ShardLimits
from llm_assets_tests.platforms import labels
from llm_assets_tests.s3_server import BUCKET

DOCUMENTS = DocumentSource("texts", f"s3://{BUCKET}/arrived/{{partition}}.csv", "id", "text")
PROVIDERS = ("anthropic", "openai")
ENRICHMENTS = {
    provider: replace(
        labels(provider),
        name=f"labels_{provider}",
        limits=ShardLimits(requests=10, bytes=1_000_000),
        reuse_days=0,
    )
    for provider in PROVIDERS
}
JOB = "sending"
DAYS = dg.DailyPartitionsDefinition("2026-01-01", end_offset=0)


@dg.definitions
def defs() -> dg.Definitions:
    """The documents, an enrichment for each provider, the sensor, and the job of which the backfill is made."""
    tables = [enrichment_definitions(enrichment, DOCUMENTS, DAYS) for enrichment in ENRICHMENTS.values()]
    names = [enrichment.name for enrichment in ENRICHMENTS.values()]
    sending = dg.AssetSelection.assets(["documents", DOCUMENTS.name], *(asset_key(name, "batches") for name in names))
    return dg.Definitions.merge(
        *tables,
        dg.Definitions(
            assets=[documents_asset(DOCUMENTS, DAYS)],
            sensors=[completion_sensor(names, int(os.environ.get("LLM_ASSETS_POLL_SECONDS", "5")))],
            jobs=[dg.define_asset_job(JOB, sending)],
            resources={"platform": PlatformResource(), "s3": s3_resource()},
            executor=dg.in_process_executor,
        ),
    )
