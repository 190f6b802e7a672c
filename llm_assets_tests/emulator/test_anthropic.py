"""Message Batches, through Anthropic's own SDK and, where that is too polite, over plain HTTP."""

import json
from datetime import timedelta
from typing import Any

import anthropic as sdk_module
import httpx2
import pytest
from anthropic import Anthropic

from llm_assets_tests.emulator.clients import LABELS, anthropic_batch, anthropic_lines, by_id, params
from llm_assets_tests.emulator_process import Emulator

HEADERS = {"authorization": "Bearer test", "anthropic-version": "2026-10-21"}
BATCHES = "/v1/messages/batches"


def request(number: int = 0, **changes: Any) -> dict[str, Any]:
    return {"custom_id": f"r{number}", "params": params()} | changes


def post(emulator: Emulator, content: bytes, headers: dict[str, str] = HEADERS) -> httpx2.Response:
    return httpx2.post(emulator.url + BATCHES, content=content, headers=headers)


def test_a_batch_from_create_to_results(anthropic: Anthropic) -> None:
    created = anthropic_batch(anthropic, 30)
    assert created.id.startswith("msgbatch_emulator_")
    assert created.processing_status == "in_progress"
    assert created.request_counts.processing == 30
    assert created.results_url is None
    assert created.expires_at - created.created_at == timedelta(hours=24)
    ended = anthropic.messages.batches.retrieve(created.id)
    assert (ended.processing_status, ended.request_counts.succeeded) == ("ended", 30)
    results = list(anthropic.messages.batches.results(created.id))
    ids = [result.custom_id for result in results]
    assert sorted(ids) == sorted(f"r{number}" for number in range(30))
    assert ids != [f"r{number}" for number in range(30)], "results must not come in the order of the requests"
    for result in results:
        assert result.result.type == "succeeded"
        message = result.result.message
        assert message.id.startswith("msg_emulator_")
        assert message.model == "claude-haiku-5-5+emulator-scripted"
        assert message.content[0].type == "text"
        assert json.loads(message.content[0].text)["label"] in LABELS
        assert message.usage.service_tier == "batch"


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        pytest.param({"temperature": 0.5}, "invalid_request_error", "temperature", id="temperature"),
        pytest.param({"top_k": 5}, "invalid_request_error", "top_k", id="top_k"),
        pytest.param({"stream": True}, "invalid_request_error", "stream", id="stream"),
        pytest.param({"max_tokens": None}, "invalid_request_error", "max_tokens: Field required", id="no-max_tokens"),
        pytest.param({"max_tokens": 0}, "invalid_request_error", "max_tokens", id="max_tokens-0"),
        pytest.param({"model": None}, "invalid_request_error", "model: Field required", id="no-model"),
        pytest.param({"model": "gpt-6-luna"}, "not_found_error", "model: gpt-6-luna", id="unknown-model"),
        pytest.param({"messages": []}, "invalid_request_error", "at least one message", id="no-messages"),
        pytest.param(
            {"messages": [{"role": "system", "content": "x"}]}, "invalid_request_error", "messages.0.role", id="role"
        ),
        pytest.param(
            {"messages": [{"role": "user", "content": ""}]}, "invalid_request_error", "non-empty", id="empty-content"
        ),
        pytest.param(
            {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "{"}]},
            *("invalid_request_error", "prefill"),
            id="prefill",
        ),
        pytest.param({"sparkle": 1}, "invalid_request_error", "sparkle: Extra inputs", id="unknown-param"),
        pytest.param(
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object", "properties": {}}}}},
            *("invalid_request_error", "additionalProperties"),
            id="open-object",
        ),
        pytest.param(
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "string", "maxLength": 3}}}},
            *("invalid_request_error", "maxLength"),
            id="bounds",
        ),
    ],
)
def test_what_is_in_params_errs_row_by_row(anthropic: Anthropic, changes: Any, kind: str, says: str) -> None:
    batch = anthropic_batch(anthropic, [params(), params(**changes)])
    lines = by_id(anthropic_lines(anthropic, batch.id))
    assert lines["r0"]["result"]["type"] == "succeeded"
    envelope = lines["r1"]["result"]["error"]
    assert envelope["error"]["type"] == kind
    assert says in envelope["error"]["message"]
    counts = anthropic.messages.batches.retrieve(batch.id).request_counts
    assert (counts.succeeded, counts.errored, counts.processing) == (1, 1, 0)


