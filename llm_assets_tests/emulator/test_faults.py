"""Every fault does what the menu says, to whom its rule says, and as often."""

import json
from collections.abc import Callable
from typing import Any

import anthropic as anthropic_sdk
import httpx2
import openai as openai_sdk
import pytest
from anthropic import Anthropic
from openai import OpenAI

from llm_assets.emulator.faults import ANTHROPIC, MENU, OPENAI, Scope
from llm_assets_tests.emulator.clients import (
    anthropic_batch,
    anthropic_lines,
    body,
    by_id,
    chat,
    file_lines,
    openai_batch,
    params,
)
from llm_assets_tests.emulator_process import Emulator

Json = dict[str, Any]
Shows = Callable[[list[Json]], bool]
HIT = {"custom_id": "r1"}


def is_error(kind: str) -> Shows:
    return lambda lines: [line["result"]["error"]["error"]["type"] for line in lines] == [kind]


def has_text(condition: Callable[[str], bool]) -> Shows:
    return lambda lines: condition(lines[0]["result"]["message"]["content"][-1]["text"])


def stops(reason: str) -> Shows:
    return lambda lines: lines[0]["result"]["message"]["stop_reason"] == reason


def twice_and_not_the_same(lines: list[Json]) -> bool:
    return len(lines) == 2 and lines[0] != lines[1]


def is_deep(text: str) -> bool:
    return text.startswith("[" * 10_000)


def no_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return True
    return False


ANTHROPIC_ROWS: dict[str, tuple[Shows, bool]] = {
    "overloaded": (is_error("overloaded_error"), False),
    "api_error": (is_error("api_error"), False),
    "rate_limit": (is_error("rate_limit_error"), False),
    "timeout": (is_error("timeout_error"), False),
    "invalid": (is_error("invalid_request_error"), False),
    "billing": (is_error("billing_error"), False),
    "expired": (lambda lines: lines[0]["result"] == {"type": "expired"}, False),
    "canceled": (lambda lines: lines[0]["result"] == {"type": "canceled"}, False),
    "refusal": (stops("refusal"), True),
    "context_window": (stops("model_context_window_exceeded"), True),
    "truncated": (lambda lines: stops("max_tokens")(lines) and has_text(no_json)(lines), True),
    "invalid_json": (lambda lines: stops("end_turn")(lines) and has_text(no_json)(lines), True),
    "schema_violation": (has_text(lambda text: "label" not in json.loads(text)), True),
    "empty_content": (lambda lines: lines[0]["result"]["message"]["content"] == [], True),
    "thinking_first": (
        lambda lines: [block["type"] for block in lines[0]["result"]["message"]["content"]] == ["thinking", "text"],
        True,
    ),
    "u2028": (has_text(lambda text: "\u2028\u0085" in text), True),
    "missing_row": (lambda lines: lines == [], False),
    "duplicate_row": (lambda lines: len(lines) == 2 and lines[0] == lines[1], True),
    "duplicate_conflict": (twice_and_not_the_same, True),
    "stray_row": (lambda lines: lines[0]["result"]["type"] == "succeeded", True),
    "garbage_line": (lambda lines: lines[0]["result"]["type"] == "succeeded", True),
    "huge_answer": (has_text(lambda text: len(text) == 1 << 20), True),
    "deep_answer": (has_text(is_deep), True),
}


def response(lines: list[Json]) -> Json:
    found: Json = lines[0]["response"]
    return found


def status(code: int) -> Shows:
    return lambda lines: response(lines)["status_code"] == code and "error" in response(lines)["body"]


def reached_by_nobody(code: str) -> Shows:
    return lambda lines: lines[0]["response"] is None and lines[0]["error"]["code"] == code


def part(lines: list[Json]) -> Json:
    found: Json = response(lines)["body"]["output"][-1]["content"][0]
    return found


def incomplete(reason: str) -> Shows:
    return lambda lines: response(lines)["body"]["incomplete_details"] == {"reason": reason}


