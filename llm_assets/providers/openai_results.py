"""Result lines of OpenAI's Batch API → neutral terms, for all endpoints.

Nearly all lines are ordinary: answered, complete, of the documented shape. These are decoded as types, several times as
fast as by looking at each field; every other line is read by `read`, which takes nothing for granted.
"""

from __future__ import annotations

from array import array
from base64 import b64encode
from typing import Annotated, Generic, Literal, TypeVar

import msgspec
import orjson

from llm_assets.providers import FILE_NOT_VISIBLE, UNANSWERED
from llm_assets.providers.bodies import (
    COUNT_MAX,
    Json,
    Wire,
    chat_text,
    count,
    items,
    mapping,
    ordinary,
    result_row,
    short,
    text,
)
from llm_assets.records import Reason, Result, Usage

# What the wire says -> ours: codes, HTTP statuses, error types and finish reasons alike. A row's code is
# looked up first, then its status, then its type, as most errors share the type `invalid_request_error`.
REASONS: dict[str | int, Reason] = {
    **UNANSWERED,
    **dict.fromkeys(
        # The shard as a whole is wrong: it would be refused again.
        ("invalid_json_line", "duplicate_custom_id", "mismatched_model", "url_mismatch", "empty_file"),
        Reason.INVALID_REQUEST,
    ),
    "invalid_request": Reason.INVALID_REQUEST,
    FILE_NOT_VISIBLE: Reason.CAPACITY,
    "batch_expired": Reason.EXPIRED,
    "batch_cancelled": Reason.CANCELED,
    "rate_limit_exceeded": Reason.RATE_LIMIT,
    "token_limit_exceeded": Reason.CAPACITY,
    "insufficient_quota": Reason.BILLING,
    "billing_hard_limit_reached": Reason.BILLING,
    "billing_not_active": Reason.BILLING,
    "invalid_api_key": Reason.AUTHENTICATION,
    "account_deactivated": Reason.PERMISSION,
    "model_not_found": Reason.UNKNOWN_MODEL,
    "context_length_exceeded": Reason.CONTEXT_WINDOW_EXCEEDED,
    "invalid_prompt": Reason.REFUSAL,  # "flagged as potentially violating our usage policy"
    "content_policy_violation": Reason.REFUSAL,
    "content_filter": Reason.REFUSAL,
    "bio_policy": Reason.REFUSAL,
    "refusal": Reason.REFUSAL,
    "server_error": Reason.API_ERROR,
    "server_is_overloaded": Reason.OVERLOADED,
    "request_timeout": Reason.TIMEOUT,
    "max_output_tokens": Reason.TRUNCATED,
    "length": Reason.TRUNCATED,
    "cancelled": Reason.CANCELED,
    0: Reason.MISSING_RESULT,  # the row says that no request was made, whatever the counts say
    400: Reason.INVALID_REQUEST,
    401: Reason.AUTHENTICATION,
    402: Reason.BILLING,
    403: Reason.PERMISSION,
    404: Reason.UNKNOWN_MODEL,
    408: Reason.TIMEOUT,
    413: Reason.DOCUMENT_TOO_LARGE,
    422: Reason.INVALID_REQUEST,
    429: Reason.RATE_LIMIT,
    "invalid_request_error": Reason.INVALID_REQUEST,
    "rate_limit_error": Reason.RATE_LIMIT,
    "authentication_error": Reason.AUTHENTICATION,
    "permission_error": Reason.PERMISSION,
    "api_error": Reason.API_ERROR,
}


_Count = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]


class _Details(Wire):
    cached_tokens: _Count = 0
    cache_write_tokens: _Count = 0


# Not msgspec's tag: where there is only one type, it takes an object without its tag for it.
class _OutputText(Wire):
    type: Literal["output_text"]
    text: str


class _Reasoning(Wire, tag_field="type", tag="reasoning"):
    pass


class _Message(Wire, tag_field="type", tag="message"):
    content: Annotated[list[_OutputText], msgspec.Meta(min_length=1)]


class _ResponseUsage(Wire):
    input_tokens: _Count
    output_tokens: _Count
    input_tokens_details: _Details | None = None


class _Response(Wire):
    status: Literal["completed"]
    model: str
    output: list[_Message | _Reasoning]
    usage: _ResponseUsage
    error: None = None


