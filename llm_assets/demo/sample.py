"""What came of a demo: the answers for the partitions of its kind, and the bills for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from llm_assets.demo.kinds import Kind
from llm_assets.platform import Platform
from llm_assets.published import Outcome, outcome, together

_EXAMPLES = 6


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it: by enrichment, some answers side by side, and the emulator's own books.

    `asked_again` counts the bills for answers that could not be used, `paid_twice` those that nothing explains.
    """

    outcomes: Mapping[str, Outcome]
    accuracies: Mapping[str, float | None]
    examples: list[dict[str, str | None]]
    accounting: dict[str, Any]
    asked_again: int
    paid_twice: int


def report(platform: Platform, kind: Kind, accounting: dict[str, Any], bills: pl.DataFrame) -> Report:
    """What came of the kind's partitions, once all are published; `bills` are the emulator's rows."""
    outcomes = {}
    for name in kind.all_enrichments:
        plans = [plan for plan in platform.ledger.plans(name) if plan.partition in kind.partitions]
        outcomes[name] = together(outcome(platform.store, plan) for plan in plans)
    answers = {name: _answers(platform, kind, name) for name in kind.shown or kind.all_enrichments}
    asked_again, paid_twice = extra_bills(bills, _collected(platform))
    return Report(
        outcomes=outcomes,
        accuracies={name: accuracy(table) for name, table in answers.items()},
        examples=examples(answers, _documents(platform, kind)),
        accounting=accounting,
        asked_again=asked_again,
        paid_twice=paid_twice,
    )


def accuracy(answers: pl.DataFrame) -> float | None:
    """The share of labelled documents whose answer is their label; None when none is labelled."""
    labelled = answers.filter(pl.col("label").fill_null("") != "")
    if labelled.is_empty():
        return None
    return float((labelled["answer"] == labelled["label"]).fill_null(False).mean())  # type: ignore[arg-type]


def examples(answers: Mapping[str, pl.DataFrame], documents: pl.DataFrame) -> list[dict[str, str | None]]:
    """A few documents with their label and each enrichment's answer: as many of each label, in the documents' order.

    Where a person labelled some, those without a label are left out.
    """
    table = documents
    if documents["label"].fill_null("").ne("").any():
        table = documents.filter(pl.col("label").fill_null("") != "")
    for name, found in answers.items():
        table = table.join(found.select("document_id", pl.col("answer").alias(name)), on="document_id", how="left")
    each = max(1, _EXAMPLES // max(1, table["label"].n_unique()))
    return table.filter(pl.int_range(pl.len()).over("label") < each).sort("label", maintain_order=True).to_dicts()


def extra_bills(bills: pl.DataFrame, collected: pl.DataFrame) -> tuple[int, int]:
    """Bills beyond the one for each request of a partition: those for answers that could not be used, and the rest.

    `bills` are the emulator's rows (custom_id, billed); `collected` what was taken in for each custom_id: its
    enrichment and partition, its fingerprint, and the reason why it is no answer. A bill for something that nobody
    here sent is one of the rest.
    """
    billed = bills.filter("billed").join(collected, on="custom_id", how="left", nulls_equal=False)
    known = billed.filter(pl.col("fingerprint").is_not_null())
    request = ("enrichment", "partition", "fingerprint")
    again = known.height - known.select(request).n_unique()
    twice = known.filter(pl.col("reason").is_null())
    paid_twice = twice.height - twice.select(request).n_unique()
    return again - paid_twice, paid_twice + billed.height - known.height


def _collected(platform: Platform) -> pl.DataFrame:
    """What was taken in for all that the store knows, a row for each custom_id."""
    tables = [
        platform.store.scan(platform.store.results(shard)).select(
            (pl.lit(f"{shard.key}-") + pl.col("fingerprint")).alias("custom_id"),
            pl.lit(plan.enrichment).alias("enrichment"),
            pl.lit(plan.partition).alias("partition"),
            "fingerprint",
            "reason",
        )
        for plan in platform.ledger.plans()
        for shard in platform.ledger.shards(plan.enrichment, plan.partition)
        if shard.results
    ]
    return pl.concat(tables).collect()


def _answers(platform: Platform, kind: Kind, enrichment: str) -> pl.DataFrame:
    """document_id, label, answer; what is no text as a person would write it."""
    store = platform.store
    tables = pl.concat(
        [
            store.scan(store.enriched(enrichment, partition)).select("document_id", _label(kind), answer=kind.answer)
            for partition in kind.partitions
        ]
    ).collect()
    if tables["answer"].dtype == pl.String:
        return tables
    told = [None if value is None else _told(value) for value in tables["answer"].to_list()]
    return tables.with_columns(pl.Series("answer", told, dtype=pl.String))


def _told(value: object) -> str:
    match value:
        case [float(), *_]:
            return f"[{value[0]:.3f}, {value[1]:.3f}, … {len(value)} numbers]"
        case list():
            return "\n".join(map(_told, value))
        case dict():
            return " · ".join(_told(inner) for inner in value.values() if inner is not None)
        case _:
            return str(value)


def _documents(platform: Platform, kind: Kind) -> pl.DataFrame:
    """document_id, text, label."""
    tables = (platform.store.scan(platform.store.documents(kind.documents, day)) for day in kind.partitions)
    return pl.concat([table.select("document_id", "text", _label(kind)) for table in tables]).collect()


def _label(kind: Kind) -> pl.Expr:
    return (pl.col(kind.label) if kind.label else pl.lit(None, dtype=pl.String)).alias("label")
