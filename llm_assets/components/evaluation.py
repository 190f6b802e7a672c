"""The component `Evaluation`: enrichments that answer the same labelled documents, compared."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import dagster as dg
import polars as pl

from llm_assets.components.about import DOCUMENTS_TAG, About
from llm_assets.components.automation import following_all, follows
from llm_assets.components.declarations import file_of
from llm_assets.components.documents import find_documents
from llm_assets.components.enrichment import Enrichment
from llm_assets.components.enrichment_assets import asset_key
from llm_assets.components.loaded import COMPARED
from llm_assets.components.metadata import Metadata, emulator_mark, is_emulated
from llm_assets.components.resources import PlatformResource, tag_process
from llm_assets.errors import DeclarationError, LLMAssetsError
from llm_assets.platform import Platform
from llm_assets.records import DOCUMENT_ID, Shard

EVALUATION_TAG = "llm_assets/evaluation"
_TOKENS = ("input_tokens", "output_tokens")


class CellOf(dg.Model, dg.Resolvable):
    """An enrichment that is compared, and what the comparison calls it."""

    enrichment: str
    title: str | None = None


class Evaluation(dg.Component, About):
    """Compares enrichments by how often the field `answer` says what a person put into the documents' column `label`.

    `cells` are enrichments of the same `documents` that keep that column; documents without a label are left out. All
    partitions count that every cell has published.
    """

    name: str
    documents: str
    label: str
    answer: str
    cells: Sequence[CellOf]

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The asset `<name>/comparison` and its check, against the enrichments and documents that are declared."""
        source = file_of(context)
        columns = find_documents(context, self.documents, source).schema
        there = {found.name: found for found in context.component_tree.get_all_components(Enrichment)}
        DeclarationError.raise_for(source, self._problems(columns, there, source))
        cells = {cell.title or cell.enrichment: cell.enrichment for cell in self.cells}
        compared = Compared(self.name, self.documents, self.label, self.answer, cells)
        return evaluation_definitions(compared, self.about)

    def _problems(
        self, columns: Mapping[str, pl.DataType], there: Mapping[str, Enrichment], source: str
    ) -> Iterator[str]:
        if not self.cells:
            yield "no cells are declared; name the enrichments that are to be compared"
        if self.label not in columns:
            yield f"label names the column {self.label!r}, but {self.documents} has {', '.join(columns)}"
        titles = [cell.title or cell.enrichment for cell in self.cells]
        for title in sorted({title for title in titles if titles.count(title) > 1}):
            yield f"two cells are called {title!r}; give them titles of their own"
        for cell in self.cells:
            if cell.enrichment not in there:
                names = ", ".join(sorted(there)) or "none"
                yield f"the enrichment {cell.enrichment!r} is not declared; there are: {names}"
                continue
            enrichment = there[cell.enrichment]
            if enrichment.documents != self.documents:
                yield f"{cell.enrichment} is about {enrichment.documents}, not about {self.documents}"
            elif self.label not in enrichment.keep:
                yield f"{cell.enrichment} does not keep the label; write `keep: [{self.label}]` there"
            elif self.answer not in (fields := enrichment.tables(columns, source)["enriched"]):
                yield f"answer names {self.answer!r}, but {cell.enrichment} answers with {', '.join(fields)}"


@dataclass(frozen=True, slots=True)
class Compared:
    """What an evaluation compares: enrichments by the titles of their cells."""

    name: str
    documents: str
    label: str
    answer: str
    cells: Mapping[str, str]


