"""OpenAI's Batch API: a file goes up, a batch refers to it, one or two files come down, metadata is a stamp.

Three endpoints, told apart where requests are written; results are told apart by their shape, as servers that
speak OpenAI's language do not all send back what they were asked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson

from llm_assets.providers import Client, Credentials, Dialect, Provider
from llm_assets.providers.bodies import Json, PerTask, split_system, with_params
from llm_assets.providers.openai_results import REASONS, read_completion, read_embedding, read_response
from llm_assets.providers.schemas import FORMATS, KEYWORDS, Node, Subset, nodes, object_depth, problems, resolved
from llm_assets.records import Message, Reason, Result, ShardFormat, ShardLimits, Task

NAME = "openai"
RESPONSES = "/v1/responses"
CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
ENDPOINTS = (RESPONSES, CHAT, EMBEDDINGS)


# Set by every request, or meaningless in a batch.
_RESERVED = {
    RESPONSES: frozenset({"model", "input", "instructions", "max_output_tokens", "stream", "background"}),
    CHAT: frozenset({"model", "messages", "max_completion_tokens", "max_tokens", "stream", "n"}),
    EMBEDDINGS: frozenset({"model", "input", "encoding_format", "dimensions"}),
}

# developers.openai.com/api/docs/guides/structured-outputs, "Supported schemas", as profiled in 2026-02 at
# jsonschemaprofiles.unitvectorylabs.com/schemas/openai. Recursion is supported; `default` is refused.
_SUBSET = Subset(
    "OpenAI's strict mode",
    keywords=KEYWORDS | {"maxItems", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
    formats=FORMATS,
)
_DEPTH_MAX = 10
_PROPERTIES_MAX = 5000
_ENUM_VALUES_MAX = 1000


class OpenAIDialect:
    """How OpenAI writes requests and results, for one of its endpoints."""

    name = NAME
    # 200 MB in all; the margin is for the multipart envelope and for whatever a gateway on the way adds.
    limits = ShardLimits(requests=50_000, bytes=199_000_000)
    shard_format = ShardFormat(header=b"", separator=b"\n", footer=b"\n", suffix=".jsonl")
    list_page_size = 100
    carries_stamp = True
    lists_after_any = True

    def __init__(self, endpoint: str = RESPONSES) -> None:
        self.endpoint = endpoint
        self.embeds = endpoint == EMBEDDINGS
        self.tiers: tuple[str, ...] = () if self.embeds else ("flex",)
        self._line = f'","method":"POST","url":"{endpoint}","body":'.encode()
        self._read, constant = _ENDPOINTS[endpoint]
        self._constant = PerTask(constant)

    def schema_problems(self, schema: dict[str, Any]) -> list[str]:
        """Why strict mode cannot enforce this schema: found, where, what to write instead."""
        if self.embeds:
            return []
        return [*problems(schema, _SUBSET), *_own_problems(schema)]

    def body(self, task: Task, messages: Sequence[Message]) -> dict[str, Any]:
        """`body` of one request. Nested objects are shared between bodies of a task: do not change them.

        Raises ValueError for params that clash with the rest, and for a prompt without a user message.
        """
        constant = self._constant(task)
        system, turns = split_system(messages)
        if self.embeds:
            if system or len(turns) != 1:
                raise ValueError("a vector is made of one text: write the prompt as one user message, without others")
            return constant | {"input": turns[0]["content"]}
        if self.endpoint == CHAT:
            first = [{"role": "system", "content": system}] if system else []
            return constant | {"messages": first + turns}
        return constant | ({"instructions": system, "input": turns} if system else {"input": turns})

    def cache_tokens_min(self, model_name: str) -> int:
        """1,024 tokens, for all models."""
        return 1_024

    def marked(self, body: bytes, system: str) -> bytes:
        """With a key that brings requests of one prompt to one cache; caching itself needs no mark."""
        key = blake2b(system.encode(), digest_size=16).hexdigest()
        return b'%b,"prompt_cache_key":"%b"}' % (body[:-1], key.encode())

    def tiered(self, body: bytes, tier: str) -> bytes:
        """With the name of the tier; the answer is the same, so that it is no part of a fingerprint."""
        return b'%b,"service_tier":"%b"}' % (body[:-1], tier.encode())

    def line(self, custom_id: str, body: bytes) -> bytes:
        """`{"custom_id":…,"method":"POST","url":…,"body":…}`; `custom_id` is one that needs no escapes."""
        return b'{"custom_id":"%b%b%b}' % (custom_id.encode(), self._line, body)

    def requests(self, shard: Path) -> Iterator[tuple[str, bytes]]:
        """Custom_id and `body` of each request of a shard's file."""
        with shard.open("rb") as lines:
            for request in map(orjson.loads, lines):
                yield request["custom_id"], orjson.dumps(request["body"])

    def error_line(self, custom_id: str, code: str, message: str) -> bytes:
        """A row without a response, with the code of its error."""
        return orjson.dumps({"custom_id": custom_id, "response": None, "error": {"code": code, "message": message}})

    def result(self, line: bytes) -> Result:
        """One result line in neutral terms. Raises ValueError when it is no JSON object with a custom_id."""
        return self._read(line)

    def batch_reason(self, code: str) -> Reason:
        """What the code of a FAILED batch means for its requests; UNKNOWN for one not in the table."""
        return REASONS.get(code, Reason.UNKNOWN)