@pytest.mark.parametrize(
    ("requests", "says"),
    [
        pytest.param([], "at least 1 item", id="empty"),
        pytest.param([request(custom_id="a b")], "requests.0.custom_id", id="blank-in-id"),
        pytest.param([request(custom_id="a" * 65)], "requests.0.custom_id", id="long-id"),
        pytest.param([request(custom_id="")], "requests.0.custom_id", id="empty-id"),
        pytest.param([request(), request()], "unique", id="twice"),
        pytest.param([{"custom_id": "a"}], "requests.0.params: Field required", id="no-params"),
        pytest.param([{"params": {}}], "requests.0.custom_id: Field required", id="no-id"),
        pytest.param([request(extra=1)], "requests.0.extra", id="extra"),
        pytest.param([request(params=[])], "requests.0.params", id="params-no-object"),
    ],
)
@pytest.mark.parametrize("shape", ["one-line", "line-by-line"])
def test_ids_and_shape_are_checked_at_once(emulator: Emulator, requests: list[Any], says: str, shape: str) -> None:
    separator = ",\n" if shape == "line-by-line" else ", "
    rows = separator.join(json.dumps(each) for each in requests)
    text = f'{{"requests":[\n{rows}\n]}}' if shape == "line-by-line" else f'{{"requests": [{rows}]}}'
    reply = post(emulator, text.encode())
    assert reply.status_code == 400
    assert reply.json()["type"] == "error"
    assert reply.json()["error"]["type"] == "invalid_request_error"
    assert says in reply.json()["error"]["message"]
    assert reply.json()["request_id"] == reply.headers["request-id"]
    assert emulator.accounting()["batches"] == 0


@pytest.mark.parametrize(
    "text",
    [
        '{"requests":[\n%s,\n%s\n]}',
        '{"requests":[\n%s,\n%s\n]}\n',
        '{"requests":[\r\n%s,\r\n%s\r\n]}',
        '{"requests": [%s, %s]}',
        '{\n  "requests": [\n%s\n,\n%s]}',
        '{"requests":[\n%s\n,%s\n]}',
    ],
    ids=["lines", "lines-lf", "lines-crlf", "one-line", "indented", "comma-first"],
)
def test_any_valid_json_is_taken(emulator: Emulator, anthropic: Anthropic, text: str) -> None:
    reply = post(emulator, (text % (json.dumps(request(0)), json.dumps(request(1)))).encode())
    assert reply.status_code == 200, reply.text
    assert by_id(anthropic_lines(anthropic, reply.json()["id"])).keys() == {"r0", "r1"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"requests":[\n%s\n%s\n]}',
        '{"requests":[\n%s,\n]}',
        '{"requests":[\n%s\n]} x',
        '{"requests":[\n%s',
    ],
)
def test_broken_bodies_are_refused(emulator: Emulator, text: str) -> None:
    reply = post(emulator, text.replace("%s", json.dumps(request())).encode())
    assert reply.status_code == 400
    assert reply.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("headers", "status", "kind"),
    [
        pytest.param({"anthropic-version": "2026-10-21"}, 401, "authentication_error", id="no-key"),
        pytest.param({"authorization": "Bearer x"}, 400, "invalid_request_error", id="no-version"),
        pytest.param(HEADERS | {"anthropic-version": "2023-06-01"}, 400, "invalid_request_error", id="old-version"),
    ],
)
def test_headers_are_asked_for(emulator: Emulator, headers: dict[str, str], status: int, kind: str) -> None:
    reply = httpx2.get(emulator.url + BATCHES, headers=headers)
    assert (reply.status_code, reply.json()["error"]["type"]) == (status, kind)
    assert reply.headers["request-id"].startswith("req_emulator_")


def test_both_kinds_of_key_are_taken(emulator: Emulator) -> None:
    for key in ({"authorization": "Bearer x"}, {"x-api-key": "x"}):
        reply = httpx2.get(emulator.url + BATCHES, headers=key | {"anthropic-version": "2026-10-21"})
        assert reply.status_code == 200
        assert reply.headers["x-emulator"] == "llm_assets/scripted"


def test_pages(anthropic: Anthropic) -> None:
    ids = [anthropic_batch(anthropic, 1).id for _ in range(5)][::-1]
    first = anthropic.messages.batches.list(limit=2)
    assert [batch.id for batch in first.data] == ids[:2]
    assert (first.first_id, first.last_id, first.has_more) == (ids[0], ids[1], True)
    assert [batch.id for batch in anthropic.messages.batches.list(limit=2)] == ids
    rest = anthropic.messages.batches.list(limit=1000, after_id=ids[1])
    assert ([batch.id for batch in rest.data], rest.has_more) == (ids[2:], False)
    newer = anthropic.messages.batches.list(limit=2, before_id=ids[4])
    assert ([batch.id for batch in newer.data], newer.has_more) == (ids[2:4], True)
    with pytest.raises(sdk_module.BadRequestError):
        anthropic.messages.batches.list(limit=1001)


def test_an_empty_list(anthropic: Anthropic) -> None:
    page = anthropic.messages.batches.list()
    assert (page.data, page.has_more, page.first_id, page.last_id) == ([], False, None, None)


