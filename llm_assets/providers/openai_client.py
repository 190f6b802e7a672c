"""The verbs of OpenAI's Batch API, over the official SDK and its own HTTP client."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path

import httpx2
from openai import APIStatusError, DefaultHttpxClient, OpenAI, OpenAIError, RequestOptions, omit
from openai.types import Batch as WireBatch
from openai.types import BatchError
from openai.types.responses import InputTokenCountResponse

from llm_assets.errors import CapacityError, NotThere, ProviderError, RequestRejected, TransientError
from llm_assets.providers import FILE_NOT_VISIBLE, Credentials
from llm_assets.providers.bodies import chosen, count, json_object, mapping, read_page, text, token_count, word
from llm_assets.providers.openai import NAME, RESPONSES, OpenAIDialect
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
from llm_assets.records import Batch, BatchCounts, BatchPage, BatchState

STAMP_KEY = "llm_assets_submission"
# How far `find_staged` looks back: 10,000 files, which is days of uploads.
_FILE_PAGES_MAX = 10
_FILES_A_PAGE = 1_000

# Words in an HTTP error that say: every further call would end like this one, whatever its status.
_SYSTEMIC = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
    | {"account_deactivated", "invalid_api_key", "model_not_found"}
)

_STATES = {
    "completed": BatchState.ENDED,
    "expired": BatchState.ENDED,
    "cancelled": BatchState.ENDED,
    "failed": BatchState.FAILED,
}

# What of a response's body its counter takes.
_COUNTED = ("model", "input", "instructions", "text", "reasoning", "tools", "tool_choice", "truncation")

_FILE_PARAMS = ("input_file_id", "file_id")
_LISTED_ERRORS_MAX = 5


class OpenAIClient:
    """The verbs, for one account and endpoint. `close` it when done.

    The SDK's retries are off for reads as well: they would sleep for minutes inside a sensor's tick, and who
    calls decides better what a wait is worth.
    """

    def __init__(self, credentials: Credentials, endpoint: str = RESPONSES) -> None:
        key = usable_key(NAME, credentials.api_key)
        # None leaves the choice to OPENAI_BASE_URL, then to the SDK.
        # A redirect would carry documents to another host, and a followed create is a second one.
        wire = DefaultHttpxClient(follow_redirects=False)
        self._sdk = OpenAI(
            api_key=key, base_url=credentials.base_url, max_retries=0, timeout=READ_TIMEOUT, http_client=wire
        )
        self._endpoint = endpoint
        self.base_url = usable_base_url(NAME, str(self._sdk.base_url))
        self.account = account_digest(self.base_url, key)

    def close(self) -> None:
        """Close the connections."""
        self._sdk.close()

    def ask(self, body: bytes) -> bytes:
        """POST one request to the endpoint, and give its reply the form of a result line."""
        with _asking("ask", Effect.SPENT):
            options: RequestOptions = {"timeout": UPLOAD_TIMEOUT}
            path = self._endpoint.removeprefix("/v1")  # which the base URL ends with
            reply = self._sdk.post(path, cast_to=httpx2.Response, content=body, options=options)
            return b'{"custom_id":"%b","response":{"status_code":200,"body":%b}}' % (ASKED, json_object(reply.content))

    def count_tokens(self, body: bytes) -> int:
        """What OpenAI counts for one request. RequestRejected for other endpoints than /v1/responses."""
        if self._endpoint != RESPONSES:
            problem = f"{NAME} count_tokens: OpenAI counts tokens for {RESPONSES} alone, not for {self._endpoint}"
            raise RequestRejected(problem, code="no_count")
        with _asking("count_tokens", Effect.READ):
            wanted = chosen(body, _COUNTED)
            return token_count(self._sdk.post("/responses/input_tokens", cast_to=InputTokenCountResponse, body=wanted))

    def stage(self, shard: Path) -> str | None:
        """Upload the shard from the open file; returns its file id. OpenAI keeps it for 30 days."""
        with shard.open("rb") as body, _asking("stage", Effect.FREE):
            upload = self._sdk.files.create(file=(shard.name, body), purpose="batch", timeout=UPLOAD_TIMEOUT)
            if not isinstance(getattr(upload, "id", None), str):
                raise ValueError("no file object")
            return upload.id

    def find_staged(self, name: str) -> str | None:
        """The id of the uploaded file of this name, by listing; None when it is not among the newest."""
        cursor: str | None = None
        for _ in range(_FILE_PAGES_MAX):
            try:
                with _asking("find_staged", Effect.READ):
                    page = self._sdk.files.list(
                        purpose="batch", order="desc", limit=_FILES_A_PAGE, after=cursor or omit
                    )
                    found = _files(page)
                    more = page.has_more is not False
            except TransientError as error:
                if error.code == "http_404":
                    return None  # a server that lists no files, and says so with a page
                raise
            for file_id, filename in found:
                if filename == name:
                    return file_id
            if not (found and more):
                return None
            cursor = found[-1][0]
        return None

    def create(self, shard: Path, *, staged: str | None, stamp: str) -> Batch:
        """Create the batch of a staged file, the stamp in its metadata.

        Raises CapacityError with code `FILE_NOT_VISIBLE` when OpenAI does not see the file yet: nothing was
        created, and the same file will do later.
        """
        if staged is None:
            raise ValueError("openai create: the shard was not staged")
        body = {
            "input_file_id": staged,
            "endpoint": self._endpoint,
            "completion_window": "24h",
            "metadata": {STAMP_KEY: stamp},
        }
        with _asking("create", Effect.PAID):
            return _batch(self._sdk.post("/batches", cast_to=WireBatch, body=body))

    def batch(self, batch_id: str) -> Batch:
        """One batch as it stands. NotThere when OpenAI does not know it (any more)."""
        with _asking("batch", Effect.READ):
            return _batch(self._sdk.batches.retrieve(batch_id))

    def batches(self, cursor: str | None = None) -> BatchPage:
        """Up to 100 of the account's batches, newest first."""
        with _asking("batches", Effect.READ):
            return _page(self._sdk.batches.list(limit=OpenAIDialect.list_page_size, after=cursor or omit))

    def download(self, batch: Batch, folder: Path) -> list[Path]:
        """Stream the output and the error file to `folder`, those that there are.

        Raises NotThere for a file that has expired, DownloadIncomplete when one breaks off.
        """
        return [self._fetch(file_id, folder) for file_id in batch.outputs]

    def cancel(self, batch_id: str) -> None:
        """Ask for cancellation; finished rows are kept (and billed)."""
        with _asking("cancel", Effect.READ):
            self._sdk.batches.cancel(batch_id)

    def forget(self, batch: Batch | None, *, staged: str | None) -> None:
        """Delete the input file and what came back; OpenAI would keep them for 30 days. Batches cannot be deleted."""
        for file_id in (staged, *(batch.outputs if batch else ())):
            if file_id is None:
                continue
            with suppress(NotThere), _asking("forget", Effect.READ):
                if self._sdk.files.delete(file_id).deleted is not True:
                    raise ValueError("not deleted")

    def _fetch(self, file_id: str, folder: Path) -> Path:
        files = self._sdk.files.with_streaming_response
        with (
            _asking("download", Effect.READ),
            files.content(file_id, timeout=DOWNLOAD_TIMEOUT) as reply,
        ):
            return save(Call(NAME, "download", Effect.READ), reply.iter_bytes(), folder, file_id)


