"""The asset checks of an enrichment, read from the published tables: nothing lost, few failures, the schema."""

from collections.abc import Iterator

import dagster as dg
import polars as pl

from llm_assets.components.resources import PlatformResource
from llm_assets.embedding import EMBEDDING, Embedding
from llm_assets.enrichment import Enrichment
from llm_assets.evidence import UNSUPPORTED
from llm_assets.platform import Platform
from llm_assets.records import DOCUMENT_ID


def enrichment_checks(enrichment: Enrichment, enriched: dg.AssetKey) -> dg.AssetChecksDefinition:
    """The checks of `<name>/enriched`; they run whenever it is published, and not before."""
    is_embedding = isinstance(enrichment.output, Embedding)

    @dg.multi_asset_check(
        name=f"{enrichment.name}__checks",
        specs=[
            dg.AssetCheckSpec(
                "nothing_lost", asset=enriched, description="Every document is in `enriched` or in `failed`, once."
            ),
            dg.AssetCheckSpec(
                "failure_rate",
                asset=enriched,
                description=f"At most {enrichment.failure_rate_max:.1%} of the documents failed.",
            ),
            dg.AssetCheckSpec("schema", asset=enriched, description="Every declared field is there, with its type."),
            *([_evidence_spec(enrichment, enriched)] if enrichment.evidence else []),
            *([dg.AssetCheckSpec("vectors", asset=enriched, description=_VECTORS)] if is_embedding else []),
        ],
    )
    def checks(
        context: dg.AssetCheckExecutionContext, platform: dg.ResourceParam[PlatformResource]
    ) -> Iterator[dg.AssetCheckResult]:
        with platform.platform() as opened:
            partition = context.partition_key
            answers = opened.store.scan(opened.store.enriched(enrichment.name, partition))
            failures = opened.store.scan(opened.store.failed(enrichment.name, partition))
            yield _nothing_lost(opened, enrichment, partition, enriched, answers, failures)
            yield _failure_rate(enrichment, enriched, answers, failures)
            yield _schema(enrichment, enriched, answers)
            if enrichment.evidence:
                yield _evidence(enriched, answers)
            if is_embedding:
                yield _vectors(enriched, answers)

    return checks


def _nothing_lost(
    platform: Platform,
    enrichment: Enrichment,
    partition: str,
    enriched: dg.AssetKey,
    answers: pl.LazyFrame,
    failures: pl.LazyFrame,
) -> dg.AssetCheckResult:
    plan = platform.ledger.plan(enrichment.name, partition)
    wanted = (
        platform.store.scan(plan.path).select(DOCUMENT_ID) if plan else pl.LazyFrame(schema={DOCUMENT_ID: pl.String})
    )
    settled = pl.concat([answers.select(DOCUMENT_ID), failures.select(DOCUMENT_ID)])
    missing = _rows(wanted.join(settled, on=DOCUMENT_ID, how="anti"))
    found, documents = _rows(settled), _rows(wanted)
    return dg.AssetCheckResult(
        check_name="nothing_lost",
        asset_key=enriched,
        passed=not missing and found == documents,
        metadata={
            "documents": documents,
            "enriched": _rows(answers),
            "failed": _rows(failures),
            "missing": missing,
        },
    )


def _failure_rate(
    enrichment: Enrichment, enriched: dg.AssetKey, answers: pl.LazyFrame, failures: pl.LazyFrame
) -> dg.AssetCheckResult:
    failed, documents = _rows(failures), _rows(answers) + _rows(failures)
    rate = failed / documents if documents else 0.0
    return dg.AssetCheckResult(
        check_name="failure_rate",
        asset_key=enriched,
        passed=rate <= enrichment.failure_rate_max,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"failure_rate": rate, "failure_rate_max": enrichment.failure_rate_max, "failed": failed},
    )


def _schema(enrichment: Enrichment, enriched: dg.AssetKey, answers: pl.LazyFrame) -> dg.AssetCheckResult:
    found = answers.collect_schema()
    wrong: dict[str, str] = {
        name: f"expected {dtype}, found {found.get(name)}"
        for name, dtype in enrichment.output.frame_schema.items()
        if found.get(name) != dtype
    }
    return dg.AssetCheckResult(
        check_name="schema",
        asset_key=enriched,
        passed=not wrong,
        metadata={"fields": len(enrichment.output.frame_schema), **wrong},
    )


def _evidence_spec(enrichment: Enrichment, enriched: dg.AssetKey) -> dg.AssetCheckSpec:
    fields = ", ".join(enrichment.evidence)
    return dg.AssetCheckSpec("evidence", asset=enriched, description=f"What is said of {fields} stands in the texts.")


def _evidence(enriched: dg.AssetKey, answers: pl.LazyFrame) -> dg.AssetCheckResult:
    flagged = answers.select(pl.col(UNSUPPORTED).explode(empty_as_null=False)).drop_nulls().collect()
    counts: dict[str, int] = dict(flagged[UNSUPPORTED].value_counts(sort=True).iter_rows())
    rows = _rows(answers.filter(pl.col(UNSUPPORTED).list.len() > 0))
    return dg.AssetCheckResult(
        check_name="evidence",
        asset_key=enriched,
        passed=not rows,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "answers_with_unsupported_values": rows,
            "answers_not_looked_at": _rows(answers.filter(pl.col(UNSUPPORTED).is_null())),
            **{f"unsupported {path}": count for path, count in counts.items()},
        },
    )


_VECTORS = "Vectors have about the length of one, and differ: of the first 10,000."
_VECTORS_LOOKED_AT = 10_000
_LENGTH_OFF_MAX = 0.01


def _vectors(enriched: dg.AssetKey, answers: pl.LazyFrame) -> dg.AssetCheckResult:
    """Whether vectors can be compared by their cosine; some servers send others, or one for all texts."""
    vector = pl.col(EMBEDDING)
    looked = answers.select(EMBEDDING, "fingerprint").head(_VECTORS_LOOKED_AT).collect()
    lengths = looked.select((vector * vector).arr.sum().sqrt()).to_series()
    neighbours = looked.select((vector * vector.shift(1)).arr.sum()).to_series()
    distinct, texts = looked[EMBEDDING].cast(pl.List(pl.Float32)).hash().n_unique(), looked["fingerprint"].n_unique()
    off = max((abs(length - 1) for length in (lengths.min(), lengths.max()) if isinstance(length, float)), default=0.0)
    found = {"length_min": lengths.min(), "length_max": lengths.max(), "cosine_of_neighbours": neighbours.mean()}
    return dg.AssetCheckResult(
        check_name="vectors",
        asset_key=enriched,
        passed=off <= _LENGTH_OFF_MAX and (distinct > 1 or texts < 2),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "vectors": looked.height,
            "distinct": distinct,
            **{name: value for name, value in found.items() if isinstance(value, float)},
        },
    )


def _rows(frame: pl.LazyFrame) -> int:
    return int(frame.select(pl.len()).collect().item())