OPENAI_ROWS: dict[str, tuple[Shows, bool]] = {
    "overloaded": (status(503), False),
    "api_error": (status(500), False),
    "rate_limit": (status(429), False),
    "timeout": (status(408), False),
    "invalid": (status(400), False),
    "billing": (status(429), False),
    "expired": (reached_by_nobody("batch_expired"), False),
    "canceled": (reached_by_nobody("batch_cancelled"), False),
    "refusal": (lambda lines: part(lines)["type"] == "refusal", True),
    "content_filter": (incomplete("content_filter"), True),
    "truncated": (lambda lines: incomplete("max_output_tokens")(lines) and no_json(part(lines)["text"]), True),
    "invalid_json": (lambda lines: no_json(part(lines)["text"]), True),
    "schema_violation": (lambda lines: "label" not in json.loads(part(lines)["text"]), True),
    "empty_content": (lambda lines: response(lines)["body"]["output"] == [], True),
    "thinking_first": (
        lambda lines: [item["type"] for item in response(lines)["body"]["output"]] == ["reasoning", "message"],
        True,
    ),
    "u2028": (lambda lines: "\u2028\u0085" in part(lines)["text"], True),
    "missing_row": (lambda lines: lines == [], False),
    "duplicate_row": (lambda lines: len(lines) == 2 and lines[0] == lines[1], True),
    "duplicate_conflict": (twice_and_not_the_same, True),
    "stray_row": (lambda lines: response(lines)["status_code"] == 200, True),
    "garbage_line": (lambda lines: response(lines)["status_code"] == 200, True),
    "huge_answer": (lambda lines: len(part(lines)["text"]) == 1 << 20, True),
    "deep_answer": (lambda lines: is_deep(part(lines)["text"]), True),
    "status_zero": (lambda lines: response(lines)["status_code"] == 0 and lines[0]["error"] is None, False),
}


def names(scope: Scope, provider: str) -> set[str]:
    return {fault.name for fault in MENU.values() if fault.scope is scope and provider in fault.providers}


def test_every_row_fault_is_tested() -> None:
    assert set(ANTHROPIC_ROWS) == names(Scope.ROW, ANTHROPIC)
    assert set(OPENAI_ROWS) == names(Scope.ROW, OPENAI)


@pytest.mark.parametrize("fault", ANTHROPIC_ROWS)
def test_rows_of_anthropic(emulator: Emulator, anthropic: Anthropic, fault: str) -> None:
    shows, billed = ANTHROPIC_ROWS[fault]
    emulator.faults([{"fault": fault, **HIT, "mb": 1}])
    lines = anthropic_lines(anthropic, anthropic_batch(anthropic, 3).id)
    assert shows([line for line in lines if line["custom_id"] == "r1"])
    assert all(by_id(lines)[name]["result"]["type"] == "succeeded" for name in ("r0", "r2"))
    assert {row["custom_id"]: row["billed"] for row in emulator.rows()} == {"r0": True, "r1": billed, "r2": True}


@pytest.mark.parametrize("fault", OPENAI_ROWS)
def test_rows_of_openai(emulator: Emulator, openai: OpenAI, fault: str) -> None:
    shows, billed = OPENAI_ROWS[fault]
    emulator.faults([{"fault": fault, **HIT, "mb": 1}])
    batch = openai.batches.retrieve(openai_batch(openai, 3).id)
    assert batch.status == "completed"
    lines = file_lines(openai, batch.output_file_id) + file_lines(openai, batch.error_file_id)
    assert shows([line for line in lines if line["custom_id"] == "r1"])
    assert {row["custom_id"]: row["billed"] for row in emulator.rows()} == {"r0": True, "r1": billed, "r2": True}


@pytest.mark.parametrize(
    ("fault", "shows"),
    [
        ("refusal", lambda choice: choice["message"]["refusal"] and choice["message"]["content"] is None),
        ("truncated", lambda choice: choice["finish_reason"] == "length"),
        ("content_filter", lambda choice: choice["finish_reason"] == "content_filter"),
        ("empty_content", lambda choice: choice["message"]["content"] is None),
    ],
)
def test_rows_of_chat_completions(emulator: Emulator, openai: OpenAI, fault: str, shows: Any) -> None:
    emulator.faults([fault])
    batch = openai.batches.retrieve(openai_batch(openai, [chat()], endpoint="/v1/chat/completions").id)
    (line,) = file_lines(openai, batch.output_file_id)
    assert shows(line["response"]["body"]["choices"][0])


# -- whole batches


def failed_with(openai: OpenAI, batch_id: str) -> Json:
    batch = openai.batches.retrieve(batch_id)
    assert batch.status == "failed"
    assert batch.errors is not None
    assert batch.errors.data is not None
    return batch.errors.data[0].model_dump()