class _ChatMessage(Wire):
    content: str
    refusal: Literal[""] | None = None


class _Choice(Wire):
    finish_reason: Literal["stop"]
    message: _ChatMessage


class _ChatUsage(Wire):
    prompt_tokens: _Count
    completion_tokens: _Count
    prompt_tokens_details: _Details | None = None


class _Completion(Wire):
    model: str
    choices: Annotated[list[_Choice], msgspec.Meta(min_length=1)]
    usage: _ChatUsage


class _Vector(Wire):
    embedding: str


class _VectorUsage(Wire):
    prompt_tokens: _Count


class _Vectors(Wire):
    model: str
    data: Annotated[list[_Vector], msgspec.Meta(min_length=1, max_length=1)]
    usage: _VectorUsage


Body = TypeVar("Body")


class _Reply(Wire, Generic[Body]):
    status_code: Literal[200]
    body: Body


class _Ordinary(Wire, Generic[Body]):
    custom_id: Annotated[str, msgspec.Meta(min_length=1)]
    response: _Reply[Body]


_RESPONSES = msgspec.json.Decoder(_Ordinary[_Response])
_COMPLETIONS = msgspec.json.Decoder(_Ordinary[_Completion])
_EMBEDDINGS = msgspec.json.Decoder(_Ordinary[_Vectors])
_NO_DETAILS = _Details()


def read_response(line: bytes) -> Result:
    """As `read`, for results of /v1/responses."""
    row = ordinary(_RESPONSES, line)
    if row is None:
        return read(line)
    body, usage = row.response.body, row.response.body.usage
    parts = [part.text for item in body.output if isinstance(item, _Message) for part in item.content]
    if not parts:
        return read(line)
    details = usage.input_tokens_details or _NO_DETAILS
    return Result(
        row.custom_id,
        text="".join(parts),
        model=body.model,
        usage=Usage(usage.input_tokens, usage.output_tokens, details.cached_tokens, details.cache_write_tokens),
    )


def read_completion(line: bytes) -> Result:
    """As `read`, for results of /v1/chat/completions."""
    row = ordinary(_COMPLETIONS, line)
    if row is None:
        return read(line)
    body, usage = row.response.body, row.response.body.usage
    details = usage.prompt_tokens_details or _NO_DETAILS
    return Result(
        row.custom_id,
        text=body.choices[0].message.content,
        model=body.model,
        usage=Usage(usage.prompt_tokens, usage.completion_tokens, details.cached_tokens, details.cache_write_tokens),
    )


def read_embedding(line: bytes) -> Result:
    """As `read`, for results of /v1/embeddings: the text of an answer is its vector, in base64."""
    row = ordinary(_EMBEDDINGS, line)
    if row is None:
        return read(line)
    body = row.response.body
    return Result(
        row.custom_id, text=body.data[0].embedding, model=body.model, usage=Usage(body.usage.prompt_tokens, 0)
    )


def read(line: bytes) -> Result:
    """A line, whatever it says, in neutral terms. Raises ValueError when it is no JSON object with a custom_id.

    Results are told apart by their shape, as servers that speak OpenAI's language do not all send back what they were
    asked at.
    """
    custom_id, row = result_row(line)
    response = mapping(row.get("response"))
    if not response:
        return _unanswered(custom_id, mapping(row.get("error")))
    body = _body(response.get("body"))
    status = response.get("status_code")
    if status != 0 and "choices" in body:
        return _chat(custom_id, body)
    if status != 0 and "output" in body:
        return _response(custom_id, body)
    if status != 0 and "data" in body:
        return _embedded(custom_id, body)
    return _refused(custom_id, status, mapping(body.get("error")) or mapping(row.get("error")))


def _body(body: object) -> Json:
    """The body of a response, which some servers write as a string of JSON."""
    if isinstance(body, str):
        try:
            body = orjson.loads(body)
        except orjson.JSONDecodeError:
            return {}
    return mapping(body)


def _reason(*words: object) -> Reason:
    """The first word that the table knows decides; an unknown status counts by its class."""
    for word in words:
        if isinstance(word, str | int) and word in REASONS:
            return REASONS[word]
        if isinstance(word, int) and word >= 500:
            return Reason.API_ERROR
        if isinstance(word, int) and word >= 400:
            return Reason.INVALID_REQUEST
    return Reason.UNKNOWN


