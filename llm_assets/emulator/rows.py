"""From one request to one result line, the same for both vendors: faults meet answers here.

What requests and lines look like is the dialects' business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from struct import Struct
from typing import Any, Protocol

import orjson

from llm_assets.emulator.cache import UNUSED, CacheUse
from llm_assets.emulator.faults import Faults, Hit
from llm_assets.emulator.models import Question, Reply

SEPARATORS = "\u2028\u0085"
_OUTCOME = Struct("<BBIIIII")
_OTHER = '{"unexpected":["scripted"]}'
_DEEP = 10_000


class Kind(IntEnum):
    """How a row ended."""

    MISSING = 0  # not done yet
    SUCCEEDED = 1
    ERRORED = 2
    EXPIRED = 3
    CANCELED = 4


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a request has no answer, in the words of the vendor."""

    type: str
    message: str
    status: int = 400
    code: str | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said, and what a fault made of it: `how` is "" or the name of a fault that shows in the envelope."""

    reply: Reply
    how: str = ""
    vector: list[list[float]] | None = None
    cache: CacheUse = UNUSED


@dataclass(frozen=True, slots=True)
class Place:
    """Which row of which batch this is, for ids and timestamps."""

    key: str  # unique among all batches
    row: int
    custom_id: str
    at: float
    marker: str  # the model's name, which is added to the name of the model that was asked


@dataclass(frozen=True, slots=True)
class Result:
    """A row's end: its kind, what it costs, its line, and whether that line goes to the file of errors."""

    kind: Kind
    line: bytes
    billed: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    cache: CacheUse = UNUSED
    copies: int = 1
    after: bytes = b""  # what stands behind the line and belongs to no row

    def packed(self) -> bytes:
        """A few bytes for the outcomes file."""
        cache = self.cache
        return _OUTCOME.pack(
            self.kind, self.billed, self.input_tokens, self.output_tokens, cache.read, cache.written, cache.kept
        )


class RowDialect(Protocol):
    """How a vendor writes the requests of one endpoint, and their results."""

    @property
    def content_key(self) -> str:
        """Where the content stands beside the custom_id."""

    def question(self, content: Mapping[str, Any]) -> Question | Problem:
        """What is asked, or why it cannot be."""

    def embedding(self, content: Mapping[str, Any]) -> Answer | None:
        """The answer when no language model is needed."""

    def cache_use(self, place: Place, content: Mapping[str, Any]) -> CacheUse:
        """What a request has of the provider's prompt cache."""

    def fault_problem(self, fault: str) -> Problem | None:
        """The error that a fault means; None when it is none."""

    def answered(self, place: Place, content: Mapping[str, Any], answer: Answer) -> bytes:
        """The line of an answer."""

    def failed(self, place: Place, problem: Problem) -> bytes:
        """The line of an error."""

    def unreached(self, place: Place, kind: Kind) -> bytes:
        """The line of a request that expired or was canceled."""

    def status_zero(self, place: Place) -> bytes:
        """The line that says nothing."""


_UNREACHED = {"expired": Kind.EXPIRED, "canceled": Kind.CANCELED}
# Faults that change the envelope and not, or not only, the text.
_IN_ENVELOPE = frozenset({"refusal", "content_filter", "context_window", "thinking_first", "empty_content"})


def unreached(dialect: RowDialect, place: Place, kind: Kind) -> Result:
    """A row that nobody came to; not billed."""
    return Result(kind, dialect.unreached(place, kind))


def errored(dialect: RowDialect, place: Place, problem: Problem) -> Result:
    """A row that ended in an error; not billed."""
    return Result(Kind.ERRORED, dialect.failed(place, problem))


def fault_instead(dialect: RowDialect, place: Place, hit: Hit | None) -> Result | None:
    """The result when a fault makes an answer needless."""
    if hit is None:
        return None
    if hit.fault in _UNREACHED:
        return unreached(dialect, place, _UNREACHED[hit.fault])
    problem = dialect.fault_problem(hit.fault)
    if problem is not None:
        return errored(dialect, place, problem)
    if hit.fault == "status_zero":
        return Result(Kind.SUCCEEDED, dialect.status_zero(place))
    if hit.fault == "missing_row":
        return Result(Kind.SUCCEEDED, b"", copies=0)
    return None