@pytest.mark.parametrize(
    ("fault", "code", "param"),
    [
        ("token_limit_exceeded", "token_limit_exceeded", None),
        ("file_not_found", "invalid_request", "file_id"),
        ("line_errors", "invalid_json_line", None),
    ],
)
def test_batches_that_fail(emulator: Emulator, openai: OpenAI, fault: str, code: str, param: str | None) -> None:
    emulator.faults([{"fault": fault, "times": 1}])
    created = openai_batch(openai)
    assert created.status == "validating"
    error = failed_with(openai, created.id)
    assert (error["code"], error["param"]) == (code, param)
    again = openai.batches.create(
        input_file_id=created.input_file_id, endpoint="/v1/responses", completion_window="24h"
    )
    assert openai.batches.retrieve(again.id).status == "completed"
    assert emulator.accounting()["contents"]["accepted_most"] == 1, "a failed batch was never accepted"


def test_only_an_error_file(emulator: Emulator, openai: OpenAI) -> None:
    emulator.faults(["only_error_file"])
    batch = openai.batches.retrieve(openai_batch(openai).id)
    assert (batch.status, batch.output_file_id) == ("completed", None)
    assert len(file_lines(openai, batch.error_file_id)) == 3


def test_an_empty_error_file_id(emulator: Emulator, openai: OpenAI) -> None:
    emulator.faults(["empty_error_file_id"])
    assert openai.batches.retrieve(openai_batch(openai).id).error_file_id == ""


def test_expired_files(emulator: Emulator, openai: OpenAI) -> None:
    emulator.faults(["expired_file"])
    batch = openai.batches.retrieve(openai_batch(openai).id)
    assert batch.output_file_id is not None
    with pytest.raises(openai_sdk.NotFoundError):
        openai.files.content(batch.output_file_id)


def test_stalled_finalizing(emulator: Emulator, openai: OpenAI) -> None:
    emulator.faults([{"fault": "stalled_finalizing", "for_s": 900}])
    batch = openai_batch(openai)
    assert openai.batches.retrieve(batch.id).status == "finalizing"
    emulator.advance_clock(900)
    assert openai.batches.retrieve(batch.id).status == "completed"


def test_stalled(emulator: Emulator, anthropic: Anthropic) -> None:
    emulator.faults([{"fault": "stalled", "for_s": 900}])
    batch = anthropic_batch(anthropic)
    assert anthropic.messages.batches.retrieve(batch.id).processing_status == "in_progress"
    emulator.advance_clock(901)
    assert anthropic.messages.batches.retrieve(batch.id).processing_status == "ended"


def test_slow_cancelling(emulator: Emulator, openai: OpenAI, anthropic: Anthropic) -> None:
    emulator.faults(["slow_cancelling"])
    emulator.hold()
    theirs, ours = openai_batch(openai), anthropic_batch(anthropic)
    openai.batches.retrieve(theirs.id)
    openai.batches.cancel(theirs.id)
    anthropic.messages.batches.cancel(ours.id)
    emulator.advance_clock(599)
    assert openai.batches.retrieve(theirs.id).status == "cancelling"
    assert anthropic.messages.batches.retrieve(ours.id).processing_status == "canceling"
    emulator.advance_clock(2)
    assert openai.batches.retrieve(theirs.id).status == "cancelled"
    assert anthropic.messages.batches.retrieve(ours.id).processing_status == "ended"


def test_expired_with_partial_output(emulator: Emulator, openai: OpenAI, anthropic: Anthropic) -> None:
    emulator.faults([{"fault": "expired_partial", "share": 0.25}])
    theirs = openai.batches.retrieve(openai_batch(openai, 8).id)
    assert theirs.status == "expired"
    assert len(file_lines(openai, theirs.output_file_id)) == 2
    assert len(file_lines(openai, theirs.error_file_id)) == 6
    ours = anthropic.messages.batches.retrieve(anthropic_batch(anthropic, 8).id)
    assert (ours.request_counts.succeeded, ours.request_counts.expired) == (2, 6)
    assert emulator.accounting()["billed"] == 4


def test_vanished(emulator: Emulator, openai: OpenAI, anthropic: Anthropic) -> None:
    emulator.faults(["vanished"])
    theirs, ours = openai_batch(openai), anthropic_batch(anthropic)
    with pytest.raises(openai_sdk.NotFoundError):
        openai.batches.retrieve(theirs.id)
    with pytest.raises(anthropic_sdk.NotFoundError):
        anthropic.messages.batches.retrieve(ours.id)
    assert openai.batches.list().data == []
    assert anthropic.messages.batches.list().data == []
    assert emulator.accounting()["billed"] == 6


