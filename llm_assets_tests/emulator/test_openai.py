"""Files and Batches, through OpenAI's own SDK."""

import json
from typing import Any

import httpx2
import openai as sdk_module
import pytest
from openai import OpenAI

from llm_assets_tests.emulator.clients import (
    LABELS,
    body,
    by_id,
    chat,
    file_lines,
    openai_batch,
    request_line,
    upload,
)
from llm_assets_tests.emulator_process import Emulator


def test_a_batch_from_upload_to_results(openai: OpenAI) -> None:
    created = openai_batch(openai, 30, metadata={"stamp": "abc"})
    assert created.id.startswith("batch_emulator_")
    assert (created.status, created.output_file_id, created.errors) == ("validating", None, None)
    ended = openai.batches.retrieve(created.id)
    assert ended.status == "completed"
    assert ended.request_counts is not None
    assert (ended.request_counts.total, ended.request_counts.completed, ended.request_counts.failed) == (30, 30, 0)
    assert (ended.error_file_id, ended.metadata) == (None, {"stamp": "abc"})
    lines = file_lines(openai, ended.output_file_id)
    ids = [line["custom_id"] for line in lines]
    assert sorted(ids) == sorted(f"r{number}" for number in range(30))
    assert ids != [f"r{number}" for number in range(30)], "results must not come in the order of the requests"
    response = lines[0]["response"]
    assert (response["status_code"], lines[0]["error"]) == (200, None)
    assert response["body"]["model"] == "gpt-6-luna+emulator-scripted"
    assert response["body"]["id"].startswith("resp_emulator_")
    answer = json.loads(response["body"]["output"][0]["content"][0]["text"])
    assert answer["label"] in LABELS
    assert openai.batches.list().data[0].metadata == {"stamp": "abc"}


@pytest.mark.parametrize("endpoint", ["/v1/responses", "/v1/chat/completions", "/v1/embeddings"])
def test_all_endpoints_in_batches(openai: OpenAI, endpoint: str) -> None:
    content = {
        "/v1/responses": body(),
        "/v1/chat/completions": chat(),
        "/v1/embeddings": {"model": "text-embedding-3-small", "input": ["a", "b"]},
    }[endpoint]
    batch = openai.batches.retrieve(openai_batch(openai, [content], endpoint=endpoint).id)
    (line,) = file_lines(openai, batch.output_file_id)
    got = line["response"]["body"]
    if endpoint == "/v1/responses":
        assert json.loads(got["output"][0]["content"][0]["text"])["label"] == "positive"
    elif endpoint == "/v1/chat/completions":
        assert json.loads(got["choices"][0]["message"]["content"])["label"] == "positive"
    else:
        assert [len(each["embedding"]) for each in got["data"]] == [1536, 1536]


@pytest.mark.parametrize(
    ("changes", "status", "param"),
    [
        pytest.param({"input": None}, 400, "input", id="no-input"),
        pytest.param({"max_output_tokens": 0}, 400, "max_output_tokens", id="bound-0"),
        pytest.param({"max_output_tokens": "many"}, 400, "max_output_tokens", id="bound-text"),
        pytest.param({"stream": True}, 400, "stream", id="stream"),
        pytest.param(
            {"text": {"format": {"type": "json_schema", "name": "x", "strict": True, "schema": {"type": "object"}}}},
            *(400, "text.format.schema"),
            id="open-object",
        ),
        pytest.param(
            {
                "text": {
                    "format": {
                        "type": "json_schema",
                        "name": "x",
                        "strict": True,
                        "schema": {
                            "type": "object",
                            "properties": {"a": {"type": "string"}},
                            "required": [],
                            "additionalProperties": False,
                        },
                    }
                }
            },
            *(400, "text.format.schema"),
            id="optional-property",
        ),
    ],
)
def test_bad_rows_go_to_the_error_file(openai: OpenAI, changes: Any, status: int, param: str) -> None:
    batch = openai.batches.retrieve(openai_batch(openai, [body(), body(**changes)]).id)
    assert batch.status == "completed"
    assert [line["custom_id"] for line in file_lines(openai, batch.output_file_id)] == ["r0"]
    (line,) = file_lines(openai, batch.error_file_id)
    assert (line["response"]["status_code"], line["error"]) == (status, None)
    assert line["response"]["body"]["error"]["param"] == param


