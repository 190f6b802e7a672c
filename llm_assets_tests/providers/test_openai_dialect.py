from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from msgspec import structs

from llm_assets.providers import FILE_NOT_VISIBLE, Dialect, get_provider
from llm_assets.records import Message, Reason, Result, Task, Usage

SYSTEM = Message("system", "Label it.")
USER = Message("user", 'It is "so"\u2028good')
TEXT = '{"label":"x"}'
USED = Usage(input_tokens=10, output_tokens=34, cache_read_tokens=4)


@pytest.fixture
def dialect() -> Dialect:
    return get_provider("openai").dialect


def row(body: object, status: object = 200) -> bytes:
    response = {"status_code": status, "request_id": "req_1", "body": body}
    return orjson.dumps({"id": "batch_req_1", "custom_id": "a", "response": response, "error": None})


def unanswered(error: object) -> bytes:
    return orjson.dumps({"custom_id": "a", "response": None, "error": error})


def output(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"type": "reasoning", "summary": []}, {"type": "message", "role": "assistant", "content": list(parts)}]


def response(**changes: Any) -> dict[str, Any]:
    return {
        "object": "response",
        "status": "completed",
        "model": "gpt-6-luna",
        "error": None,
        "output": output({"type": "output_text", "text": TEXT}),
        "usage": {"input_tokens": 10, "output_tokens": 34, "input_tokens_details": {"cached_tokens": 4}},
        **changes,
    }


def chat(finish_reason: str = "stop", **changes: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": TEXT, "refusal": None} | changes
    return {
        "object": "chat.completion",
        "model": "gpt-6-luna",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 34, "prompt_tokens_details": {"cached_tokens": 4}},
    }


def error(code: str | None = None, error_type: str | None = None, message: str = "words") -> dict[str, Any]:
    return {"error": {"message": message, "type": error_type, "param": None, "code": code}}


ANSWERED = Result("a", text=TEXT, model="gpt-6-luna", usage=USED)


def test_a_shard_file_for_responses(dialect: Dialect, task: Task) -> None:
    form = dialect.shard_format
    lines = [dialect.line(name, orjson.dumps(dialect.body(task, [SYSTEM, USER]))) for name in ("k-1", "k-2")]
    file = form.header + form.separator.join(lines) + form.footer
    assert file.endswith(b"\n")
    assert [orjson.loads(line) for line in file.split(b"\n")[:-1]] == [
        {
            "custom_id": name,
            "method": "POST",
            "url": "/v1/responses",
            "body": {
                "model": "some-model",
                "max_output_tokens": 200,
                "text": {
                    "format": {
                        "type": "json_schema",
                        "name": "answer",
                        "schema": dict(task.schema),
                        "strict": True,
                    }
                },
                "instructions": "Label it.",
                "input": [{"role": "user", "content": USER.text}],
            },
        }
        for name in ("k-1", "k-2")
    ]


def test_a_line_for_chat(task: Task) -> None:
    dialect = get_provider("openai", "/v1/chat/completions").dialect
    line = dialect.line("k-1", orjson.dumps(dialect.body(task, [SYSTEM, USER])))
    assert orjson.loads(line) == {
        "custom_id": "k-1",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {
            "model": "some-model",
            "max_completion_tokens": 200,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": dict(task.schema), "strict": True},
            },
            "messages": [
                {"role": "system", "content": "Label it."},
                {"role": "user", "content": USER.text},
            ],
        },
    }


def test_params_join_what_is_there(dialect: Dialect, task: Task) -> None:
    body = dialect.body(replace(task, params={"text": {"verbosity": "low"}, "store": False}), [USER])
    assert body["text"]["verbosity"] == "low"
    assert body["text"]["format"]["strict"] is True
    assert body["store"] is False


