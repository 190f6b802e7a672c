from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from llm_assets.providers import Dialect, get_provider
from llm_assets.records import Message, Reason, Result, Task, Usage

SYSTEM = Message("system", "Label it.")
USER = Message("user", 'It is "so"\u2028good')


@pytest.fixture
def dialect() -> Dialect:
    return get_provider("anthropic").dialect


def message(**changes: Any) -> dict[str, Any]:
    return {
        "model": "claude-haiku-5-5",
        "content": [{"type": "text", "text": '{"label":"x"}'}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 10, "output_tokens": 34},
        **changes,
    }


def row(result: object) -> bytes:
    return orjson.dumps({"custom_id": "a", "result": result})


def succeeded(**changes: Any) -> bytes:
    return row({"type": "succeeded", "message": message(**changes)})


def errored(error_type: str, text: str = "words", **details: str) -> bytes:
    error = {"type": error_type, "message": text} | ({"details": details} if details else {})
    return row({"type": "errored", "error": {"type": "error", "error": error, "request_id": None}})


def test_a_shard_file_is_the_body_of_a_create(dialect: Dialect, task: Task) -> None:
    form = dialect.shard_format
    lines = [dialect.line(name, orjson.dumps(dialect.body(task, [SYSTEM, USER]))) for name in ("k-1", "k-2")]
    file = orjson.loads(form.header + form.separator.join(lines) + form.footer)
    assert file == {
        "requests": [
            {
                "custom_id": name,
                "params": {
                    "model": "some-model",
                    "max_tokens": 200,
                    "system": "Label it.",
                    "messages": [{"role": "user", "content": USER.text}],
                    "output_config": {"format": {"type": "json_schema", "schema": dict(task.schema)}},
                },
            }
            for name in ("k-1", "k-2")
        ]
    }


def test_without_a_system_message_there_is_no_system(dialect: Dialect, task: Task) -> None:
    assert "system" not in dialect.body(task, [USER])


def test_params_join_what_is_there(dialect: Dialect, task: Task) -> None:
    params = {"output_config": {"effort": "low"}, "cache_control": {"type": "ephemeral"}}
    body = dialect.body(replace(task, params=params), [USER])
    assert body["output_config"] == {"effort": "low", "format": {"type": "json_schema", "schema": dict(task.schema)}}
    assert body["cache_control"] == {"type": "ephemeral"}
    # The next task is not answered with the last one's params.
    assert "cache_control" not in dialect.body(task, [USER])


@pytest.mark.parametrize(
    "params",
    [
        {"model": "other"},
        {"messages": []},
        {"system": "other"},
        {"max_tokens": 1},
        {"stream": True},
        {"temperature": 0},
        {"output_config": {"format": {}}},
        {"output_config": "low"},
    ],
    ids=lambda params: "-".join(params),
)
def test_params_that_clash_are_refused(dialect: Dialect, task: Task, params: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"params.{next(iter(params))}"):
        dialect.body(replace(task, params=params), [USER])


def test_a_prompt_needs_a_user_message(dialect: Dialect, task: Task) -> None:
    with pytest.raises(ValueError, match="no user message"):
        dialect.body(task, [SYSTEM])


def test_one_endpoint_only() -> None:
    assert get_provider("anthropic", "/v1/messages").dialect.endpoint == "/v1/messages"
    with pytest.raises(ValueError, match="/v1/messages only"):
        get_provider("anthropic", "/v1/complete")