def _files(reply: object) -> list[tuple[str, str]]:
    """Ids and names of a page of files. Raises ValueError for what is none."""
    data = getattr(reply, "data", None)
    if not isinstance(data, list):
        raise ValueError("no list")
    return [(one.id, one.filename) for one in data]


def _page(reply: object) -> BatchPage:
    return read_page(getattr(reply, "data", None), _batch, more=getattr(reply, "has_more", None))


def _batch(reply: object) -> Batch:
    """A batch as the SDK read it. Raises ValueError when it lacks what the API promises."""
    created_at = getattr(reply, "created_at", None)
    if not isinstance(reply, WireBatch) or not reply.id or not isinstance(created_at, int | float):
        raise ValueError("no batch object")
    # The SDK does not check its replies: whatever is missing is missing as an attribute.
    # In capitals on some servers.
    state = _STATES.get(text(getattr(reply, "status", "")).lower(), BatchState.IN_PROGRESS)
    errors = _errors(reply) if state is BatchState.FAILED else []
    return Batch(
        batch_id=reply.id,
        state=state,
        created_at=datetime.fromtimestamp(created_at, UTC),
        counts=_counts(getattr(reply, "request_counts", None)),
        stamp=text((getattr(reply, "metadata", None) or {}).get(STAMP_KEY)) or None,
        # On a clean batch the error file id may be an empty string.
        outputs=tuple(one for one in (reply.output_file_id, reply.error_file_id) if one),
        code=_code(errors[0]) if errors else "",
        message=_errors_message(errors),
        staged_id=text(getattr(reply, "input_file_id", None)) or None,
    )


