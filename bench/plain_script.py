"""The second contender: the script that one would write with the official SDKs, without the mistakes of haste.

It holds everything in memory. It stays within the vendors' limits, gives every request an id of its own, takes
results in by that id, cuts lines at line feeds only, validates every answer and counts what is missing. It has no
ledger: a crash after sending loses the batches, and running it again pays again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl
from jinja2 import Template
from pydantic import BaseModel

from bench.task import KEY, MAX_TOKENS, MODELS, SYSTEM, documents_path, enrichment

if TYPE_CHECKING:  # one SDK a process, so that the other one's size does not count
    from anthropic import Anthropic
    from openai import OpenAI

Json = dict[str, Any]

_PROMPT = Template("{{ text }}")
_BATCH_REQUESTS = 50_000
_POLL_SECONDS = 0.2
_ENDPOINT: Literal["/v1/responses"] = "/v1/responses"


class Answer(BaseModel):
    """What is asked for."""

    sentiment: Literal["positive", "negative", "neutral"]
    topic: Literal["quality", "price", "delivery", "service", "other"]
    summary: str


def prepare(provider: str) -> None:
    """Import the vendor's SDK."""
    import_module(provider)


def submit(provider: str, root: Path, url: str) -> int:
    """Read, render and send all documents. Returns the requests that were sent."""
    documents = pl.read_parquet(documents_path(root))
    rows = list(documents.select("document_id", "text").iter_rows())
    (root / "batches.json").write_text(json.dumps(send(provider, url, rows)))
    return len(rows)


def send(provider: str, url: str, rows: list[tuple[str, str]]) -> list[str]:
    """Render and send these documents (id and text). Returns the batches."""
    schema = enrichment(provider).output.json_schema
    send = _send_anthropic if provider == "anthropic" else _send_openai
    return [send(url, rows[start : start + _BATCH_REQUESTS], schema) for start in range(0, len(rows), _BATCH_REQUESTS)]


def wait(provider: str, root: Path, url: str) -> None:
    """Ask until every batch has ended."""
    for batch_id in _batch_ids(root):
        while not has_ended(provider, url, batch_id):
            time.sleep(_POLL_SECONDS)  # as such a script does; not part of what is timed


def collect(provider: str, root: Path, url: str) -> int:
    """Fetch and validate all results and write them as a table. Returns the answers that were written."""
    rows = [row for batch_id in _batch_ids(root) for row in answers(provider, url, batch_id)]
    documents = pl.read_parquet(documents_path(root), columns=["document_id"])
    table = documents.join(pl.DataFrame(rows), on="document_id", how="left")
    if missing := table["sentiment"].null_count():
        raise RuntimeError(f"{missing} of {table.height} documents have no answer")
    table.write_parquet(root / "answers.parquet")
    return table.height


def answers(provider: str, url: str, batch_id: str) -> Iterator[Json]:
    """The answers of a batch, validated; requests that failed have none."""
    results = _anthropic_results if provider == "anthropic" else _openai_results
    for document_id, text, usage in results(url, batch_id):
        yield {"document_id": document_id, **Answer.model_validate_json(text).model_dump(), **usage}


def read(provider: str, root: Path, url: str) -> int:
    """Only fetch and validate all results, and keep nothing. Returns how many there were."""
    results = _anthropic_results if provider == "anthropic" else _openai_results
    return sum(
        isinstance(Answer.model_validate_json(text), Answer)
        for batch_id in _batch_ids(root)
        for _, text, _ in results(url, batch_id)
    )


def _batch_ids(root: Path) -> list[str]:
    batch_ids: list[str] = json.loads((root / "batches.json").read_text())
    return batch_ids


def _anthropic(url: str) -> Anthropic:
    from anthropic import Anthropic

    return Anthropic(base_url=url, api_key=KEY)


def _openai(url: str) -> OpenAI:
    from openai import OpenAI

    return OpenAI(base_url=f"{url}/v1", api_key=KEY)


def _send_anthropic(url: str, rows: list[tuple[str, str]], schema: Json) -> str:
    requests: Any = [
        {
            "custom_id": document_id,
            "params": {
                "model": MODELS["anthropic"],
                "max_tokens": MAX_TOKENS,
                "system": SYSTEM,
                "messages": [{"role": "user", "content": _PROMPT.render(text=text)}],
                "output_config": {"format": {"type": "json_schema", "schema": schema}},
            },
        }
        for document_id, text in rows
    ]
    return _anthropic(url).messages.batches.create(requests=requests).id


def _send_openai(url: str, rows: list[tuple[str, str]], schema: Json) -> str:
    wanted = {"type": "json_schema", "name": "bench", "schema": schema, "strict": True}
    lines = [
        json.dumps(
            {
                "custom_id": document_id,
                "method": "POST",
                "url": _ENDPOINT,
                "body": {
                    "model": MODELS["openai"],
                    "max_output_tokens": MAX_TOKENS,
                    "instructions": SYSTEM,
                    "input": [{"role": "user", "content": _PROMPT.render(text=text)}],
                    "text": {"format": wanted},
                },
            }
        )
        for document_id, text in rows
    ]
    client = _openai(url)
    file = client.files.create(file=("batch.jsonl", "\n".join(lines).encode()), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=_ENDPOINT, completion_window="24h").id


def has_ended(provider: str, url: str, batch_id: str) -> bool:
    """Whether a batch is done."""
    if provider == "anthropic":
        return _anthropic(url).messages.batches.retrieve(batch_id).processing_status == "ended"
    return _openai(url).batches.retrieve(batch_id).status == "completed"


def _anthropic_results(url: str, batch_id: str) -> Iterator[tuple[str, str, Json]]:
    client = _anthropic(url)  # held by a name: it closes its connections when nothing holds it
    for row in client.messages.batches.results(batch_id):
        if row.result.type != "succeeded":
            continue
        message = row.result.message
        text = "".join(block.text for block in message.content if block.type == "text")
        yield row.custom_id, text, _usage(message.usage.input_tokens, message.usage.output_tokens)


def _openai_results(url: str, batch_id: str) -> Iterator[tuple[str, str, Json]]:
    client = _openai(url)
    file_id = client.batches.retrieve(batch_id).output_file_id
    for line in client.files.content(file_id).text.split("\n") if file_id else ():
        if not line:
            continue
        row = json.loads(line)
        body = row["response"]["body"]
        parts = [part for item in body["output"] if item["type"] == "message" for part in item["content"]]
        text = "".join(part["text"] for part in parts if part["type"] == "output_text")
        yield row["custom_id"], text, _usage(body["usage"]["input_tokens"], body["usage"]["output_tokens"])


def _usage(input_tokens: int, output_tokens: int) -> Json:
    return {"input_tokens": input_tokens, "output_tokens": output_tokens}
