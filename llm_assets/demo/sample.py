"""What the demo runs on, and what came of it: the sample partitions, their answers, and the bills for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from llm_assets.platform import Platform
from llm_assets.status import Outcome, outcome, together

DOCUMENTS = "reviews"
ENRICHMENTS = ("review_sentiment", "review_sentiment_openai")
PARTITIONS = ("2026-11-01", "2026-11-02", "2026-11-03")
# The column that a person filled, and the answer's field that should say the same.
LABEL, ANSWER = "label", "sentiment"
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


def report(platform: Platform, accounting: dict[str, Any], bills: pl.DataFrame) -> Report:
    """What came of the sample partitions, once all are published; `bills` are the emulator's rows."""
    outcomes = {}
    for name in ENRICHMENTS:
        plans = [plan for plan in platform.ledger.plans(name) if plan.partition in PARTITIONS]
        outcomes[name] = together(outcome(platform.store, plan) for plan in plans)
    answers = {name: _answers(platform, name) for name in ENRICHMENTS}
    asked_again, paid_twice = extra_bills(bills, _collected(platform))
    return Report(
        outcomes=outcomes,
        accuracies={name: accuracy(table) for name, table in answers.items()},
        examples=examples(answers, _documents(platform)),
        accounting=accounting,
        asked_again=asked_again,
        paid_twice=paid_twice,
    )


def accuracy(answers: pl.DataFrame) -> float | None:
    """The share of labelled documents whose answer is their label; None when none is labelled."""
    labelled = answers.filter(pl.col(LABEL).fill_null("") != "")
    if labelled.is_empty():
        return None
    return float((labelled[ANSWER] == labelled[LABEL]).fill_null(False).mean())  # type: ignore[arg-type]


def examples(answers: Mapping[str, pl.DataFrame], documents: pl.DataFrame) -> list[dict[str, str | None]]:
    """A few documents with their label and each enrichment's answer: two of each label, in the documents' order."""
    table = documents.select("document_id", "text", LABEL).filter(pl.col(LABEL).fill_null("") != "")
    for name, found in answers.items():
        table = table.join(found.select("document_id", pl.col(ANSWER).alias(name)), on="document_id", how="left")
    each = max(1, _EXAMPLES // max(1, table[LABEL].n_unique()))
    return table.filter(pl.int_range(pl.len()).over(LABEL) < each).sort(LABEL, maintain_order=True).to_dicts()


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
    """What was taken in for the sample partitions, a row for each custom_id."""
    tables = [
        platform.store.scan(platform.store.results(shard)).select(
            (pl.lit(f"{shard.key}-") + pl.col("fingerprint")).alias("custom_id"),
            pl.lit(name).alias("enrichment"),
            pl.lit(partition).alias("partition"),
            "fingerprint",
            "reason",
        )
        for name in ENRICHMENTS
        for partition in PARTITIONS
        for shard in platform.ledger.shards(name, partition)
    ]
    return pl.concat(tables).collect()


def _answers(platform: Platform, enrichment: str) -> pl.DataFrame:
    tables = (platform.store.scan(platform.store.enriched(enrichment, partition)) for partition in PARTITIONS)
    return pl.concat([table.select("document_id", LABEL, ANSWER) for table in tables]).collect()


def _documents(platform: Platform) -> pl.DataFrame:
    tables = (platform.store.scan(platform.store.documents(DOCUMENTS, partition)) for partition in PARTITIONS)
    return pl.concat([table.select("document_id", "text", LABEL) for table in tables]).collect()