def test_counts_stay_0_until_the_end(emulator: Emulator, anthropic: Anthropic) -> None:
    emulator.settings(latency_s=100)
    batch = anthropic_batch(anthropic, 4)
    emulator.advance_clock(50)
    halfway = anthropic.messages.batches.retrieve(batch.id)
    assert (halfway.processing_status, halfway.request_counts.processing) == ("in_progress", 4)
    emulator.advance_clock(51)
    assert anthropic.messages.batches.retrieve(batch.id).processing_status == "ended"


def test_canceling_keeps_what_is_done(emulator: Emulator, anthropic: Anthropic) -> None:
    emulator.freeze_clock()
    emulator.settings(latency_s=100)
    batch = anthropic_batch(anthropic, 10)
    emulator.advance_clock(40)
    canceling = anthropic.messages.batches.cancel(batch.id)
    assert canceling.processing_status == "canceling"
    assert canceling.cancel_initiated_at is not None
    ended = anthropic.messages.batches.retrieve(batch.id)
    assert (ended.request_counts.succeeded, ended.request_counts.canceled) == (4, 6)
    kinds = [line["result"]["type"] for line in anthropic_lines(anthropic, batch.id)]
    assert sorted(kinds) == ["canceled"] * 6 + ["succeeded"] * 4
    with pytest.raises(sdk_module.BadRequestError, match="already ended"):
        anthropic.messages.batches.cancel(batch.id)


def test_only_ended_batches_are_deleted(emulator: Emulator, anthropic: Anthropic) -> None:
    emulator.hold()
    batch = anthropic_batch(anthropic)
    with pytest.raises(sdk_module.BadRequestError):
        anthropic.messages.batches.delete(batch.id)
    emulator.hold(False)
    assert anthropic.messages.batches.delete(batch.id).type == "message_batch_deleted"
    with pytest.raises(sdk_module.NotFoundError):
        anthropic.messages.batches.retrieve(batch.id)
    assert emulator.accounting()["billed"] == 3, "what was deleted was paid all the same"


def test_a_held_batch_expires_after_a_day(emulator: Emulator, anthropic: Anthropic) -> None:
    emulator.hold()
    batch = anthropic_batch(anthropic)
    emulator.advance_clock(24 * 3600)
    ended = anthropic.messages.batches.retrieve(batch.id)
    assert (ended.processing_status, ended.request_counts.expired) == ("ended", 3)
    assert emulator.accounting()["billed"] == 0


def test_results_are_kept_29_days(emulator: Emulator, anthropic: Anthropic) -> None:
    batch = anthropic_batch(anthropic)
    url = anthropic.messages.batches.retrieve(batch.id).results_url
    emulator.advance_clock(29 * 24 * 3600)
    archived = anthropic.messages.batches.retrieve(batch.id)
    assert archived.archived_at is not None
    assert archived.results_url is None
    assert httpx2.get(str(url), headers=HEADERS).status_code == 404


def test_no_results_before_the_end(emulator: Emulator, anthropic: Anthropic) -> None:
    emulator.hold()
    batch = anthropic_batch(anthropic)
    assert httpx2.get(f"{emulator.url}{BATCHES}/{batch.id}/results", headers=HEADERS).status_code == 404


@pytest.mark.parametrize(
    ("limit", "status", "media_type"),
    [
        pytest.param({"anthropic_bytes": 1000}, 413, "text/html", id="bytes-in-html"),
        pytest.param({"anthropic_rows": 2}, 413, "application/json", id="rows"),
        pytest.param({"anthropic_queued_requests": 2}, 429, "application/json", id="the-queue"),
    ],
)
def test_limits(emulator: Emulator, limit: dict[str, int], status: int, media_type: str) -> None:
    emulator.settings(limits=limit)
    rows = [request(number) for number in range(3)]
    reply = post(emulator, json.dumps({"requests": rows}).encode())
    assert reply.status_code == status
    assert reply.headers["content-type"].startswith(media_type)
    assert emulator.accounting()["batches"] == 0


def test_the_plain_endpoint(anthropic: Anthropic) -> None:
    message = anthropic.messages.create(
        model="claude-haiku-5-5", max_tokens=5, messages=[{"role": "user", "content": "Tell me something long."}]
    )
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 5)
    with pytest.raises(sdk_module.NotFoundError):
        anthropic.messages.create(model="nobody", max_tokens=5, messages=[{"role": "user", "content": "x"}])


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/messages", 405), ("GET", "/v1/messages/no", 404)])
def test_the_router_refuses_in_the_vendors_envelope(emulator: Emulator, method: str, path: str, status: int) -> None:
    reply = httpx2.request(method, emulator.url + path, headers=HEADERS)
    assert (reply.status_code, reply.json()["type"]) == (status, "error")