def _unanswered(custom_id: str, error: Json) -> Result:
    """A row without a response: the batch expired or was cancelled before its turn."""
    if not error:
        return _unreadable(custom_id, "", "the row has neither a response nor an error")
    return _refused(custom_id, None, error)


def _refused(custom_id: str, status: object, error: Json) -> Result:
    """A row that ended in an error, said by the row or by the body of its response; not billed."""
    code, kind = text(error.get("code")), text(error.get("type"))
    if not error and (status in (None, 200) or not isinstance(status, int)):
        return _unreadable(custom_id, "", "the response is neither an answer nor an error")
    words = code or kind or f"http_{status}"
    reason = Reason.MISSING_RESULT if status == 0 else _reason(code, status, kind)
    return Result(custom_id, reason=reason, provider_type=words, message=short(error.get("message")))


def _unreadable(custom_id: str, model: str, problem: str, usage: Usage | None = None) -> Result:
    reason = Reason.UNREADABLE_RESULT
    return Result(custom_id, reason=reason, message=problem, model=model, usage=usage or Usage())


def _response(custom_id: str, body: Json) -> Result:
    """A body of /v1/responses with status 200: completed, cut, filtered, failed, or refused by the model."""
    parts = [
        part
        for item in items(body.get("output"))
        if item.get("type") == "message"
        for part in items(item.get("content"))
    ]
    answer = [text(part.get("text")) for part in parts if part.get("type") == "output_text"]
    refusal = "".join(text(part.get("refusal")) for part in parts if part.get("type") == "refusal")
    stop, message = _stop(body)
    return _answered(custom_id, body, "".join(answer) if answer else None, refusal, stop, message)


def _stop(body: Json) -> tuple[str, str]:
    """Why a response is not complete, and the words for it; both empty when it is."""
    status = text(body.get("status"))
    if status == "incomplete":
        return text(mapping(body.get("incomplete_details")).get("reason")) or status, ""
    error = mapping(body.get("error"))
    if status == "failed" or error:
        return text(error.get("code")) or status or "failed", short(error.get("message"))
    return ("", "") if status in ("completed", "") else (status, "")


def _chat(custom_id: str, body: Json) -> Result:
    """A body of /v1/chat/completions with status 200; only the first choice is ever asked for."""
    choice = next(iter(items(body.get("choices"))), {})
    message = mapping(choice.get("message"))
    finish = text(choice.get("finish_reason"))
    stop = finish if finish in ("length", "content_filter") else ""
    answer, refusal = chat_text(message.get("content")), text(message.get("refusal"))
    return _answered(custom_id, body, answer, refusal, stop, "")


def _embedded(custom_id: str, body: Json) -> Result:
    """A body of /v1/embeddings with status 200; some servers know no base64 and send numbers."""
    vectors = items(body.get("data"))
    vector = vectors[0].get("embedding") if len(vectors) == 1 else None
    if isinstance(vector, list):
        try:
            vector = b64encode(array("f", vector).tobytes()).decode()
        except (TypeError, OverflowError):
            vector = None
    return _answered(custom_id, body, vector if isinstance(vector, str) else None, "", "", "")


def _answered(custom_id: str, body: Json, answer: str | None, refusal: str, stop: str, message: str) -> Result:
    """A billed row. A refusal by the model outweighs why it stopped; its words stand in for an answer."""
    model, usage = text(body.get("model")), _usage(mapping(body.get("usage")))
    if refusal:
        stop, message, answer = "refusal", short(refusal), answer or refusal
    if not stop and answer is None:
        return _unreadable(custom_id, model, "the response holds no text", usage)
    reason = _reason(stop) if stop else None
    return Result(custom_id, text=answer, reason=reason, provider_type=stop, message=message, model=model, usage=usage)


def _usage(usage: Json) -> Usage:
    """Both endpoints' names for the same counts; the input total includes what the cache gave."""
    details = mapping(usage.get("input_tokens_details") or usage.get("prompt_tokens_details"))
    return Usage(
        input_tokens=count(usage.get("input_tokens")) or count(usage.get("prompt_tokens")),
        output_tokens=count(usage.get("output_tokens")) or count(usage.get("completion_tokens")),
        cache_read_tokens=count(details.get("cached_tokens")),
        cache_write_tokens=count(details.get("cache_write_tokens")),
    )
