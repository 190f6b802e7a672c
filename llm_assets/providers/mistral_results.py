"""Result lines of Mistral's Batch API → neutral terms. EXPERIMENTAL, as all of it: see mistral.py.

What stands in the file of errors is not documented: every shape that others' clients report is read.
"""

from __future__ import annotations

from llm_assets.providers import FILE_NOT_VISIBLE, UNANSWERED
from llm_assets.providers.bodies import Json, chat_text, count, items, mapping, result_row, short, text
from llm_assets.records import Reason, Result, Usage

_STATUSES = {
    400: Reason.INVALID_REQUEST,
    401: Reason.AUTHENTICATION,
    402: Reason.BILLING,
    403: Reason.PERMISSION,
    404: Reason.UNKNOWN_MODEL,
    408: Reason.TIMEOUT,
    413: Reason.DOCUMENT_TOO_LARGE,
    422: Reason.INVALID_REQUEST,
    429: Reason.RATE_LIMIT,
}
# What the wire says -> ours, for error types and finish reasons; `http_…` is what an error without a type is called.
REASONS = {
    **UNANSWERED,
    FILE_NOT_VISIBLE: Reason.CAPACITY,
    "invalid_model": Reason.UNKNOWN_MODEL,
    "rate_limited": Reason.RATE_LIMIT,
    "length": Reason.TRUNCATED,
    "model_length": Reason.CONTEXT_WINDOW_EXCEEDED,
    "error": Reason.API_ERROR,
    **{f"http_{status}": reason for status, reason in _STATUSES.items()},
    "invalid_request_error": Reason.INVALID_REQUEST,
}
# Said of nearly everything, so that a status tells more.
_VAGUE = "invalid_request_error"


def read_result(line: bytes) -> Result:
    """A line, whatever it says, in neutral terms. Raises ValueError when it is no JSON object with a custom_id."""
    custom_id, row = result_row(line)
    response = mapping(row.get("response"))
    body = mapping(response.get("body"))
    if items(body.get("choices")) and not row.get("error"):
        return _answered(custom_id, body)
    return _refused(custom_id, response.get("status_code"), row.get("error") or body)


def _answered(custom_id: str, body: Json) -> Result:
    """A billed row; only the first choice is ever asked for."""
    choice = items(body.get("choices"))[0]
    answer, finish = chat_text(mapping(choice.get("message")).get("content")), text(choice.get("finish_reason"))
    reason, message = REASONS.get(finish), ""
    if reason is None and answer is None:
        reason, message = Reason.UNREADABLE_RESULT, "the response holds no text"
    usage = mapping(body.get("usage"))
    return Result(
        custom_id,
        text=answer,
        reason=reason,
        provider_type=finish if reason else "",
        message=message,
        model=text(body.get("model")),
        usage=Usage(count(usage.get("prompt_tokens")), count(usage.get("completion_tokens"))),
    )


def _refused(custom_id: str, status: object, error: object) -> Result:
    """A row that ended in an error: an object, inside of another or not, or just words."""
    if not error and not isinstance(status, int):
        problem = "the row has neither an answer nor an error"
        return Result(custom_id, reason=Reason.UNREADABLE_RESULT, message=problem)
    found = mapping(mapping(error).get("error")) or mapping(error)
    kind = text(found.get("type")) or text(found.get("code"))
    message = short(error if isinstance(error, str) else found.get("message"))
    return Result(custom_id, reason=_reason(kind, status), provider_type=kind or f"http_{status}", message=message)


def _reason(kind: str, status: object) -> Reason:
    if kind in REASONS and kind != _VAGUE:
        return REASONS[kind]
    if isinstance(status, int) and status >= 400:
        return _STATUSES.get(status, Reason.API_ERROR if status >= 500 else Reason.INVALID_REQUEST)
    return REASONS.get(kind, Reason.UNKNOWN)