def evaluation_definitions(compared: Compared, about: About | None = None) -> dg.Definitions:
    """The asset `<name>/comparison` with its check. It follows the enrichments by itself."""
    about = about or About()
    COMPARED[compared.name] = frozenset({compared.documents})
    key = dg.AssetKey([compared.name, "comparison"])
    tables = [asset_key(name, table) for name in compared.cells.values() for table in ("enriched", "failed")]

    @dg.asset(
        key=key,
        deps=[dg.AssetDep(table, partition_mapping=dg.AllPartitionMapping()) for table in tables],
        automation_condition=following_all(tables),
        output_required=False,
        description=about.text(
            f"How often {', '.join(compared.cells)} say what a person says.",
            f"Of the documents of `documents/{compared.documents}` that have a `{compared.label}`: how often `"
            f"{compared.answer}` is the same, how sure that is, and what it costs. All partitions count that every "
            "enrichment has published.",
        ),
        kinds={"parquet", "altair"},
        group_name=compared.name,
        owners=about.owners,
        tags={**about.tags, EVALUATION_TAG: compared.name, DOCUMENTS_TAG: compared.documents},
        check_specs=[
            dg.AssetCheckSpec(
                "no_worse", asset=key, description="No cell is worse than in the comparison that was accepted last."
            )
        ],
    )
    def comparison(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[PlatformResource]
    ) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
        tag_process(context)
        with platform.platform() as opened:
            if follows(context.run) and not published_by_all(opened, compared.cells.values()):
                note = "nothing to compare yet: no partition is published by all"
                yield dg.AssetCheckResult(check_name="no_worse", passed=True, metadata={"note": note})
                return
            yield _compared(opened, compared)

    return dg.Definitions(assets=[comparison])


def _compared(platform: Platform, compared: Compared) -> dg.MaterializeResult[None]:
    try:
        from llm_assets.comparison_page import comparison_page, verdict
        from llm_assets.evaluation import score, worse
    except ImportError as error:
        raise LLMAssetsError(
            f"comparing needs {error.name}, which is not installed; pip install 'llm-assets[evaluation]'"
        ) from error
    store = platform.store
    partitions = published_by_all(platform, compared.cells.values())
    answers = _answers(platform, compared, partitions)
    if answers.is_empty():
        cells = ", ".join(compared.cells.values())
        why = (
            f"no document of the {len(partitions):,} partitions published by all of {cells} has a {compared.label}"
            if partitions
            else f"no partition is published by all of {cells}"
        )
        raise LLMAssetsError(f"{compared.name}: nothing to compare yet: {why}")
    shards = {title: shards_of(platform, name) for title, name in compared.cells.items()}
    scores = score(answers, {title: _hours(found) for title, found in shards.items()})
    emulated = emulated_by([shard for found in shards.values() for shard in found])
    page = comparison_page(
        compared.name,
        scores,
        documents=compared.documents,
        partitions=len(partitions),
        at=platform.clock(),
        emulated=emulated,
    )
    store.write(store.evaluation(compared.name, "answers.parquet"), answers)
    store.write(store.evaluation(compared.name, "scores.parquet"), scores.cells)
    with store.files.writing(store.evaluation(compared.name, "comparison.html")) as file:
        file.write_text(page, encoding="utf-8")
    accepted = store.evaluation(compared.name, "accepted.parquet")
    since = worse(answers, store.scan(accepted).collect()) if store.files.exists(accepted) else None
    metadata: Metadata = {
        "verdict": verdict(scores),
        "scores": _scores_table(scores.cells),
        "page": dg.MetadataValue.path(store.files.where(store.evaluation(compared.name, "comparison.html"))),
        "dagster/row_count": answers.height,
        "documents": int(scores.cells["documents"][0]),
        "partitions": len(partitions),
        "significant_differences": scores.significant().height,
        **{f"accuracy {row['cell']}": row["accuracy"] for row in scores.cells.iter_rows(named=True)},
        **{f"usd_per_1000 {row['cell']}": row["usd_per_1000"] for row in scores.cells.iter_rows(named=True)},
        "confusion": _confusion_table(scores.confusion),
    }
    metadata |= emulator_mark([shard for found in shards.values() for shard in found])
    return dg.MaterializeResult(metadata=metadata, check_results=[_no_worse(since)])


def emulated_by(shards: Iterable[Shard]) -> bool:
    """Whether any of them was answered by the local emulator."""
    return any(is_emulated(shard.batch_id) for shard in shards)


def published_by_all(platform: Platform, enrichments: Iterable[str]) -> list[str]:
    """The partitions that every one of them has published."""
    found = [
        {plan.partition for plan in platform.ledger.plans(name) if plan.published_at is not None}
        for name in enrichments
    ]
    return sorted(set.intersection(*found)) if found else []


