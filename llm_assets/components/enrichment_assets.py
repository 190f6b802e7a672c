"""An enrichment → its assets, checks and schedule in Dagster: batches, answers and failures, by partition."""

from collections.abc import Iterable, Iterator
from typing import Any

import dagster as dg

from llm_assets.collection import collect_partition
from llm_assets.components import timing
from llm_assets.components.about import DOCUMENTS_TAG, About, tag_value
from llm_assets.components.automation import following
from llm_assets.components.checks import enrichment_checks
from llm_assets.components.descriptions import (
    batches_text,
    enriched_columns,
    enriched_text,
    failed_columns,
    failed_text,
    lineage,
)
from llm_assets.components.documents import HasColumns, documents_key
from llm_assets.components.loaded import DECLARED
from llm_assets.components.metadata import (
    Metadata,
    budget_metadata,
    enriched_metadata,
    failed_metadata,
    in_flight_metadata,
    odd_results,
    progress_metadata,
    submission_metadata,
)
from llm_assets.components.resources import WORK_TAG, PlatformResource, tag_process
from llm_assets.enrichment import Enrichment
from llm_assets.errors import SystemicError
from llm_assets.planning import plan_partition
from llm_assets.platform import Platform
from llm_assets.progress import Progress
from llm_assets.published import permanent_failures
from llm_assets.quality import answer_shares
from llm_assets.reconciliation import reconcile_partition
from llm_assets.retention import sweep
from llm_assets.status import in_flight, usual_turnaround
from llm_assets.submission import send_planned

ENRICHMENT_TAG = "llm_assets/enrichment"
PROVIDER_TAG = "llm_assets/provider"
MODEL_TAG = "llm_assets/model"
MODE_TAG = "llm_assets/mode"
_LINEAGE = "dagster/column_lineage"


def enrichment_definitions(
    enrichment: Enrichment,
    documents: HasColumns,
    partitions: dg.PartitionsDefinition[str],
    *,
    follows: bool = False,
    nightly: str | None = None,
    fresh_by: str | None = None,
    about: About | None = None,
) -> dg.Definitions:
    """The assets, checks and schedule of an enrichment. Raises DeclarationError for what cannot work.

    With `follows` a partition is planned and sent by itself when its documents were materialized.
    `nightly` is a time of day, `HH:MM` in the partitions' time zone, at which yesterday's documents are read and
    sent; `fresh_by` is one by which their answers are wanted.
    """
    enrichment.check(documents.schema)
    DECLARED[enrichment.name] = enrichment
    about = about or About()
    batches = _batches_asset(enrichment, partitions, about, following() if follows else None)
    tables = _tables_asset(enrichment, documents, partitions, about)
    checks = enrichment_checks(enrichment, asset_key(enrichment.name, "enriched"))
    found = [dg.Definitions(assets=[batches, tables], asset_checks=[checks])]
    if nightly is not None:
        sent = dg.AssetSelection.assets(documents_key(enrichment.documents), asset_key(enrichment.name, "batches"))
        found.append(timing.nightly(enrichment.name, sent, nightly, enrichment.source))
    if fresh_by is not None:
        enriched = asset_key(enrichment.name, "enriched")
        found.append(timing.freshness(enrichment.name, enriched, fresh_by, partitions, enrichment.source))
    return dg.Definitions.merge(*found)


def asset_key(enrichment: str, table: str) -> dg.AssetKey:
    """The asset `<enrichment>/<table>`; the table is batches, enriched or failed."""
    return dg.AssetKey([enrichment, table])


class BatchesConfig(dg.Config):
    """`retry_failed` asks once more for what failed after all its attempts."""

    retry_failed: bool = False


def _batches_asset(
    enrichment: Enrichment,
    partitions: dg.PartitionsDefinition[str],
    about: About,
    condition: dg.AutomationCondition[Any] | None,
) -> dg.AssetsDefinition:
    @dg.asset(
        key=asset_key(enrichment.name, "batches"),
        deps=[documents_key(enrichment.documents)],
        description=batches_text(enrichment),
        kinds={enrichment.provider, enrichment.mode.value},
        pool=f"llm_assets_{enrichment.provider}",
        metadata={"provider": enrichment.provider, "model": enrichment.model_name, "declared_in": enrichment.source},
        partitions_def=partitions,
        group_name=enrichment.name,
        owners=about.owners,
        tags=_tags(enrichment, about),
        automation_condition=condition,
    )
    def batches(
        context: dg.AssetExecutionContext, config: BatchesConfig, platform: dg.ResourceParam[PlatformResource]
    ) -> dg.MaterializeResult[None]:
        partition = context.partition_key
        tag_process(context)
        with platform.platform() as opened:
            if config.retry_failed and (said := permanent_failures(opened, enrichment.name, partition)):
                context.log.warning(said)
            try:
                reconcile_partition(opened, enrichment.name, partition)
                plan = plan_partition(
                    opened,
                    enrichment,
                    partition,
                    retry_failed=config.retry_failed,
                    release_hold=WORK_TAG not in context.run.tags,
                )
                sent = send_planned(opened, plan, enrichment.quotas, enrichment.realtime_requests)
            except SystemicError as error:
                words = str(error)
                stop = "" if words.endswith((".", "?", "!")) else "."
                said = f"Nothing more is sent until somebody acts: {words}{stop} Then materialize this again."
                found = {"provider": enrichment.provider, "code": error.code} | _now(opened, enrichment, partition)
                raise _held(context, enrichment, said, found) from error
            shards = opened.ledger.shards(enrichment.name, partition)
            metadata = _now(opened, enrichment, partition) | submission_metadata(plan, sent, shards)
        if plan.held:
            raise _held(
                context, enrichment, f"Nothing more is sent: {plan.held}. Then materialize this again.", metadata
            )
        return dg.MaterializeResult(metadata=metadata)

    return batches


