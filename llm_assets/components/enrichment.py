"""The component `Enrichment`: a prompt and an output schema → batches, answers and failures, by partition.

In Python, without YAML, `enrichment_definitions` gives the same assets for an `llm_assets.enrichment.Enrichment`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from llm_assets.collection import collect_partition
from llm_assets.components import timing
from llm_assets.components.about import DOCUMENTS_TAG, About, tag_value
from llm_assets.components.automation import following
from llm_assets.components.checks import enrichment_checks
from llm_assets.components.declarations import Dollars, InFile, declared_in
from llm_assets.components.descriptions import (
    batches_text,
    enriched_columns,
    enriched_text,
    failed_columns,
    failed_text,
    lineage,
)
from llm_assets.components.documents import HasColumns, documents_key, find_documents
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
from llm_assets.components.scaffolding import EnrichmentScaffolder
from llm_assets.components.spending import Spending, spending_of
from llm_assets.embedding import Embedding
from llm_assets.enrichment import NO_LIMIT, Output, enriched_schema, failed_schema
from llm_assets.enrichment import Enrichment as Declared
from llm_assets.errors import DeclarationError, SystemicError
from llm_assets.output_schema import OutputSchema
from llm_assets.planning import plan_partition
from llm_assets.platform import Platform
from llm_assets.prompt import Prompt
from llm_assets.publication import Progress
from llm_assets.quality import answer_shares
from llm_assets.reconciliation import reconcile_partition
from llm_assets.records import Mode, ShardLimits
from llm_assets.retention import sweep
from llm_assets.status import in_flight, permanent_failures, usual_turnaround
from llm_assets.submission import send_planned
from llm_assets.text_limit import MARK, TextLimit, TooLong

ENRICHMENT_TAG = "llm_assets/enrichment"
PROVIDER_TAG = "llm_assets/provider"
MODEL_TAG = "llm_assets/model"
MODE_TAG = "llm_assets/mode"
_LINEAGE = "dagster/column_lineage"
# What this process has loaded, by name: for commands that act without materializing anything.
DECLARED: dict[str, Declared] = {}


class Limits(dg.Model, dg.Resolvable):
    """The most that one batch may hold, below the provider's own limits."""

    requests: int | None = None
    bytes: int | None = None


class Vector(dg.Model, dg.Resolvable):
    """An answer that is a vector: how many dimensions it has."""

    dimensions: int


class BudgetOfEnrichment(dg.Model, dg.Resolvable):
    """The most that may be spent, in US dollars: on a partition, and on what is sent in a day (UTC)."""

    partition_usd: Dollars | None = None
    day_usd: Dollars | None = None