def _format(task: Task) -> Json:
    return {"name": task.schema_name, "schema": dict(task.schema), "strict": True}


def _responses_constant(task: Task) -> Json:
    """The part of a body for /v1/responses that does not depend on the document."""
    ours: Json = {
        "model": task.model_name,
        "max_output_tokens": task.max_tokens,
        "text": {"format": {"type": "json_schema", **_format(task)}},
    }
    return with_params(ours, task.params, reserved=_RESERVED[RESPONSES])


def _chat_constant(task: Task) -> Json:
    """The part of a body for /v1/chat/completions that does not depend on the document."""
    ours: Json = {
        "model": task.model_name,
        "max_completion_tokens": task.max_tokens,
        "response_format": {"type": "json_schema", "json_schema": _format(task)},
    }
    return with_params(ours, task.params, reserved=_RESERVED[CHAT])


def _embeddings_constant(task: Task) -> Json:
    """The part of a body for /v1/embeddings that does not depend on the document."""
    ours: Json = {"model": task.model_name, "dimensions": task.dimensions, "encoding_format": "base64"}
    return with_params(ours, task.params, reserved=_RESERVED[EMBEDDINGS])


# How results of an endpoint are read, and what its requests have in common.
_ENDPOINTS = {
    RESPONSES: (read_response, _responses_constant),
    CHAT: (read_completion, _chat_constant),
    EMBEDDINGS: (read_embedding, _embeddings_constant),
}


def _own_problems(schema: Mapping[str, Any]) -> Iterator[str]:
    root = next(nodes(schema))
    if "object" not in root.types or "anyOf" in schema:
        yield '$ is not an object, as OpenAI\'s strict mode asks; put it into one, as in {"answer": …}'
    for node in nodes(schema):
        yield from _strictness_problems(node, schema)
    yield from _size_problems(schema)


def _strictness_problems(node: Node, schema: Mapping[str, Any]) -> Iterator[str]:
    if node.optional:
        yield (
            f"{node.path} does not require {', '.join(node.optional)}, and OpenAI's strict mode requires "
            'all; name them in "required" and let them be null, as in "type": ["string", "null"]'
        )
    if "array" in node.types and "items" not in node.schema:
        yield f'{node.path} is an array that does not say of what; write "items"'
    if len(node.schema) > 1 and resolved(schema, node.schema.get("$ref")) is not None:
        yield (
            f'{node.path} has other keywords beside "$ref", which OpenAI\'s strict mode refuses; '
            "move them into the definition"
        )


def _size_problems(schema: Mapping[str, Any]) -> Iterator[str]:
    depth = object_depth(schema)
    if depth > _DEPTH_MAX:
        yield f"$ nests objects {depth} deep, and OpenAI's strict mode takes {_DEPTH_MAX}; flatten it"
    properties = sum(len(node.properties) for node in nodes(schema))
    if properties > _PROPERTIES_MAX:
        yield f"$ has {properties} properties, and OpenAI's strict mode takes {_PROPERTIES_MAX}; ask for less"
    values = sum(len(node.schema.get("enum") or ()) for node in nodes(schema))
    if values > _ENUM_VALUES_MAX:
        yield f"$ has {values} enum values, and OpenAI's strict mode takes {_ENUM_VALUES_MAX}; ask for less"


def provider(endpoint: str | None = None) -> Provider:
    """OpenAI at one of its endpoints, None for `/v1/responses`. ValueError for one that is not supported."""
    chosen = endpoint or RESPONSES
    if chosen not in ENDPOINTS:
        raise ValueError(f"openai: {chosen} is not supported; use one of {', '.join(ENDPOINTS)}")
    dialect: Dialect = OpenAIDialect(chosen)

    def connect(credentials: Credentials) -> Client:
        from llm_assets.providers.openai_client import OpenAIClient  # the SDK takes a second to import

        return OpenAIClient(credentials, chosen)

    return Provider(dialect, connect)