def _tables_asset(
    enrichment: Enrichment,
    documents: HasColumns,
    partitions: dg.PartitionsDefinition[str],
    about: About,
) -> dg.AssetsDefinition:
    def spec(table: str, text: str, columns: dg.TableSchema, answers: Iterable[str] = ()) -> dg.AssetSpec:
        return dg.AssetSpec(
            asset_key(enrichment.name, table),
            deps=[asset_key(enrichment.name, "batches")],
            skippable=True,
            description=text,
            kinds={"parquet", "polars"},
            metadata={"dagster/column_schema": columns, _LINEAGE: lineage(enrichment, answers)},
            partitions_def=partitions,
            group_name=enrichment.name,
            owners=about.owners,
            tags=_tags(enrichment, about),
        )

    answers, failures = enriched_text(enrichment, about), failed_text(enrichment)
    columns = enriched_columns(enrichment, documents.schema), failed_columns(enrichment, documents.schema)

    @dg.multi_asset(
        name=f"{enrichment.name}__tables",
        specs=[
            spec("enriched", answers, columns[0], enrichment.output.frame_schema),
            spec("failed", failures, columns[1]),
        ],
    )
    def tables(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[PlatformResource]
    ) -> Iterator[dg.MaterializeResult[None]]:
        tag_process(context)
        with platform.platform() as opened:
            progress = collect_partition(opened, enrichment, context.partition_key)
            shards = opened.ledger.shards(enrichment.name, context.partition_key)
            if odd := odd_results(progress):
                context.log.warning("result lines that were not asked for, or not once: %s", odd)
            if progress.published:
                yield from _published(enrichment, opened, context.partition_key, progress)
                _swept(context, opened, enrichment)
                return
            observed = _now(opened, enrichment, context.partition_key) | progress_metadata(progress, shards)
        if progress.held:
            said = (
                f"{progress.held}. Nothing more is sent until somebody acts; then materialize "
                f"{enrichment.name}/batches for this partition again."
            )
            raise _held(context, enrichment, said, observed)
        _observe(context, enrichment, observed)

    return tables


def _now(platform: Platform, enrichment: Enrichment, partition: str) -> Metadata:
    """What is in flight of a partition, and what of the budgets is taken."""
    shards = platform.ledger.shards(enrichment.name, partition)
    takes = usual_turnaround(platform, enrichment.name)
    return in_flight_metadata(in_flight(shards, takes)) | budget_metadata(platform, enrichment, partition)


def _held(context: dg.AssetExecutionContext, enrichment: Enrichment, said: str, found: Metadata) -> dg.Failure:
    """The failure of what waits for a person; of a failure alone, the partition's page does not show why."""
    _observe(context, enrichment, {"held": said} | found)
    return dg.Failure(description=said, metadata=found, allow_retries=False)


def _observe(context: dg.AssetExecutionContext, enrichment: Enrichment, found: Metadata) -> None:
    """Show how far a partition is; on `batches`, as what is observed on `enriched` counts as fresh there."""
    key = asset_key(enrichment.name, "batches")
    context.log_event(dg.AssetObservation(asset_key=key, partition=context.partition_key, metadata=found))


def _tags(enrichment: Enrichment, about: About) -> dict[str, str]:
    """What the assets of an enrichment are found by."""
    return {
        **about.tags,
        ENRICHMENT_TAG: enrichment.name,
        DOCUMENTS_TAG: enrichment.documents,
        PROVIDER_TAG: enrichment.provider,
        MODEL_TAG: tag_value(enrichment.model_name),
        MODE_TAG: enrichment.mode.value,
    }


def _published(
    enrichment: Enrichment, platform: Platform, partition: str, progress: Progress
) -> Iterator[dg.MaterializeResult[None]]:
    shards = platform.ledger.shards(enrichment.name, partition)
    enriched = platform.store.enriched(enrichment.name, partition)
    failed = platform.store.failed(enrichment.name, partition)
    # Dagster+ draws the lineage of columns of what is said here, and not of the definition.
    of_answers: Metadata = {
        _LINEAGE: dg.MetadataValue.column_lineage(lineage(enrichment, enrichment.output.frame_schema))
    }
    of_failures: Metadata = {_LINEAGE: dg.MetadataValue.column_lineage(lineage(enrichment))}
    shares = answer_shares(platform.store.scan(enriched), enrichment.output)
    yield dg.MaterializeResult(
        asset_key=asset_key(enrichment.name, "enriched"),
        metadata=enriched_metadata(progress, enriched, shards, shares) | of_answers,
    )
    yield dg.MaterializeResult(
        asset_key=asset_key(enrichment.name, "failed"), metadata=failed_metadata(progress, failed) | of_failures
    )


def _swept(context: dg.AssetExecutionContext, platform: Platform, enrichment: Enrichment) -> None:
    """Delete what is not kept any longer. Whatever goes wrong there is no reason to fail what is published."""
    try:
        problems = sweep(platform, enrichment, context.partition_key)
    except Exception as error:
        problems = [f"what is not kept any longer was not deleted: {type(error).__name__}"]
    for problem in problems:
        context.log.warning(problem)
