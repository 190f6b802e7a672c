"""The component `PairedAnswers`: the answers of two enrichments to the same documents, as documents for a judge."""

from collections.abc import Iterator, Mapping, Sequence
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
from llm_assets.erasure import Made
from llm_assets.errors import DeclarationError, DocumentsError, StoreError
from llm_assets.pairing import FIRST, ORDER, PAIR_SCHEMA, PARENT, SECOND, in_both_orders, paired
from llm_assets.records import DOCUMENT_ID, TEXT
from llm_assets.store import DAMAGE, Store

_GROUP_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class Pairs:
    """What is paired: the field `answer` of the enrichments `one` and `other`, both about `documents`."""

    name: str
    documents: str
    one: str
    other: str
    answer: str
    columns: tuple[str, ...] = ()

    def scan(self, store: Store, partition: str) -> pl.LazyFrame:
        """The documents with what both say of them (`pairing.paired`). Raises DocumentsError when a table is missing,
        or is of other documents.
        """
        documents = store.scan(self._there(store, store.documents(self.documents, partition)))
        answers = []
        for name in (self.one, self.other):
            path = self._there(store, store.enriched(name, partition))
            said = store.scan(path).select(DOCUMENT_ID, pl.col(self.answer).alias("answer"))
            strange = said.join(documents, on=DOCUMENT_ID, how="anti").select(pl.len()).collect().item()
            if strange:
                raise DocumentsError(
                    f"{strange:,} rows of {path} are of documents that {self.documents} does not have; pair "
                    "enrichments of the same documents, and materialize what is older than its documents"
                )
            answers.append(said)
        return paired(documents, *answers)

    def _there(self, store: Store, path: str) -> str:
        if not store.files.exists(path):
            raise DocumentsError(f"{self.name}: there is no {path} yet; materialize it first")
        return path


class PairedAnswers(DocumentsComponent):
    """Pairs of answers for a judge: two documents for each, with the answers as `first` and `second` in either order.

    `enrichments` are two that answer the same `documents`, or tables made of these with the same ids, with the text
    field `answer`. `columns` of the documents are carried on. Answers that are the same, and documents that one of both
    has no answer to, make no pair. An enrichment over this table is the judge, a `Judgement` counts its verdicts.
    """

    documents: str
    enrichments: Sequence[str]
    answer: str
    columns: Sequence[str] = ()

    def documents_table(
        self, context: dg.ComponentLoadContext, source: str, within: Sequence[str] = ()
    ) -> DocumentsTable:
        """What is known of it, checked against the enrichments."""
        documents = find_documents(context, self.documents, source, within)
        DeclarationError.raise_for(source, self._problems(context, documents, source, within))
        columns = {name: documents.schema[name] for name in self.columns}
        return DocumentsTable(PAIR_SCHEMA | columns, documents.partitions, is_derived=True)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The asset `documents/<name>`."""
        source = file_of(context)
        table = self.documents_table(context, source, (self.name,))
        return dg.Definitions(assets=[pairs_asset(self.pairs(), table, self.about)])

    def pairs(self) -> Pairs:
        """What this declares. Only for what `documents_table` lets pass."""
        one, other = self.enrichments
        return Pairs(self.name, self.documents, one, other, self.answer, tuple(self.columns))

    def _problems(
        self, context: dg.ComponentLoadContext, documents: DocumentsTable, source: str, within: Sequence[str]
    ) -> Iterator[str]:
        if len(set(self.enrichments)) != 2 or len(self.enrichments) != 2:
            yield f"enrichments names {', '.join(self.enrichments) or 'none'}; name two different ones"
            return
        for name in self.enrichments:
            enrichment = find_enrichment(context, name, source)
            table = find_documents(context, enrichment.documents, source, within)
            answers = enrichment.tables(table.schema, source)["enriched"]
            if table.partitions != documents.partitions:
                yield f"{name} is about {enrichment.documents}, which has other partitions than {self.documents}"
            if self.answer not in answers:
                yield f"answer names {self.answer!r}, but {name} answers with {', '.join(answers)}"
            elif answers[self.answer].is_nested():
                yield f"answer names {self.answer!r}, which is no text but {answers[self.answer]} in {name}"
        for name in self.columns:
            if name not in documents.schema:
                yield f"columns names {name!r}, but {self.documents} has {', '.join(documents.schema)}"
            elif name in PAIR_SCHEMA:
                yield f"columns names {name!r}, which pairs have already; leave it out"


def pairs_asset(pairs: Pairs, table: DocumentsTable, about: About | None = None) -> dg.AssetsDefinition:
    """The asset of a table of pairs; it follows both enrichments by itself."""
    about = about or About()
    MADE[pairs.name] = Made(pairs.documents, None, "", None)

    @dg.asset(
        key=documents_key(pairs.name),
        deps=[asset_key(name, "enriched") for name in (pairs.one, pairs.other)],
        partitions_def=table.partitions,
        automation_condition=following(),
        description=about.text(
            f"What `{pairs.one}` and `{pairs.other}` answer to the same documents, for a judge.",
            f"Two rows for each pair of answers that differ: `{FIRST}` and `{SECOND}` as declared, and swapped. A "
            "partition follows by itself when both have published it.",
        ),
        kinds={"parquet", "polars"},
        group_name="documents",
        owners=about.owners,
        tags=documents_tags(pairs.name, about),
        metadata={
            "dagster/column_schema": column_schema(table.schema, COLUMNS | _COLUMNS),
            "dagster/column_lineage": _lineage(pairs),
        },
    )
    def documents(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[PlatformResource]
    ) -> dg.MaterializeResult[None]:
        tag_process(context)
        with platform.platform() as opened:
            path = opened.store.documents(pairs.name, context.partition_key)
            rows = write_pairs(opened.store, pairs, context.partition_key)
        return dg.MaterializeResult(metadata={"dagster/row_count": rows, "pairs": rows // 2, "table": path})

    return documents


def write_pairs(store: Store, pairs: Pairs, partition: str) -> int:
    """Write the pairs of a partition in both orders; how many rows there are. Raises DocumentsError, StoreError."""
    target = store.documents(pairs.name, partition)
    try:
        rows = in_both_orders(pairs.scan(store, partition), pairs.columns)
        with store.files.writing(target) as file:
            rows.sink_parquet(file, compression="zstd", row_group_size=_GROUP_ROWS)
    except DAMAGE as error:
        raise StoreError(f"{pairs.name} cannot be made ({type(error).__name__}): a table of it is damaged") from None
    return int(store.scan(target).select(pl.len()).collect().item())


def _lineage(pairs: Pairs) -> dg.TableColumnLineage:
    table = documents_key(pairs.documents)
    answers = [(asset_key(name, "enriched"), pairs.answer) for name in (pairs.one, pairs.other)]
    kept: Mapping[str, list[tuple[dg.AssetKey, str]]] = {name: [(table, name)] for name in (TEXT, *pairs.columns)}
    ids = {name: [(table, DOCUMENT_ID)] for name in (DOCUMENT_ID, PARENT)}
    return column_lineage({**kept, **ids, FIRST: answers, SECOND: answers})


_COLUMNS = {
    PARENT: "The document that both answers are to.",
    ORDER: "Whether the answers stand as declared, or swapped.",
    FIRST: "The answer that is shown first.",
    SECOND: "The answer that is shown second.",
}
