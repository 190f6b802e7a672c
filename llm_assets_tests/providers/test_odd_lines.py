"""Whatever JSON a provider sends, a line with a custom_id becomes a Result: every part of good lines, replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_assets.providers import anthropic_results, get_provider, openai_results
from llm_assets.records import Result

Path = tuple[str | int, ...]

MESSAGE = {
    "model": "m",
    "content": [{"type": "thinking"}, {"type": "text", "text": "t"}],
    "stop_reason": "refusal",
    "stop_details": {"explanation": "e"},
    "usage": {"input_tokens": 1, "output_tokens": 1, "cache_read_input_tokens": 1, "cache_creation_input_tokens": 1},
}
PART = {"type": "output_text", "text": "t", "refusal": "r"}
RESPONSE = {
    "status": "incomplete",
    "incomplete_details": {"reason": "max_output_tokens"},
    "error": {"code": "c", "message": "m"},
    "model": "m",
    "output": [{"type": "message", "content": [PART]}],
    "usage": {"input_tokens": 1, "output_tokens": 1, "input_tokens_details": {"cached_tokens": 1}},
}
CHAT = {
    "choices": [{"message": {"content": "t", "refusal": "r"}, "finish_reason": "length"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 1}},
}
ERROR = {"error": {"message": "m", "type": "t", "code": "c"}}
GOOD: dict[str, list[dict[str, Any]]] = {
    "anthropic": [
        {"result": {"type": "succeeded", "message": MESSAGE}},
        {"result": {"type": "errored", "error": {"type": "error", "error": {"type": "t", "details": {}}}}},
    ],
    "openai": [
        {"response": {"status_code": 200, "body": RESPONSE}, "error": None},
        {"response": {"status_code": 200, "body": CHAT}, "error": None},
        {"response": {"status_code": 429, "body": ERROR}, "error": None},
        {"response": None, "error": {"code": "batch_expired", "message": "m"}},
    ],
    "mistral": [
        {"response": {"status_code": 200, "body": CHAT}, "error": None},
        {"response": {"status_code": 429, "body": {"object": "error", "type": "rate_limited", "message": "m"}}},
        {"response": {"status_code": 422, "body": {"message": {"detail": [{"input": "i"}]}}}, "error": "told so"},
    ],
}
# Lines that are decoded as types, and how every other line is read.
ORDINARY: dict[str, tuple[dict[str, Any], Callable[[bytes], Result], Callable[[bytes], Result]]] = {
    "anthropic": (
        {
            "result": {
                "type": "succeeded",
                "message": MESSAGE | {"stop_reason": "end_turn", "content": [{"type": "text", "text": "t"}] * 2},
            }
        },
        anthropic_results.read_result,
        anthropic_results.read,
    ),
    "openai-responses": (
        {
            "response": {
                "status_code": 200,
                "body": RESPONSE
                | {
                    "status": "completed",
                    "incomplete_details": None,
                    "error": None,
                    "output": [
                        {"type": "reasoning", "summary": []},
                        {"type": "message", "content": [{"type": "output_text", "text": "t"}]},
                    ],
                },
            },
            "error": None,
        },
        openai_results.read_response,
        openai_results.read,
    ),
    "openai-chat": (
        {
            "response": {
                "status_code": 200,
                "body": CHAT
                | {"model": "m", "choices": [{"message": {"content": "t", "refusal": None}, "finish_reason": "stop"}]},
            },
            "error": None,
        },
        openai_results.read_completion,
        openai_results.read,
    ),
}
WORDS = ("succeeded", "errored", "text", "message", "failed", "completed", "stop", "refusal", "max_tokens", "{}", "")
LEAVES = st.none() | st.booleans() | st.integers(-1, 600) | st.floats() | st.sampled_from(WORDS) | st.text(max_size=400)
JSON: st.SearchStrategy[Any] = LEAVES | st.lists(LEAVES, max_size=2) | st.dictionaries(st.sampled_from(WORDS), LEAVES)


def paths(value: object, path: Path = ()) -> Iterator[Path]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, part in inner:
        yield (*path, step)
        yield from paths(part, (*path, step))


def replaced(row: dict[str, Any], path: Path, value: object) -> dict[str, Any]:
    changed = deepcopy(row)
    place: Any = changed
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return changed


@pytest.mark.parametrize(("row", "fast", "careful"), ORDINARY.values(), ids=ORDINARY)
@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_ordinary_lines_and_all_that_are_nearly_so_say_the_same_read_fast_or_with_care(
    row: dict[str, Any], fast: Callable[[bytes], Result], careful: Callable[[bytes], Result], data: st.DataObject
) -> None:
    ordinary = orjson.dumps({"custom_id": "a", **row})
    assert fast(ordinary) == careful(ordinary)
    changed = replaced(row, data.draw(st.sampled_from(list(paths(row)))), data.draw(JSON))
    line = orjson.dumps({"custom_id": "a", **changed})
    assert fast(line) == careful(line)


@pytest.mark.parametrize(
    ("provider", "row"),
    [(provider, row) for provider, rows in GOOD.items() for row in rows],
    ids=lambda value: value if isinstance(value, str) else "",
)
@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_any_change_to_a_good_line_is_read(provider: str, row: dict[str, Any], data: st.DataObject) -> None:
    changed = replaced(row, data.draw(st.sampled_from(list(paths(row)))), data.draw(JSON))
    result = get_provider(provider).dialect.result(orjson.dumps({"custom_id": "a", **changed}))
    assert result.custom_id == "a"
    assert result.text is not None or result.reason is not None
    assert len(result.message) <= 300
    assert result.usage.input_tokens >= 0


@pytest.mark.parametrize("name", ORDINARY)
@pytest.mark.parametrize("absurd", [2**53 + 1, 2**64, 10**30], ids=["inexact", "too-large", "absurd"])
def test_a_token_count_beyond_all_measure_is_none(name: str, absurd: int) -> None:
    line, fast, careful = ORDINARY[name]
    said = orjson.dumps(line | {"custom_id": "a"}).replace(b'put_tokens":1', b'put_tokens":%d' % absurd)
    said = said.replace(b'prompt_tokens":1', b'prompt_tokens":%d' % absurd)
    for read in (fast, careful):
        found = read(said)
        assert found.usage.input_tokens < 10
        assert found.usage.output_tokens < 10
        assert found.text is not None