def test_chat_completions_want_the_newer_name_of_the_bound(openai: OpenAI) -> None:
    requests = [chat(max_completion_tokens=None, max_tokens=5), chat(max_completion_tokens=5)]
    batch = openai.batches.retrieve(openai_batch(openai, requests, endpoint="/v1/chat/completions").id)
    (bad,) = file_lines(openai, batch.error_file_id)
    assert bad["response"]["body"]["error"]["code"] == "unsupported_parameter"
    (cut,) = file_lines(openai, batch.output_file_id)
    assert cut["response"]["body"]["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("lines", "code", "line"),
    [
        pytest.param([], "empty_file", None, id="empty"),
        pytest.param([request_line(0, body()), "{"], "invalid_json_line", 2, id="no-json"),
        pytest.param([request_line(0, body())] * 2, "duplicate_custom_id", 2, id="twice"),
        pytest.param([request_line(0, body(), "/v1/embeddings")], "url_mismatch", 1, id="url"),
        pytest.param([request_line(0, body(model="nobody"))], "model_not_found", 1, id="model"),
        pytest.param(
            [request_line(0, body()), request_line(1, body(model="gpt-5.4-mini"))], "mismatched_model", 2, id="models"
        ),
        pytest.param(['{"custom_id":"a"}'], "invalid_method", 1, id="no-method"),
    ],
)
def test_files_are_validated_after_create(openai: OpenAI, lines: list[str], code: str, line: int | None) -> None:
    created = openai.batches.create(
        input_file_id=upload(openai, lines), endpoint="/v1/responses", completion_window="24h"
    )
    assert created.status == "validating"
    failed = openai.batches.retrieve(created.id)
    assert failed.status == "failed"
    assert failed.failed_at is not None
    assert failed.errors is not None
    assert failed.errors.data is not None
    assert (failed.errors.data[0].code, failed.errors.data[0].line) == (code, line)


def test_more_rows_than_allowed_fail_the_batch(emulator: Emulator, openai: OpenAI) -> None:
    emulator.settings(limits={"openai_rows": 2})
    assert openai.batches.retrieve(openai_batch(openai, 3).id).status == "failed"


def test_a_full_queue_fails_the_batch_until_there_is_room(emulator: Emulator, openai: OpenAI) -> None:
    emulator.settings(limits={"openai_enqueued_tokens": 200})
    emulator.hold()
    first = openai_batch(openai, 1)
    assert openai.batches.retrieve(first.id).status == "in_progress"
    second = openai.batches.retrieve(openai_batch(openai, 1).id)
    assert second.errors is not None
    assert second.errors.data is not None
    assert second.errors.data[0].code == "token_limit_exceeded"
    emulator.hold(False)
    assert openai.batches.retrieve(first.id).status == "completed"
    assert openai.batches.retrieve(openai_batch(openai, 1).id).status == "completed"


def test_uploads_are_checked(emulator: Emulator, openai: OpenAI) -> None:
    with pytest.raises(sdk_module.BadRequestError, match="jsonl"):
        openai.files.create(file=("batch.txt", b"{}"), purpose="batch")
    emulator.settings(limits={"openai_bytes": 10})
    with pytest.raises(sdk_module.APIStatusError) as caught:
        upload(openai, ["x" * 20])
    assert caught.value.status_code == 413


