"""What the files of a store hold, told by their names: the way back from a path to what it is of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from urllib.parse import unquote

from llm_assets.store.files import Entry


class Holds(StrEnum):
    """What is in a file that holds something of documents."""

    DOCUMENTS = "documents"
    ENRICHED = "enriched"
    FAILED = "failed"
    PLAN = "plans"
    REQUESTS = "requests"
    RESULTS = "results"
    REQUEST_FILE = "request files"
    JOURNAL = "journals"
    COMPARED = "compared answers"


@dataclass(frozen=True, slots=True)
class Kept:
    """A file of the store: `name` is the documents', the enrichment's or the evaluation's, `partition` is empty where
    it has all, `key` is the shard's, where it is of one. `modified` is when it was written.
    """

    path: str
    holds: Holds
    name: str
    partition: str
    key: str
    modified: datetime


_BATCHES = r"enrichments/(?P<name>[^/]+)/batches/(?P<partition>[^/]+)"
_SHARD = rf"{_BATCHES}/wave-\d+/(?P<key>[^/.]+)"
_NAMES = {
    Holds.DOCUMENTS: r"documents/(?P<name>[^/]+)/(?P<partition>[^/]+)\.parquet",
    Holds.ENRICHED: r"enrichments/(?P<name>[^/]+)/enriched/(?P<partition>[^/]+)\.parquet",
    Holds.FAILED: r"enrichments/(?P<name>[^/]+)/failed/(?P<partition>[^/]+)\.parquet",
    Holds.PLAN: rf"{_BATCHES}/plan-[^/]+\.parquet",
    Holds.REQUESTS: rf"{_SHARD}\.requests\.parquet",
    Holds.RESULTS: rf"{_SHARD}\.(?:[^/]+\.)?results\.parquet",
    Holds.JOURNAL: rf"{_SHARD}\.answers\.jsonl(?:/[^/]+)?",
    Holds.REQUEST_FILE: rf"{_SHARD}\.jsonl?",
    Holds.COMPARED: r"evaluations/(?P<name>[^/]+)/(?:answers|accepted|verdicts)\.parquet",
}
_PATTERNS = {holds: re.compile(pattern) for holds, pattern in _NAMES.items()}


def kept(entry: Entry) -> Kept | None:
    """What a file is, by its name; None for one that holds nothing of documents."""
    for holds, pattern in _PATTERNS.items():
        if found := pattern.fullmatch(entry.path):
            of = found.groupdict()
            partition = unquote(of.get("partition", ""))
            return Kept(entry.path, holds, unquote(of["name"]), partition, of.get("key", ""), entry.modified)
    return None
