"""The verbs of Mistral's Batch API, over HTTP. EXPERIMENTAL, as all of it: see mistral.py."""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import orjson

from llm_assets.errors import CapacityError, NotThere, ProviderError, RequestRejected
from llm_assets.providers import FILE_NOT_VISIBLE, Credentials
from llm_assets.providers.bodies import Json, count, items, json_object, mapping, read_page, text, word
from llm_assets.providers.mistral import CHAT, NAME, MistralDialect
from llm_assets.providers.wire import (
    ASKED,
    DOWNLOAD_TIMEOUT,
    READ_TIMEOUT,
    UPLOAD_TIMEOUT,
    Call,
    Effect,
    Refusal,
    account_digest,
    asking,
    is_json,
    own_words,
    refused,
    retry_after_s,
    save,
    says_not_there,
    unreachable,
    usable_base_url,
    usable_key,
)
from llm_assets.records import Batch, BatchCounts, BatchPage, BatchState, Reason

STAMP_KEY = "llm_assets_submission"
_BASE_URL = "https://api.mistral.ai/v1"
# So every message about it says what it is.
_CALLED = f"{NAME} (experimental)"
_HOURS = 24
_FILE_PAGES_MAX = 10
_PAGE_SIZE = MistralDialect.list_page_size
_SYSTEMIC = frozenset({"invalid_model"})

_STATES = {
    "SUCCESS": BatchState.ENDED,
    "TIMEOUT_EXCEEDED": BatchState.ENDED,
    "CANCELLED": BatchState.ENDED,
    "FAILED": BatchState.FAILED,
}
_REST = {"TIMEOUT_EXCEEDED": Reason.EXPIRED, "CANCELLED": Reason.CANCELED, "FAILED": Reason.API_ERROR}


