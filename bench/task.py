"""What both contenders do: the same documents, the same question, the same schema, the same models."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import polars as pl

from llm_assets.documents import SLICE_ROWS, DocumentSource
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
_SLICE = 50_000
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
    """Write `count` documents into the store at `root`, as the asset `documents` does. Returns their text's bytes.

    They are the same for the same count. Most are about 1 KB, three in a hundred about 10 KB, and no two are alike.
    They are made and written by slices: any number takes the same memory.
    """
    text_bytes = 0
    with TemporaryDirectory(prefix="bench-source-", dir=_made(root)) as folder:
        for start in range(0, count, _SLICE):
            documents = made_up(start, min(_SLICE, count - start))
            documents.write_parquet(_made(Path(folder, PARTITION)) / f"{start:012}.parquet", compression="lz4")
            text_bytes += int(documents["text"].str.len_bytes().sum())
        source = DocumentSource(DOCUMENTS, "{partition}/*.parquet", "document_id", "text", base=Path(folder))
        source.write(PARTITION, documents_path(root))
    return text_bytes


def made_up(start: int, count: int) -> pl.DataFrame:
    """So many documents from the one of this number on: document_id, text."""
    random = Random(start)  # noqa: S311 (texts, not secrets)
    pool = sentences(random)
    numbers = range(start, start + count)
    lengths = [_SENTENCES_LONG if random.random() < _LONG_SHARE else _SENTENCES_SHORT for _ in numbers]
    texts = [
        f"Report {number}. " + "".join(random.choices(pool, k=k)) for number, k in zip(numbers, lengths, strict=True)
    ]
    return pl.DataFrame({"document_id": [f"d{number:09}" for number in numbers], "text": texts})


def sentences(random: Random) -> list[str]:
    """What texts are made of."""
    words = _WORDS.split()
    return [" ".join(random.choices(words, k=12)) + ". " for _ in range(_POOL)]


def report(name: str, random: Random, pool: list[str]) -> str:
    """One text, as long as those of `write_documents`."""
    length = _SENTENCES_LONG if random.random() < _LONG_SHARE else _SENTENCES_SHORT
    return f"Report {name}. " + "".join(random.choices(pool, k=length))


def change_one(root: Path) -> None:
    """Give the store at `root` documents of its own, of which one in the middle says something else than before."""
    path = documents_path(root)
    documents = pl.scan_parquet(path)
    middle = documents.select(pl.len()).collect().item() // 2
    text = pl.when(pl.int_range(pl.len()) == middle).then(pl.col("text") + "Changed.").otherwise("text").alias("text")
    changed = path.with_suffix(".changed")
    documents.with_columns(text).sink_parquet(changed, compression="zstd", row_group_size=SLICE_ROWS)
    changed.replace(path)


def documents_path(root: Path, partition: str = PARTITION) -> Path:
    """Where the documents lie under a root."""
    store = Store(root)
    return Path(store.files.where(store.documents(DOCUMENTS, partition)))


def share_documents(root: Path, other: Path, partition: str = PARTITION) -> None:
    """Give another root the same file of documents, in place of what it has."""
    path = documents_path(other, partition)
    _made(path.parent)
    path.unlink(missing_ok=True)
    os.link(documents_path(root), path)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