def test_results_gone(emulator: Emulator, anthropic: Anthropic) -> None:
    emulator.faults(["results_gone"])
    batch = anthropic.messages.batches.retrieve(anthropic_batch(anthropic).id)
    assert (batch.processing_status, batch.results_url) == ("ended", None)


def test_all_errored(emulator: Emulator, openai: OpenAI, anthropic: Anthropic) -> None:
    emulator.faults([{"fault": "all_errored", "error": "billing"}])
    lines = anthropic_lines(anthropic, anthropic_batch(anthropic).id)
    assert {line["result"]["error"]["error"]["type"] for line in lines} == {"billing_error"}
    counts = openai.batches.retrieve(openai_batch(openai).id).request_counts
    assert counts is not None
    assert (counts.completed, counts.failed) == (0, 3)


# -- the transport


@pytest.mark.parametrize("vendor", [ANTHROPIC, OPENAI])
@pytest.mark.parametrize(("fault", "stored"), [("dropped_before_store", 0), ("dropped_after_store", 1)])
def test_dropped_connections(
    emulator: Emulator, openai: OpenAI, anthropic: Anthropic, vendor: str, fault: str, stored: int
) -> None:
    emulator.faults([{"fault": fault, "provider": vendor, "times": 1}])
    errors = (openai_sdk.APIConnectionError, anthropic_sdk.APIConnectionError)
    with pytest.raises(errors) as caught:
        _ = openai_batch(openai) if vendor == OPENAI else anthropic_batch(anthropic)
    assert isinstance(caught.value.__cause__, httpx2.RemoteProtocolError | httpx2.ReadError)
    listed = openai.batches.list().data if vendor == OPENAI else anthropic.messages.batches.list().data
    assert len(list(listed)) == stored
    assert len(emulator.batches()) == stored


