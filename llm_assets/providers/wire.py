"""What all clients do the same way: HTTP outcomes become our errors, downloads reach the disk whole.

Nothing here knows a vendor or an SDK. What a vendor's words mean stands in its own module.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from pathlib import Path
from tempfile import NamedTemporaryFile

import httpx2

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
from llm_assets.providers import TOO_LARGE

# A host that does not answer a handshake within seconds is not going to. The SDKs' ten minutes for everything
# would let one dead connection hold a sensor's whole tick.
READ_TIMEOUT = httpx2.Timeout(connect=5.0, read=30.0, write=30.0, pool=5.0)
# 200 MB over a slow line takes minutes, but each write must move; the reply comes only after the vendor has
# taken in and checked the whole body.
UPLOAD_TIMEOUT = httpx2.Timeout(connect=5.0, read=600.0, write=120.0, pool=5.0)
# Between two chunks of a stream; the first may wait until the vendor has fetched the file from somewhere.
DOWNLOAD_TIMEOUT = httpx2.Timeout(connect=5.0, read=120.0, write=30.0, pool=5.0)

MESSAGE_CHARACTERS_MAX = 200
# The custom_id of a request that went without a batch.
ASKED = b"ask"
# Nobody is kept from asking again for longer, whatever a header says.
_RETRY_AFTER_S_MAX = 3_600.0

# Where the words of a vendor may go over into those of a document: see `own_words`. No apostrophe within a word.
_NOT_THEIR_OWN = re.compile(
    r"""["`‘“„«「{<\r\n] | '(?!(?<=\w')(?:s|t|re|ve|ll|d|m)?(?:\W|$)) | [:=](?!//)(?=.{41})""", re.VERBOSE | re.DOTALL
)

_NOT_THERE = re.compile(r"(can(no|')t|could not) (find|access)|no such file|not found", re.IGNORECASE)

# Failures before the first byte of a request could leave. Everything later may have been read by the server.
_NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)

_UNTRUSTED = "; its certificate is not trusted: correct the base URL, or name your authority's file in SSL_CERT_FILE"


class Effect(Enum):
    """What a call leaves behind, which decides what a lost reply means."""

    READ = "read"  # nothing, or the same thing however often
    FREE = "free"  # something that costs nothing: may be done again
    PAID = "paid"  # something that costs money: never done again on suspicion
    SPENT = "spent"  # an answer for cents, which nobody keeps: with its reply it is lost, and perhaps billed


@dataclass(frozen=True, slots=True)
class Call:
    """One verb of one provider, as error messages name it."""

    provider: str
    verb: str
    effect: Effect

    def __str__(self) -> str:
        """Such as "openai create"."""
        return f"{self.provider} {self.verb}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A vendor's HTTP error reply, reduced to its own words: never the body that came with it."""

    status: int
    type: str = ""
    code: str = ""
    message: str = ""
    request_id: str = ""
    retry_after_s: float | None = None
    is_json: bool = True  # as all that the vendors say is, unlike the pages of what stands in between

    def __str__(self) -> str:
        """Such as `HTTP 429 rate_limit_error (enforced_spend_limit_reached): slow down [request req_1]`."""
        name = " ".join(word for word in (f"HTTP {self.status}", self.type) if word)
        code = f" ({self.code})" if self.code and self.code != self.type else ""
        # The words about a refused key may quote it, in part or as a whole.
        message = f": {own_words(self.message)}" if self.message and self.status != 401 else ""
        request = f" [request {self.request_id}]" if self.request_id else ""
        return f"{name}{code}{message}{request}"


_ErrorType = type[ProviderError]
_TRY_AGAIN: dict[Effect, _ErrorType] = {
    Effect.READ: TransientError,
    Effect.FREE: TransientError,
    Effect.PAID: OutcomeUnknown,
    Effect.SPENT: OutcomeUnknown,
}
# Nothing was answered: what is made of cents was not made. A batch may be there all the same.
_OVERLOADED: dict[Effect, _ErrorType] = {**_TRY_AGAIN, Effect.SPENT: TransientError}
# A path that must exist and does not: the base URL or the model is wrong, and would be for every call.
_NOT_FOUND: dict[Effect, _ErrorType] = {
    Effect.READ: NotThere,
    Effect.FREE: SystemicError,
    Effect.PAID: SystemicError,
    Effect.SPENT: SystemicError,
}
_BY_STATUS: dict[int, _ErrorType | dict[Effect, _ErrorType]] = {
    401: SystemicError,
    402: SystemicError,
    403: SystemicError,
    404: _NOT_FOUND,
    408: _TRY_AGAIN,
    409: _TRY_AGAIN,
    425: _TRY_AGAIN,
    499: _TRY_AGAIN,
    410: _NOT_FOUND,
    429: CapacityError,
    503: _OVERLOADED,
    529: _OVERLOADED,
}


