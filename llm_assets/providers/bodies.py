"""What the dialects share when they write request bodies and read result lines. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import msgspec
import orjson

from llm_assets.records import Batch, BatchPage, Message, Task

Json = dict[str, Any]
Row = TypeVar("Row")

RESULT_MESSAGE_CHARACTERS_MAX = 300
_WORD = re.compile(r"[\w.:/\[\]-]{1,80}")
# Whatever is said to be more than this of anything is no count.
COUNT_MAX = 1 << 40


class Wire(msgspec.Struct, gc=False):
    """A part of what is read off the wire. It can hold no cycle, so the garbage collector need not look at it: where
    there are as many as a batch has lines, that would take longer than reading them.
    """


class PerTask:
    """A function of a task, computed once for a run of calls with the same task object.

    One slot is enough: a shard is rendered for one task. What is returned is shared: do not change it.
    """

    def __init__(self, compute: Callable[[Task], Json]) -> None:
        self._compute = compute
        # Task and value in one tuple: a thread reads both or neither.
        self._last: tuple[Task, Json] | None = None

    def __call__(self, task: Task) -> Json:
        """The value for this task. Raises what `compute` raises."""
        last = self._last
        if last is None or last[0] is not task:
            last = self._last = (task, self._compute(task))
        return last[1]


def with_params(ours: Json, params: Mapping[str, Any], *, reserved: Collection[str]) -> Json:
    """`ours` and `params` as one body; where both hold an object, the two are joined one level deep.

    Raises ValueError for a parameter that is reserved, or that would replace something of ours.
    """
    body = dict(ours)
    for name, value in params.items():
        if name in reserved:
            raise ValueError(f"params.{name}: is set, or excluded, for every request; remove it")
        body[name] = _joined(name, body[name], value) if name in body else value
    return body


def _joined(name: str, ours: Any, theirs: Any) -> Json:
    if not isinstance(ours, Mapping) or not isinstance(theirs, Mapping):
        raise ValueError(f"params.{name}: would replace what the enrichment already says; remove it")
    if taken := ours.keys() & theirs.keys():
        raise ValueError(f"params.{name}.{min(taken)}: would replace what the enrichment says; remove it")
    return {**ours, **theirs}


def split_system(messages: Sequence[Message]) -> tuple[str, list[dict[str, str]]]:
    """The system messages as one text ("" when there are none), and the turns that follow them.

    Raises ValueError when there is no turn: no vendor answers a system prompt alone.
    """
    system, turns = [], []
    for message in messages:
        if message.role == "system":
            system.append(message.text)
        else:
            turns.append({"role": message.role, "content": message.text})
    if not turns:
        raise ValueError("the prompt has no user message; put the document into one")
    return "\n\n".join(system), turns


def result_row(line: bytes) -> tuple[str, Json]:
    """A result line and its custom_id. Raises ValueError when it is no JSON object with one.

    The parser's own exception is not passed on: it carries the line.
    """
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        row = None
    custom_id = row.get("custom_id") if isinstance(row, dict) else None
    if not isinstance(custom_id, str) or not custom_id:
        raise ValueError(f"not a result line: no JSON object with a custom_id in {len(line)} bytes")
    return custom_id, row


def ordinary(decoder: msgspec.json.Decoder[Row], line: bytes) -> Row | None:
    """The line as a type; None when it is not of that type, which here is no error and so leaves no trace of one."""
    try:
        return decoder.decode(line)
    except (ValueError, RecursionError):
        return None


def mapping(value: object) -> Json:
    """`value` if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[Json]:
    """The JSON objects of a list; empty when it is none."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def text(value: object) -> str:
    """`value` if it is a string, else an empty one."""
    return value if isinstance(value, str) else ""


def chat_text(content: object) -> str | None:
    """The text of a chat message: a string, or on some servers a list of parts; None where there is none."""
    if isinstance(content, list):
        parts = [text(part.get("text")) for part in items(content) if part.get("type") == "text"]
        return "".join(parts) if parts else None
    return content if isinstance(content, str) else None


def word(value: object) -> str:
    """`value` if it can be a vendor's name for something, else an empty string: a name has no blanks."""
    return value if isinstance(value, str) and _WORD.fullmatch(value) else ""


def count(value: object) -> int:
    """`value` if it is a count, else 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= COUNT_MAX else 0


def json_object(reply: bytes) -> bytes:
    """A reply as it came, in one line. Raises ValueError when it is no JSON object."""
    if not isinstance(orjson.loads(reply), dict):
        raise ValueError("no JSON object")
    return reply.replace(b"\r", b" ").replace(b"\n", b" ")  # which JSON has between its tokens only


def chosen(body: bytes, names: Collection[str]) -> Json:
    """Some of the fields of an encoded request."""
    return {name: value for name, value in orjson.loads(body).items() if name in names}


def token_count(reply: object) -> int:
    """What a token counter said. Raises ValueError when it is no count."""
    found = count(getattr(reply, "input_tokens", None))
    if not found:
        raise ValueError("no count of tokens")
    return found


def read_page(data: object, read: Callable[[object], Batch], *, more: object) -> BatchPage:
    """A page of a list as the SDK read it; entries that cannot be read are counted, and no reason to lose the others.

    Raises ValueError for what is no page, or has nothing that can be read: an empty page says that nothing is there.
    """
    if not isinstance(data, list):
        raise ValueError("no list")
    found = []
    for entry in data:
        with suppress(ValueError, TypeError, AttributeError, ArithmeticError):
            found.append(read(entry))
    if data and not found:
        raise ValueError("no batches")
    return BatchPage(tuple(found), found[-1].batch_id if found and more is not False else None, len(data) - len(found))


def short(message: object) -> str:
    """A provider's message, cut to what a table cell should hold."""
    return text(message)[:RESULT_MESSAGE_CHARACTERS_MAX]