def answered(dialect: RowDialect, place: Place, content: Mapping[str, Any], answer: Answer, hit: Hit | None) -> Result:
    """A row with an answer; billed, whatever it is worth."""
    if hit is not None:
        answer = spoiled(answer, hit)
    cache = dialect.cache_use(place, content)
    if cache is not UNUSED:
        answer = replace(answer, cache=cache)
    line = dialect.answered(place, content, answer)
    reply = answer.reply
    copies = 2 if hit is not None and hit.fault == "duplicate_row" else 1
    after = _after(dialect, place, content, answer, hit) if hit is not None else b""
    return Result(Kind.SUCCEEDED, line, True, reply.input_tokens, reply.output_tokens, cache, copies, after)


def _after(dialect: RowDialect, place: Place, content: Mapping[str, Any], answer: Answer, hit: Hit) -> bytes:
    """What a fault puts behind the line of an answer."""
    if hit.fault == "duplicate_conflict":
        return dialect.answered(place, content, replace(answer, reply=replace(answer.reply, text=_OTHER)))
    if hit.fault == "stray_row":
        return dialect.answered(replace(place, custom_id=f"stray-{place.row}"), content, answer)
    return b'{"custom_id": <the emulator was told to write this>\n' if hit.fault == "garbage_line" else b""


def spoiled(answer: Answer, hit: Hit) -> Answer:
    """What a fault makes of an answer."""
    reply, fault = answer.reply, hit.fault
    if answer.vector is not None:
        return replace(answer, vector=[_spoiled_vector(vector, fault) for vector in answer.vector])
    if fault == "truncated":
        half = reply.text[: max(1, len(reply.text) // 2)]
        return replace(answer, reply=replace(reply, text=half, truncated=True))
    if fault == "invalid_json":
        return replace(answer, reply=replace(reply, text=f"Sure! Here it is: {reply.text[:-1]}"))
    if fault == "schema_violation":
        return replace(answer, reply=replace(reply, text=_OTHER))
    if fault == "huge_answer":
        return replace(answer, reply=replace(reply, text="x" * int(hit.number("mb", 50) * (1 << 20))))
    if fault == "deep_answer":
        return replace(answer, reply=replace(reply, text="[" * _DEEP + "]" * _DEEP))
    if fault == "u2028":
        return _with_separators(answer)
    return replace(answer, how=fault) if fault in _IN_ENVELOPE else answer


def _spoiled_vector(vector: list[float], fault: str) -> list[float]:
    """A vector that is none: too short, or of zeros."""
    if fault in ("truncated", "schema_violation"):
        return vector[:-1]
    return [0.0] * len(vector) if fault == "invalid_json" else vector


def _with_separators(answer: Answer) -> Answer:
    """U+2028 and U+0085 in the first free text of the answer; where there is none, beside it."""
    text = answer.reply.text
    try:
        value, found = _marked(orjson.loads(text))
    except orjson.JSONDecodeError:
        value, found = text + SEPARATORS, False
        return replace(answer, reply=replace(answer.reply, text=value))
    if not found:
        return replace(answer, how="u2028")
    return replace(answer, reply=replace(answer.reply, text=orjson.dumps(value).decode()))


def _marked(value: Any) -> tuple[Any, bool]:
    # A text with a blank is taken for free text: members of enums seldom have one.
    if isinstance(value, str):
        return (value.replace(" ", SEPARATORS, 1), True) if " " in value else (value, False)
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            marked, found = _marked(value[key])
            if found:
                value[key] = marked
                return value, True
    return value, False


@dataclass(frozen=True, slots=True)
class RowFaults:
    """The faults that may meet the rows of one batch."""

    faults: Faults
    provider: str
    now: float

    def hit(self, custom_id: str, line: bytes, digest: bytes) -> Hit | None:
        """The fault of a row."""
        return self.faults.row(self.provider, custom_id=custom_id, line=line, digest=digest, now=self.now)


def unpack_outcomes(packed: bytes) -> list[tuple[Kind, bool, int, int, CacheUse]]:
    """(kind, billed, input tokens, output tokens, cache) of each row, in the order they were sent."""
    return [
        (Kind(kind), bool(billed), read, wrote, CacheUse(*cache) if any(cache) else UNUSED)
        for kind, billed, read, wrote, *cache in _OUTCOME.iter_unpack(packed)
    ]


OUTCOME_BYTES = _OUTCOME.size
