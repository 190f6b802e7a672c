"""Anthropic's requests, one by one, and the lines and messages that answer them.

All that is in `params` is checked here, when a batch is worked on and not when it is created.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from llm_assets.emulator.cache import CacheUse, anthropic_use
from llm_assets.emulator.models import Question
from llm_assets.emulator.rows import SEPARATORS, Answer, Kind, Place, Problem
from llm_assets.emulator.schemas import anthropic_check

INVALID = "invalid_request_error"
_MODEL = re.compile(r"claude-[a-z]+-\d+(-\d{1,2})?(-\d{8})?|claude-\d+(-\d+)?-[a-z]+(-\d{8}|-latest)?")
_NO_PREFILL = re.compile(r"claude-[a-z]+-5")
_PARAM_NAMES = (
    "model messages max_tokens system metadata stop_sequences thinking tool_choice tools output_config cache_control"
    " container inference_geo service_tier context_management mcp_servers diagnostics speed"
)
_PARAMS = frozenset(_PARAM_NAMES.split())
_GONE = ("temperature", "top_p", "top_k")
_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_STOP_REASONS = {"refusal": "refusal", "context_window": "model_context_window_exceeded"}
_FAULTS = {
    "overloaded": Problem("overloaded_error", "Overloaded", 529),
    "api_error": Problem("api_error", "Internal server error", 500),
    "rate_limit": Problem("rate_limit_error", "Number of requests has exceeded your rate limit", 429),
    "timeout": Problem("timeout_error", "Request timed out", 504),
    "invalid": Problem(INVALID, "messages.0.content: the emulator was told to call this request invalid"),
    "billing": Problem("billing_error", "Your credit balance is too low to access the API", 402),
    "authentication": Problem("authentication_error", "invalid API key", 401),
    "permission": Problem("permission_error", "Your API key does not have permission to use this model", 403),
    "not_found": Problem("not_found_error", "model: not found", 404),
}


def error_envelope(
    problem: Problem, request_id: str | None, details: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """`{"type":"error","error":{…},"request_id":…}`."""
    error: dict[str, Any] = {"type": problem.type, "message": problem.message}
    if details:
        error["details"] = details
    return {"type": "error", "error": error, "request_id": request_id}


class AnthropicRows:
    """Requests to `/v1/messages`."""

    content_key = "params"

    def __init__(self) -> None:
        self._schema_problem = anthropic_check()

    def question(self, content: Mapping[str, Any]) -> Question | Problem:
        """What is asked; or the first thing that is wrong, as the API would say it."""
        problem = _shape_problem(content) or self._format_problem(content.get("output_config"))
        if problem is not None:
            return Problem(INVALID, problem)
        model = content["model"]
        if not _MODEL.fullmatch(model):
            return Problem("not_found_error", f"model: {model}", 404)
        if content["messages"][-1]["role"] == "assistant" and _NO_PREFILL.match(model):
            return Problem(
                INVALID,
                "This model does not support assistant message prefill. The conversation must end with a user message.",
            )
        return _question(content)

    def embedding(self, content: Mapping[str, Any]) -> Answer | None:
        """None: Anthropic has no embeddings."""
        return None

    def cache_use(self, place: Place, content: Mapping[str, Any]) -> CacheUse:
        """What a request has of the prompt cache: of the blocks that it marks."""
        return anthropic_use(place.row, content)

    def fault_problem(self, fault: str) -> Problem | None:
        """The error that a fault means."""
        return _FAULTS.get(fault)

    def answered(self, place: Place, content: Mapping[str, Any], answer: Answer) -> bytes:
        """A succeeded row."""
        return _line(place, {"type": "succeeded", "message": message(place, content, answer, "batch")})

    def failed(self, place: Place, problem: Problem) -> bytes:
        """An errored row."""
        return _line(place, {"type": "errored", "error": error_envelope(problem, None)})

    def unreached(self, place: Place, kind: Kind) -> bytes:
        """A row that expired or was canceled."""
        return _line(place, {"type": "expired" if kind is Kind.EXPIRED else "canceled"})

    def status_zero(self, place: Place) -> bytes:
        """Not at Anthropic: its rows have no status."""
        return b""

    def _format_problem(self, config: Any) -> str | None:
        if config is None:
            return None
        if not isinstance(config, dict):
            return "output_config: Input should be a valid dictionary"
        if config.get("effort", "low") not in (*_EFFORTS, None):
            return "output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'"
        wanted = config.get("format")
        if wanted is None:
            return None
        if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
            return "output_config.format.type: Input should be 'json_schema'"
        if not isinstance(wanted.get("schema"), dict):
            return "output_config.format.schema: Field required"
        problem = self._schema_problem(wanted["schema"])
        return f"output_config.format.schema: {problem}" if problem else None


def message(place: Place, content: Mapping[str, Any], answer: Answer, tier: str) -> dict[str, Any]:
    """A message, as the API gives it."""
    reply = answer.reply
    stop = _STOP_REASONS.get(answer.how) or ("max_tokens" if reply.truncated else "end_turn")
    return {
        "id": f"msg_emulator_{place.key}{place.row:06x}",
        "type": "message",
        "role": "assistant",
        "model": f"{content['model']}+emulator-{place.marker}",
        "content": _blocks(answer),
        "stop_reason": stop,
        "stop_sequence": None,
        "stop_details": _refusal_details() if stop == "refusal" else None,
        "usage": _usage(answer, tier),
    }


def _line(place: Place, result: dict[str, Any]) -> bytes:
    return orjson.dumps({"custom_id": place.custom_id, "result": result}, option=orjson.OPT_APPEND_NEWLINE)


def _blocks(answer: Answer) -> list[dict[str, Any]]:
    text = {"type": "text", "text": answer.reply.text}
    if answer.how == "thinking_first":
        return [_thinking("The emulator was told to think first."), text]
    if answer.how == "u2028":
        return [_thinking(f"Lines{SEPARATORS}that are none."), text]
    return [] if answer.how in ("refusal", "empty_content") else [text]


def _thinking(text: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": text, "signature": "ZW11bGF0b3I="}


def _refusal_details() -> dict[str, Any]:
    return {"type": "refusal", "category": None, "explanation": "The emulator was told to refuse this request."}


def _usage(answer: Answer, tier: str) -> dict[str, Any]:
    reply, cache = answer.reply, answer.cache
    return {
        "input_tokens": reply.input_tokens - cache.read - cache.written,
        "cache_creation_input_tokens": cache.written,
        "cache_read_input_tokens": cache.read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": cache.written - cache.kept,
            "ephemeral_1h_input_tokens": cache.kept,
        },
        "output_tokens": reply.output_tokens,
        "service_tier": tier,
        "inference_geo": "global",
    }


def _question(content: Mapping[str, Any]) -> Question:
    wanted = (content.get("output_config") or {}).get("format")
    return Question(
        system=_text(content.get("system", "")),
        messages=tuple((turn["role"], _text(turn["content"])) for turn in content["messages"]),
        schema=wanted["schema"] if wanted else None,
        max_tokens=content["max_tokens"],
    )


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(block.get("text", "") for block in content or () if isinstance(block, dict))


def _shape_problem(content: Mapping[str, Any]) -> str | None:
    for name in ("model", "messages", "max_tokens"):
        if name not in content:
            return f"{name}: Field required"
    if not isinstance(content["model"], str):
        return "model: Input should be a valid string"
    return _unknown_problem(content) or _max_tokens_problem(content["max_tokens"]) or _messages_problem(content)


def _unknown_problem(content: Mapping[str, Any]) -> str | None:
    if content.keys() <= _PARAMS:
        return None
    for name in content:
        if name == "stream" and not content[name]:
            continue
        if name == "stream":
            return "stream: Streaming is not supported in batches"
        if name in _GONE:
            return f"{name}: This parameter is no longer supported"
        if name not in _PARAMS:
            return f"{name}: Extra inputs are not permitted"
    return None


def _max_tokens_problem(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return "max_tokens: Input should be a valid integer"
    return None if value >= 1 else "max_tokens: Input should be greater than or equal to 1"


def _messages_problem(content: Mapping[str, Any]) -> str | None:
    messages = content["messages"]
    if not isinstance(messages, list):
        return "messages: Input should be a valid list"
    if not messages:
        return "messages: at least one message is required"
    for number, turn in enumerate(messages):
        problem = _turn_problem(turn)
        if problem:
            return f"messages.{number}{problem}"
    system = content.get("system", "")
    return None if isinstance(system, str | list) else "system: Input should be a valid string"


def _turn_problem(turn: Any) -> str | None:
    if not isinstance(turn, dict):
        return ": Input should be a valid dictionary"
    if turn.get("role") not in ("user", "assistant"):
        return ".role: Input should be 'user' or 'assistant'"
    body = turn.get("content")
    if body is None:
        return ".content: Field required"
    if not isinstance(body, str | list):
        return ".content: Input should be a valid string"
    empty = not body if isinstance(body, list) else not body.strip()
    return ".content: text content blocks must be non-empty" if empty else None
