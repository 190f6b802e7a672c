"""The component `Judgement`: which of two enrichments a judge prefers, and how far the judge can be trusted."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg
import polars as pl

from llm_assets.components.about import About
from llm_assets.components.automation import following_all, follows
from llm_assets.components.declarations import file_of
from llm_assets.components.documents import find_documents
from llm_assets.components.enrichment import find_enrichment
from llm_assets.components.enrichment_assets import asset_key
from llm_assets.components.evaluation import EVALUATION_TAG, emulated_by, published_by_all, shards_of
from llm_assets.components.loaded import COMPARED
from llm_assets.components.metadata import Metadata, emulator_mark
from llm_assets.components.paired import PairedAnswers, Pairs
from llm_assets.components.resources import PlatformResource, tag_process
from llm_assets.errors import DeclarationError, LLMAssetsError
from llm_assets.pairing import FIRST, SECOND, with_verdicts
from llm_assets.platform import Platform
from llm_assets.records import DOCUMENT_ID

TIE = "tie"


class JudgeOf(dg.Model, dg.Resolvable):
    """An enrichment over a table of pairs, and what the judgement calls it."""

    enrichment: str
    title: str | None = None


class Judgement(dg.Component, About):
    """Counts which of two answers judges prefer: each pair is asked in both orders, and preferred twice is a win.

    `judges` are enrichments over tables of `PairedAnswers`; their field `verdict` says `first`, `second`, or anything
    else for a tie. `label` is a column of the documents in which a person said which is better: the name of one of both
    enrichments, or `tie`.
    """

    name: str
    judges: Sequence[JudgeOf]
    verdict: str
    label: str | None = None

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The asset `<name>/comparison`, against the judges and pairs that are declared."""
        source = file_of(context)
        DeclarationError.raise_for(source, self._name_problems())
        judges = {judge.title or judge.enrichment: self._judge(context, judge, source) for judge in self.judges}
        return judgement_definitions(Judged(self.name, self.verdict, self.label, judges), self.about)

    def _name_problems(self) -> Iterator[str]:
        if not self.judges:
            yield "no judges are declared; name an enrichment over a table of PairedAnswers"
        titles = [judge.title or judge.enrichment for judge in self.judges]
        for title in sorted({title for title in titles if titles.count(title) > 1}):
            yield f"two judges are called {title!r}; give them titles of their own"

    def _judge(self, context: dg.ComponentLoadContext, judge: JudgeOf, source: str) -> "Judge":
        enrichment = find_enrichment(context, judge.enrichment, source)
        there = {found.name: found for found in context.component_tree.get_all_components(PairedAnswers)}
        if enrichment.documents not in there:
            raise DeclarationError(
                source, f"{judge.enrichment} is about {enrichment.documents}, which is no table of PairedAnswers"
            )
        columns = find_documents(context, enrichment.documents, source).schema
        fields = enrichment.tables(columns, source)["enriched"]
        if fields.get(self.verdict) != pl.String:
            raise DeclarationError(
                source, f"verdict names {self.verdict!r}, which is no text among what {judge.enrichment} answers"
            )
        missing = {FIRST, SECOND} - set(enrichment.options(self.verdict, source) or (FIRST, SECOND))
        if missing:
            raise DeclarationError(
                source,
                f"{judge.enrichment} cannot answer {' and '.join(sorted(missing))}; declare "
                f"`{self.verdict}: {{type: string, enum: [{FIRST}, {SECOND}, {TIE}]}}` there",
            )
        pairs = there[enrichment.documents].pairs()
        labelled = find_documents(context, pairs.documents, source).schema
        if self.label is not None and self.label not in labelled:
            raise DeclarationError(
                source, f"label names the column {self.label!r}, but {pairs.documents} has {', '.join(labelled)}"
            )
        return Judge(enrichment.name, pairs)


@dataclass(frozen=True, slots=True)
class Judge:
    """An enrichment that judges pairs."""

    enrichment: str
    pairs: Pairs

    @property
    def enrichments(self) -> tuple[str, str, str]:
        """All whose answers count."""
        return self.enrichment, self.pairs.one, self.pairs.other


@dataclass(frozen=True, slots=True)
class Judged:
    """What a judgement counts: the field `verdict` of judges, by their titles."""

    name: str
    verdict: str
    label: str | None
    judges: Mapping[str, Judge]


def judgement_definitions(judged: Judged, about: About | None = None) -> dg.Definitions:
    """The asset `<name>/comparison`. It follows the judges by itself."""
    about = about or About()
    COMPARED[judged.name] = frozenset(judge.pairs.documents for judge in judged.judges.values())
    names = dict.fromkeys(judge.enrichment for judge in judged.judges.values())
    tables = [asset_key(name, table) for name in names for table in ("enriched", "failed")]
    sides = {f"`{judge.pairs.one}` and `{judge.pairs.other}`" for judge in judged.judges.values()}

    @dg.asset(
        key=dg.AssetKey([judged.name, "comparison"]),
        deps=[dg.AssetDep(table, partition_mapping=dg.AllPartitionMapping()) for table in tables],
        automation_condition=following_all(tables),
        output_required=False,
        description=about.text(
            f"Which of {', '.join(sorted(sides))} is preferred by {', '.join(judged.judges)}.",
            "Each pair is judged in both orders; preferred twice is a win. The page says who wins, what is more than "
            "chance, and whether a judge prefers what stands first. It follows the judges by itself.",
        ),
        kinds={"parquet", "altair"},
        group_name=judged.name,
        owners=about.owners,
        tags={**about.tags, EVALUATION_TAG: judged.name},
    )
    def comparison(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[PlatformResource]
    ) -> Iterator[dg.MaterializeResult[None]]:
        tag_process(context)
        names = {name for judge in judged.judges.values() for name in judge.enrichments}
        with platform.platform() as opened:
            if follows(context.run) and not published_by_all(opened, names):
                context.log.info("nothing to judge yet: no partition is published by all")
                return
            yield _compared(opened, judged)

    return dg.Definitions(assets=[comparison])