@pytest.mark.parametrize(
    ("rule", "status", "stored"),
    [
        ({"fault": "error_500_after_store"}, 500, 1),
        ({"fault": "http_400"}, 400, 0),
        ({"fault": "http_401"}, 401, 0),
        ({"fault": "http_402"}, 402, 0),
        ({"fault": "http_403"}, 403, 0),
        ({"fault": "http_429"}, 429, 0),
        ({"fault": "http_429", "retry_after_s": 7}, 429, 0),
        ({"fault": "spend_limit"}, 429, 0),
        ({"fault": "http_500"}, 500, 0),
        ({"fault": "http_503"}, 503, 0),
        ({"fault": "http_504"}, 504, 0),
        ({"fault": "http_529"}, 529, 0),
        ({"fault": "html_413"}, 413, 0),
        ({"fault": "html_200"}, 200, 1),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else None,
)
def test_error_replies_to_create(emulator: Emulator, rule: Json, status: int, stored: int) -> None:
    emulator.faults([rule])
    headers = {"authorization": "Bearer x", "anthropic-version": "2026-10-21"}
    wanted = {"requests": [{"custom_id": "a", "params": params()}]}
    reply = httpx2.post(f"{emulator.url}/v1/messages/batches", json=wanted, headers=headers)
    assert reply.status_code == status
    assert reply.headers.get("retry-after") == (str(rule["retry_after_s"]) if "retry_after_s" in rule else None)
    assert reply.headers["content-type"].startswith("text/html" if "html" in rule["fault"] else "application/json")
    assert len(emulator.batches()) == stored
    if rule["fault"] == "spend_limit":
        assert reply.json()["error"]["details"] == {"error_code": "enforced_spend_limit_reached"}


@pytest.mark.parametrize(("rule", "status"), [("http_429", 429), ("spend_limit", 429), ("error_500_after_store", 500)])
def test_error_replies_of_openai(emulator: Emulator, openai: OpenAI, rule: str, status: int) -> None:
    emulator.faults([{"fault": rule, "times": 1}])
    with pytest.raises(openai_sdk.APIStatusError) as caught:
        openai_batch(openai)
    assert caught.value.status_code == status
    assert caught.value.code == {"http_429": "rate_limit_exceeded", "spend_limit": "insufficient_quota"}.get(rule)


def test_uploads_meet_faults_too(emulator: Emulator, openai: OpenAI) -> None:
    emulator.faults([{"fault": "http_503", "route": "upload", "times": 1}])
    with pytest.raises(openai_sdk.InternalServerError):
        openai_batch(openai)
    assert openai_batch(openai).status == "validating"


def test_retrieves_that_fail(emulator: Emulator, anthropic: Anthropic) -> None:
    emulator.faults([{"fault": "retrieve_404_at_first", "for_s": 60}])
    batch = anthropic_batch(anthropic)
    with pytest.raises(anthropic_sdk.NotFoundError):
        anthropic.messages.batches.retrieve(batch.id)
    emulator.advance_clock(61)
    assert anthropic.messages.batches.retrieve(batch.id).id == batch.id
    emulator.faults([{"fault": "retrieve_404_blip", "times": 1}, {"fault": "retrieve_5xx", "times": 2, "status": 503}])
    with pytest.raises(anthropic_sdk.NotFoundError):
        anthropic.messages.batches.retrieve(batch.id)
    with pytest.raises(anthropic_sdk.InternalServerError):
        anthropic.messages.batches.retrieve(batch.id)
    assert anthropic.messages.batches.retrieve(batch.id).id == batch.id


def test_lists_that_lag(emulator: Emulator, openai: OpenAI, anthropic: Anthropic) -> None:
    emulator.faults([{"fault": "list_lag", "for_s": 60}])
    anthropic_batch(anthropic)
    openai_batch(openai)
    assert anthropic.messages.batches.list().data == []
    assert openai.batches.list().data == []
    emulator.advance_clock(61)
    assert len(anthropic.messages.batches.list().data) == len(openai.batches.list().data) == 1


def test_downloads_that_fail(emulator: Emulator, anthropic: Anthropic) -> None:
    batch = anthropic_batch(anthropic, 50)
    url = str(anthropic.messages.batches.retrieve(batch.id).results_url)
    headers = {"authorization": "Bearer x", "anthropic-version": "2026-10-21"}
    emulator.faults(
        [
            {"fault": "results_404_after_ended", "times": 1},
            {"fault": "cut_mid_line", "times": 2},
            {"fault": "silent_short_read", "times": 3},
        ]
    )
    assert httpx2.get(url, headers=headers).status_code == 404
    received: list[bytes] = []
    with httpx2.stream("GET", url, headers=headers) as reply, pytest.raises(httpx2.RemoteProtocolError):
        received.extend(reply.iter_bytes())
    assert received
    assert not received[-1].endswith(b"\n")
    short = httpx2.get(url, headers=headers)
    assert short.content.endswith(b"\n")
    assert 0 < short.content.count(b"\n") < 50
    assert httpx2.get(url, headers=headers).content.count(b"\n") == 50


@pytest.mark.parametrize(
    ("fault", "behind"),
    [("stray_row", b'"custom_id":"stray-1"'), ("garbage_line", b'{"custom_id": <the emulator')],
    ids=["stray_row", "garbage_line"],
)
def test_lines_that_belong_to_no_row(
    emulator: Emulator, openai: OpenAI, anthropic: Anthropic, fault: str, behind: bytes
) -> None:
    emulator.faults([{"fault": fault, **HIT}])
    theirs = openai.batches.retrieve(openai_batch(openai).id)
    assert theirs.request_counts is not None
    assert theirs.request_counts.completed == 3
    ours = anthropic.messages.batches.retrieve(anthropic_batch(anthropic).id)
    assert ours.request_counts.succeeded == 3
    for content in (
        openai.files.content(str(theirs.output_file_id)).content,
        anthropic.get(str(ours.results_url), cast_to=httpx2.Response).content,
    ):
        lines = content.split(b"\n")
        assert len(lines) == 5
        assert sum(behind in line for line in lines) == 1
        assert b'"r1"' in lines[next(number for number, line in enumerate(lines) if behind in line) - 1]
    assert emulator.accounting()["billed"] == 6


def test_lines_are_in_another_order_at_every_download(emulator: Emulator, anthropic: Anthropic) -> None:
    emulator.faults([{"fault": "shuffled", "times": 2}])
    batch = anthropic_batch(anthropic, 50)
    one, other, third, last = ([line["custom_id"] for line in anthropic_lines(anthropic, batch.id)] for _ in range(4))
    assert one != other != third
    assert third == last
    assert sorted(one) == sorted(other) == sorted(third)


def test_counts_that_disagree(emulator: Emulator, openai: OpenAI, anthropic: Anthropic) -> None:
    emulator.faults([{"fault": "counts_disagree", "by": -2}])
    theirs = openai.batches.retrieve(openai_batch(openai).id)
    assert theirs.request_counts is not None
    assert (theirs.request_counts.total, theirs.request_counts.completed) == (3, 1)
    ours = anthropic.messages.batches.retrieve(anthropic_batch(anthropic).id)
    assert ours.request_counts.succeeded == 1
    assert len(anthropic_lines(anthropic, ours.id)) == len(file_lines(openai, theirs.output_file_id)) == 3
    assert emulator.accounting()["billed"] == 6


def test_a_results_url_on_another_host(emulator: Emulator, anthropic: Anthropic) -> None:
    batch = anthropic_batch(anthropic)
    emulator.faults([{"fault": "foreign_results_url", "times": 1}])
    urls = [str(anthropic.messages.batches.retrieve(batch.id).results_url) for _ in range(2)]
    assert urls == [
        f"{host}/v1/messages/batches/{batch.id}/results" for host in ("https://results.example", emulator.url)
    ]


def test_slow_replies(emulator: Emulator, anthropic: Anthropic) -> None:
    emulator.faults([{"fault": "slow", "delay_s": 5}])
    with pytest.raises(anthropic_sdk.APITimeoutError):
        anthropic_batch(anthropic.with_options(timeout=0.2))


# -- whom a rule meets


def failed_ids(anthropic: Anthropic, texts: list[str]) -> set[str]:
    batch = anthropic_batch(anthropic, [params(text) for text in texts])
    lines = by_id(anthropic_lines(anthropic, batch.id))
    return {name for name, line in lines.items() if line["result"]["type"] == "errored"}


TEXTS = [f"text {number}" for number in range(200)]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        pytest.param({"custom_id": "r7"}, {"r7"}, id="custom_id"),
        pytest.param({"match": "text 19"}, {"r19", *(f"r19{digit}" for digit in range(10))}, id="text"),
        pytest.param({"match": '"r3"'}, {"r3"}, id="id-as-text"),
        pytest.param({"after_s": 60}, set(), id="too-early"),
        pytest.param({"provider": "openai"}, set(), id="other-provider"),
    ],
)
def test_whom_a_rule_meets(emulator: Emulator, anthropic: Anthropic, rule: Json, expected: set[str]) -> None:
    emulator.faults([{"fault": "overloaded", **rule}])
    assert failed_ids(anthropic, TEXTS) == expected


