"""The component `DerivedDocuments`: documents made of another table, of answers, of failures, or of documents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg
import polars as pl

from llm_assets.components.about import About, documents_tags
from llm_assets.components.automation import following
from llm_assets.components.declarations import file_of
from llm_assets.components.documents import COLUMNS, DocumentsComponent, DocumentsTable, documents_key, find_documents
from llm_assets.components.enrichment import find_enrichment
from llm_assets.components.enrichment_assets import asset_key
from llm_assets.components.loaded import MADE
from llm_assets.components.metadata import column_lineage, column_schema
from llm_assets.components.resources import PlatformResource, tag_process
from llm_assets.derived import ITEM, MISSING, PARENT, PART, PARTS, Derivation, with_texts
from llm_assets.documents import read_documents
from llm_assets.erasure import Made
from llm_assets.errors import DeclarationError, DocumentsError, StoreError
from llm_assets.parquet import write_slices
from llm_assets.records import DOCUMENT_ID, TEXT
from llm_assets.store import DAMAGE, Store

TABLES = ("enriched", "failed")
_GROUP_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class Upstream:
    """The table that documents are made of: `table` of an enrichment, or `documents` themselves."""

    schema: Mapping[str, pl.DataType]
    partitions: dg.PartitionsDefinition[str]
    documents: str
    enrichment: str | None = None
    table: str = ""

    @property
    def key(self) -> dg.AssetKey:
        """Its asset."""
        return documents_key(self.documents) if self.enrichment is None else asset_key(self.enrichment, self.table)

    def path(self, store: Store, partition: str) -> str:
        """Where it is kept."""
        if self.enrichment is None:
            return store.documents(self.documents, partition)
        return (store.enriched if self.table == "enriched" else store.failed)(self.enrichment, partition)


class DerivedDocuments(DocumentsComponent):
    """Documents that other tables hold: the answers of an enrichment, its failures, or other documents.

    One of `enrichment` and `documents` names where they come from; of an enrichment, `table` is `enriched` or `failed`.
    `text_column` is what becomes the text: for an enrichment's tables it is, unless told otherwise, the text that it
    was asked about. `columns` are carried on, `where` is a condition in SQL over the columns. At most one of `explode`
    (a list column: a row an item), `split_chars` (a row a part of the text) and `group_by` (a row a value of a column,
    texts put together) changes what a row is.
    """

    enrichment: str | None = None
    documents: str | None = None
    table: str = "enriched"
    text_column: str = TEXT
    columns: Sequence[str] = ()
    where: str | None = None
    explode: str | None = None
    split_chars: int | None = None
    group_by: str | None = None

    def documents_table(
        self, context: dg.ComponentLoadContext, source: str, within: Sequence[str] = ()
    ) -> DocumentsTable:
        """What is known of it, checked against the tables that it is made of."""
        upstream = self._upstream(context, source, within)
        return DocumentsTable(self._derivation(upstream, source).schema, upstream.partitions, is_derived=True)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The asset `documents/<name>`."""
        source = file_of(context)
        upstream = self._upstream(context, source, (self.name,))
        derivation = self._derivation(upstream, source)
        return dg.Definitions(assets=[derived_asset(derivation, upstream, self.about)])

    def _derivation(self, upstream: Upstream, source: str) -> Derivation:
        derivation = Derivation(
            name=self.name,
            upstream=upstream.schema,
            text_column=self.text_column,
            columns=tuple(self.columns),
            where=self.where,
            explode=self.explode,
            split_chars=self.split_chars,
            group_by=self.group_by,
            source=source,
        )
        derivation.check()
        return derivation

    def _upstream(self, context: dg.ComponentLoadContext, source: str, within: Sequence[str]) -> Upstream:
        if self.documents is not None and self.enrichment is None:
            table = find_documents(context, self.documents, source, within)
            return Upstream(table.schema, table.partitions, self.documents)
        if self.enrichment is None or self.documents is not None:
            found = "both" if self.documents else "neither"
            raise DeclarationError(source, f"found {found} of `enrichment` and `documents`; declare one of them")
        enrichment = find_enrichment(context, self.enrichment, source)
        if self.table not in TABLES:
            raise DeclarationError(source, f"table is {self.table!r}; an enrichment has {' and '.join(TABLES)}")
        table = find_documents(context, enrichment.documents, source, within)
        columns = {TEXT: pl.String()} | enrichment.tables(table.schema, source)[self.table]
        return Upstream(columns, table.partitions, enrichment.documents, enrichment.name, self.table)


