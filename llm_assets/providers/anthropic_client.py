"""The verbs of Anthropic's Message Batches, over the official SDK and its own HTTP client."""

from __future__ import annotations

from contextlib import AbstractContextManager, closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import cast
from urllib.parse import urljoin

import httpx2
import msgspec
from anthropic import Anthropic, AnthropicError, APIStatusError, DefaultHttpxClient, RequestOptions, Stream, omit
from anthropic.types import MessageTokensCount
from anthropic.types.messages import MessageBatch

from llm_assets.errors import NotThere, ProviderError, SystemicError
from llm_assets.providers import Credentials
from llm_assets.providers.anthropic import ENDPOINT, NAME, AnthropicDialect
from llm_assets.providers.bodies import (
    Wire,
    chosen,
    count,
    json_object,
    ordinary,
    read_page,
    text,
    token_count,
    word,
)
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
    host,
    is_json,
    refused,
    retry_after_s,
    same_origin,
    save,
    unreachable,
    usable_base_url,
    usable_key,
)
from llm_assets.records import Batch, BatchCounts, BatchPage, BatchState

_BATCHES = "/v1/messages/batches"
# What of a message's body its counter takes; it refuses the rest, such as max_tokens.
_COUNTED = ("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config", "cache_control")

# Words in an HTTP error that say: every further call would end like this one, whatever its status.
_SYSTEMIC = frozenset(
    {"billing_error", "enforced_spend_limit_reached", "contract_spend_limit_reached"}
    | {"linked_organization_spend_limit_reached", "organization_on_hold", "cmek_key_disabled"}
)


class AnthropicClient:
    """The verbs, for one account. `close` it when done.

    The SDK's retries are off for reads as well: it sleeps as long as a `retry-after` says, without a bound
    (2.12.0), and who calls decides better what a wait is worth.
    """

    def __init__(self, credentials: Credentials) -> None:
        key = usable_key(NAME, credentials.api_key)
        # None leaves the choice to ANTHROPIC_BASE_URL, then to the SDK.
        # A redirect would carry documents to another host, and a followed create is a second one.
        wire = DefaultHttpxClient(follow_redirects=False)
        self._sdk = Anthropic(
            api_key=key, base_url=credentials.base_url, max_retries=0, timeout=READ_TIMEOUT, http_client=wire
        )
        self.base_url = usable_base_url(NAME, str(self._sdk.base_url))
        self.account = account_digest(self.base_url, key)

    def close(self) -> None:
        """Close the connections."""
        self._sdk.close()

    def stage(self, shard: Path) -> str | None:
        """Nothing to do: the shard goes along with `create`."""
        return None

    def find_staged(self, name: str) -> str | None:
        """None: nothing is ever staged."""
        return None

    def create(self, shard: Path, *, staged: str | None, stamp: str) -> Batch:
        """POST the shard file as it is, streamed. Anthropic takes no stamp."""
        with shard.open("rb") as body, _asking("create", Effect.PAID):
            return _batch(
                self._sdk.post(
                    _BATCHES,
                    cast_to=MessageBatch,
                    content=body,
                    options={"timeout": UPLOAD_TIMEOUT},
                )
            )

    def ask(self, body: bytes) -> bytes:
        """POST one message, and give its reply the form of a result line."""
        with _asking("ask", Effect.SPENT):
            options: RequestOptions = {"timeout": UPLOAD_TIMEOUT}
            reply = self._sdk.post(ENDPOINT, cast_to=httpx2.Response, content=body, options=options)
            return b'{"custom_id":"%b","result":{"type":"succeeded","message":%b}}' % (
                ASKED,
                json_object(reply.content),
            )

    def count_tokens(self, body: bytes) -> int:
        """What Anthropic counts for one message: an estimate, it says, that may be off by a few."""
        with _asking("count_tokens", Effect.READ):
            wanted = chosen(body, _COUNTED)
            reply = self._sdk.post(f"{ENDPOINT}/count_tokens", cast_to=MessageTokensCount, body=wanted)
            return token_count(reply)

    def batch(self, batch_id: str) -> Batch:
        """One batch as it stands. NotThere when Anthropic does not know it, as just after `create`."""
        with _asking("batch", Effect.READ):
            return _batch(self._sdk.messages.batches.retrieve(batch_id))

    def batches(self, cursor: str | None = None) -> BatchPage:
        """Up to 1,000 of the account's batches, newest first."""
        with _asking("batches", Effect.READ):
            raw = self._sdk.messages.batches.with_raw_response
            reply = raw.list(limit=AnthropicDialect.list_page_size, after_id=cursor or omit)
            # The SDK takes seconds for twenty such pages, a tick has two.
            page = ordinary(_PAGE, reply.read())
            return _page(reply.parse() if page is None else page)

    def download(self, batch: Batch, folder: Path) -> list[Path]:
        """Stream the results to one file in `folder`.

        Raises NotThere when there are none (yet, or after 29 days), DownloadIncomplete when they break off,
        SystemicError for a results URL at another host, which would be handed the key.
        """
        if not batch.outputs:
            raise NotThere(f"{NAME} download: batch {batch.batch_id} has no results URL", code="no_results")
        url = batch.outputs[0]
        if url.startswith("/") and not url.startswith("//"):  # some servers say only where it is on them
            url = urljoin(self.base_url, url)
        if not same_origin(url, self.base_url):
            raise SystemicError(_foreign(url, self.base_url), code="foreign_results_url")
        with _asking("download", Effect.READ), closing(self._stream(url)) as reply:
            return [save(Call(NAME, "download", Effect.READ), reply.iter_bytes(), folder, batch.batch_id)]

    def cancel(self, batch_id: str) -> None:
        """Ask for cancellation; finished rows are kept (and billed)."""
        with _asking("cancel", Effect.READ):
            self._sdk.messages.batches.cancel(batch_id)

    def forget(self, batch: Batch | None, *, staged: str | None) -> None:
        """Delete the batch with its results; Anthropic would keep the results for 29 days."""
        if batch is None:
            return
        with suppress(NotThere), _asking("forget", Effect.READ):
            if self._sdk.messages.batches.delete(batch.batch_id).type != "message_batch_deleted":
                raise ValueError("not deleted")

    def _stream(self, url: str) -> httpx2.Response:
        """An open reply, nothing of its body read."""
        reply = self._sdk.get(
            url,
            cast_to=httpx2.Response,
            stream=True,
            stream_cls=Stream[object],
            options={"timeout": DOWNLOAD_TIMEOUT},
        )
        return cast(httpx2.Response, reply)


