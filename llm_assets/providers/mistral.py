"""Mistral's Batch API, EXPERIMENTAL: written from its documentation, and never run against Mistral.

A file goes up, a job refers to it, up to two files come down, metadata is a stamp. It is the worked example of
docs/providers.md, which says what of it stands where: no SDK, and one endpoint of several.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from llm_assets.providers import Client, Credentials, Dialect, Provider
from llm_assets.providers.bodies import Json, PerTask, split_system, with_params
from llm_assets.providers.mistral_results import REASONS, read_result
from llm_assets.providers.schemas import FORMATS, KEYWORDS, Subset, problems
from llm_assets.records import Message, Reason, Result, ShardFormat, ShardLimits, Task

NAME = "mistral"
CHAT = "/v1/chat/completions"
CAVEAT = "experimental: written from Mistral's documentation, and never run against Mistral"

# Set by every request, or meaningless in a batch.
_RESERVED = frozenset({"model", "messages", "max_tokens", "stream", "n"})
# What it enforces is not documented: what all others enforce.
_SUBSET = Subset("Mistral", keywords=KEYWORDS, formats=FORMATS)
_NEVER = 1 << 40


class MistralDialect:
    """How Mistral writes requests and results."""

    name = NAME
    endpoint = CHAT
    # Files of 512 MB, and a million requests that wait in a workspace, of all its jobs together: ten of ours.
    limits = ShardLimits(requests=100_000, bytes=500_000_000)
    shard_format = ShardFormat(header=b"", separator=b"\n", footer=b"\n", suffix=".jsonl")
    list_page_size = 100
    embeds = False
    tiers: tuple[str, ...] = ()
    carries_stamp = True
    lists_after_any = False

    def __init__(self) -> None:
        self._constant = PerTask(_constant)

    def schema_problems(self, schema: dict[str, Any]) -> list[str]:
        """Why no vendor could enforce this schema: found, where, what to write instead."""
        return list(problems(schema, _SUBSET))

    def body(self, task: Task, messages: Sequence[Message]) -> dict[str, Any]:
        """`body` of one request. Nested objects are shared between bodies of a task: do not change them.

        Raises ValueError for params that clash with the rest, and for a prompt without a user message.
        """
        system, turns = split_system(messages)
        first = [{"role": "system", "content": system}] if system else []
        return self._constant(task) | {"messages": first + turns}

    def tiered(self, body: bytes, tier: str) -> bytes:
        """There are none."""
        raise ValueError(f"Mistral has no tier {tier!r}")

    def cache_tokens_min(self, model_name: str) -> int:
        """Never: whether its prompt cache works for batches is not documented."""
        return _NEVER

    def marked(self, body: bytes, system: str) -> bytes:
        """As it is: nothing is marked."""
        return body

    def line(self, custom_id: str, body: bytes) -> bytes:
        """`{"custom_id":…,"body":…}`; `custom_id` is one that needs no escapes."""
        return b'{"custom_id":"%b","body":%b}' % (custom_id.encode(), body)

    def requests(self, shard: Path) -> Iterator[tuple[str, bytes]]:
        """Custom_id and `body` of each request of a shard's file."""
        with shard.open("rb") as lines:
            for request in map(orjson.loads, lines):
                yield request["custom_id"], orjson.dumps(request["body"])

    def error_line(self, custom_id: str, code: str, message: str) -> bytes:
        """A row without a response, with the code as the type of its error."""
        return orjson.dumps({"custom_id": custom_id, "response": None, "error": {"type": code, "message": message}})

    def result(self, line: bytes) -> Result:
        """One result line in neutral terms. Raises ValueError when it is no JSON object with a custom_id."""
        return read_result(line)

    def batch_reason(self, code: str) -> Reason:
        """What a code means for the requests of a shard; jobs that FAILED have none, and so an UNKNOWN reason."""
        return REASONS.get(code, Reason.UNKNOWN)


def _constant(task: Task) -> Json:
    """The part of a body that does not depend on the document."""
    schema = {"name": task.schema_name, "schema": dict(task.schema), "strict": True}
    ours: Json = {
        "model": task.model_name,
        "max_tokens": task.max_tokens,  # the newer name, max_completion_tokens, is refused
        "response_format": {"type": "json_schema", "json_schema": schema},
    }
    return with_params(ours, task.params, reserved=_RESERVED)


def connect(credentials: Credentials) -> Client:
    """A client for one account. SystemicError for a key that cannot be one."""
    from llm_assets.providers.mistral_client import MistralClient  # an HTTP stack, for who sends

    return MistralClient(credentials)


def provider(endpoint: str | None = None) -> Provider:
    """Mistral at its endpoint for chats. ValueError for any other."""
    if endpoint not in (None, CHAT):
        raise ValueError(f"mistral: {endpoint} is not supported; leave it out, or write {CHAT}")
    dialect: Dialect = MistralDialect()
    return Provider(dialect, connect, CAVEAT)
