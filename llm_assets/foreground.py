"""One partition of an enrichment to its end, in this process and without a daemon.

It materializes the same Dagster assets that the sensor would start, on the instance of DAGSTER_HOME where that is
set, so that the UI knows of these runs too. What comes next is decided where the sensor asks: in waves.py.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import dagster as dg

from llm_assets.components.documents import NO_FILE
from llm_assets.components.enrichment_assets import ENRICHMENT_TAG, asset_key
from llm_assets.components.loaded import COMPARED, DECLARED, MADE, PRICED, SOURCES
from llm_assets.components.resources import s3_resource
from llm_assets.definitions import defs
from llm_assets.documents import DocumentSource
from llm_assets.enrichment import Enrichment
from llm_assets.erasure import Lineage
from llm_assets.errors import LLMAssetsError, is_ours, meant_or_all
from llm_assets.platform import Platform
from llm_assets.polling import poll
from llm_assets.published import permanent_failures
from llm_assets.records import Plan, ShardState
from llm_assets.status import PartitionStatus, partition_status
from llm_assets.waves import Step

_CALLS_MAX = 25
# Dagster's own log stays silent: what fails is said here, once.
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True, slots=True)
class Target:
    """A partition of a declared enrichment, and the job that holds its assets."""

    enrichment: str
    partition: str
    provider: str
    documents: dg.AssetKey
    job: dg.JobDefinition = field(repr=False)
    declared: Enrichment = field(repr=False)
    partitions: dg.PartitionsDefinition[str] = field(repr=False)

    @property
    def dynamic(self) -> str:
        """The name of the partitions, where they are not known beforehand."""
        return str(self.partitions.name) if isinstance(self.partitions, dg.DynamicPartitionsDefinition) else ""

    @property
    def source(self) -> DocumentSource | None:
        """The files that the documents are read from; None where they are made of other tables."""
        found = SOURCES.get(self.declared.documents)
        return replace(found, s3=s3_resource().get_client()) if found and found.in_bucket else found

    def all_partitions(self, platform: Platform, instance: dg.DagsterInstance) -> set[str]:
        """All partitions that there are by now: those that Dagster knows, that files have come for, that were read."""
        if not self.dynamic:
            return set(self.partitions.get_partition_keys())
        arrived = self.source.arrived() if self.source else {}
        read = platform.store.document_partitions(self.declared.documents)
        return {*instance.get_dynamic_partitions(self.dynamic), *arrived, *read}

    @property
    def batches(self) -> dg.AssetKey:
        """The asset that sends."""
        return asset_key(self.enrichment, "batches")

    @property
    def tables(self) -> tuple[dg.AssetKey, dg.AssetKey]:
        """The assets that collect and publish."""
        return asset_key(self.enrichment, "enriched"), asset_key(self.enrichment, "failed")


def find_target(enrichment: str, partition: str | None = None) -> Target:
    """What this deployment declares under these names; without a partition, for what is about all of them.

    Raises LLMAssetsError when it declares no such thing.
    """
    definitions = _load()
    graph = definitions.resolve_asset_graph()
    names = sorted({node.tags[ENRICHMENT_TAG] for node in graph.asset_nodes if ENRICHMENT_TAG in node.tags})
    if enrichment not in names:
        raise LLMAssetsError(f"no enrichment is called {enrichment!r}; {meant_or_all(enrichment, names)}")
    batches = graph.get(asset_key(enrichment, "batches"))
    partitions = batches.partitions_def
    assert partitions is not None
    is_dynamic = isinstance(partitions, dg.DynamicPartitionsDefinition)
    if partition is not None and not is_dynamic and not partitions.has_partition_key(partition):
        raise LLMAssetsError(f"{enrichment} has no partition {partition!r}; {_which(partitions)}")
    return Target(
        enrichment=enrichment,
        partition=partition or "",
        provider=str(batches.metadata["provider"]),
        documents=next(iter(batches.parent_keys)),
        job=definitions.resolve_implicit_global_asset_job_def(),
        declared=DECLARED[enrichment],
        partitions=partitions,
    )


def declared_lineage() -> Lineage:
    """Which documents are asked about, compared, and made of others, in this deployment."""
    _load()
    asked = {name: declared.documents for name, declared in DECLARED.items()}
    return Lineage(asked, dict(COMPARED), dict(MADE))


def checked_declarations() -> list[Enrichment]:
    """All enrichments that this deployment declares, once everything could be made of its declarations."""
    _load().get_repository_def().load_all_definitions()
    return [DECLARED[name] for name in sorted(DECLARED)]


def unasked_models() -> list[str]:
    """What prices and quotas are declared for that no enrichment asks: perhaps a misspelt name."""
    asked = {(declared.provider, declared.model_name) for declared in DECLARED.values()}
    return [
        f"prices or quotas: no enrichment asks {provider} {model}; "
        + meant_or_all(model, sorted(name for there, name in asked if there == provider))
        for provider, model in sorted(PRICED - asked)
    ]


def _load() -> dg.Definitions:
    """What this deployment declares; Dagster's notes on its own beta interfaces are no news for a user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        definitions = defs()
        definitions.resolve_asset_graph()  # kept by Dagster for the next time
        return definitions


def _which(partitions: dg.PartitionsDefinition[str]) -> str:
    first, last = partitions.get_first_partition_key(), partitions.get_last_partition_key()
    return f"there are {first} to {last}" if first and last else "there are none yet"