def derived_asset(derivation: Derivation, upstream: Upstream, about: About | None = None) -> dg.AssetsDefinition:
    """The asset of a table of documents that is made of another; it follows that one by itself."""
    about, made_of = about or About(), upstream.key.to_user_string()
    MADE[derivation.name] = Made(upstream.documents, upstream.enrichment, upstream.table, derivation.group_by)

    @dg.asset(
        key=documents_key(derivation.name),
        deps=[upstream.key],
        partitions_def=upstream.partitions,
        automation_condition=following(),
        description=about.text(
            f"The documents of {derivation.name}.",
            f"Made of `{made_of}`: {_told(derivation)}. A partition follows by itself when that one is there.",
        ),
        kinds={"parquet", "polars"},
        group_name="documents",
        owners=about.owners,
        tags=documents_tags(derivation.name, about),
        metadata={
            "dagster/column_schema": column_schema(derivation.schema, COLUMNS | _COLUMNS),
            "dagster/column_lineage": _lineage(derivation, upstream),
        },
    )
    def documents(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[PlatformResource]
    ) -> dg.MaterializeResult[None]:
        tag_process(context)
        with platform.platform() as opened:
            path = opened.store.documents(derivation.name, context.partition_key)
            rows = write_derived(opened.store, derivation, upstream, context.partition_key)
        return dg.MaterializeResult(metadata={"dagster/row_count": rows, "table": path})

    return documents


def write_derived(store: Store, derivation: Derivation, upstream: Upstream, partition: str) -> int:
    """Write the documents of a partition; how many there are. Raises DocumentsError when there is nothing to make them
    of yet, StoreError for a damaged table.
    """
    path = upstream.path(store, partition)
    if not store.files.exists(path):
        raise DocumentsError(f"{derivation.name}: there is no {path} yet; materialize {upstream.key.to_user_string()}")
    target = store.documents(derivation.name, partition)
    try:
        with store.files.scratch() as folder, store.files.writing(target) as file:
            table = store.scan(path)
            there = table.collect_schema()
            if missing := [name for name in upstream.schema if name not in (TEXT, *there)]:
                raise DocumentsError(
                    f"{path} was published without {', '.join(missing)}; materialize the enrichment again, which asks "
                    "nothing again for a column that is kept"
                )
            if derivation.needs_text and TEXT not in there:
                with store.files.reading(store.documents(upstream.documents, partition)) as documents:
                    texts = read_documents(documents)
                    slices = (piece.select(list(upstream.schema)) for piece in with_texts(table, texts))
                    write_slices(slices, upstream.schema, folder / "texts.parquet", _GROUP_ROWS)
                table = pl.scan_parquet(folder / "texts.parquet", glob=False)
            derivation.documents(table).sink_parquet(file, compression="zstd", row_group_size=_GROUP_ROWS)
    except DAMAGE as error:
        raise StoreError(f"{path} cannot be read ({type(error).__name__}); materialize it again") from None
    return int(store.scan(target).select(pl.len()).collect().item())


def _told(derivation: Derivation) -> str:
    """What a row is, in words."""
    if derivation.explode:
        return f"a row for each item of `{derivation.explode}`"
    if derivation.split_chars:
        return f"a row for each part of a text, of at most {derivation.split_chars:,} characters"
    if derivation.group_by:
        return f"a row for each value of `{derivation.group_by}`, with the texts put together"
    return f"a row for each row where `{derivation.where}`" if derivation.where else "a row for each row"


def _lineage(derivation: Derivation, upstream: Upstream) -> dg.TableColumnLineage:
    """Where each column comes from; those that count parts and items come from the one that is taken apart."""
    shape = derivation.explode or (derivation.text_column if derivation.split_chars else derivation.group_by)
    origins = {name: name for name in derivation.columns} | {TEXT: derivation.text_column, PARENT: DOCUMENT_ID}
    origins[DOCUMENT_ID] = derivation.group_by or DOCUMENT_ID
    columns = {}
    for name in derivation.schema:
        origin = origins.get(name, shape or name)
        table = upstream.key
        if origin not in upstream.schema:
            origin = derivation.explode or origin
        if origin == TEXT and upstream.enrichment is not None:
            table = documents_key(upstream.documents)  # the tables of an enrichment do not repeat it
        columns[name] = [(table, origin)]
    return column_lineage(columns)


_COLUMNS = {
    PARENT: "The document of which this is an item, or a part.",
    ITEM: "The item's number in the list, from 1.",
    PART: "The part's number in the text, from 1.",
    PARTS: "How many parts the text has.",
    MISSING: "How many of these have no answer; the text says so at its end.",
}