def _answers(platform: Platform, compared: Compared, partitions: Sequence[str]) -> pl.DataFrame:
    """evaluation.ANSWERS_SCHEMA: the labelled documents that all cells have, as the same rows for each."""
    tables = [
        _cell(platform, compared, title, name, partition)
        for title, name in compared.cells.items()
        for partition in partitions
    ]
    if not tables:
        return pl.DataFrame()
    rows = pl.concat(tables).filter(pl.col("label").fill_null("") != "").collect()
    by_all = pl.len().over("partition", DOCUMENT_ID, "label") == len(compared.cells)
    return rows.filter(by_all)


def _cell(platform: Platform, compared: Compared, title: str, name: str, partition: str) -> pl.LazyFrame:
    store = platform.store
    label = pl.col(compared.label).cast(pl.String).alias("label")
    said = pl.col(compared.answer).cast(pl.String).alias("answer")
    first = (pl.lit(partition).alias("partition"), DOCUMENT_ID, pl.lit(title).alias("cell"), label)
    answered = store.scan(store.enriched(name, partition)).select(*first, said, "cost_usd", *_TOKENS)
    lost = pl.lit(None, pl.String).alias("answer")
    failed = store.scan(store.failed(name, partition)).select(*first, lost, "cost_usd", *_TOKENS)
    return pl.concat([answered, failed])


def shards_of(platform: Platform, enrichment: str) -> list[Shard]:
    """All shards of an enrichment."""
    plans = platform.ledger.plans(enrichment)
    return [shard for plan in plans for shard in platform.ledger.shards(enrichment, plan.partition)]


def _hours(shards: Sequence[Shard]) -> float | None:
    """How long a batch took from its submission to its end, as a median."""
    took = [
        (shard.ended_at - shard.submitted_at).total_seconds() / 3600
        for shard in shards
        if shard.ended_at and shard.submitted_at
    ]
    return median(took) if took else None


def _no_worse(since: pl.DataFrame | None) -> dg.AssetCheckResult:
    if since is None:
        note = "nothing is accepted yet; `llm-assets accept` makes a comparison the one that others are held against"
        return dg.AssetCheckResult(check_name="no_worse", passed=True, metadata={"note": note})
    fell = since.filter("is_worse")
    return dg.AssetCheckResult(
        check_name="no_worse",
        passed=fell.is_empty(),
        metadata={
            "cells_that_are_worse": ", ".join(fell["cell"]) or "none",
            **{
                f"{row['cell']}": f"{row['accepted_accuracy']:.1%} → {row['accuracy']:.1%} of {row['documents']:,} "
                f"documents (p = {row['p_value']:.4f})"
                for row in since.iter_rows(named=True)
            },
        },
    )


def _scores_table(cells: pl.DataFrame) -> dg.MetadataValue:
    head = "| cell | accuracy | interval | macro F1 | failed | $ / 1,000 |\n|---|---:|---:|---:|---:|---:|\n"
    rows = (
        f"| {row['cell']} | {row['accuracy']:.1%} | {row['accuracy_low']:.1%}–{row['accuracy_high']:.1%} | "
        f"{row['macro_f1']:.3f} | {row['failed_share']:.1%} | {row['usd_per_1000']:.4f} |"
        for row in cells.sort("accuracy", descending=True).iter_rows(named=True)
    )
    return dg.MetadataValue.md(head + "\n".join(rows))


def _confusion_table(confusion: pl.DataFrame) -> dg.MetadataValue:
    wide = confusion.sort("answer").pivot("answer", index=["cell", "label"], values="count").fill_null(0)
    names = wide.columns
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    lines += [f"| {' | '.join(map(str, row))} |" for row in wide.sort("cell", "label").iter_rows()]
    return dg.MetadataValue.md("\n".join(lines))


def accept(platform: Platform, name: str) -> int:
    """Make the comparison that is there the one that later ones are held against; how many rows it has."""
    store = platform.store
    path = store.evaluation(name, "answers.parquet")
    if not store.files.exists(path):
        raise LLMAssetsError(
            f"no comparison of {name!r} is in the store at {store.files.where()}: materialize it first"
        )
    answers = store.scan(path).collect()
    store.write(store.evaluation(name, "accepted.parquet"), answers)
    return answers.height