TEXT = '{"label":"x"}'
USED = Usage(input_tokens=10, output_tokens=34)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param(succeeded(), Result("a", text=TEXT, model="claude-haiku-5-5", usage=USED), id="succeeded"),
        pytest.param(
            succeeded(content=[{"type": "thinking", "thinking": "hm", "signature": "s"}, *message()["content"]]),
            Result("a", text=TEXT, model="claude-haiku-5-5", usage=USED),
            id="thinking first",
        ),
        pytest.param(
            succeeded(content=[{"type": "text", "text": "a\u2028"}, {"type": "text", "text": "b"}]),
            Result("a", text="a\u2028b", model="claude-haiku-5-5", usage=USED),
            id="several text blocks, a line separator",
        ),
        pytest.param(
            succeeded(usage={"input_tokens": 5, "cache_read_input_tokens": 7, "cache_creation_input_tokens": 11}),
            Result(
                "a",
                text=TEXT,
                model="claude-haiku-5-5",
                usage=Usage(input_tokens=23, cache_read_tokens=7, cache_write_tokens=11),
            ),
            id="cached tokens count into the total",
        ),
        pytest.param(
            succeeded(stop_reason="max_tokens"),
            Result(
                "a",
                text=TEXT,
                reason=Reason.TRUNCATED,
                provider_type="max_tokens",
                model="claude-haiku-5-5",
                usage=USED,
            ),
            id="cut at max_tokens",
        ),
        pytest.param(
            succeeded(stop_reason="max_tokens", content=[{"type": "thinking", "thinking": "hm"}]),
            Result("a", reason=Reason.TRUNCATED, provider_type="max_tokens", model="claude-haiku-5-5", usage=USED),
            id="cut while thinking",
        ),
        pytest.param(
            succeeded(stop_reason="refusal", stop_details={"type": "refusal", "explanation": "no"}),
            Result(
                "a",
                text=TEXT,
                reason=Reason.REFUSAL,
                provider_type="refusal",
                message="no",
                model="claude-haiku-5-5",
                usage=USED,
            ),
            id="refusal",
        ),
        pytest.param(
            succeeded(stop_reason="model_context_window_exceeded", content=[]),
            Result(
                "a",
                reason=Reason.CONTEXT_WINDOW_EXCEEDED,
                provider_type="model_context_window_exceeded",
                model="claude-haiku-5-5",
                usage=USED,
            ),
            id="context window exceeded",
        ),
        pytest.param(
            succeeded(content=[]),
            Result(
                "a",
                reason=Reason.UNREADABLE_RESULT,
                provider_type="end_turn",
                message="the message has no text block",
                model="claude-haiku-5-5",
                usage=USED,
            ),
            id="no content",
        ),
        pytest.param(
            row({"type": "expired"}), Result("a", reason=Reason.EXPIRED, provider_type="expired"), id="expired"
        ),
        pytest.param(
            row({"type": "canceled"}), Result("a", reason=Reason.CANCELED, provider_type="canceled"), id="canceled"
        ),
        pytest.param(
            errored("invalid_request_error", "m" * 400),
            Result("a", reason=Reason.INVALID_REQUEST, provider_type="invalid_request_error", message="m" * 300),
            id="a long message is cut",
        ),
        pytest.param(
            row({"type": "errored", "error": {"type": "api_error", "message": "m"}}),
            Result("a", reason=Reason.API_ERROR, provider_type="api_error", message="m"),
            id="error without its envelope",
        ),
        pytest.param(
            errored("rate_limit_error", error_code="enforced_spend_limit_reached"),
            Result("a", reason=Reason.BILLING, provider_type="enforced_spend_limit_reached", message="words"),
            id="the error code outweighs the type",
        ),
    ],
)
def test_result_lines(dialect: Dialect, line: bytes, expected: Result) -> None:
    assert dialect.result(line) == expected


@pytest.mark.parametrize(
    ("error_type", "reason"),
    [
        ("invalid_request_error", Reason.INVALID_REQUEST),
        ("authentication_error", Reason.AUTHENTICATION),
        ("billing_error", Reason.BILLING),
        ("permission_error", Reason.PERMISSION),
        ("not_found_error", Reason.UNKNOWN_MODEL),
        ("rate_limit_error", Reason.RATE_LIMIT),
        ("timeout_error", Reason.TIMEOUT),
        ("api_error", Reason.API_ERROR),
        ("overloaded_error", Reason.OVERLOADED),
        ("new_error", Reason.UNKNOWN),
    ],
)
def test_error_types(dialect: Dialect, error_type: str, reason: Reason) -> None:
    result = dialect.result(errored(error_type))
    assert (result.reason, result.provider_type, result.message) == (reason, error_type, "words")


@pytest.mark.parametrize(
    "result",
    [
        None,
        [],
        "succeeded",
        {},
        {"type": 1},
        {"type": "new"},
        {"type": "succeeded"},
        {"type": "succeeded", "message": None},
        {"type": "succeeded", "message": {"content": "text", "usage": []}},
        {"type": "succeeded", "message": {"content": [None, {"type": "text", "text": None}, 3]}},
        {"type": "succeeded", "message": {"content": None, "usage": {"input_tokens": "many"}, "model": 3}},
    ],
    ids=str,
)
def test_odd_results_are_unreadable_or_empty_but_never_raise(dialect: Dialect, result: object) -> None:
    read = dialect.result(row(result))
    assert read.custom_id == "a"
    assert read.reason is Reason.UNREADABLE_RESULT or read.text == ""


@pytest.mark.parametrize("error", [None, {}, "no", {"type": "error", "error": []}, {"error": {"type": 5}}], ids=str)
def test_odd_errors_are_unknown(dialect: Dialect, error: object) -> None:
    assert dialect.result(row({"type": "errored", "error": error})).reason is Reason.UNKNOWN


@pytest.mark.parametrize(
    "line",
    [b"", b"\n", b"null", b"[]", b'{"custom_id":1}', b'{"custom_id":""}', b'{"custom_id":"a","resu', b"\xff"],
)
def test_what_is_no_result_line(dialect: Dialect, line: bytes) -> None:
    with pytest.raises(ValueError, match="not a result line"):
        dialect.result(line)


def test_the_parsers_error_does_not_carry_the_line(dialect: Dialect) -> None:
    with pytest.raises(ValueError, match="not a result line") as raised:
        dialect.result(b'{"custom_id":"a", secret')
    assert "secret" not in str(raised.value)
    assert raised.value.__context__ is None