@pytest.mark.parametrize(
    ("endpoint", "params"),
    [
        ("/v1/responses", {"input": "other"}),
        ("/v1/responses", {"text": {"format": {"type": "text"}}}),
        ("/v1/responses", {"stream": True}),
        ("/v1/chat/completions", {"messages": []}),
        ("/v1/chat/completions", {"response_format": {"type": "text"}}),
    ],
)
def test_params_that_clash_are_refused(task: Task, endpoint: str, params: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"params.{next(iter(params))}"):
        get_provider("openai", endpoint).dialect.body(replace(task, params=params), [USER])


def test_an_endpoint_that_is_not_supported_names_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"/v1/moderations is not supported; use one of /v1/responses, /v1/chat"):
        get_provider("openai", "/v1/moderations")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param(row(response()), ANSWERED, id="completed"),
        pytest.param(row(chat()), ANSWERED, id="chat"),
        pytest.param(row(orjson.dumps(response()).decode()), ANSWERED, id="body as a string of JSON"),
        pytest.param(row(chat(content=[{"type": "text", "text": TEXT}])), ANSWERED, id="chat with a list of parts"),
        pytest.param(
            row(
                response(
                    output=output({"type": "output_text", "text": "a\u2028"}, {"type": "output_text", "text": "b"})
                )
            ),
            structs.replace(ANSWERED, text="a\u2028b"),
            id="several parts, a line separator",
        ),
        pytest.param(
            row(response(status="incomplete", incomplete_details={"reason": "max_output_tokens"})),
            structs.replace(ANSWERED, reason=Reason.TRUNCATED, provider_type="max_output_tokens"),
            id="cut at max_output_tokens",
        ),
        pytest.param(
            row(response(status="incomplete", incomplete_details={"reason": "content_filter"}, output=[])),
            structs.replace(ANSWERED, text=None, reason=Reason.REFUSAL, provider_type="content_filter"),
            id="content filter",
        ),
        pytest.param(
            row(response(status="incomplete", incomplete_details={"reason": "steered"})),
            structs.replace(ANSWERED, reason=Reason.UNKNOWN, provider_type="steered"),
            id="incomplete for an unknown reason",
        ),
        pytest.param(
            row(response(status="failed", output=[], error={"code": "server_error", "message": "m"})),
            structs.replace(ANSWERED, text=None, reason=Reason.API_ERROR, provider_type="server_error", message="m"),
            id="failed in a 200",
        ),
        pytest.param(
            row(response(output=output({"type": "refusal", "refusal": "I will not."}))),
            structs.replace(
                ANSWERED,
                text="I will not.",
                reason=Reason.REFUSAL,
                provider_type="refusal",
                message="I will not.",
            ),
            id="refusal",
        ),
        pytest.param(
            row(chat("length")),
            structs.replace(ANSWERED, reason=Reason.TRUNCATED, provider_type="length"),
            id="chat cut",
        ),
        pytest.param(
            row(chat("content_filter", content=None)),
            structs.replace(ANSWERED, text=None, reason=Reason.REFUSAL, provider_type="content_filter"),
            id="chat content filter",
        ),
        pytest.param(
            row(chat(content=None, refusal="No.")),
            structs.replace(ANSWERED, text="No.", reason=Reason.REFUSAL, provider_type="refusal", message="No."),
            id="chat refusal",
        ),
        pytest.param(
            row(response(output=[])),
            structs.replace(ANSWERED, text=None, reason=Reason.UNREADABLE_RESULT, message="the response holds no text"),
            id="no text",
        ),
        pytest.param(
            unanswered({"code": "batch_expired", "message": "m"}),
            Result("a", reason=Reason.EXPIRED, provider_type="batch_expired", message="m"),
            id="expired",
        ),
        pytest.param(
            unanswered({"code": "batch_cancelled", "message": "m"}),
            Result("a", reason=Reason.CANCELED, provider_type="batch_cancelled", message="m"),
            id="cancelled",
        ),
        pytest.param(
            unanswered({"code": "new_code", "message": "m" * 400}),
            Result("a", reason=Reason.UNKNOWN, provider_type="new_code", message="m" * 300),
            id="unknown code, long message",
        ),
        pytest.param(row({}, 0), Result("a", reason=Reason.MISSING_RESULT, provider_type="http_0"), id="status 0"),
        pytest.param(
            row(None, 0), Result("a", reason=Reason.MISSING_RESULT, provider_type="http_0"), id="status 0, no body"
        ),
        pytest.param(
            row({"status": "completed", "output": [], "choices": []}, 0),
            Result("a", reason=Reason.MISSING_RESULT, provider_type="http_0"),
            id="status 0, whatever the body",
        ),
    ],
)
def test_result_lines(dialect: Dialect, line: bytes, expected: Result) -> None:
    assert dialect.result(line) == expected


