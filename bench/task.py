"""What both contenders do: the same documents, the same question, the same schema, the same models."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import polars as pl

from llm_assets.documents import SLICE_ROWS
from llm_assets.enrichment import Enrichment
from llm_assets.output_schema import OutputSchema
from llm_assets.prompt import Prompt
from llm_assets.store import Store

PROVIDERS = ("anthropic", "openai")
MODELS = {"anthropic": "claude-haiku-5-5", "openai": "gpt-6-luna"}
PARTITION = "2026-11-01"
DOCUMENTS = "texts"
MAX_TOKENS = 200
KEY = "bench"

SYSTEM = "You read one report and say how its writer feels, what it is about, and what it says in one sentence."
SENTIMENTS = ("positive", "negative", "neutral")
TOPICS = ("quality", "price", "delivery", "service", "other")

_LONG_SHARE = 0.03
_SENTENCES_SHORT, _SENTENCES_LONG = 14, 140
_POOL = 4000
_WORDS = """
    the a this that one some many few every other machine letter garden window engine paper winter river story kettle
    good bad quick slow heavy light bright dull broken perfect late early cheap solid loud quiet works stops arrives
    breaks opens closes turns runs costs keeps loses makes with without after before under
"""


def enrichment(provider: str) -> Enrichment:
    """The task as this platform has it declared."""
    return Enrichment(
        name="bench",
        documents=DOCUMENTS,
        provider=provider,
        model_name=MODELS[provider],
        prompt=Prompt.parse(f"system:\n{SYSTEM}\n\nuser:\n{{{{ text }}}}", "bench"),
        output=OutputSchema.from_fields(
            "bench",
            {
                "sentiment": {"type": "string", "enum": list(SENTIMENTS)},
                "topic": {"type": "string", "enum": list(TOPICS)},
                "summary": {"type": "string"},
            },
            "bench",
        ),
        max_tokens=MAX_TOKENS,
    )


def write_documents(root: Path, count: int) -> int:
    """Write `count` documents into the store at `root`; the same for the same count. Returns their text's bytes.

    Most are about 1 KB, three in a hundred about 10 KB, and no two are alike.
    """
    random = Random(count)  # noqa: S311 (texts, not secrets)
    words = _WORDS.split()
    pool = [" ".join(random.choices(words, k=12)) + ". " for _ in range(_POOL)]
    lengths = [_SENTENCES_LONG if random.random() < _LONG_SHARE else _SENTENCES_SHORT for _ in range(count)]
    texts = [f"Report {number}. " + "".join(random.choices(pool, k=k)) for number, k in enumerate(lengths)]
    frame = pl.DataFrame({"document_id": [f"d{number:08}" for number in range(count)], "text": texts})
    # Row groups as the asset `documents` writes them: they are what reading by slices holds in memory.
    documents_path(root).parent.mkdir(parents=True)
    frame.write_parquet(documents_path(root), compression="zstd", row_group_size=SLICE_ROWS)
    return sum(map(len, texts))


def documents_path(root: Path) -> Path:
    """Where the documents lie under a root."""
    store = Store(root)
    return store.local(store.documents(DOCUMENTS, PARTITION))


def share_documents(root: Path, other: Path) -> None:
    """Give another root the same file of documents."""
    documents_path(other).parent.mkdir(parents=True)
    os.link(documents_path(root), documents_path(other))
