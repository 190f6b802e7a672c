"""Requests as tests send them, and what came back by custom_id."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import httpx2
import orjson
from anthropic import Anthropic
from anthropic.types.messages import MessageBatch
from openai import OpenAI
from openai.types import Batch

LABELS = ("positive", "negative", "neutral")
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"label": {"type": "string", "enum": list(LABELS)}, "why": {"type": "string"}},
    "required": ["label", "why"],
    "additionalProperties": False,
}
Json = dict[str, Any]
GARBAGE = b'{"custom_id": <the emulator was told to write this>'


def params(text: str = "I love it", /, **changes: Any) -> Json:
    """Good params; a change to None leaves the key out."""
    good = {
        "model": "claude-haiku-5-5",
        "max_tokens": 200,
        "messages": [{"role": "user", "content": text}],
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    }
    return {key: value for key, value in (good | changes).items() if value is not None}


def body(text: str = "I love it", /, **changes: Any) -> Json:
    """A good body for /v1/responses."""
    wanted = {"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": True}
    good = {
        "model": "gpt-6-luna",
        "input": [{"role": "user", "content": text}],
        "max_output_tokens": 200,
        "text": {"format": wanted},
    }
    return {key: value for key, value in (good | changes).items() if value is not None}


def chat(text: str = "I love it", /, **changes: Any) -> Json:
    """A good body for /v1/chat/completions."""
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
    good = {
        "model": "gpt-6-luna",
        "messages": [{"role": "system", "content": "Label it."}, {"role": "user", "content": text}],
        "max_completion_tokens": 200,
        "response_format": wanted,
    }
    return {key: value for key, value in (good | changes).items() if value is not None}


def anthropic_batch(sdk: Anthropic, requests: Sequence[Json] | int = 3) -> MessageBatch:
    """A batch of these params, as r0, r1, …"""
    if isinstance(requests, int):
        requests = [params(f"I love number {number}") for number in range(requests)]
    rows: Any = [{"custom_id": f"r{number}", "params": each} for number, each in enumerate(requests)]
    return sdk.messages.batches.create(requests=rows)


def anthropic_lines(sdk: Anthropic, batch_id: str) -> list[Json]:
    """The result lines, as bytes were cut at line feeds and nowhere else."""
    batch = sdk.messages.batches.retrieve(batch_id)
    assert batch.results_url is not None
    reply = sdk.get(batch.results_url, cast_to=httpx2.Response)
    return _rows(reply.content)


def request_line(number: int, content: Json, endpoint: str = "/v1/responses") -> str:
    """A line of an input file."""
    return json.dumps({"custom_id": f"r{number}", "method": "POST", "url": endpoint, "body": content})


def upload(sdk: OpenAI, lines: Iterable[str]) -> str:
    """An input file; its id."""
    content = "".join(f"{line}\n" for line in lines).encode()
    return sdk.files.create(file=("batch.jsonl", content), purpose="batch").id


def openai_batch(
    sdk: OpenAI, requests: Sequence[Json] | int = 3, *, endpoint: Any = "/v1/responses", **options: Any
) -> Batch:
    """A batch of these bodies, as r0, r1, …"""
    if isinstance(requests, int):
        requests = [body(f"I love number {number}") for number in range(requests)]
    file_id = upload(sdk, (request_line(number, each, endpoint) for number, each in enumerate(requests)))
    return sdk.batches.create(input_file_id=file_id, endpoint=endpoint, completion_window="24h", **options)


def file_lines(sdk: OpenAI, file_id: str | None) -> list[Json]:
    """The lines of a file; none for no file."""
    if not file_id:
        return []
    return _rows(sdk.files.content(file_id).content)


def _rows(content: bytes) -> list[Json]:
    return [orjson.loads(line) for line in content.split(b"\n") if line and line != GARBAGE]


def by_id(lines: Iterable[Json]) -> dict[str, Json]:
    """Lines by custom_id."""
    return {line["custom_id"]: line for line in lines}
