"""The component `Documents`: files in a folder → a partitioned table of documents."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import dagster as dg
import polars as pl

from llm_assets.components.about import About, documents_tags
from llm_assets.components.declarations import InFile, declared_in
from llm_assets.components.loaded import SOURCES
from llm_assets.components.metadata import column_schema
from llm_assets.components.resources import PlatformResource, s3_resource, tag_process
from llm_assets.components.scaffolding import DocumentsScaffolder
from llm_assets.documents import DocumentSource
from llm_assets.errors import DeclarationError

# The metadata that says where files were looked for, when there were none.
NO_FILE = "no_file_at"


def documents_key(name: str) -> dg.AssetKey:
    """The asset of a table of documents."""
    return dg.AssetKey(["documents", name])


class HasColumns(Protocol):
    """Anything that knows what documents have: a DocumentSource, a DocumentsTable."""

    @property
    def schema(self) -> Mapping[str, pl.DataType]:
        """Column name -> type."""
        ...


@dataclass(frozen=True, slots=True)
class DocumentsTable:
    """What is known of a table of documents: its columns, its partitions, whether it is made of other tables here."""

    schema: Mapping[str, pl.DataType]
    partitions: dg.PartitionsDefinition[str]
    is_derived: bool = False


class DocumentsComponent(InFile, About):
    """A component that declares a table of documents."""

    name: str

    def documents_table(
        self, context: dg.ComponentLoadContext, source: str, within: Sequence[str] = ()
    ) -> DocumentsTable:
        """What is known of it before it is read; `within` are the tables for which it is looked up.

        Raises DeclarationError, which names `source`.
        """
        raise NotImplementedError


def find_documents(
    context: dg.ComponentLoadContext, name: str, source: str, within: Sequence[str] = ()
) -> DocumentsTable:
    """The table of documents of this name, looked up for those `within`. Raises DeclarationError when none is declared,
    or it is made of itself.
    """
    declared = context.component_tree.get_all_components(DocumentsComponent)  # type: ignore[type-abstract]
    there = {found.name: found for found in declared}
    if name not in there:
        names = ", ".join(sorted(there)) or "none"
        raise DeclarationError(source, f"documents {name!r} are not declared; there are: {names}")
    if name in within:
        circle = " → ".join((*within[within.index(name) :], name))
        raise DeclarationError(source, f"documents are made of themselves: {circle}")
    found = there[name]
    return found.documents_table(context, found.declared_by(source), (*within, name))


@dg.scaffold_with(DocumentsScaffolder)
class Documents(DocumentsComponent):
    """Documents from CSV, JSONL or Parquet files, a file (or several) for each partition.

    Partitions are days from `start_date` on, or, `partitioned_by: file`, whatever stands in the files' names where the
    path says `{partition}`: a sensor adds each as its files arrive, and materializes it. `watch: false` leaves that
    sensor off until somebody switches it on.

    `path` holds `{partition}` and is relative to the folder of the declaration, or is a URL, `s3://bucket/{partition}.csv`,
    whose objects are had through the resource `s3` (dagster_aws.s3.S3Resource). The id and text columns become
    `document_id` and `text`. Prompts may use these and what `columns` declares (name: string | integer | number |
    boolean | date | datetime); other columns are kept as they are read.
    """

    path: str
    id_column: str
    text_column: str
    start_date: str | None = None
    timezone: str = "UTC"
    partitioned_by: str = "day"
    watch: bool = True
    format: str | None = None
    columns: Mapping[str, str] = {}

    def source(self, folder: Path) -> DocumentSource:
        """The source that this declares; `folder` holds the declaration."""
        return DocumentSource(
            name=self.name,
            path=self.path,
            format=self.format,
            id_column=self.id_column,
            text_column=self.text_column,
            columns=dict(self.columns),
            base=folder,
            source=str(folder / "defs.yaml"),
        )

    def documents_table(
        self, context: dg.ComponentLoadContext, source: str, within: Sequence[str] = ()
    ) -> DocumentsTable:
        """The columns that are declared, and the days."""
        return DocumentsTable(self.source(Path()).schema, self.partitions(source))

    def partitions(self, source: str) -> dg.PartitionsDefinition[str]:
        """The days, or the files, that there are documents for."""
        if self.partitioned_by == "file" and self.start_date is None:
            return dg.DynamicPartitionsDefinition(name=f"documents_{self.name}")
        if self.partitioned_by == "day" and self.start_date is not None:
            return days(source, self.start_date, self.timezone)
        dated = "with" if self.start_date else "without"
        raise DeclarationError(
            source,
            f"partitioned_by is {self.partitioned_by!r} {dated} a start_date; write `day` with one, or `file` without",
        )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The asset `documents/<name>`."""
        source = self.source(declared_in(context))
        source.check()
        SOURCES[source.name] = source
        partitions = self.partitions(source.source)
        asset = documents_asset(source, partitions, self.about)
        sensors = []
        if isinstance(partitions, dg.DynamicPartitionsDefinition):
            sensors.append(arrivals_sensor(source, partitions, is_on=self.watch))
        resources = {"s3": s3_resource()} if source.in_bucket else {}
        return dg.Definitions(assets=[asset], sensors=sensors, resources=resources)


