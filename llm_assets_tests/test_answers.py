"""Result lines → exactly one outcome per request, whatever came back."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import orjson
import polars as pl
import pytest

from llm_assets.answers import LINE_BYTES_MAX, outcomes, read_lines, same_outcome, take_in
from llm_assets.output_schema import OutputSchema
from llm_assets.providers import get_provider
from llm_assets.records import RESULTS_SCHEMA, Fingerprint, Reason
from llm_assets.shards import custom_id

KEY = "00000000000a"
SENT = [Fingerprint(f"{number:032x}") for number in range(3)]
OUTPUT = OutputSchema.from_fields("e", {"label": {"type": "string", "enum": ["a", "b"]}}, "test")
DIALECT = get_provider("anthropic").dialect


def line(number: int, text: str = '{"label":"a"}', key: str = KEY) -> bytes:
    usage = {"input_tokens": 10, "output_tokens": 2}
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-5-5",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "usage": usage,
    }
    result = {"type": "succeeded", "message": message}
    return orjson.dumps({"custom_id": custom_id(key, Fingerprint(f"{number:032x}")), "result": result})


def reasons(*lines: bytes) -> list[str | None]:
    return outcomes(SENT, take_in(lines, KEY, SENT, DIALECT, OUTPUT), 1)["reason"].to_list()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([line(0), line(1), line(2)], [None, None, None], id="all-there"),
        pytest.param([line(2), line(0), line(1)], [None, None, None], id="shuffled"),
        pytest.param([line(0), line(2)], [None, Reason.MISSING_RESULT, None], id="one-missing"),
        pytest.param([], [Reason.MISSING_RESULT] * 3, id="nothing-came"),
        pytest.param([line(0), line(1), line(2), line(7)], [None] * 3, id="one-that-was-not-sent"),
        pytest.param([line(0, key="other"), line(1), line(2)], [Reason.MISSING_RESULT, None, None], id="other-shard"),
        pytest.param([line(0), line(1), line(2), b"{not json"], [None] * 3, id="a-line-that-is-no-json"),
        pytest.param([line(0), line(1), line(2), b"\xff\xfe"], [None] * 3, id="a-line-that-is-no-text"),
        pytest.param([line(0), line(1, "no json"), line(2)], [None, Reason.INVALID_ANSWER, None], id="no-json"),
        pytest.param(
            [line(0), line(1, '{"label":"c"}'), line(2)], [None, Reason.INVALID_ANSWER, None], id="not-in-enum"
        ),
        pytest.param([line(0), line(1, ""), line(2)], [None, Reason.INVALID_ANSWER, None], id="empty-answer"),
        pytest.param([line(0), line(1, "[" * 10_000), line(2)], [None, Reason.INVALID_ANSWER, None], id="deep-nesting"),
    ],
)
def test_every_request_gets_exactly_one_outcome(lines: list[bytes], expected: list[str | None]) -> None:
    assert reasons(*lines) == expected


def test_the_first_of_two_results_wins_and_the_second_is_counted() -> None:
    intake = take_in([line(0, '{"label":"a"}'), line(0, '{"label":"b"}')], KEY, SENT, DIALECT, OUTPUT)
    assert intake.duplicates == 1
    assert outcomes(SENT, intake, 1)["answer"][0] == '{"label":"a"}'


@pytest.mark.parametrize(
    ("second", "conflicts"),
    [
        pytest.param(line(0), 0, id="the-same"),
        pytest.param(line(0, '{"label":"b"}'), 1, id="another-answer"),
        pytest.param(orjson.dumps({"custom_id": f"{KEY}-{SENT[0]}", "result": {"type": "expired"}}), 1, id="a-failure"),
    ],
)
def test_a_second_result_that_says_something_else_is_a_conflict(second: bytes, conflicts: int) -> None:
    assert take_in([line(0), second], KEY, SENT, DIALECT, OUTPUT).conflicts == conflicts


def test_two_failures_that_say_different_things_are_a_conflict() -> None:
    lines = [
        orjson.dumps({"custom_id": f"{KEY}-{SENT[0]}", "result": {"type": kind}})
        for kind in ("expired", "expired", "canceled")
    ]
    intake = take_in(lines, KEY, SENT, DIALECT, OUTPUT)
    assert (intake.duplicates, intake.conflicts) == (2, 1)


def test_more_results_than_are_taken_in_at_once_are_all_there_in_the_order_of_sending() -> None:
    sent = [Fingerprint(f"{number:032x}") for number in range(4_500)]
    lines = [line(number) for number in range(4_499, -1, -1) if number != 7]
    intake = take_in(lines, KEY, sent, DIALECT, OUTPUT)
    table = outcomes(sent, intake, 1)
    assert (intake.found, intake.missing) == (4_499, [7])
    assert table["fingerprint"].to_list() == sent
    assert table.filter(pl.col("reason").is_not_null())["fingerprint"].to_list() == [sent[7]]


def test_strays_are_counted() -> None:
    intake = take_in([line(7), line(0, key="other"), b"[]", b"nonsense"], KEY, SENT, DIALECT, OUTPUT)
    assert (intake.lines, intake.unknown, intake.unreadable) == (4, 2, 2)


def test_an_outcome_says_what_was_used_and_by_which_model() -> None:
    row = outcomes(SENT, take_in([line(0)], KEY, SENT, DIALECT, OUTPUT), 2).row(0, named=True)
    assert row["model"] == "claude-haiku-5-5"
    assert (row["wave"], row["input_tokens"], row["output_tokens"]) == (2, 10, 2)


def test_an_invalid_answer_is_kept_but_its_text_is_not_in_the_message() -> None:
    row = outcomes(SENT, take_in([line(0, '{"label":"a secret"}')], KEY, SENT, DIALECT, OUTPUT), 1).row(0, named=True)
    assert row["answer"] == '{"label":"a secret"}'
    assert "secret" not in row["message"]


def test_a_shard_that_failed_as_a_whole_gives_each_request_its_row() -> None:
    frame = same_outcome(SENT, Reason.INVALID_REQUEST, "bad", "no", 1)
    assert frame.schema == RESULTS_SCHEMA
    assert frame["fingerprint"].to_list() == SENT
    assert set(frame["reason"]) == {Reason.INVALID_REQUEST}


def test_lines_are_split_at_newlines_alone(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes('{"a":"x\u2028y\u0085z"}\r\n\n{"b":1}\n'.encode() + b'{"cut":')
    assert list(read_lines([path])) == ['{"a":"x\u2028y\u0085z"}'.encode(), b'{"b":1}', b'{"cut":']


def openai_line(number: int, text: str = '{"label":"a"}') -> bytes:
    body = {"model": "m", "status": "completed", "output": [_message(text)]}
    response = {"status_code": 200, "body": body}
    found = {"id": "batch_req_1", "custom_id": custom_id(KEY, SENT[number]), "response": response, "error": None}
    return orjson.dumps(found)


def _message(text: str) -> dict[str, object]:
    return {"type": "message", "content": [{"type": "output_text", "text": text}]}


DEEP = b"[" * 10_000 + b"]" * 10_000
LONG = "x" * (LINE_BYTES_MAX + 1)


@pytest.mark.parametrize(
    ("provider", "sent_line"),
    [pytest.param("anthropic", line, id="anthropic"), pytest.param("openai", openai_line, id="openai")],
)
@pytest.mark.parametrize(
    ("change", "reason", "message"),
    [
        pytest.param(lambda row: row[:-1] + b',"x":' + DEEP + b"}", Reason.UNREADABLE_RESULT, "nested", id="beside"),
        pytest.param(
            lambda row: row.replace(b'"model":"', b'"x":' + DEEP + b',"model":"'),
            Reason.UNREADABLE_RESULT,
            "nested",
            id="within",
        ),
        pytest.param(lambda row: row.replace(b"{\\", DEEP + b"{\\"), Reason.INVALID_ANSWER, "recursion", id="answer"),
        pytest.param(
            lambda row: row.replace(b"{\\", LONG.encode() + b"{\\"), Reason.UNREADABLE_RESULT, "16 MB", id="long"
        ),
        pytest.param(
            lambda row: row.replace(b"{\\", LONG[: LINE_BYTES_MAX // 2].encode() + b"{\\"),
            Reason.INVALID_ANSWER,
            "characters",
            id="long-answer",
        ),
    ],
)
def test_a_result_beyond_all_measure_is_a_failure_of_its_request_alone(
    provider: str, sent_line: Callable[[int], bytes], change: Callable[[bytes], bytes], reason: Reason, message: str
) -> None:
    changed = change(sent_line(1))
    assert changed != sent_line(1)
    intake = take_in([sent_line(0), changed, sent_line(2)], KEY, SENT, get_provider(provider).dialect, OUTPUT)
    found = outcomes(SENT, intake, 1)
    assert found["reason"].to_list() == [None, reason, None]
    assert message in found["message"][1]
    assert len(found["message"][1]) < 200


def test_a_line_that_was_cut_is_no_outcome_while_the_results_can_be_had_again() -> None:
    intake = take_in([line(0), line(1)[:-20]], KEY, SENT[:2], DIALECT, OUTPUT)
    assert intake.missing == [1]
    assert intake.unreadable == 1


def test_a_huge_line_is_never_held_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with path.open("wb") as file:
        file.write(line(0) + b"\n" + line(1)[:-20])
        for _ in range(50):
            file.write(b"x" * (1 << 20))
        file.write(b"\n" + line(2))
    tracemalloc.start()
    try:
        intake = take_in(read_lines([path]), KEY, SENT, DIALECT, OUTPUT)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * LINE_BYTES_MAX
    assert outcomes(SENT, intake, 1)["reason"].to_list() == [None, Reason.UNREADABLE_RESULT, None]