def _compared(platform: Platform, judged: Judged) -> dg.MaterializeResult[None]:
    try:
        from llm_assets.judgement_page import judgement_page, verdict
        from llm_assets.judging import SIGNIFICANT, scored
    except ImportError as error:
        raise LLMAssetsError(
            f"judging needs {error.name}, which is not installed; pip install 'llm-assets[evaluation]'"
        ) from error
    store = platform.store
    names = sorted({name for judge in judged.judges.values() for name in judge.enrichments})
    partitions = published_by_all(platform, names)
    tables = [_verdicts(platform, judged, title, partition) for title in judged.judges for partition in partitions]
    if not tables:
        raise LLMAssetsError(
            f"{judged.name}: nothing to judge yet: no partition is published by all of {', '.join(names)}"
        )
    verdicts = pl.concat(tables)
    sides = {title: (judge.pairs.one, judge.pairs.other) for title, judge in judged.judges.items()}
    judges = scored(verdicts, sides)
    shards = [shard for name in names for shard in shards_of(platform, name)]
    page = judgement_page(
        judged.name,
        judges,
        documents=", ".join(sorted({judge.pairs.documents for judge in judged.judges.values()})),
        partitions=len(partitions),
        at=platform.clock(),
        emulated=emulated_by(shards),
    )
    store.write(store.evaluation(judged.name, "verdicts.parquet"), verdicts)
    store.write(store.evaluation(judged.name, "scores.parquet"), judges)
    with store.files.writing(store.evaluation(judged.name, "comparison.html")) as file:
        file.write_text(page, encoding="utf-8")
    metadata: Metadata = {
        "verdict": verdict(judges),
        "judges": _judges_table(judges),
        "page": dg.MetadataValue.path(store.files.where(store.evaluation(judged.name, "comparison.html"))),
        "dagster/row_count": verdicts.height,
        "partitions": len(partitions),
        "significant_differences": judges.filter(pl.col("p_adjusted") <= SIGNIFICANT).height,
        "judges_with_position_bias": judges.filter(pl.col("order_p_value") <= SIGNIFICANT).height,
        **_missing_verdicts(platform, judged, partitions),
        **emulator_mark(shards),
    }
    return dg.MaterializeResult(metadata=metadata)


def _verdicts(platform: Platform, judged: Judged, title: str, partition: str) -> pl.DataFrame:
    """judging.VERDICTS_SCHEMA: what a judge said of the pairs of a partition."""
    from llm_assets.judging import VERDICTS_SCHEMA

    store, judge = platform.store, judged.judges[title]
    said = pl.col(judged.verdict).alias("verdict")
    answered = store.scan(store.enriched(judge.enrichment, partition)).select(DOCUMENT_ID, said, "cost_usd")
    lost = pl.lit(None, pl.String).alias("verdict")
    failed = store.scan(store.failed(judge.enrichment, partition)).select(DOCUMENT_ID, lost, "cost_usd")
    rows = with_verdicts(judge.pairs.scan(store, partition), pl.concat([answered, failed]))
    known = {judge.pairs.one: "one", judge.pairs.other: "other", TIE: TIE, "": None}
    label = pl.lit(None, pl.String) if judged.label is None else pl.col(judged.label).cast(pl.String)
    found = rows.with_columns(
        label.alias("label"), pl.lit(partition).alias("partition"), pl.lit(title).alias("judge")
    ).collect()
    strange = found.filter(pl.col("label").is_in(list(known)).not_()).height
    if strange:
        names = ", ".join(name for name in known if name)
        raise LLMAssetsError(
            f"{judged.name}: in {strange:,} documents of {partition} {judged.label} says something else than {names}; "
            "mend the labels, or leave them empty"
        )
    return found.with_columns(pl.col("label").replace(known)).select(
        pl.col(name).cast(dtype) for name, dtype in VERDICTS_SCHEMA.items()
    )


def _missing_verdicts(platform: Platform, judged: Judged, partitions: Sequence[str]) -> dict[str, int]:
    """How many questions to the judges failed, by reason."""
    store = platform.store
    names = {judge.enrichment for judge in judged.judges.values()}
    reasons: Counter[str] = Counter()
    for name in names:
        for partition in partitions:
            reasons.update(store.scan(store.failed(name, partition)).select("reason").collect()["reason"])
    return {f"verdicts missing: {reason}": count for reason, count in reasons.most_common()}


def _judges_table(judges: pl.DataFrame) -> dg.MetadataValue:
    head = (
        "| judge | one | other | wins | losses | ties | orders disagree | not judged | p |\n|---|---|---|" + "---:|" * 6
    )
    rows = (
        f"| {row['judge']} | {row['one']} | {row['other']} | {row['one_count']} | {row['other_count']} | "
        f"{row['tie_count'] + row['same_count'] + row['disagreed_count']} | {row['disagreed_count']} | "
        f"{row['unjudged_count'] + row['unanswered_count']} | {row['p_adjusted']:.4f} |"
        for row in judges.iter_rows(named=True)
    )
    return dg.MetadataValue.md("\n".join((head, *rows)))