@pytest.mark.parametrize(
    ("status", "code", "error_type", "reason"),
    [
        (400, "invalid_value", "invalid_request_error", Reason.INVALID_REQUEST),
        (400, None, None, Reason.INVALID_REQUEST),
        (400, "context_length_exceeded", "invalid_request_error", Reason.CONTEXT_WINDOW_EXCEEDED),
        (401, None, "invalid_request_error", Reason.AUTHENTICATION),
        (401, "invalid_api_key", "invalid_request_error", Reason.AUTHENTICATION),
        (403, None, "invalid_request_error", Reason.PERMISSION),
        (404, "model_not_found", "invalid_request_error", Reason.UNKNOWN_MODEL),
        (404, None, None, Reason.UNKNOWN_MODEL),
        (418, None, None, Reason.INVALID_REQUEST),
        (429, "rate_limit_exceeded", "tokens", Reason.RATE_LIMIT),
        (429, None, "requests", Reason.RATE_LIMIT),
        (429, "insufficient_quota", "insufficient_quota", Reason.BILLING),
        (500, None, "server_error", Reason.API_ERROR),
        (503, "new", None, Reason.API_ERROR),
    ],
)
def test_refused_rows(dialect: Dialect, status: int, code: str | None, error_type: str | None, reason: Reason) -> None:
    result = dialect.result(row(error(code, error_type), status))
    assert (result.reason, result.message) == (reason, "words")
    assert result.provider_type == (code or error_type or f"http_{status}")


@pytest.mark.parametrize(
    "line",
    [
        row(None),
        row([]),
        row("no json"),
        row({}),
        row({"output": None}),
        row({"output": [None, {"type": "message", "content": "text"}]}),
        row({"choices": []}),
        row({"choices": [{"message": {"content": 3}}], "usage": "free"}),
        row({"detail": "odd"}, "two hundred"),
        unanswered(None),
        unanswered("gone"),
        b'{"custom_id":"a"}',
        b'{"custom_id":"a","response":5,"error":[]}',
    ],
)
def test_odd_rows_are_unreadable_but_never_raise(dialect: Dialect, line: bytes) -> None:
    result = dialect.result(line)
    assert (result.custom_id, result.reason) == ("a", Reason.UNREADABLE_RESULT)
    assert result.message


@pytest.mark.parametrize("line", [b"", b"null", b"[]", b'{"custom_id":null}', b'{"custom_id":"a","resp', b"\xff"])
def test_what_is_no_result_line(dialect: Dialect, line: bytes) -> None:
    with pytest.raises(ValueError, match="not a result line"):
        dialect.result(line)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("token_limit_exceeded", Reason.CAPACITY),
        (FILE_NOT_VISIBLE, Reason.CAPACITY),
        ("invalid_json_line", Reason.INVALID_REQUEST),
        ("duplicate_custom_id", Reason.INVALID_REQUEST),
        ("mismatched_model", Reason.INVALID_REQUEST),
        ("model_not_found", Reason.UNKNOWN_MODEL),
        ("something_new", Reason.UNKNOWN),
    ],
)
def test_batch_codes(dialect: Dialect, code: str, reason: Reason) -> None:
    assert dialect.batch_reason(code) is reason