class MistralClient:
    """The verbs, for one account. `close` it when done."""

    def __init__(self, credentials: Credentials) -> None:
        key = usable_key(NAME, credentials.api_key)
        self.base_url = usable_base_url(NAME, credentials.base_url or _BASE_URL)
        self.account = account_digest(self.base_url, key)
        # A redirect would carry documents to another host, and a followed create is a second one.
        self._http = httpx2.Client(
            base_url=self.base_url,
            headers={"authorization": f"Bearer {key}", "accept": "application/json"},
            timeout=READ_TIMEOUT,
            follow_redirects=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def stage(self, shard: Path) -> str | None:
        """Upload the shard from the open file; returns its file id."""
        with shard.open("rb") as body, _asking("stage", Effect.FREE):
            files, data = {"file": (shard.name, body)}, {"purpose": "batch"}
            return _id(_read(self._http.post("/files", files=files, data=data, timeout=UPLOAD_TIMEOUT)))

    def find_staged(self, name: str) -> str | None:
        """The id of an uploaded file of this name, by listing; None when it is not in the first pages."""
        for page in range(_FILE_PAGES_MAX):
            asked: dict[str, Any] = {"purpose": "batch", "page": page, "page_size": _PAGE_SIZE}
            with _asking("find_staged", Effect.READ):
                files = items(_list(_read(self._http.get("/files", params=asked))))
                if found := next((file for file in files if file.get("filename") == name), None):
                    return _id(found)
            if not files:
                break
        return None

    def create(self, shard: Path, *, staged: str | None, stamp: str) -> Batch:
        """Create the job of a staged file, the stamp in its metadata.

        Raises CapacityError with code `FILE_NOT_VISIBLE` when Mistral does not see the file: nothing was created.
        """
        if staged is None:
            raise ValueError("mistral create: the shard was not staged")
        _, first = next(MistralDialect().requests(shard))
        body = {
            "input_files": [staged],
            "model": orjson.loads(first)["model"],  # a job has one, whatever its lines say
            "endpoint": CHAT,
            "metadata": {STAMP_KEY: stamp},
            "timeout_hours": _HOURS,
        }
        with _asking("create", Effect.PAID):
            return _batch(_read(self._http.post("/batch/jobs", json=body)))

    def ask(self, body: bytes) -> bytes:
        """POST one chat, and give its reply the form of a result line."""
        with _asking("ask", Effect.SPENT):
            path, headers = CHAT.removeprefix("/v1"), {"content-type": "application/json"}
            reply = self._http.post(path, content=body, headers=headers, timeout=UPLOAD_TIMEOUT)
            reply.raise_for_status()
            return b'{"custom_id":"%b","response":{"status_code":200,"body":%b}}' % (ASKED, json_object(reply.content))

    def count_tokens(self, body: bytes) -> int:
        """Mistral has no counter for what a chat would read. Raises RequestRejected."""
        raise RequestRejected(f"{NAME} count_tokens: Mistral counts no tokens in advance", code="no_count")

    def batch(self, batch_id: str) -> Batch:
        """One job as it stands. NotThere when Mistral does not know it."""
        with _asking("batch", Effect.READ):
            return _batch(_read(self._http.get(f"/batch/jobs/{_quoted(batch_id)}")))

    def batches(self, cursor: str | None = None) -> BatchPage:
        """A hundred of the account's jobs, newest first; the cursor is the number of a page.

        What is created meanwhile moves others to later pages, where they are seen twice, and none is missed. The end
        is a page without any, as nobody knows how many Mistral puts on one. Who reads stops at what is old enough: a
        list in another order is refused, as it would seem to end too early.
        """
        page = int(cursor or 0)
        asked: dict[str, Any] = {"page": page, "page_size": _PAGE_SIZE, "order_by": "-created"}
        with _asking("batches", Effect.READ):
            reply = _read(self._http.get("/batch/jobs", params=asked))
            found = read_page(_list(reply), _batch, more=False)
            created = [batch.created_at for batch in found.batches]
            if created != sorted(created, reverse=True):
                raise ValueError("not newest first")
            listed = len(_list(reply))
            is_all = not listed or (page == 0 and listed == reply.get("total"))
            return replace(found, cursor=None if is_all else str(page + 1))

    def download(self, batch: Batch, folder: Path) -> list[Path]:
        """Stream the output and the error file to `folder`, those that there are.

        Raises NotThere for a file that is gone, DownloadIncomplete when one breaks off.
        """
        return [self._fetch(file_id, folder) for file_id in batch.outputs]

    def cancel(self, batch_id: str) -> None:
        """Ask for cancellation; what becomes of finished rows is not documented: their files are read."""
        with _asking("cancel", Effect.READ):
            _read(self._http.post(f"/batch/jobs/{_quoted(batch_id)}/cancel"))

    def forget(self, batch: Batch | None, *, staged: str | None) -> None:
        """Delete the input file and what came back; Mistral would keep them for ever. Jobs cannot be deleted."""
        for file_id in (staged, *(batch.outputs if batch else ())):
            if file_id is None:
                continue
            with suppress(NotThere), _asking("forget", Effect.READ):
                if _read(self._http.delete(f"/files/{_quoted(file_id)}")).get("deleted") is not True:
                    raise ValueError("not deleted")

    def _fetch(self, file_id: str, folder: Path) -> Path:
        path = f"/files/{_quoted(file_id)}/content"
        with (
            _asking("download", Effect.READ),
            self._http.stream("GET", path, timeout=DOWNLOAD_TIMEOUT) as reply,
        ):
            if not reply.is_success:
                reply.read()
            reply.raise_for_status()
            return save(_call("download", Effect.READ), reply.iter_bytes(), folder, file_id)


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _read(reply: httpx2.Response) -> Json:
    """The JSON object of a reply. Raises HTTPStatusError, and ValueError for what is no object."""
    reply.raise_for_status()
    found: Json = orjson.loads(json_object(reply.content))
    return found


def _list(reply: Json) -> list[Any]:
    """What a page lists. Raises ValueError for what is no page."""
    found = reply.get("data")
    if found is None and reply.get("total") == 0:
        return []
    if not isinstance(found, list):
        raise ValueError("no list")
    return found


def _id(found: Json) -> str:
    """Its id. Raises ValueError where there is none."""
    if not (name := text(found.get("id"))):
        raise ValueError("no id")
    return name


def _batch(reply: object) -> Batch:
    """A job as it was read. Raises ValueError when it lacks what the API promises."""
    job = mapping(reply)
    status = text(job.get("status"))
    if not status:
        raise ValueError("no status")
    outputs = tuple(name for file in ("output_file", "error_file") if (name := text(job.get(file))))
    counts = BatchCounts(
        # Zero until the file was read.
        total=count(job.get("total_requests")),
        succeeded=count(job.get("succeeded_requests")),
        failed=count(job.get("failed_requests")),
    )
    state = _STATES.get(status, BatchState.IN_PROGRESS)
    if state is BatchState.FAILED and (outputs or counts.finished):
        state = BatchState.ENDED  # it broke down on the way, and what it did is paid for
    return Batch(
        batch_id=_id(job),
        state=state,
        created_at=datetime.fromtimestamp(job.get("created_at", ""), UTC),
        counts=counts,
        stamp=text(mapping(job.get("metadata")).get(STAMP_KEY)) or None,
        outputs=outputs,
        code="job_failed" if state is BatchState.FAILED else "",
        message=_why(job) if state is BatchState.FAILED else "",
        staged_id=next((text(file) for file in job.get("input_files") or ()), "") or None,
        rest=_REST.get(status),
    )


def _why(job: Json) -> str:
    """The vendor's words about a failed job; they are of no line, as far as is known."""
    return "; ".join(own_words(text(error.get("message"))) for error in items(job.get("errors")))


def _call(verb: str, effect: Effect) -> Call:
    return Call(_CALLED, verb, effect)


def _asking(verb: str, effect: Effect) -> AbstractContextManager[None]:
    return asking(_call(verb, effect), httpx2.HTTPError, translate)


def translate(error: Exception, call: Call) -> ProviderError:
    """An HTTP error as one of ours."""
    if not isinstance(error, httpx2.HTTPStatusError):
        return unreachable(call, error)
    reply, said = error.response, _said(error.response)
    refusal = Refusal(
        status=reply.status_code,
        type=word(said.get("type")),
        code=word(said.get("code")),
        message=text(said.get("message")),  # where it is an object, it quotes the request
        request_id=word(said.get("request_id")),
        retry_after_s=retry_after_s(reply.headers),
        is_json=is_json(reply.headers),
    )
    if call.effect is Effect.PAID and refusal.status in (400, 404, 422) and _is_of_the_file(refusal.message):
        return CapacityError(f"{call}: {refusal}", code=FILE_NOT_VISIBLE)
    # Files are read later: what is refused when a job is created is no document's fault, and none is to fail for it.
    of_the_account = call.effect is Effect.PAID and refusal.status in (400, 422)
    return refused(call, refusal, systemic=of_the_account or bool({refusal.type, refusal.code} & _SYSTEMIC))


def _is_of_the_file(message: str) -> bool:
    return "file" in message.lower() and says_not_there(message)


def _said(reply: httpx2.Response) -> Json:
    """What an error reply says, at its top, as Mistral writes it; empty where it is no JSON object."""
    try:
        return mapping(orjson.loads(reply.content))
    except orjson.JSONDecodeError:
        return {}
