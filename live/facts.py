"""What is known of a server's answers, point by point: shapes and words of the protocol, no text and no id as it is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Facts = dict[str, str]
# Strings that are words of the protocol; of all others only the beginning, if that is an id's.
_WORDS = frozenset(
    {"type", "object", "status", "processing_status", "code", "role", "stop_reason", "service_tier", "purpose", "param"}
    | {"endpoint", "completion_window", "status_code"}
)
_ID = re.compile(r"([a-z]+(?:_[a-z]+)?_)[\w-]*\d[\w-]*")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)")
_HEADERS = ("request-id", "x-request-id", "content-type", "retry-after", "content-length", "transfer-encoding")
_MARK = "emulator_"


@dataclass(frozen=True, slots=True)
class Difference:
    """A point at which two servers differ; empty where one says nothing of it."""

    point: str
    found: str
    expected: str


def shape(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """The paths of a JSON document with what is there: a type, a word of the protocol, the beginning of an id."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from shape(inner, f"{path}.{name}")
        if not value:
            yield path, "{}"
    elif isinstance(value, list):
        yield from sorted({pair for inner in value for pair in shape(inner, f"{path}[]")}) or [(path, "[]")]
    else:
        yield path, _kind(value, path.rpartition(".")[2])


def reply_facts(call: str, status: int, headers: Mapping[str, str], body: object) -> Facts:
    """What is known from one reply."""
    found = {f"{call}: status": str(status)}
    found |= {f"{call}: header {name}": _header(name, headers[name]) for name in _HEADERS[:3] if name in headers}
    return found | shape_facts(call, body)


def shape_facts(call: str, body: object) -> Facts:
    """The shape of a document as facts; what may be one of several kinds is told as all of them."""
    found: dict[str, set[str]] = {}
    for path, kind in shape(body):
        found.setdefault(f"{call}: {path or 'body'}", set()).add(kind)
    return {point: " | ".join(sorted(kinds)) for point, kinds in found.items()}


def differences(found: Facts, expected: Facts) -> list[Difference]:
    """The points at which a server does not say what the other one says, in the order of the conversation.

    What only one of them has at all, such as rows of a kind, is one point.
    """
    points = dict.fromkeys([*expected, *found])
    only = {_call(point) for point in found} ^ {_call(point) for point in expected}
    whole = {_call(point): ("all of it", "") if point in found else ("", "all of it") for point in points}
    told = [
        Difference(point, found.get(point, ""), expected.get(point, ""))
        for point in points
        if found.get(point) != expected.get(point) and _call(point) not in only
    ]
    return told + [Difference(call, *whole[call]) for call in whole if call in only]


def _call(point: str) -> str:
    return point.partition(": ")[0]


def _kind(value: Any, name: str) -> str:
    if not isinstance(value, str):
        return (
            repr(value)
            if name in _WORDS or isinstance(value, bool)
            else type(value).__name__.replace("NoneType", "null")
        )
    if name in _WORDS:
        return repr(value[:40])
    if _TIME.fullmatch(value):
        return "time"
    found = _ID.fullmatch(value.replace(_MARK, "", 1))
    return f"id {found[1]}…" if found else "text" if value else "empty text"


def _header(name: str, value: str) -> str:
    return value.partition(";")[0] if name == "content-type" else "is there"