@contextmanager
def asking(
    call: Call, sdk_error: type[Exception], translate: Callable[[Exception, Call], ProviderError]
) -> Iterator[None]:
    """Turn whatever a vendor's SDK raises inside into one of our errors.

    `from None`: the SDKs' messages repeat whole reply bodies, which may repeat a document.
    """
    try:
        yield
    except (sdk_error, httpx2.HTTPError) as error:
        raise translate(error, call) from None
    except (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError):
        # No JSON, or not the object that the API promises, over which the SDK trips in its own ways.
        raise unreadable(call) from None


def refused(call: Call, refusal: Refusal, *, systemic: bool = False) -> ProviderError:
    """Our error for an HTTP error reply. `systemic`: the vendor's words say that every call would fail so."""
    kind = SystemicError if systemic and refusal.status < 500 else _kind(call.effect, refusal.status)
    advice = _advice(call, kind, refusal.status)
    if call.effect is not Effect.READ and kind is RequestRejected and not _is_of_the_request(refusal):
        kind, advice = SystemicError, _foreign(call)
    if kind in (NotThere, SystemicError) and refusal.status >= 400 and not refusal.is_json:
        # What is believed to be gone is paid for again.
        kind, advice = TransientError if kind is NotThere else SystemicError, _foreign(call)
    code = TOO_LARGE if refusal.status == 413 else refusal.code or refusal.type or f"http_{refusal.status}"
    return kind(f"{call}: {refusal}{advice}", code=code, retry_after_s=refusal.retry_after_s)


def own_words(message: str) -> str:
    """What of a vendor's words cannot be a document's: they end before the first quotation, brace or line break, and
    before a colon or equals sign that more than 40 characters follow. Messages like these reach ledger and logs.
    """
    foreign = _NOT_THEIR_OWN.search(message)
    said = f"{message[: foreign.start()]}…" if foreign else message
    return said[:MESSAGE_CHARACTERS_MAX]


def says_not_there(message: str) -> bool:
    """Whether a vendor's words are about something that it does not find."""
    return bool(_NOT_THERE.search(message))


def _is_of_the_request(refusal: Refusal) -> bool:
    """Whether a refusal says that something is wrong with what was sent, and in the vendor's own way."""
    return refusal.status == 413 or (refusal.status in (400, 422) and bool(refusal.type or refusal.code))


def unreachable(call: Call, cause: BaseException | None) -> ProviderError:
    """Our error for a call without a reply: OutcomeUnknown only when a paid call may have arrived."""
    never_sent = isinstance(cause, _NEVER_SENT)
    kind = TransientError if never_sent else _TRY_AGAIN[call.effect]
    what = f"could not connect{_where(cause)}" if never_sent else "the connection ended without a reply"
    name = f" ({type(cause).__name__})" if cause is not None else ""
    code = "no_connection" if never_sent else "no_reply"
    advice = _UNTRUSTED if "CERTIFICATE_VERIFY_FAILED" in str(cause) else _advice(call, kind)
    return kind(f"{call}: {what}{name}{advice}", code=code)


def _where(cause: BaseException | None) -> str:
    """To whom a call went: scheme, host and port, never what an address may hold besides (a user, a password)."""
    with suppress(RuntimeError):  # who raises an error by hand need not say which call it was
        if isinstance(cause, httpx2.RequestError):
            return f" to {cause.request.url.scheme}://{cause.request.url.netloc.decode()}"
    return ""