def test_files_expire(emulator: Emulator, openai: OpenAI) -> None:
    short = openai.files.create(
        file=("a.jsonl", b"{}\n"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    long = upload(openai, ["{}"])
    emulator.advance_clock(3600)
    with pytest.raises(sdk_module.NotFoundError):
        openai.files.retrieve(short.id)
    assert openai.files.content(long).content == b"{}\n"
    emulator.advance_clock(30 * 24 * 3600)
    with pytest.raises(sdk_module.NotFoundError):
        openai.files.content(long)


def test_files_are_listed_and_deleted(openai: OpenAI) -> None:
    ids = [upload(openai, [f"{number}"]) for number in range(3)][::-1]
    assert [file.id for file in openai.files.list(limit=2)] == ids
    assert [file.id for file in openai.files.list(order="asc")] == ids[::-1]
    assert openai.files.delete(ids[0]).deleted
    assert [file.id for file in openai.files.list(purpose="batch")] == ids[1:]
    assert not openai.files.list(purpose="vision").data


def test_pages(openai: OpenAI) -> None:
    ids = [openai_batch(openai, 1).id for _ in range(5)][::-1]
    page = openai.batches.list(limit=2)
    assert ([batch.id for batch in page.data], page.has_more) == (ids[:2], True)
    assert [batch.id for batch in openai.batches.list(limit=2)] == ids
    with pytest.raises(sdk_module.BadRequestError):
        openai.batches.list(limit=101)


def test_counts_move_live(emulator: Emulator, openai: OpenAI) -> None:
    emulator.freeze_clock()
    emulator.settings(latency_s=100)
    batch = openai_batch(openai, 10)
    emulator.advance_clock(50)
    halfway = openai.batches.retrieve(batch.id)
    assert halfway.status == "in_progress"
    assert halfway.request_counts is not None
    assert (halfway.request_counts.total, halfway.request_counts.completed) == (10, 5)
    cancelling = openai.batches.cancel(batch.id)
    assert cancelling.status == "cancelling"
    cancelled = openai.batches.retrieve(batch.id)
    assert cancelled.status == "cancelled"
    assert len(file_lines(openai, cancelled.output_file_id)) == 5
    errors = [line["error"]["code"] for line in file_lines(openai, cancelled.error_file_id)]
    assert errors == ["batch_cancelled"] * 5
    with pytest.raises(sdk_module.ConflictError):
        openai.batches.cancel(batch.id)


def test_a_held_batch_expires(emulator: Emulator, openai: OpenAI) -> None:
    emulator.hold()
    batch = openai_batch(openai, 2)
    assert openai.batches.retrieve(batch.id).status == "in_progress"
    emulator.advance_clock(24 * 3600)
    expired = openai.batches.retrieve(batch.id)
    assert (expired.status, expired.output_file_id) == ("expired", None)
    codes = {line["error"]["code"] for line in file_lines(openai, expired.error_file_id)}
    assert codes == {"batch_expired"}


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        pytest.param({"completion_window": "1h"}, "completion_window", id="window"),
        pytest.param({"endpoint": "/v1/moderations"}, "endpoint", id="endpoint"),
        pytest.param({"metadata": {str(number): "" for number in range(17)}}, "metadata", id="metadata-pairs"),
        pytest.param({"metadata": {"k": "v" * 513}}, "metadata", id="metadata-value"),
        pytest.param({"sparkle": 1}, "sparkle", id="unknown"),
    ],
)
def test_create_is_checked(emulator: Emulator, openai: OpenAI, changes: Any, param: str) -> None:
    wanted = {"input_file_id": upload(openai, []), "endpoint": "/v1/responses", "completion_window": "24h"} | changes
    reply = httpx2.post(f"{emulator.openai_url}/batches", json=wanted, headers={"authorization": "Bearer x"})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
    assert reply.headers["x-request-id"].startswith("req_emulator_")


def test_unknown_things(emulator: Emulator, openai: OpenAI) -> None:
    with pytest.raises(sdk_module.NotFoundError):
        openai.batches.retrieve("batch_no")
    with pytest.raises(sdk_module.NotFoundError):
        openai.batches.create(input_file_id="file-no", endpoint="/v1/responses", completion_window="24h")
    reply = httpx2.get(f"{emulator.openai_url}/batches")
    assert (reply.status_code, reply.json()["error"]["type"]) == (401, "invalid_request_error")
    assert httpx2.get(f"{emulator.openai_url}/no", headers={"authorization": "Bearer x"}).status_code == 404


def test_the_plain_endpoints(openai: OpenAI) -> None:
    answer = openai.responses.create(**body("It is terrible"))
    assert json.loads(answer.output_text)["label"] == "negative"
    completion = openai.chat.completions.create(**chat("It is terrible"))
    assert json.loads(completion.choices[0].message.content or "")["label"] == "negative"
    with pytest.raises(sdk_module.NotFoundError):
        openai.responses.create(model="nobody", input="x")


def test_lines_may_hold_unicode_separators(openai: OpenAI) -> None:
    line = request_line(0, body("one\u2028two")).replace("\\u2028", "\u2028")
    created = openai.batches.create(
        input_file_id=upload(openai, [line]), endpoint="/v1/responses", completion_window="24h"
    )
    batch = openai.batches.retrieve(created.id)
    assert by_id(file_lines(openai, batch.output_file_id)).keys() == {"r0"}