def days(source: str, start_date: str, timezone: str = "UTC") -> dg.DailyPartitionsDefinition:
    """A partition a day from a date on. Raises DeclarationError, which names `source`, where that is no date."""
    try:
        return dg.DailyPartitionsDefinition(start_date=start_date, timezone=timezone)
    except ValueError:
        raise DeclarationError(source, f"start_date is {start_date!r}; write a day, such as '2026-11-01'") from None


def documents_asset(
    source: DocumentSource,
    partitions: dg.PartitionsDefinition[str],
    about: About | None = None,
) -> dg.AssetsDefinition:
    """The asset of a table of documents. Materializing it again reads the files again."""
    about = about or About()

    @dg.asset(
        key=documents_key(source.name),
        required_resource_keys={"platform", *_edges(source)},
        partitions_def=partitions,
        description=about.text(
            f"The documents of {source.name}.",
            f"A row for each document in the files `{source.path}`, with its id as `document_id` and what is asked "
            "about as `text`. Materializing this again reads the files again.",
        ),
        kinds={"parquet", "polars"},
        group_name="documents",
        owners=about.owners,
        tags=documents_tags(source.name, about),
        metadata={"dagster/column_schema": column_schema(source.schema, COLUMNS)},
    )
    def documents(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        tag_process(context)
        platform: PlatformResource = context.resources.platform
        reached = _reached(source, context.resources)
        with platform.platform() as opened:
            path = opened.store.documents(source.name, context.partition_key)
            with opened.store.files.writing(path) as table:
                summary = reached.write(context.partition_key, table)
        missing: dict[str, str] = {}
        if not reached.files(context.partition_key):
            missing[NO_FILE] = source.looked_for(context.partition_key)
            context.log.warning("no file at %s: %s has no documents", missing[NO_FILE], context.partition_key)
        return dg.MaterializeResult(
            metadata={
                **missing,
                "dagster/row_count": summary.rows,
                "bytes": summary.bytes,
                "empty_texts": summary.empty_texts,
                "files": summary.files,
                "table": path,
            }
        )

    return documents


def _edges(source: DocumentSource) -> set[str]:
    """The resources that a source's files are had through."""
    return {"s3"} if source.in_bucket else set()


def _reached(source: DocumentSource, resources: Any) -> DocumentSource:
    """The source with the client that its files are had through."""
    return replace(source, s3=resources.s3) if source.in_bucket else source


# How many partitions are added at once, and how long a file must be left alone before it counts as there.
_ARRIVALS_MAX = 25
_SETTLED_SECONDS = 10


def arrivals_sensor(
    source: DocumentSource,
    partitions: dg.DynamicPartitionsDefinition,
    *,
    is_on: bool,
    clock: Callable[[], float] = time.time,
) -> dg.SensorDefinition:
    """The sensor that adds a partition when its files have arrived, and materializes its documents."""
    key = documents_key(source.name)

    @dg.sensor(
        name=f"{source.name}_arrivals",
        required_resource_keys=_edges(source),
        description=f"Adds a partition for each {source.path} that arrives.",
        asset_selection=dg.AssetSelection.assets(key),
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING if is_on else dg.DefaultSensorStatus.STOPPED,
    )
    def arrivals(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        known = set(context.instance.get_dynamic_partitions(str(partitions.name)))
        settled = clock() - _SETTLED_SECONDS
        arrived = _reached(source, context.resources).arrived()
        new = [name for name, written in arrived.items() if name not in known and written <= settled][:_ARRIVALS_MAX]
        if not new:
            return dg.SkipReason(f"{len(known)} partitions, no new files at {source.looked_for('*')}")
        return dg.SensorResult(
            run_requests=[dg.RunRequest(run_key=name, partition_key=name, asset_selection=[key]) for name in new],
            dynamic_partitions_requests=[partitions.build_add_request(new)],
        )

    return arrivals


COLUMNS = {
    "document_id": "The document's id, as text; unique in the partition.",
    "text": "The document's text.",
}