def unreadable(call: Call) -> ProviderError:
    """Our error for a success that is not what the vendor documents, such as a gateway's HTML page."""
    kind = _TRY_AGAIN[call.effect]
    message = f"{call}: the reply says success, but is not what {call.provider} documents{_advice(call, kind)}"
    return kind(message, code="unreadable_reply")


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that a reply asks to wait, None when it does not say (dates are not read: none is sent)."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return min(max(0.0, float(headers[name]) * unit_s), _RETRY_AFTER_S_MAX)
        except (KeyError, ValueError):
            continue
    return None


def is_json(headers: Mapping[str, str]) -> bool:
    """Whether a reply says that it is JSON."""
    return "json" in headers.get("content-type", "")


def usable_key(provider: str, api_key: str) -> str:
    """The key without the line break that key files end with. SystemicError when no header could carry it."""
    key = api_key.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        found = "is empty" if not key else "holds blanks or characters that no HTTP header can carry"
        raise SystemicError(f"{provider}: the API key {found}; set a valid one", code="no_api_key")
    return key


def usable_base_url(provider: str, base_url: str) -> str:
    """The URL without its last slash. SystemicError when it is none that a client could talk to."""
    scheme, host, _ = _origin(base_url)
    if scheme not in ("http", "https") or not host:
        raise SystemicError(
            f"{provider}: the base URL is not of the form https://host/path; correct or unset it", code="bad_base_url"
        )
    if httpx2.URL(base_url).userinfo:
        raise SystemicError(
            f"{provider}: the base URL holds a user name or a password, which would be logged with it; remove it",
            code="bad_base_url",
        )
    return base_url.rstrip("/")


def account_digest(base_url: str, api_key: str) -> str:
    """16 hexadecimal digits that tell accounts apart without telling the key."""
    return blake2b(f"{base_url}\n{api_key}".encode(), digest_size=8).hexdigest()


def host(url: str) -> str:
    """The host of a URL, for messages."""
    return _origin(url)[1] or "no host"


def same_origin(one: str, other: str) -> bool:
    """Whether two URLs share scheme, host and port; default ports count as written out, what is no URL never."""
    return _origin(one) == _origin(other) != ("", "", None)


def save(call: Call, chunks: Iterable[bytes], folder: Path, name: str) -> Path:
    """Write a stream to `folder`/`name`.jsonl, which appears only once the stream has ended well.

    Raises DownloadIncomplete when the transport fails on the way. `name` may come from the network.
    """
    target = folder / f"{re.sub('[^A-Za-z0-9_-]', '_', name)[:128]}.jsonl"
    with NamedTemporaryFile(dir=folder, prefix=".download-", suffix=".part", delete=False) as part:
        try:
            part.writelines(chunks)
        except BaseException as error:
            part.close()
            Path(part.name).unlink(missing_ok=True)
            if isinstance(error, httpx2.HTTPError):
                raise DownloadIncomplete(_cut(call, name, error), code="download_cut") from None
            raise
    Path(part.name).replace(target)
    return target


def _kind(effect: Effect, status: int) -> _ErrorType:
    kind = _BY_STATUS.get(status) or _kind_of_class(status)
    return kind[effect] if isinstance(kind, dict) else kind


def _kind_of_class(status: int) -> _ErrorType | dict[Effect, _ErrorType]:
    if status >= 500:
        return _TRY_AGAIN
    # Below 400 is a redirect or stranger.
    return RequestRejected if status >= 400 else SystemicError


def _foreign(call: Call) -> str:
    return f"; is that {call.provider}'s own answer, or one of a proxy or wrong base URL?"


def _advice(call: Call, kind: _ErrorType, status: int = 0) -> str:
    if 300 <= status < 400:
        return "; redirected to another address, where nothing is sent: set base_url to it if it is the provider's"
    if kind is OutcomeUnknown and call.effect is Effect.SPENT:
        return "; its answer is lost, and may have been billed"
    if kind is OutcomeUnknown:
        return "; it may have been accepted: ask the provider what it has, do not send it again"
    return ""


def _cut(call: Call, name: str, error: BaseException) -> str:
    return f"{call}: {name} broke off ({type(error).__name__}); fetch it again from the start"


def _origin(url: str) -> tuple[str, str, int | None]:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        return "", "", None
    port = parsed.port or {"http": 80, "https": 443}.get(parsed.scheme)
    return parsed.scheme, parsed.host, port