def test_windows_of_time(emulator: Emulator, anthropic: Anthropic) -> None:
    emulator.faults([{"fault": "overloaded", "after_s": 60, "until_s": 120}])
    found = []
    for _ in range(3):
        found.append(len(failed_ids(anthropic, TEXTS[:5])))
        emulator.advance_clock(60)
    assert found == [0, 5, 0]


def test_the_first_times_only(emulator: Emulator, anthropic: Anthropic) -> None:
    emulator.faults([{"fault": "overloaded", "times": 2}])
    assert len(failed_ids(anthropic, TEXTS)) == 2
    assert len(failed_ids(anthropic, TEXTS)) == 0


@pytest.mark.parametrize(("attempts", "again"), [(1, False), (2, True), ("always", True)])
def test_rates_meet_the_same_content_so_often(
    emulator: Emulator, anthropic: Anthropic, attempts: int | str, again: bool
) -> None:
    emulator.faults([{"fault": "overloaded", "rate": 0.1, "seed": 7, "attempts": attempts}])
    first = failed_ids(anthropic, TEXTS)
    assert 5 < len(first) < 40
    assert failed_ids(anthropic, TEXTS) == (first if again else set())
    assert failed_ids(anthropic, TEXTS) == (first if attempts == "always" else set())


def test_seeds_choose(emulator: Emulator, anthropic: Anthropic) -> None:
    chosen = []
    for seed in (1, 2, 1):
        emulator.faults([{"fault": "overloaded", "rate": 0.1, "seed": seed}])
        chosen.append(failed_ids(anthropic, TEXTS))
    assert chosen[0] == chosen[2] != chosen[1]


def test_several_at_once(emulator: Emulator, openai: OpenAI) -> None:
    emulator.faults(
        [
            {"fault": "overloaded", "custom_id": "r0"},
            {"fault": "refusal", "match": "number 1"},
            "empty_error_file_id",
            {"fault": "retrieve_404_blip", "times": 1},
        ]
    )
    batch = openai_batch(openai, [body(f"number {number}") for number in range(3)])
    with pytest.raises(openai_sdk.NotFoundError):
        openai.batches.retrieve(batch.id)
    ended = openai.batches.retrieve(batch.id)
    assert by_id(file_lines(openai, ended.error_file_id)).keys() == {"r0"}
    assert by_id(file_lines(openai, ended.output_file_id)).keys() == {"r1", "r2"}
