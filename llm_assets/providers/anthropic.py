"""Anthropic Message Batches: one JSON body a batch, results at a URL, no label that could find a lost batch.

The wire is that of API version 2026-10-21. This is the dialect; the verbs are in anthropic_client.py, imported with the
SDK when a client is made: definitions need neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from llm_assets.providers import Client, Credentials, Dialect, Provider
from llm_assets.providers.anthropic_results import REASONS, read_result
from llm_assets.providers.bodies import Json, PerTask, split_system, with_params
from llm_assets.providers.schemas import FORMATS, KEYWORDS, Subset, nodes, problems, recursions
from llm_assets.records import Message, Reason, Result, ShardFormat, ShardLimits, Task

NAME = "anthropic"
ENDPOINT = "/v1/messages"


# Set by every request (the first four), or refused by the API for every request of a batch.
_RESERVED = frozenset({"model", "messages", "system", "max_tokens", "stream", "temperature", "top_p", "top_k"})

# platform.claude.com/docs/en/build-with-claude/structured-outputs, and what the SDK's own `transform_schema`
# leaves in a schema (2.12.0).
_SUBSET = Subset("Anthropic", keywords=KEYWORDS | {"allOf", "default"}, formats=FORMATS | {"uri"})
_OPTIONAL_MAX = 24
_UNIONS_MAX = 16


class AnthropicDialect:
    """How Anthropic writes requests and results."""

    name = NAME
    endpoint = ENDPOINT
    # 256 MB in all; the margin is for our header and footer and for whatever a gateway on the way adds.
    limits = ShardLimits(requests=100_000, bytes=255_000_000)
    shard_format = ShardFormat(header=b'{"requests":[\n', separator=b",\n", footer=b"\n]}", suffix=".json")
    list_page_size = 1000
    embeds = False
    tiers: tuple[str, ...] = ()
    carries_stamp = False
    lists_after_any = True

    def __init__(self) -> None:
        self._constant = PerTask(_constant)

    def schema_problems(self, schema: dict[str, Any]) -> list[str]:
        """Why structured outputs cannot enforce this schema: found, where, what to write instead."""
        return [*problems(schema, _SUBSET), *_own_problems(schema)]

    def body(self, task: Task, messages: Sequence[Message]) -> dict[str, Any]:
        """`params` of one request. Nested objects are shared between bodies of a task: do not change them.

        Raises ValueError for params that clash with the rest, and for a prompt without a user message.
        """
        system, turns = split_system(messages)
        prompt = {"system": system, "messages": turns} if system else {"messages": turns}
        return self._constant(task) | prompt

    def cache_tokens_min(self, model_name: str) -> int:
        """512 tokens, and 4,096 for Haiku 4.5."""
        return 4_096 if "haiku-4-5" in model_name else 512

    def marked(self, body: bytes, system: str) -> bytes:
        """The system prompt as a block that is kept for an hour: a batch takes longer than five minutes.

        Its key cannot stand in a text, where its quotes would be escaped.
        """
        text = orjson.dumps(system)
        block = b'"system":[{"type":"text","text":%b,"cache_control":{"type":"ephemeral","ttl":"1h"}}]' % text
        return body.replace(b'"system":%b' % text, block, 1)

    def tiered(self, body: bytes, tier: str) -> bytes:
        """There are none."""
        raise ValueError(f"Anthropic has no tier {tier!r}")

    def line(self, custom_id: str, body: bytes) -> bytes:
        """`{"custom_id":…,"params":…}`; `custom_id` matches `^[a-zA-Z0-9_-]{1,64}$`, so needs no escapes."""
        return b'{"custom_id":"%b","params":%b}' % (custom_id.encode(), body)

    def requests(self, shard: Path) -> Iterator[tuple[str, bytes]]:
        """Custom_id and `params` of each request of a shard's file."""
        for request in orjson.loads(shard.read_bytes())["requests"]:
            yield request["custom_id"], orjson.dumps(request["params"])

    def error_line(self, custom_id: str, code: str, message: str) -> bytes:
        """An errored row, with the code as the type of its error."""
        error = {"type": "error", "error": {"type": code, "message": message}}
        return orjson.dumps({"custom_id": custom_id, "result": {"type": "errored", "error": error}})

    def result(self, line: bytes) -> Result:
        """One result line in neutral terms. Raises ValueError when it is no JSON object with a custom_id."""
        return read_result(line)

    def batch_reason(self, code: str) -> Reason:
        """UNKNOWN, as no batch of Anthropic's fails as a whole; or what the code says elsewhere."""
        return REASONS.get(code, Reason.UNKNOWN)


def _constant(task: Task) -> Json:
    """The part of a body that does not depend on the document."""
    ours: Json = {
        "model": task.model_name,
        "max_tokens": task.max_tokens,
        "output_config": {"format": {"type": "json_schema", "schema": dict(task.schema)}},
    }
    return with_params(ours, task.params, reserved=_RESERVED)


def _own_problems(schema: Mapping[str, Any]) -> Iterator[str]:
    for reference in recursions(schema):
        yield (
            f"{reference.replace('#', '$').replace('/', '.')} contains itself, and Anthropic enforces no "
            "recursion; write out as many levels as you need"
        )
    yield from _value_problems(schema)
    optional = sum(len(node.optional) for node in nodes(schema))
    if optional > _OPTIONAL_MAX:
        yield (
            f"$ has {optional} optional properties, and Anthropic takes {_OPTIONAL_MAX}; put more into "
            '"required" and let them be null'
        )
    unions = sum("anyOf" in node.schema or len(node.types) > 1 for node in nodes(schema))
    if unions > _UNIONS_MAX:
        yield f"$ has {unions} unions, and Anthropic takes {_UNIONS_MAX}; give more properties one type"


def _value_problems(schema: Mapping[str, Any]) -> Iterator[str]:
    for node in nodes(schema):
        if node.schema.get("minItems", 0) not in (0, 1):
            yield f'{node.path} has "minItems" above 1, which Anthropic does not enforce; write 1 or 0'
        if any(isinstance(value, list | dict) for value in node.schema.get("enum") or ()):
            yield f"{node.path} has an enum of lists or objects, which Anthropic refuses; write anyOf"


def connect(credentials: Credentials) -> Client:
    """A client for one account. SystemicError for a key that cannot be one."""
    from llm_assets.providers.anthropic_client import AnthropicClient  # the SDK takes a second to import

    return AnthropicClient(credentials)


def provider(endpoint: str | None = None) -> Provider:
    """Anthropic, which batches one endpoint only. ValueError for any other."""
    if endpoint not in (None, ENDPOINT):
        raise ValueError(f"anthropic batches {ENDPOINT} only, not {endpoint}")
    dialect: Dialect = AnthropicDialect()
    return Provider(dialect, connect)
