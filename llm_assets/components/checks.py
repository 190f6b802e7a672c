"""The asset checks of an enrichment: nothing lost, not too many failures, the declared schema."""

from collections.abc import Iterator, Mapping

import dagster as dg
import polars as pl

from llm_assets.collection import Progress
from llm_assets.enrichment import Enrichment


def check_specs(enriched: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """What is checked whenever `enriched` is published."""
    return [
        dg.AssetCheckSpec("nothing_lost", asset=enriched, description="Documents = enriched + failed."),
        dg.AssetCheckSpec(
            "failure_rate", asset=enriched, description="The share of failures is below the declared limit."
        ),
        dg.AssetCheckSpec("schema", asset=enriched, description="Every declared field is there with its type."),
    ]


def check_results(
    enrichment: Enrichment, progress: Progress, found: Mapping[str, pl.DataType]
) -> Iterator[dg.AssetCheckResult]:
    """The verdicts on a published partition; `found` is the schema of its table."""
    enriched = dg.AssetKey([enrichment.name, "enriched"])
    yield dg.AssetCheckResult(
        check_name="nothing_lost",
        asset_key=enriched,
        passed=progress.documents == progress.enriched + progress.failed,
        metadata={"documents": progress.documents, "enriched": progress.enriched, "failed": progress.failed},
    )
    rate = progress.failed / progress.documents if progress.documents else 0.0
    yield dg.AssetCheckResult(
        check_name="failure_rate",
        asset_key=enriched,
        passed=rate <= enrichment.failure_rate_max,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"failure_rate": rate, "failure_rate_max": enrichment.failure_rate_max},
    )
    wrong = {
        name: f"expected {dtype}, found {found.get(name)}"
        for name, dtype in enrichment.output.frame_schema.items()
        if found.get(name) != dtype
    }
    yield dg.AssetCheckResult(check_name="schema", asset_key=enriched, passed=not wrong, metadata=dict(wrong))