class _Counts(Wire):
    processing: int = 0
    succeeded: int = 0
    errored: int = 0
    canceled: int = 0
    expired: int = 0


class _ListedBatch(Wire):
    id: str
    created_at: datetime
    processing_status: str
    request_counts: _Counts
    results_url: str | None = None


class _Listed(Wire):
    data: list[_ListedBatch]
    has_more: bool


_PAGE = msgspec.json.Decoder(_Listed)


def _foreign(url: str, base_url: str) -> str:
    return (
        f"{NAME} download: the results are said to be at {host(url)}, but this "
        f"client talks to {host(base_url)}; refused, as the API key would go there. Set base_url "
        "to the host that serves the results"
    )


def _page(reply: object) -> BatchPage:
    return read_page(getattr(reply, "data", None), _batch, more=getattr(reply, "has_more", None))


def _batch(reply: object) -> Batch:
    """A batch as it was read. Raises ValueError when it lacks what the API promises."""
    created_at = getattr(reply, "created_at", None)
    if not isinstance(reply, MessageBatch | _ListedBatch) or not reply.id or not isinstance(created_at, datetime):
        raise ValueError("no message batch")
    # The SDK does not check its replies: whatever is missing is missing as an attribute.
    counts = getattr(reply, "request_counts", None)
    ended = getattr(reply, "processing_status", None) == "ended"
    results_url = getattr(reply, "results_url", None)
    return Batch(
        batch_id=reply.id,
        state=BatchState.ENDED if ended else BatchState.IN_PROGRESS,
        created_at=created_at if created_at.tzinfo else created_at.replace(tzinfo=UTC),
        counts=_counts(counts),
        outputs=(results_url,) if results_url else (),
    )


def _counts(counts: object) -> BatchCounts:
    failed = sum(count(getattr(counts, name, 0)) for name in ("errored", "canceled", "expired"))
    succeeded = count(getattr(counts, "succeeded", 0))
    total = count(getattr(counts, "processing", 0)) + succeeded + failed
    return BatchCounts(total=total, succeeded=succeeded, failed=failed)


def _asking(verb: str, effect: Effect) -> AbstractContextManager[None]:
    return asking(Call(NAME, verb, effect), AnthropicError, translate)


def translate(error: Exception, call: Call) -> ProviderError:
    """The SDK's exception as one of ours."""
    if not isinstance(error, APIStatusError):
        return unreachable(call, error if isinstance(error, httpx2.HTTPError) else error.__cause__)
    refusal = Refusal(
        status=error.status_code,
        type=word(error.type),
        code=word(error.error_code),
        message=text(error.api_message),
        request_id=word(error.request_id),
        retry_after_s=retry_after_s(error.response.headers),
        is_json=is_json(error.response.headers),
    )
    return refused(call, refusal, systemic=bool({refusal.type, refusal.code} & _SYSTEMIC))
