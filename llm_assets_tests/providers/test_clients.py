"""The clients over real HTTP, against a server that answers as no well-behaved one would."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import orjson
import pytest

from llm_assets.errors import (
    CapacityError,
    DownloadIncomplete,
    NotThere,
    OutcomeUnknown,
    ProviderError,
    RequestRejected,
    SystemicError,
    TransientError,
)
from llm_assets.providers import FILE_NOT_VISIBLE, NAMES, TOO_LARGE, Client, Credentials, get_provider
from llm_assets.records import Batch, BatchCounts, BatchPage, BatchState
from llm_assets_tests.providers.http_server import Asked, Reply, Server, json_reply, serving

KEY = "sk-secret"
BOTH = ("anthropic", "openai")
ALL = NAMES
# What a provider is called in messages, where that is not its name.
CALLED = {"mistral": "mistral (experimental)"}
CREATED = datetime(2026, 11, 1, 12, tzinfo=UTC)
DOCUMENT = "the patient's name"


def anthropic_batch(**changes: Any) -> dict[str, Any]:
    counts = {"processing": 0, "succeeded": 3, "errored": 1, "canceled": 1, "expired": 1}
    return {
        "id": "msgbatch_1",
        "type": "message_batch",
        "processing_status": "ended",
        "request_counts": counts,
        "created_at": CREATED.isoformat().replace("+00:00", "Z"),
        "expires_at": CREATED.isoformat(),
        "ended_at": CREATED.isoformat(),
        "results_url": None,
        **changes,
    }


def openai_batch(**changes: Any) -> dict[str, Any]:
    return {
        "id": "batch_1",
        "object": "batch",
        "endpoint": "/v1/responses",
        "input_file_id": "file-1",
        "completion_window": "24h",
        "status": "completed",
        "created_at": int(CREATED.timestamp()),
        "output_file_id": "file-out",
        "error_file_id": "",
        "request_counts": {"total": 6, "completed": 5, "failed": 1},
        "metadata": {"llm_assets_submission": "k1"},
        **changes,
    }


def mistral_batch(**changes: Any) -> dict[str, Any]:
    return {
        "id": "job-1",
        "object": "batch",
        "status": "SUCCESS",
        "input_files": ["file-1"],
        "metadata": {"llm_assets_submission": "k1"},
        "created_at": int(CREATED.timestamp()),
        "total_requests": 6,
        "succeeded_requests": 5,
        "failed_requests": 1,
        "output_file": "file-out",
        "error_file": None,
        **changes,
    }


BATCH = {"anthropic": anthropic_batch, "openai": openai_batch, "mistral": mistral_batch}


@pytest.fixture
def connect(server: Server) -> Iterator[Callable[[str], Client]]:
    """Clients of the server, by provider."""
    opened: list[Client] = []

    def connect(name: str) -> Client:
        base_url = server.url + ("" if name == "anthropic" else "/v1")
        opened.append(get_provider(name).connect(Credentials(KEY, base_url)))
        return opened[-1]

    yield connect
    for client in opened:
        client.close()


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """A shard of 4 MB: more than any buffer on the way."""
    path = tmp_path / "shard.jsonl"
    line = orjson.dumps({"custom_id": "a", "body": {"model": "m"}, "text": DOCUMENT * 50}) + b"\n"
    path.write_bytes(line * 4_000)
    return path


def create(client: Client, shard: Path) -> Batch:
    return client.create(shard, staged="file-1", stamp="k1")


def told(provider: str, status: int, kind: str = "", code: str = "", **headers: str) -> Reply:
    """An HTTP error as the provider writes it, with a message that repeats the request."""
    if provider == "anthropic":
        error = {"type": kind, "message": "m", "details": {"error_code": code}, "input": DOCUMENT}
        return json_reply({"type": "error", "error": error, "input": DOCUMENT}, status, request_id="req_9", **headers)
    words = {"type": kind, "code": code or None, "message": "m", "param": None, "input": DOCUMENT}
    if provider == "mistral":
        return json_reply({"object": "error", "request_id": "req_9", **words}, status, **headers)
    return json_reply({"error": words, "input": DOCUMENT}, status, x_request_id="req_9", **headers)


# -- what is sent


def test_anthropic_sends_the_shard_as_it_is(server: Server, connect: Callable[[str], Client], shard: Path) -> None:
    server.will(json_reply(anthropic_batch(processing_status="in_progress")))
    client = connect("anthropic")
    assert client.stage(shard) is None
    batch = client.create(shard, staged=None, stamp="k1")
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/v1/messages/batches")
    assert asked.body == shard.read_bytes()
    assert asked.headers["content-length"] == str(shard.stat().st_size)
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.headers["anthropic-version"] == "2026-10-21"
    assert batch == Batch("msgbatch_1", BatchState.IN_PROGRESS, CREATED, BatchCounts(6, 3, 3))


def test_openai_uploads_the_shard_and_creates_with_a_stamp(
    server: Server, connect: Callable[[str], Client], shard: Path
) -> None:
    server.will(
        json_reply({"id": "file-1", "object": "file", "filename": "shard.jsonl"}),
        json_reply(openai_batch(status="validating", output_file_id=None)),
    )
    client = connect("openai")
    staged = client.stage(shard)
    batch = client.create(shard, staged=staged, stamp="k1")
    upload, created = server.asked
    assert (upload.method, upload.path) == ("POST", "/v1/files")
    assert b'name="purpose"\r\n\r\nbatch\r\n' in upload.body
    assert b'filename="shard.jsonl"' in upload.body
    assert shard.read_bytes() in upload.body
    assert (created.method, created.path) == ("POST", "/v1/batches")
    assert orjson.loads(created.body) == {
        "input_file_id": "file-1",
        "endpoint": "/v1/responses",
        "completion_window": "24h",
        "metadata": {"llm_assets_submission": "k1"},
    }
    expected = Batch("batch_1", BatchState.IN_PROGRESS, CREATED, BatchCounts(6, 5, 1), stamp="k1", staged_id="file-1")
    assert batch == expected


@pytest.mark.parametrize("provider", BOTH)
def test_an_explicit_base_url_outweighs_the_environment(
    server: Server, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{provider.upper()}_BASE_URL", "http://127.0.0.1:9/elsewhere")
    server.will(json_reply(BATCH[provider]()))
    base_url = f"{server.url}/prefix"
    with closing(get_provider(provider).connect(Credentials(KEY, base_url))) as client:
        client.batch("b")
        assert client.base_url == base_url
    assert server.asked[0].path.startswith("/prefix/")
    with closing(get_provider(provider).connect(Credentials(KEY))) as client:
        assert client.base_url == "http://127.0.0.1:9/elsewhere"


@pytest.mark.parametrize("provider", ALL)
def test_accounts_differ_by_key_and_base_url(provider: str) -> None:
    connect = get_provider(provider).connect
    credentials = [("k1", "http://a/v1"), ("k2", "http://a/v1"), ("k1", "http://b/v1")]
    same = [("k1", "http://a/v1/"), ("k1\n", "http://a/v1")]
    accounts = []
    for key, url in credentials + same:
        with closing(connect(Credentials(key, url))) as client:
            accounts.append(client.account)
    assert len(set(accounts[:3])) == 3
    assert set(accounts[3:]) == {accounts[0]}
    assert all("k1" not in account and len(account) == 16 for account in accounts)


@pytest.mark.parametrize("key", ["", " \n", "two words", "line\nbreak", "schlüssel"])
@pytest.mark.parametrize("provider", ALL)
def test_a_key_that_no_header_carries(provider: str, key: str) -> None:
    with pytest.raises(SystemicError, match="API key") as raised:
        get_provider(provider).connect(Credentials(key))
    assert not key.strip() or key not in str(raised.value)


@pytest.mark.parametrize("base_url", ["localhost:8080", "ftp://host", "host", "http://", "http://me:pw@host"])
@pytest.mark.parametrize("provider", ALL)
def test_a_base_url_that_is_none(provider: str, base_url: str) -> None:
    with pytest.raises(SystemicError, match="base URL") as raised:
        get_provider(provider).connect(Credentials(KEY, base_url))
    assert "pw" not in str(raised.value)


# -- what HTTP errors become

VERBS: dict[str, Callable[[Client, Path, Batch], object]] = {
    "stage": lambda client, shard, batch: client.stage(shard),
    "find_staged": lambda client, shard, batch: client.find_staged(shard.name),
    "create": lambda client, shard, batch: create(client, shard),
    "ask": lambda client, shard, batch: client.ask(shard.read_bytes()),
    "batch": lambda client, shard, batch: client.batch("b1"),
    "batches": lambda client, shard, batch: client.batches(),
    "download": lambda client, shard, batch: client.download(batch, shard.parent),
    "cancel": lambda client, shard, batch: client.cancel("b1"),
    "forget": lambda client, shard, batch: client.forget(batch, staged="in"),
}
ASKS_NOBODY = {("anthropic", "stage"), ("anthropic", "find_staged")}

READ, FREE, PAID = "batch", "stage", "create"


def call(client: Client, verb: str, shard: Path) -> object:
    if verb == FREE:
        return client.stage(shard)
    return client.batch("b") if verb == READ else create(client, shard)


@pytest.mark.parametrize(
    ("status", "read", "free", "paid"),
    [
        (400, RequestRejected, RequestRejected, RequestRejected),
        (401, SystemicError, SystemicError, SystemicError),
        (402, SystemicError, SystemicError, SystemicError),
        (403, SystemicError, SystemicError, SystemicError),
        (404, NotThere, SystemicError, SystemicError),
        (408, TransientError, TransientError, OutcomeUnknown),
        (405, RequestRejected, SystemicError, SystemicError),
        (407, RequestRejected, SystemicError, SystemicError),
        (409, TransientError, TransientError, OutcomeUnknown),
        (410, NotThere, SystemicError, SystemicError),
        (411, RequestRejected, SystemicError, SystemicError),
        (413, RequestRejected, RequestRejected, RequestRejected),
        (415, RequestRejected, SystemicError, SystemicError),
        (421, RequestRejected, SystemicError, SystemicError),
        (422, RequestRejected, RequestRejected, RequestRejected),
        (425, TransientError, TransientError, OutcomeUnknown),
        (426, RequestRejected, SystemicError, SystemicError),
        (429, CapacityError, CapacityError, CapacityError),
        (431, RequestRejected, SystemicError, SystemicError),
        (451, RequestRejected, SystemicError, SystemicError),
        (499, TransientError, TransientError, OutcomeUnknown),
        (500, TransientError, TransientError, OutcomeUnknown),
        (503, TransientError, TransientError, OutcomeUnknown),
        (504, TransientError, TransientError, OutcomeUnknown),
        (529, TransientError, TransientError, OutcomeUnknown),
    ],
)
@pytest.mark.parametrize("provider", ALL)
def test_http_errors(
    server: Server,
    connect: Callable[[str], Client],
    shard: Path,
    provider: str,
    status: int,
    read: type[ProviderError],
    free: type[ProviderError],
    paid: type[ProviderError],
) -> None:
    server.will(told(provider, status, "some_error", retry_after="7"))
    if provider == "mistral" and status in (400, 422):
        paid = SystemicError  # its files are read later: no document is to fail for what is refused here
    verbs = {READ: read, PAID: paid} | ({} if provider == "anthropic" else {FREE: free})
    for verb, expected in verbs.items():
        server.asked.clear()
        with pytest.raises(ProviderError) as raised:
            call(connect(provider), verb, shard)
        error = raised.value
        assert type(error) is expected
        assert error.code == (TOO_LARGE if status == 413 else "some_error")
        assert error.retry_after_s == 7.0
        words = "" if status == 401 else ": m"  # about a key they may quote it
        assert f"{CALLED.get(provider, provider)} {verb}: HTTP {status} some_error{words} [request req_9]" in str(error)
        assert DOCUMENT not in str(error)
        assert error.__suppress_context__
        assert len(server.asked) == 1, "nothing is sent again by the SDK"


@pytest.mark.parametrize("status", [400, 402, 403, 404, 405, 407, 411, 415, 421, 422, 426, 431, 451])
@pytest.mark.parametrize("provider", ALL)
def test_what_stands_in_between_rejects_nothing_for_good(
    server: Server, connect: Callable[[str], Client], shard: Path, provider: str, status: int
) -> None:
    server.will(Reply(status, f"<html>{DOCUMENT}</html>".encode(), content_type="text/html"))
    with pytest.raises(SystemicError, match="or one of a proxy or wrong base URL") as raised:
        create(connect(provider), shard)
    assert DOCUMENT not in str(raised.value)


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize("provider", ALL)
def test_a_gateways_page_does_not_say_that_a_batch_is_gone(
    server: Server, connect: Callable[[str], Client], shard: Path, provider: str, status: int
) -> None:
    server.will(Reply(status, b"<html>not found</html>", content_type="text/html"))
    client, batch = connect(provider), ended(provider, server)
    for verb in ("batch", "download", "cancel", "forget"):
        with pytest.raises(TransientError, match="or one of a proxy or wrong base URL"):
            VERBS[verb](client, shard, batch)


@pytest.mark.parametrize("content_type", ["text/html", "application/json"])
def test_a_server_that_lists_no_files_has_none(
    server: Server, connect: Callable[[str], Client], content_type: str
) -> None:
    server.will(Reply(404, b'{"detail":"Not Found"}', content_type=content_type))
    with suppress(NotThere):
        assert connect("openai").find_staged("k1.jsonl") is None


@pytest.mark.parametrize(
    ("provider", "verb"), [(name, verb) for name in ALL for verb in VERBS if (name, verb) not in ASKS_NOBODY]
)
def test_a_document_that_the_provider_quotes_is_left_out(
    server: Server, connect: Callable[[str], Client], shard: Path, provider: str, verb: str
) -> None:
    words = {"type": DOCUMENT, "code": DOCUMENT, "param": DOCUMENT, "details": {"error_code": DOCUMENT}}
    quoting = [f"invalid value: '{DOCUMENT}'", f"invalid value: {DOCUMENT * 3}"]
    errors = [words | {"message": message, "error": words | {"message": message}} for message in quoting]
    client, heard = connect(provider), []
    for status, error in product((400, 401, 402, 403, 404, 413, 422, 429, 500), errors):
        server.will(json_reply(error, status=status, request_id=DOCUMENT, x_request_id=DOCUMENT))
        try:
            VERBS[verb](client, shard, ended(provider, server))
        except ProviderError as raised:
            heard.append(f"{raised} {raised.code}")
    assert len(heard) == (16 if verb == "forget" else 18)  # to which 404 is success
    assert "the patient" not in "".join(heard)


@pytest.mark.parametrize(
    ("provider", "status", "kind", "code"),
    [
        ("anthropic", 429, "rate_limit_error", "enforced_spend_limit_reached"),
        ("anthropic", 429, "rate_limit_error", "contract_spend_limit_reached"),
        ("anthropic", 400, "billing_error", ""),
        ("anthropic", 400, "invalid_request_error", "organization_on_hold"),
        ("openai", 429, "insufficient_quota", "insufficient_quota"),
        ("openai", 400, "invalid_request_error", "billing_hard_limit_reached"),
        ("openai", 404, "invalid_request_error", "model_not_found"),
    ],
)
def test_words_that_stop_everything(
    server: Server,
    connect: Callable[[str], Client],
    shard: Path,
    provider: str,
    status: int,
    kind: str,
    code: str,
) -> None:
    server.will(told(provider, status, kind, code))
    with pytest.raises(SystemicError) as raised:
        create(connect(provider), shard)
    assert raised.value.code == (code or kind)


@pytest.mark.parametrize("provider", ALL)
def test_a_gateways_html_is_not_repeated(
    server: Server, connect: Callable[[str], Client], shard: Path, provider: str
) -> None:
    page = f"<html><body>413 {DOCUMENT}</body></html>".encode()
    server.will(Reply(413, page, content_type="text/html"))
    with pytest.raises(RequestRejected, match=r"HTTP 413$") as raised:
        create(connect(provider), shard)
    assert raised.value.code == TOO_LARGE


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=b"<html>welcome</html>", content_type="text/html"),
        Reply(body=b"{"),
        Reply(body=b"[]"),
        Reply(body=b"{}"),
        Reply(body=b'{"id":"b","created_at":"soon","type":"message_batch"}'),
    ],
    ids=["html", "cut", "list", "empty", "no time"],
)
@pytest.mark.parametrize("provider", ALL)
def test_a_success_that_is_no_batch(
    server: Server, connect: Callable[[str], Client], shard: Path, provider: str, reply: Reply
) -> None:
    server.will(reply)
    with pytest.raises(OutcomeUnknown, match="it may have been accepted"):
        create(connect(provider), shard)
    with pytest.raises(TransientError):
        connect(provider).batch("b")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("provider", "verb"), [(name, verb) for name in ALL for verb in VERBS if (name, verb) not in ASKS_NOBODY]
)
def test_no_redirect_is_followed(
    server: Server, connect: Callable[[str], Client], shard: Path, provider: str, verb: str, status: int
) -> None:
    with serving() as foreign:
        server.will(Reply(status, headers={"location": f"{foreign.url}/v1/files"}))
        with pytest.raises(SystemicError, match=f"HTTP {status}; redirected to another address.*set base_url"):
            VERBS[verb](connect(provider), shard, ended(provider, server))
        assert foreign.asked == []
    assert len(server.asked) == 1


@pytest.mark.parametrize("provider", ALL)
def test_a_dropped_connection(server: Server, connect: Callable[[str], Client], shard: Path, provider: str) -> None:
    server.will(Reply(drop=True))
    with pytest.raises(OutcomeUnknown, match="without a reply"):
        create(connect(provider), shard)
    assert len(server.asked) == 1
    with pytest.raises(TransientError):
        connect(provider).batch("b")
    with pytest.raises(TransientError):
        connect(provider).batches()


@pytest.mark.parametrize("provider", ALL)
def test_nothing_was_sent_where_nobody_listens(shard: Path, provider: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    for host in (f"http://127.0.0.1:{port}", "http://nobody.invalid"):
        with (
            closing(get_provider(provider).connect(Credentials(KEY, f"{host}/v1"))) as client,
            pytest.raises(TransientError, match=f"could not connect to {host} "),
        ):
            create(client, shard)


@pytest.mark.parametrize(
    ("status", "param", "message"),
    [
        (400, "input_file_id", "Cannot find file file-1, or organization does not have access to it."),
        (400, "file_id", "Cannot find file file-1."),
        (404, None, "No such File object: file-1"),
    ],
)
def test_a_file_that_is_not_visible_yet(
    server: Server, connect: Callable[[str], Client], shard: Path, status: int, param: str | None, message: str
) -> None:
    error = {"type": "invalid_request_error", "code": None, "param": param, "message": message}
    server.will(json_reply({"error": error}, status))
    with pytest.raises(CapacityError) as raised:
        create(connect("openai"), shard)
    assert raised.value.code == FILE_NOT_VISIBLE


def test_another_complaint_about_the_file_is_for_good(
    server: Server, connect: Callable[[str], Client], shard: Path
) -> None:
    error = {"type": "invalid_request_error", "param": "input_file_id", "message": "File purpose must be batch"}
    server.will(json_reply({"error": error}, 400))
    with pytest.raises(RequestRejected, match="purpose must be batch"):
        create(connect("openai"), shard)


def test_create_needs_what_stage_gave(connect: Callable[[str], Client], shard: Path) -> None:
    with pytest.raises(ValueError, match="not staged"):
        connect("openai").create(shard, staged=None, stamp="k1")


# -- what is read


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("in_progress", BatchState.IN_PROGRESS),
        ("canceling", BatchState.IN_PROGRESS),
        ("a_new_one", BatchState.IN_PROGRESS),
        ("ended", BatchState.ENDED),
    ],
)
def test_anthropic_states(server: Server, connect: Callable[[str], Client], status: str, state: BatchState) -> None:
    server.will(json_reply(anthropic_batch(processing_status=status)))
    assert connect("anthropic").batch("b").state is state


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("validating", BatchState.IN_PROGRESS),
        ("in_progress", BatchState.IN_PROGRESS),
        ("finalizing", BatchState.IN_PROGRESS),
        ("cancelling", BatchState.IN_PROGRESS),
        ("a_new_one", BatchState.IN_PROGRESS),
        ("completed", BatchState.ENDED),
        ("COMPLETED", BatchState.ENDED),
        ("expired", BatchState.ENDED),
        ("cancelled", BatchState.ENDED),
        ("failed", BatchState.FAILED),
    ],
)
def test_openai_states(server: Server, connect: Callable[[str], Client], status: str, state: BatchState) -> None:
    server.will(json_reply(openai_batch(status=status)))
    assert connect("openai").batch("b").state is state


@pytest.mark.parametrize(
    ("output", "error", "outputs"),
    [
        ("o", "e", ("o", "e")),
        ("o", "", ("o",)),
        ("o", None, ("o",)),
        (None, "e", ("e",)),
        (None, None, ()),
    ],
)
def test_openai_outputs(
    server: Server, connect: Callable[[str], Client], output: str | None, error: str | None, outputs: tuple[str]
) -> None:
    server.will(json_reply(openai_batch(output_file_id=output, error_file_id=error)))
    assert connect("openai").batch("b").outputs == outputs


@pytest.mark.parametrize("absurd", [-1, 1e300, 2**53 + 1, 10**30], ids=str)
@pytest.mark.parametrize("provider", BOTH)
def test_counts_beyond_all_measure_are_none(
    server: Server, connect: Callable[[str], Client], provider: str, absurd: object
) -> None:
    batch = BATCH[provider]()
    server.will(json_reply(batch | {"request_counts": dict.fromkeys(batch["request_counts"], absurd)}))
    assert connect(provider).batch("b").counts == BatchCounts(0)


@pytest.mark.parametrize(
    ("errors", "code", "message"),
    [
        (
            [{"code": "token_limit_exceeded", "message": "Enqueued token limit", "param": None, "line": None}],
            "token_limit_exceeded",
            "token_limit_exceeded: Enqueued token limit",
        ),
        (
            [{"code": "invalid_json_line", "message": f"got {DOCUMENT}", "param": "body", "line": 3}] * 7,
            "invalid_json_line",
            "; ".join(["invalid_json_line (line 3, param body)"] * 5) + "; and 2 more",
        ),
        (
            [{"code": "invalid_request", "message": "Cannot find file", "param": "file_id", "line": None}],
            FILE_NOT_VISIBLE,
            "invalid_request (param file_id): Cannot find file",
        ),
        ([{"message": "odd"}], "unknown", "unknown: odd"),
        (
            [{"code": DOCUMENT, "message": f"invalid value: '{DOCUMENT}'", "param": DOCUMENT, "line": None}],
            "unknown",
            "unknown: invalid value: …",
        ),
        ([], "", ""),
        (None, "", ""),
    ],
    ids=["token limit", "lines", "file", "no code", "document", "empty", "none"],
)
def test_why_an_openai_batch_failed(
    server: Server, connect: Callable[[str], Client], errors: object, code: str, message: str
) -> None:
    wire = None if errors is None else {"object": "list", "data": errors}
    server.will(json_reply(openai_batch(status="failed", errors=wire, metadata=None, request_counts=None)))
    batch = connect("openai").batch("b")
    assert (batch.code, batch.message, batch.stamp) == (code, message, None)
    assert batch.counts == BatchCounts(0)


def test_a_page_is_read_the_same_fast_or_with_care(server: Server, connect: Callable[[str], Client]) -> None:
    batch = BATCH["anthropic"](id="b1", processing_status="ended", results_url="https://a/b")
    odd = batch | {"request_counts": None}
    server.will(*(json_reply({"data": data, "has_more": True}) for data in ([batch], [batch, odd])))
    client = connect("anthropic")
    (fast,) = client.batches().batches
    assert client.batches().batches == (fast, replace(fast, counts=BatchCounts(0)))


@pytest.mark.parametrize(
    ("provider", "queries"),
    [
        ("anthropic", ["limit=1000", "limit=1000&after_id=b2"]),
        ("openai", ["limit=100", "after=b2&limit=100"]),
    ],
)
def test_list_pages(server: Server, connect: Callable[[str], Client], provider: str, queries: list[str]) -> None:
    make = BATCH[provider]
    server.will(
        json_reply({"data": [make(id="b1"), make(id="b2")], "has_more": True, "last_id": "b2"}),
        json_reply({"data": [make(id="b3")], "has_more": False, "last_id": "b3"}),
    )
    client = connect(provider)
    first = client.batches()
    second = client.batches(first.cursor)
    assert [batch.batch_id for batch in (*first.batches, *second.batches)] == ["b1", "b2", "b3"]
    assert second.cursor is None
    asked = [set(one.path.partition("?")[2].split("&")) for one in server.asked]
    assert asked == [set(query.split("&")) for query in queries]


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=b"<html>welcome</html>", content_type="text/html"),
        Reply(body=b"{"),
        Reply(body=b"[]"),
        Reply(body=b"{}"),
        Reply(body=b'{"data":null}'),
        Reply(body=b'{"data":[{}]}'),
    ],
    ids=["html", "cut", "list", "empty", "null", "no batch"],
)
@pytest.mark.parametrize("provider", ALL)
def test_a_reply_that_is_no_page_does_not_pass_for_an_empty_one(
    server: Server, connect: Callable[[str], Client], provider: str, reply: Reply
) -> None:
    server.will(reply)
    with pytest.raises(TransientError, match="not what"):
        connect(provider).batches()


@pytest.mark.parametrize("provider", BOTH)
def test_a_list_that_does_not_say_whether_there_is_more(
    server: Server, connect: Callable[[str], Client], provider: str
) -> None:
    server.will(json_reply({"data": [BATCH[provider](id="b1")]}), json_reply({"data": []}))
    client = connect(provider)
    assert client.batches().cursor == "b1"
    assert client.batches("b1") == BatchPage((), None)


# -- downloads

LINES = b'{"custom_id":"a","text":"\xe2\x80\xa8"}\n' * 10_000


def ended(provider: str, server: Server) -> Batch:
    outputs = (f"{server.url}/results",) if provider == "anthropic" else ("file-out",)
    return Batch("b/../1", BatchState.ENDED, CREATED, BatchCounts(1), outputs=outputs)


@pytest.mark.parametrize("provider", ALL)
def test_download(server: Server, connect: Callable[[str], Client], tmp_path: Path, provider: str) -> None:
    server.will(Reply(body=LINES, content_type="application/x-jsonl"))
    (path,) = connect(provider).download(ended(provider, server), tmp_path)
    assert path.read_bytes() == LINES
    assert list(tmp_path.iterdir()) == [path]
    assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"


def test_results_at_a_path_are_those_of_the_server_itself(
    server: Server, connect: Callable[[str], Client], tmp_path: Path
) -> None:
    server.will(Reply(body=LINES, content_type="application/x-jsonl"))
    batch = replace(ended("anthropic", server), outputs=("/v1/results/b1",))
    (path,) = connect("anthropic").download(batch, tmp_path)
    assert path.read_bytes() == LINES
    assert server.asked[0].path == "/v1/results/b1"


def test_openai_downloads_both_files(server: Server, connect: Callable[[str], Client], tmp_path: Path) -> None:
    def answer(asked: Asked) -> Reply:
        return Reply(body=asked.path.encode(), content_type="application/octet-stream")

    server.answer = answer
    batch = replace(ended("openai", server), outputs=("file-out", "file-err"))
    paths = connect("openai").download(batch, tmp_path)
    assert [path.read_text() for path in paths] == ["/v1/files/file-out/content", "/v1/files/file-err/content"]
    assert connect("openai").download(replace(batch, outputs=()), tmp_path) == []


@pytest.mark.parametrize("provider", ALL)
def test_a_download_that_breaks_off_leaves_nothing(
    server: Server, connect: Callable[[str], Client], tmp_path: Path, provider: str
) -> None:
    server.will(Reply(body=LINES, cut=10))
    with pytest.raises(DownloadIncomplete, match="from the start"):
        connect(provider).download(ended(provider, server), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(404), NotThere),
        (Reply(500), TransientError),
        (Reply(drop=True), TransientError),
        (Reply(401), SystemicError),
    ],
    ids=["404", "500", "dropped", "401"],
)
@pytest.mark.parametrize("provider", ALL)
def test_a_download_that_does_not_begin(
    server: Server,
    connect: Callable[[str], Client],
    tmp_path: Path,
    provider: str,
    reply: Reply,
    expected: type[ProviderError],
) -> None:
    server.will(reply)
    with pytest.raises(expected):
        connect(provider).download(ended(provider, server), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:{port}/results",
        "https://127.0.0.1:{port}/results",
        "http://127.0.0.1:1/results",
        "http://127.0.0.1/results",
        "http://user@evil.example:{port}/results",
        "//127.0.0.1:{port}/results",
        "http://[",
        "",
    ],
)
def test_results_at_another_host_are_refused(
    server: Server, connect: Callable[[str], Client], tmp_path: Path, url: str
) -> None:
    foreign = url.format(port=server.url.rpartition(":")[2])
    batch = replace(ended("anthropic", server), outputs=(foreign,))
    with pytest.raises(SystemicError, match="refused") as raised:
        connect("anthropic").download(batch, tmp_path)
    assert raised.value.code == "foreign_results_url"
    assert server.asked == []


def test_anthropic_without_results(server: Server, connect: Callable[[str], Client], tmp_path: Path) -> None:
    with pytest.raises(NotThere, match="no results URL"):
        connect("anthropic").download(replace(ended("anthropic", server), outputs=()), tmp_path)


@pytest.mark.parametrize("provider", ALL)
def test_cancel(server: Server, connect: Callable[[str], Client], provider: str) -> None:
    server.will(json_reply(BATCH[provider]()))
    connect(provider).cancel("b1")
    (asked,) = server.asked
    assert asked.method == "POST"
    assert asked.path.endswith(("/batches/b1/cancel", "/batch/jobs/b1/cancel"))


# -- what is left behind


@pytest.mark.parametrize(
    ("provider", "deleted"),
    [
        ("anthropic", ["/v1/messages/batches/b1"]),
        ("openai", ["/v1/files/in", "/v1/files/out", "/v1/files/err"]),
        ("mistral", ["/v1/files/in", "/v1/files/out", "/v1/files/err"]),
    ],
)
@pytest.mark.parametrize("gone", [False, True], ids=["there", "gone already"])
def test_all_that_the_provider_keeps_is_deleted_once(
    server: Server, connect: Callable[[str], Client], provider: str, deleted: list[str], gone: bool
) -> None:
    done = {"id": "x", "type": "message_batch_deleted", "object": "file", "deleted": True}
    server.will(told(provider, 404) if gone else json_reply(done))
    connect(provider).forget(
        Batch("b1", BatchState.ENDED, CREATED, BatchCounts(1), outputs=("out", "err")), staged="in"
    )
    assert [(asked.method, asked.path) for asked in server.asked] == [("DELETE", path) for path in deleted]


@pytest.mark.parametrize("provider", ALL)
def test_without_a_batch_only_the_staged_file_is_deleted(
    server: Server, connect: Callable[[str], Client], provider: str
) -> None:
    server.will(json_reply({"id": "in", "object": "file", "deleted": True}))
    connect(provider).forget(None, staged="in")
    connect(provider).forget(None, staged=None)
    assert [asked.path for asked in server.asked] == ([] if provider == "anthropic" else ["/v1/files/in"])


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(401), SystemicError),
        (Reply(400), RequestRejected),
        (Reply(429), CapacityError),
        (Reply(503), TransientError),
        (Reply(drop=True), TransientError),
        (Reply(body=b"{}"), TransientError),
        (Reply(body=b"<html>welcome</html>", content_type="text/html"), TransientError),
    ],
    ids=["401", "400", "429", "503", "dropped", "empty", "html"],
)
@pytest.mark.parametrize("provider", ALL)
def test_what_could_not_be_deleted_is_an_error(
    server: Server, connect: Callable[[str], Client], provider: str, reply: Reply, expected: type[ProviderError]
) -> None:
    server.will(reply)
    batch = Batch("b1", BatchState.ENDED, CREATED, BatchCounts(1), outputs=("out",))
    with pytest.raises(expected, match=re.escape(f"{CALLED.get(provider, provider)} forget: ")):
        connect(provider).forget(batch, staged="in")
    assert len(server.asked) == 1


def files(*found: tuple[str, str], more: bool) -> Reply:
    listed = [{"id": file_id, "object": "file", "filename": name} for file_id, name in found]
    return json_reply({"object": "list", "data": listed, "has_more": more})


def test_an_uploaded_file_is_found_by_its_name(server: Server, connect: Callable[[str], Client]) -> None:
    server.will(files(("f9", "other.jsonl"), more=True), files(("f2", "k1.jsonl"), ("f1", "k1.jsonl"), more=True))
    assert connect("openai").find_staged("k1.jsonl") == "f2"
    queries = [set(asked.path.partition("?")[2].split("&")) for asked in server.asked]
    first = {"purpose=batch", "order=desc", "limit=1000"}
    assert queries == [first, first | {"after=f9"}]


def test_a_file_that_is_not_listed_is_looked_for_within_bounds(
    server: Server, connect: Callable[[str], Client]
) -> None:
    server.will(files(("f1", "other.jsonl"), more=False))
    assert connect("openai").find_staged("k1.jsonl") is None
    server.will(files(("f1", "other.jsonl"), more=True))
    assert connect("openai").find_staged("k1.jsonl") is None
    assert len(server.asked) == 1 + 10


@pytest.mark.parametrize("reply", [Reply(503), Reply(body=b"{}"), Reply(drop=True)], ids=["503", "empty", "dropped"])
def test_a_list_of_files_that_does_not_come_is_an_error(
    server: Server, connect: Callable[[str], Client], reply: Reply
) -> None:
    server.will(reply)
    with pytest.raises(TransientError, match="openai find_staged: "):
        connect("openai").find_staged("k1.jsonl")


def test_anthropic_stages_nothing_that_could_be_found(server: Server, connect: Callable[[str], Client]) -> None:
    assert connect("anthropic").find_staged("k1.json") is None
    assert server.asked == []


ODD: list[dict[str, Any]] = [{"created_at": 1e20}, {"created_at": "soon"}, {"id": None}]


@pytest.mark.parametrize("odd", ODD, ids=["far-future", "no-time", "no-id"])
def test_one_strange_batch_in_a_list_hides_no_other(
    server: Server, connect: Callable[[str], Client], odd: dict[str, Any]
) -> None:
    server.will(json_reply({"object": "list", "data": [openai_batch() | odd, openai_batch()], "has_more": False}))
    page = connect("openai").batches()
    assert ([batch.batch_id for batch in page.batches], page.unread) == (["batch_1"], 1)


def test_a_list_of_strange_batches_is_no_empty_list(server: Server, connect: Callable[[str], Client]) -> None:
    server.will(json_reply({"object": "list", "data": [openai_batch() | odd for odd in ODD], "has_more": False}))
    with pytest.raises(TransientError, match="not what openai documents"):
        connect("openai").batches()


@pytest.mark.parametrize("provider", ALL)
@pytest.mark.parametrize(("verb", "expected"), [(READ, TransientError), (PAID, OutcomeUnknown)])
def test_a_reply_nested_beyond_reading(
    server: Server,
    connect: Callable[[str], Client],
    shard: Path,
    provider: str,
    verb: str,
    expected: type[ProviderError],
) -> None:
    server.will(Reply(body=b"[" * 100_000, content_type="application/json"))
    with pytest.raises(expected):
        call(connect(provider), verb, shard)


# -- one request in real time


ASKED = {
    "anthropic": {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": DOCUMENT}]},
    "openai": {"model": "m", "max_output_tokens": 9, "input": DOCUMENT},
    "mistral": {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": DOCUMENT}]},
}
ASKED_AT = {"anthropic": "/v1/messages", "openai": "/v1/responses", "mistral": "/v1/chat/completions"}


@pytest.mark.parametrize("provider", ALL)
def test_ask_sends_the_body_as_it_is_and_gives_the_reply_the_form_of_a_result(
    server: Server, connect: Callable[[str], Client], provider: str
) -> None:
    server.will(Reply(body=b'{\r\n  "told": "so"\n}\n'))  # in lines, as OpenAI writes it
    body = orjson.dumps(ASKED[provider])
    reply = connect(provider).ask(body)
    assert len(reply.splitlines()) == 1
    line = orjson.loads(reply)
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.body) == ("POST", ASKED_AT[provider], body)
    assert (line["result"]["message"] if provider == "anthropic" else line["response"]["body"]) == {"told": "so"}


@pytest.mark.parametrize("provider", ALL)
@pytest.mark.parametrize(
    ("status", "kind", "error"),
    [
        pytest.param(400, "invalid_request_error", RequestRejected, id="bad request"),
        pytest.param(401, "authentication_error", SystemicError, id="bad key"),
        pytest.param(403, "permission_error", SystemicError, id="not allowed"),
        pytest.param(404, "not_found_error", SystemicError, id="no such model"),
        pytest.param(429, "rate_limit_error", CapacityError, id="too fast"),
        pytest.param(500, "api_error", OutcomeUnknown, id="broke"),
        pytest.param(503, "overloaded_error", TransientError, id="not there"),
        pytest.param(504, "timeout_error", OutcomeUnknown, id="took too long"),
        pytest.param(529, "overloaded_error", TransientError, id="overloaded"),
    ],
)
def test_a_refused_question_is_told_and_not_asked_again(
    server: Server, connect: Callable[[str], Client], provider: str, status: int, kind: str, error: type[ProviderError]
) -> None:
    server.will(told(provider, status, kind, retry_after="7"))
    with pytest.raises(error) as raised:
        connect(provider).ask(orjson.dumps(ASKED[provider]))
    assert len(server.asked) == 1
    assert DOCUMENT not in str(raised.value)
    assert raised.value.retry_after_s == 7


@pytest.mark.parametrize("provider", ALL)
@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(drop=True), id="dropped"),
        pytest.param(Reply(body=b""), id="empty"),
        pytest.param(Reply(body=b"<html>sign in</html>", content_type="text/html"), id="page"),
        pytest.param(Reply(body=b'{"content": ['), id="half"),
        pytest.param(Reply(body=b'"text"'), id="no object"),
    ],
)
def test_a_reply_that_is_no_answer_may_have_been_billed(
    server: Server, connect: Callable[[str], Client], provider: str, reply: Reply
) -> None:
    server.will(reply)
    with pytest.raises(OutcomeUnknown, match="may have been billed"):
        connect(provider).ask(orjson.dumps(ASKED[provider]))
    assert len(server.asked) == 1
