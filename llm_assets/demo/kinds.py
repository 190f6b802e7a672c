"""The kinds of work that a demo shows: which of the shipped enrichments, over which documents."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class KindName(StrEnum):
    """What can be asked for."""

    LABELS = "labels"


@dataclass(frozen=True, slots=True)
class Kind:
    """Enrichments of one table of documents, and what of it is worth looking at.

    `answer` is the output field that is shown beside a document. `label` is the documents' column in which a person
    said what it should be; without one no accuracy is told.
    """

    documents: str
    enrichments: tuple[str, ...]
    partitions: tuple[str, ...]
    answer: str
    label: str = ""


LABELS = Kind(
    documents="reviews",
    enrichments=("review_sentiment", "review_sentiment_openai"),
    partitions=("2026-11-01", "2026-11-02", "2026-11-03"),
    answer="sentiment",
    label="label",
)

KINDS = {KindName.LABELS: LABELS}
