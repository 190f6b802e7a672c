"""The kinds of work that a demo shows: which of the shipped enrichments, over which documents."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class KindName(StrEnum):
    """What can be asked for."""

    LABELS = "labels"
    EXTRACTION = "extraction"
    SUMMARIES = "summaries"
    EMBEDDINGS = "embeddings"
    EVALUATION = "evaluation"
    REALTIME = "realtime"
    CORPUS = "corpus"


@dataclass(frozen=True, slots=True)
class Kind:
    """Enrichments of one table of documents, and what of it is worth looking at.

    `answer` is the output field that is shown beside a document. `label` is the documents' column in which a person
    said what it should be; without one no accuracy is told. `following` are the enrichments whose documents are made of
    the others' answers: nobody launches them. Answers of those in `shown` (none: all) stand beside the documents.
    `model` is what answers such questions best. When documents are `arriving`, nobody launches anything. An
    `evaluation` compares them in the end, and leaves a table of what was `compared`.
    """

    documents: str
    enrichments: tuple[str, ...]
    partitions: tuple[str, ...]
    answer: str
    label: str = ""
    following: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    model: str = "smollm2"
    arriving: bool = False
    evaluation: str = ""
    compared: str = "answers.parquet"

    @property
    def all_enrichments(self) -> tuple[str, ...]:
        """Those that are launched, and those that follow."""
        return self.enrichments + self.following


LABELS = Kind(
    documents="reviews",
    enrichments=("review_sentiment", "review_sentiment_openai"),
    partitions=("2026-11-01", "2026-11-02", "2026-11-03"),
    answer="sentiment",
    label="label",
)

KINDS = {
    KindName.LABELS: LABELS,
    KindName.EXTRACTION: Kind(
        documents="invoices",
        enrichments=("invoice_fields",),
        partitions=("2026-11-01", "2026-11-02"),
        answer="line_items",
        model="scripted",
    ),
    KindName.SUMMARIES: Kind(
        documents="minutes",
        enrichments=("minutes_summary_start",),
        following=("minutes_part_summary", "minutes_summary", "summary_judge"),
        shown=("minutes_summary", "minutes_summary_start"),
        partitions=("2026-11-01", "2026-11-02"),
        answer="summary",
        model="scripted",
        evaluation="summary_judgement",
        compared="verdicts.parquet",
    ),
    KindName.EMBEDDINGS: Kind(
        documents="reviews",
        enrichments=("review_embeddings",),
        partitions=("2026-11-01", "2026-11-02"),
        answer="embedding",
        model="scripted",
    ),
    KindName.EVALUATION: Kind(
        documents="reviews",
        enrichments=("review_sentiment", "review_sentiment_openai", "review_sentiment_zero_shot"),
        partitions=LABELS.partitions,
        answer="sentiment",
        label="label",
        evaluation="sentiment_evaluation",
    ),
    KindName.REALTIME: Kind(
        documents="reviews",
        enrichments=("review_sentiment_now",),
        partitions=("2026-11-01", "2026-11-02"),
        answer="sentiment",
        label="label",
        model="scripted",
    ),
    KindName.CORPUS: Kind(
        documents="letters",
        enrichments=(),
        following=("letter_topics",),
        partitions=("1987", "1988", "1989"),
        answer="topic",
        model="scripted",
        arriving=True,
    ),
}