@dataclass(slots=True)
class Foreground:
    """Does what the daemon would do for one partition, and waits in between.

    `retry_failed` asks once more for what failed after all its attempts. `on_problem` gets sentences about what went
    wrong and is tried again, each once; `sleep` is a test's to set.
    """

    target: Target
    platform: Platform
    instance: dg.DagsterInstance
    poll_seconds: float
    on_problem: Callable[[str], None]
    retry_failed: bool = False
    sleep: Callable[[float], None] = time.sleep
    _asked: int = 0
    _told: set[str] = field(default_factory=set)

    def complete(self) -> Iterator[PartitionStatus]:
        """Send, wait and collect until the tables are published; yields the status whenever it may have moved.

        Raises LLMAssetsError with the reason when the partition is held or a run fails.
        """
        if self.retry_failed:
            self._tell_of_permanent()
        self._materialize(self.target.documents, self.target.batches, retry_failed=self.retry_failed)
        before: Step | None = None
        while (status := self._status()).step is not Step.NOTHING:
            yield status
            if status.step is Step.HELD:
                raise LLMAssetsError(f"{status.held}. Nothing more is sent until somebody acts; then run this again.")
            if status.step is before:  # the provider is not done, or the outcome of a claim is still unknown
                self.sleep(self.poll_seconds)
            self._act(status.step)
            self._tell_of_unsent()
            before = status.step
        yield status

    def read_documents(self) -> None:
        """Materialize the partition's documents. Raises LLMAssetsError when that fails."""
        self._materialize(self.target.documents)

    def plan(self) -> Plan:
        """The partition's plan, which there is once its batches were materialized."""
        plan = self.platform.ledger.plan(self.target.enrichment, self.target.partition)
        assert plan is not None
        return plan

    def _status(self) -> PartitionStatus:
        plan = self.plan()
        shards = self.platform.ledger.shards(plan.enrichment, plan.partition)
        return partition_status(plan, shards, self.platform.clock())

    def _act(self, step: Step) -> None:
        if step is Step.SUBMIT:
            self._materialize(self.target.batches)
        elif step is Step.COLLECT:
            self._materialize(*self.target.tables)
        # Whatever the step was: a batch that ends may settle the claim that it waits for.
        self._poll()

    def _poll(self) -> None:
        shards = self.platform.ledger.shards(self.target.enrichment, self.target.partition)
        report = poll(self.platform, shards, calls_max=_CALLS_MAX, start=self._asked)
        self._asked += report.asked
        for problem in report.problems:
            self._tell(problem)

    def _tell_of_unsent(self) -> None:
        """Say why shards are not with the provider, or may not be."""
        for shard in self.platform.ledger.shards(self.target.enrichment, self.target.partition):
            if shard.state in (ShardState.PLANNED, ShardState.SUBMITTING) and shard.message:
                self._tell(f"a batch of {shard.requests:,} requests was not accepted yet: {shard.message}")

    def _tell_of_permanent(self) -> None:
        if said := permanent_failures(self.platform, self.target.enrichment, self.target.partition):
            self._tell(said)

    def _tell(self, problem: str) -> None:
        if problem not in self._told:
            self._told.add(problem)
            self.on_problem(problem)

    def _materialize(self, *assets: dg.AssetKey, retry_failed: bool = False) -> None:
        if self.target.dynamic:
            self.instance.add_dynamic_partitions(self.target.dynamic, [self.target.partition])
        config = {f"{self.target.enrichment}__batches": {"config": {"retry_failed": True}}} if retry_failed else {}
        result = self.target.job.execute_in_process(
            run_config={**_QUIET, "ops": config},
            instance=self.instance,
            partition_key=self.target.partition,
            asset_selection=list(assets),
            raise_on_error=False,
            tags={ENRICHMENT_TAG: self.target.enrichment},
        )
        if not result.success:
            raise LLMAssetsError(_why(result))
        for event in result.get_asset_materialization_events():
            facts = event.materialization.metadata
            if looked_for := facts.get(NO_FILE):
                self._tell(f"{self.target.partition} has no documents: there is no file at {looked_for.value}")
            elif self.target.source and "files" in facts and facts["dagster/row_count"].value == 0:
                where = self.target.source.looked_for(self.target.partition)
                self._tell(f"{self.target.partition} has no documents: there are no rows in {where}")


def open_instance() -> dg.DagsterInstance:
    """The instance of DAGSTER_HOME, so that the UI knows; without one, an instance that ends with the process."""
    if os.environ.get("DAGSTER_HOME"):
        return dg.DagsterInstance.get()
    return dg.DagsterInstance.ephemeral(settings={"telemetry": {"enabled": False}})


def _why(result: dg.ExecuteInProcessResult) -> str:
    """Why a run failed: the description of a dg.Failure, else the innermost error."""
    for event in result.filter_events(lambda event: event.is_step_failure):
        data = event.step_failure_data
        if data.user_failure_data is not None and data.user_failure_data.description:
            return data.user_failure_data.description
        error = data.error
        while error is not None and error.cause is not None:
            error = error.cause
        if error is not None:
            said = (error.message.partition(": ")[2] or error.message).strip()
            return said if is_ours(error.cls_name or "") else f"{error.cls_name}: {said}"
    return "the run failed before its first step"
