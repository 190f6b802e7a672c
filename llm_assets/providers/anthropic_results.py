"""Result lines of Anthropic's Message Batches → neutral terms.

Nearly all lines are ordinary: answered, complete, of the documented shape. These are decoded as types, several times as
fast as by looking at each field; every other line is read by `read`, which takes nothing for granted.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from llm_assets.providers import UNANSWERED
from llm_assets.providers.bodies import COUNT_MAX, Json, Wire, count, items, mapping, ordinary, result_row, short, text
from llm_assets.records import Reason, Result, Usage

# What the wire says -> ours, for error types, error codes, result types and stop reasons alike.
REASONS = {
    **UNANSWERED,
    "invalid_request_error": Reason.INVALID_REQUEST,
    "request_too_large": Reason.DOCUMENT_TOO_LARGE,
    "authentication_error": Reason.AUTHENTICATION,
    "billing_error": Reason.BILLING,
    "enforced_spend_limit_reached": Reason.BILLING,
    "contract_spend_limit_reached": Reason.BILLING,
    "permission_error": Reason.PERMISSION,
    "organization_on_hold": Reason.PERMISSION,
    "not_found_error": Reason.UNKNOWN_MODEL,  # `model` is the only thing in a request that can be not there
    "rate_limit_error": Reason.RATE_LIMIT,
    "timeout_error": Reason.TIMEOUT,
    "api_error": Reason.API_ERROR,
    "overloaded_error": Reason.OVERLOADED,
    "expired": Reason.EXPIRED,
    "canceled": Reason.CANCELED,
    "max_tokens": Reason.TRUNCATED,
    "refusal": Reason.REFUSAL,
    "model_context_window_exceeded": Reason.CONTEXT_WINDOW_EXCEEDED,
}


_Count = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]


class _Kept(Wire):
    ephemeral_1h_input_tokens: _Count = 0


class _Usage(Wire):
    input_tokens: _Count
    output_tokens: _Count
    cache_read_input_tokens: _Count | None = None
    cache_creation_input_tokens: _Count | None = None
    cache_creation: _Kept | None = None


# Not msgspec's tags: where there is only one type, it takes an object without its tag for it.
class _Text(Wire):
    type: Literal["text"]
    text: str


class _Message(Wire):
    model: str
    content: Annotated[list[_Text], msgspec.Meta(min_length=1)]
    stop_reason: Literal["end_turn", "stop_sequence"]
    usage: _Usage


class _Succeeded(Wire):
    type: Literal["succeeded"]
    message: _Message


class _Ordinary(Wire):
    custom_id: Annotated[str, msgspec.Meta(min_length=1)]
    result: _Succeeded


_DECODER = msgspec.json.Decoder(_Ordinary)


def read_result(line: bytes) -> Result:
    """As `read`, faster for ordinary lines."""
    row = ordinary(_DECODER, line)
    if row is None:
        return read(line)
    message, usage = row.result.message, row.result.message.usage
    read_from_cache, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    kept = usage.cache_creation.ephemeral_1h_input_tokens if usage.cache_creation else 0
    return Result(
        row.custom_id,
        text=message.content[0].text if len(message.content) == 1 else "".join(part.text for part in message.content),
        model=message.model,
        usage=Usage(
            usage.input_tokens + read_from_cache + written, usage.output_tokens, read_from_cache, written, kept
        ),
    )


def read(line: bytes) -> Result:
    """A line, whatever it says, in neutral terms. Raises ValueError when it is no JSON object with a custom_id."""
    custom_id, row = result_row(line)
    outcome = mapping(row.get("result"))
    kind = text(outcome.get("type"))
    if kind == "succeeded":
        return _answered(custom_id, mapping(outcome.get("message")))
    if kind == "errored":
        return _errored(custom_id, mapping(outcome.get("error")))
    if kind in ("expired", "canceled"):
        return Result(custom_id, reason=REASONS[kind], provider_type=kind)
    return _unreadable(custom_id, kind, "the result has no known type")


def _answered(custom_id: str, message: Json) -> Result:
    """A succeeded row: billed, and all the same perhaps cut, refused or empty."""
    content = message.get("content")
    # Blocks are picked by type, as thinking may come first.
    parts = [text(block.get("text")) for block in items(content) if block.get("type") == "text"]
    stop = text(message.get("stop_reason"))
    reason = REASONS.get(stop)
    explanation = short(mapping(message.get("stop_details")).get("explanation"))
    if not parts and reason is None:
        reason, explanation = Reason.UNREADABLE_RESULT, "the message has no text block"
    return Result(
        custom_id,
        text="".join(parts) if parts else None,
        reason=reason,
        provider_type=stop if reason else "",
        message=explanation if reason else "",
        model=text(message.get("model")),
        usage=_usage(mapping(message.get("usage"))),
    )


def _errored(custom_id: str, envelope: Json) -> Result:
    """An errored row: not billed. The error stands at `result.error.error`."""
    error = mapping(envelope.get("error")) or envelope
    code = text(mapping(error.get("details")).get("error_code"))
    kind = text(error.get("type"))
    reason = REASONS.get(code) or REASONS.get(kind) or Reason.UNKNOWN
    return Result(custom_id, reason=reason, provider_type=code or kind, message=short(error.get("message")))


def _unreadable(custom_id: str, kind: str, problem: str) -> Result:
    return Result(custom_id, reason=Reason.UNREADABLE_RESULT, provider_type=kind[:64], message=problem)


def _usage(usage: Json) -> Usage:
    """On the wire `input_tokens` leaves out what the cache gave or took; ours is the total."""
    read = count(usage.get("cache_read_input_tokens"))
    written = count(usage.get("cache_creation_input_tokens"))
    return Usage(
        input_tokens=count(usage.get("input_tokens")) + read + written,
        output_tokens=count(usage.get("output_tokens")),
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=count(mapping(usage.get("cache_creation")).get("ephemeral_1h_input_tokens")),
    )