@dg.scaffold_with(EnrichmentScaffolder)
class Enrichment(InFile, About):
    """Asks a model the same question about every document of a table, through a provider's batch API.

    `prompt` names a file beside the declaration: turns under `system:`, `user:` and `assistant:` lines, in Jinja
    syntax, with the documents' columns as variables. The answer's form is `output` (fields with types, enums and
    descriptions), `output_class` (the import path of a Pydantic model) or `embedding` (a vector of the text, or of what
    a prompt makes of it). With `follow` a partition is sent by itself when its documents were materialized.
    """

    name: str
    documents: str
    provider: str
    model_name: str
    prompt: str | None = None
    output: Mapping[str, Any] | None = None
    output_class: str | None = None
    embedding: Vector | None = None
    max_chars: int | None = None
    too_long: str = TooLong.REFUSE.value
    cut_mark: str | None = None
    max_tokens: int = 1024
    max_tokens_ceiling: int | None = None
    attempts: int = 3
    endpoint: str | None = None
    params: Mapping[str, Any] = {}
    keep: Sequence[str] = ()
    limits: Limits | None = None
    failure_rate_max: float = 0.05
    hold_above: float = 0.5
    deadline_hours: float = 26
    request_files_days: float = 30
    delete_at_provider: bool = False
    budget: BudgetOfEnrichment = BudgetOfEnrichment()
    reuse_days: float = 30
    prompt_cache: bool = True
    evidence: Sequence[str] = ()
    mode: str = "batch"
    rescue_after_hours: float | None = None
    realtime_requests: int | None = None
    service_tier: str | None = None
    nightly: str | None = None
    fresh_by: str | None = None
    follow: bool = False

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The assets `<name>/batches`, `<name>/enriched` and `<name>/failed`, checked against their documents."""
        folder = declared_in(context)
        declared = self.declared(folder, spending_of(context))
        table = find_documents(context, self.documents, declared.source)
        if self.nightly is not None and isinstance(table.partitions, dg.DynamicPartitionsDefinition):
            raise DeclarationError(
                declared.source,
                f"nightly is for days, but {self.documents} has a partition a file; write `follow: true`",
            )
        return enrichment_definitions(
            declared,
            table,
            table.partitions,
            follows=self.follow or table.is_derived,
            nightly=self.nightly,
            fresh_by=self.fresh_by,
            about=self.about,
        )

    def declared(self, folder: Path, spending: Spending | None = None) -> Declared:
        """The enrichment that this declares; `folder` holds the declaration and the prompt."""
        source = str(folder / "defs.yaml")
        spending = spending or Spending()
        price = spending.declared(source).get((self.provider, self.model_name))
        in_real_time = self.mode == Mode.REALTIME or self.rescue_after_hours is not None
        if in_real_time and self.service_tier is None:  # which is at the batch price
            spending.check_standard(source, self.provider, self.model_name)
        return Declared(
            name=self.name,
            documents=self.documents,
            provider=self.provider,
            model_name=self.model_name,
            prompt=self._prompt(folder, source),
            output=self._output(source),
            max_tokens=1 if self.embedding else self.max_tokens,  # of a vector nothing is written
            max_tokens_ceiling=self.max_tokens_ceiling,
            attempts=self.attempts,
            endpoint=self.endpoint,
            params=dict(self.params),
            keep=tuple(self.keep),
            limits=_limits(self.limits),
            failure_rate_max=self.failure_rate_max,
            hold_above=self.hold_above,
            deadline_hours=self.deadline_hours,
            request_files_days=self.request_files_days,
            delete_at_provider=self.delete_at_provider,
            price=price,
            partition_budget_usd=_usd(self.budget.partition_usd),
            day_budget_usd=_usd(self.budget.day_usd),
            project_day_budget_usd=_usd(spending.day_usd),
            reuse_days=self.reuse_days,
            prompt_cache=self.prompt_cache,
            evidence=tuple(self.evidence),
            mode=_mode(self.mode, source),
            rescue_after_hours=self.rescue_after_hours,
            text_limit=self._text_limit(source),
            realtime_requests=self.realtime_requests,
            service_tier=self.service_tier,
            quotas=spending.quotas_of(self.provider, self.model_name),
            source=source,
        )

    def _prompt(self, folder: Path, source: str) -> Prompt:
        if self.prompt is not None:
            return _read_prompt(folder / self.prompt, source)
        if self.embedding is None:
            raise DeclarationError(source, "no `prompt` is declared; name a file beside this one, such as prompt.md")
        return Prompt.parse("user:\n{{ text }}", source)

    def _text_limit(self, source: str) -> TextLimit | None:
        if self.too_long not in list(TooLong):
            raise DeclarationError(source, f"too_long is {self.too_long!r}; there are {', '.join(TooLong)}")
        if self.max_chars is not None:
            return TextLimit(self.max_chars, TooLong(self.too_long), MARK if self.cut_mark is None else self.cut_mark)
        if self.too_long != TooLong.REFUSE or self.cut_mark is not None:
            raise DeclarationError(
                source, "too_long and cut_mark need `max_chars`: how long a text may be, in characters"
            )
        return None

    def _output(self, source: str) -> Output:
        forms = {"output": self.output, "output_class": self.output_class, "embedding": self.embedding}
        found = [name for name, form in forms.items() if form is not None]
        if len(found) != 1:
            told = " and ".join(found) or "none"
            raise DeclarationError(
                source, f"found {told} of `output`, `output_class`, `embedding`; declare one of them"
            )
        if self.embedding is not None:
            return Embedding(self.embedding.dimensions)
        if self.output_class is not None:
            return OutputSchema.from_class_path(self.output_class, source)
        return OutputSchema.from_fields(self.name, self.output or {}, source)

    def options(self, name: str, source: str) -> list[str] | None:
        """What a field of the answer may say; None for anything."""
        fields = self._output(self.declared_by(source)).json_schema["properties"]
        options: list[str] | None = fields.get(name, {}).get("enum")
        return options

    def tables(self, documents: Mapping[str, pl.DataType], source: str) -> dict[str, dict[str, pl.DataType]]:
        """The columns of `enriched` and of `failed`, asked about documents with these columns."""
        answer = self._output(self.declared_by(source)).frame_schema
        return {
            "enriched": enriched_schema(
                self.keep, answer, documents, has_evidence=bool(self.evidence), is_cut=self.too_long == TooLong.TRUNCATE
            ),
            "failed": failed_schema(self.keep, documents),
        }


def find_enrichment(context: dg.ComponentLoadContext, name: str, source: str) -> Enrichment:
    """The enrichment of this name. Raises DeclarationError, which names `source`, when none is declared."""
    there = {found.name: found for found in context.component_tree.get_all_components(Enrichment)}
    if name not in there:
        names = ", ".join(sorted(there)) or "none"
        raise DeclarationError(source, f"the enrichment {name!r} is not declared; there are: {names}")
    return there[name]


def _read_prompt(path: Path, source: str) -> Prompt:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DeclarationError(source, f"the prompt file {path} does not exist; write it, or mend `prompt`") from None
    except UnicodeDecodeError as error:
        raise DeclarationError(source, f"the prompt file {path} is not UTF-8 (byte {error.start})") from None
    return Prompt.parse(text, str(path))


def _mode(declared: str, source: str) -> Mode:
    try:
        return Mode(declared)
    except ValueError:
        raise DeclarationError(source, f"mode is {declared!r}; there are {', '.join(Mode)}") from None


def _usd(declared: float | None) -> float:
    return float("inf") if declared is None else declared


def _limits(limits: Limits | None) -> ShardLimits | None:
    if limits is None:
        return None
    return ShardLimits(
        requests=NO_LIMIT if limits.requests is None else limits.requests,
        bytes=NO_LIMIT if limits.bytes is None else limits.bytes,
    )


def enrichment_definitions(
    enrichment: Declared,
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
    enrichment: Declared,
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
    enrichment: Declared,
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


def _now(platform: Platform, enrichment: Declared, partition: str) -> Metadata:
    """What is in flight of a partition, and what of the budgets is taken."""
    shards = platform.ledger.shards(enrichment.name, partition)
    takes = usual_turnaround(platform, enrichment.name)
    return in_flight_metadata(in_flight(shards, takes)) | budget_metadata(platform, enrichment, partition)


def _held(context: dg.AssetExecutionContext, enrichment: Declared, said: str, found: Metadata) -> dg.Failure:
    """The failure of what waits for a person; of a failure alone, the partition's page does not show why."""
    _observe(context, enrichment, {"held": said} | found)
    return dg.Failure(description=said, metadata=found, allow_retries=False)


def _observe(context: dg.AssetExecutionContext, enrichment: Declared, found: Metadata) -> None:
    """Show how far a partition is; on `batches`, as what is observed on `enriched` counts as fresh there."""
    key = asset_key(enrichment.name, "batches")
    context.log_event(dg.AssetObservation(asset_key=key, partition=context.partition_key, metadata=found))


def _tags(enrichment: Declared, about: About) -> dict[str, str]:
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
    enrichment: Declared, platform: Platform, partition: str, progress: Progress
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


def _swept(context: dg.AssetExecutionContext, platform: Platform, enrichment: Declared) -> None:
    """Delete what is not kept any longer. Whatever goes wrong there is no reason to fail what is published."""
    try:
        problems = sweep(platform, enrichment, context.partition_key)
    except Exception as error:
        problems = [f"what is not kept any longer was not deleted: {type(error).__name__}"]
    for problem in problems:
        context.log.warning(problem)