def _counts(counts: object) -> BatchCounts:
    return BatchCounts(
        total=count(getattr(counts, "total", 0)),
        succeeded=count(getattr(counts, "completed", 0)),
        failed=count(getattr(counts, "failed", 0)),
    )


def _errors(reply: WireBatch) -> list[BatchError]:
    return list(getattr(reply.errors, "data", None) or [])


def _code(error: BatchError) -> str:
    """The error's own code; a file that the batch could not read gets the code that `create` has for it."""
    if error.code == "invalid_request" and error.param in _FILE_PARAMS:
        return FILE_NOT_VISIBLE
    return word(error.code) or "unknown"


def _errors_message(errors: Sequence[BatchError]) -> str:
    """Codes, params and line numbers. Words only about the whole batch: about a line they may quote it."""
    listed = "; ".join(_error_message(error) for error in errors[:_LISTED_ERRORS_MAX])
    more = len(errors) - _LISTED_ERRORS_MAX
    return f"{listed}; and {more} more" if more > 0 else listed


def _error_message(error: BatchError) -> str:
    where = [f"line {error.line}"] if isinstance(error.line, int) else []
    where += [f"param {param}"] if (param := word(error.param)) else []
    place = f" ({', '.join(where)})" if where else ""
    message = own_words(text(error.message)) if error.line is None else ""
    words = f": {message}" if message else ""
    return f"{word(error.code) or 'unknown'}{place}{words}"


def _asking(verb: str, effect: Effect) -> AbstractContextManager[None]:
    return asking(Call(NAME, verb, effect), OpenAIError, translate)


def translate(error: Exception, call: Call) -> ProviderError:
    """The SDK's exception as one of ours."""
    if not isinstance(error, APIStatusError):
        return unreachable(call, error if isinstance(error, httpx2.HTTPError) else error.__cause__)
    refusal = Refusal(
        status=error.status_code,
        type=word(error.type),
        code=word(error.code),
        # Not `error.message`, which is the whole body.
        message=text(mapping(error.body).get("message")),
        request_id=word(error.request_id),
        retry_after_s=retry_after_s(error.response.headers),
        is_json=is_json(error.response.headers),
    )
    if _is_unseen_file(refusal, text(error.param), call.effect):
        return CapacityError(f"{call}: {refusal}", code=FILE_NOT_VISIBLE)
    return refused(call, refusal, systemic=bool({refusal.type, refusal.code} & _SYSTEMIC))


def _is_unseen_file(refusal: Refusal, param: str, effect: Effect) -> bool:
    """Whether a create failed only because the file that was just uploaded is not seen yet."""
    if effect is not Effect.PAID or refusal.status not in (400, 404):
        return False
    about_file = param in _FILE_PARAMS or "file" in refusal.message.lower()
    return about_file and says_not_there(refusal.message)
