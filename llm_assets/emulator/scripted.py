"""The scripted model: answers read in the question or made from a hash of it, valid for its schema, at once.

A schema is compiled once into a tree of closures, as a load test asks the same schema millions of times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from hashlib import blake2b
from typing import Any

import orjson

from llm_assets.emulator.models import Question, Reply
from llm_assets.emulator.reading import Form, first_sentences, read_form, read_table, typed

CHARACTERS_PER_TOKEN = 4
_COMPILED_MAX = 1000
_DEPTH_MAX = 6
_MUCH_LONGER = 1.1
_MASK = (1 << 64) - 1
_EPOCH = date(2020, 1, 1)
# A field with other keywords is made up: what stands in the text may not obey them.
_FREE = frozenset(("type", "format", "description", "title"))

_GOOD_WORDS = (
    "good great excellent love loved loves lovely perfect amazing wonderful fantastic happy pleased best nice recommend"
    " recommended enjoy enjoyed delightful brilliant superb beautiful comfortable reliable fast easy helpful friendly"
    " impressed worth awesome smooth solid delicious charming fresh favorite favourite outstanding flawless"
)
_BAD_WORDS = (
    "bad terrible awful hate hated worst poor broken broke disappointed disappointing disappointment useless waste"
    " horrible refund return returned slow ugly cheap faulty defective annoying boring rude dirty cold stopped failed"
    " fails leaks leaked scratched overpriced uncomfortable mediocre dull wrong damaged late problem problems never"
    " avoid unusable noisy flimsy"
)
_GOOD, _BAD = frozenset(_GOOD_WORDS.split()), frozenset(_BAD_WORDS.split())
_NEGATIONS = frozenset(("not", "no", "isn't", "wasn't", "don't", "didn't", "doesn't", "hardly", "nothing"))
_KNOWN = _GOOD | _BAD | _NEGATIONS
_BLANKS = str.maketrans(dict.fromkeys('"#$%&()*+,-./:;<=>?@[]^_`{|}~!', " "))


class Draw:
    """Numbers that follow from a seed, in order."""

    __slots__ = ("_form", "_state", "user_texts")

    def __init__(self, seed: int, user_texts: Sequence[str], form: Form | None = None) -> None:
        self._state = seed
        self._form = form
        self.user_texts = user_texts

    @property
    def form(self) -> Form:
        """What stands in the texts under which label."""
        if self._form is None:
            self._form = {}
            for text in self.user_texts:
                self._form |= read_form(text)
        return self._form

    def of_row(self, form: Form) -> Draw:
        """Numbers that follow on, for a row of a table."""
        return Draw(self.below(_MASK >> 33), self.user_texts, form)

    def below(self, bound: int) -> int:
        """A number in [0, bound)."""
        self._state = (self._state * 6364136223846793005 + 1442695040888963407) & _MASK
        return (self._state >> 33) % bound


Maker = Callable[[Draw], Any]


class Scripted:
    """Deterministic, instant, and blind to all but labelled values and a few dozen words of sentiment."""

    name = "scripted"
    instant = True

    def __init__(self) -> None:
        self._makers: dict[bytes, Maker] = {}

    def answer(self, question: Question) -> Reply:
        """JSON that obeys the schema, or one short sentence."""
        draw = Draw(_seed(question), [text for role, text in question.messages if role != "assistant"])
        schema = question.schema
        text = _sentence(draw) if schema is None else orjson.dumps(self._maker(schema)(draw)).decode()
        return _reply(text, _input_tokens(question), question.max_tokens)

    def _maker(self, schema: dict[str, Any]) -> Maker:
        key = orjson.dumps(schema)
        maker = self._makers.get(key)
        if maker is None:
            if len(self._makers) >= _COMPILED_MAX:
                self._makers.clear()
            maker = self._makers[key] = _Compiler(schema).maker(schema)
        return maker


def _seed(question: Question) -> int:
    digest = blake2b(question.system.encode(errors="replace"), digest_size=8)
    for role, text in question.messages:
        digest.update(role.encode())
        digest.update(text.encode(errors="replace"))
    return int.from_bytes(digest.digest(), "little")


def _input_tokens(question: Question) -> int:
    characters = len(question.system) + sum(len(text) for _, text in question.messages)
    return characters // CHARACTERS_PER_TOKEN + 3 * len(question.messages) + 1


def _reply(text: str, input_tokens: int, max_tokens: int) -> Reply:
    output_tokens = len(text) // CHARACTERS_PER_TOKEN + 1
    if output_tokens <= max_tokens:
        return Reply(text, input_tokens, output_tokens, False)
    return Reply(text[: max_tokens * CHARACTERS_PER_TOKEN - 1], input_tokens, max_tokens, True)


def _sentence(draw: Draw) -> str:
    return f"This is scripted answer {draw.below(10_000)}."


def sentiment(text: str) -> int:
    """Above 0 when the good words of a text outnumber the bad ones; a negation turns the next word round."""
    score, sign = 0, 1
    for word in filter(_KNOWN.__contains__, text.lower().translate(_BLANKS).split()):
        if word in _GOOD:
            score, sign = score + sign, 1
        elif word in _BAD:
            score, sign = score - sign, 1
        else:
            sign = -1
    return score


class _Compiler:
    """Schemas to makers. `$ref` is followed; beyond a depth, optional things are left out and arrays stay empty."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root

    def maker(self, schema: Any, depth: int = 0) -> Maker:
        """What makes a value of this schema."""
        if not isinstance(schema, dict):
            return lambda draw: f"scripted {draw.below(10_000)}"
        if "$ref" in schema:
            return self._reference(schema["$ref"], depth)
        if "const" in schema:
            constant = schema["const"]
            return lambda draw: constant
        if schema.get("enum"):
            return _choice(schema["enum"])
        for union in ("anyOf", "oneOf"):
            if schema.get(union):
                return self._union(schema[union], depth)
        if schema.get("allOf"):
            return self.maker({**_merged(schema["allOf"]), **{k: v for k, v in schema.items() if k != "allOf"}}, depth)
        return self._typed(schema, depth)

    def _typed(self, schema: dict[str, Any], depth: int) -> Maker:
        kind = schema.get("type", "object" if "properties" in schema else "string")
        if isinstance(kind, list):
            return self._union([{**schema, "type": one} for one in kind], depth)
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            return self._array(schema, depth)
        return _SCALARS.get(kind, _string)(schema)

    def _reference(self, reference: str, depth: int) -> Maker:
        target: Any = self._root
        for part in reference.removeprefix("#").strip("/").split("/"):
            if part:
                target = target.get(part.replace("~1", "/").replace("~0", "~"), {}) if isinstance(target, dict) else {}
        # Compiled on the way down, a recursion would not end; compiled at the first use, each level is its own.
        return lambda draw: self.maker(target, depth + 1)(draw)

    def _union(self, options: Sequence[Any], depth: int) -> Maker:
        nulls = [one for one in options if isinstance(one, dict) and one.get("type") == "null"]
        others = [one for one in options if one not in nulls]
        if not others or (nulls and depth >= _DEPTH_MAX):
            return lambda draw: None
        makers = [self.maker(one, depth) for one in others]
        # One null in eight: rare enough to read an answer, frequent enough to test who reads it.
        empty = 8 if nulls else 0

        def make(draw: Draw) -> Any:
            if empty and draw.below(empty) == 0:
                return None
            return makers[draw.below(len(makers))](draw)

        return make

    def _object(self, schema: dict[str, Any], depth: int) -> Maker:
        required = schema.get("required", ())
        properties = schema.get("properties", {})
        names = [name for name in properties if depth < _DEPTH_MAX or name in required]
        makers = [(name, _read(name, properties[name], self.maker(properties[name], depth + 1))) for name in names]
        return lambda draw: {name: make(draw) for name, make in makers}

    def _array(self, schema: dict[str, Any], depth: int) -> Maker:
        low = int(schema.get("minItems", 0 if depth >= _DEPTH_MAX else 1))
        high = int(schema.get("maxItems", low if depth >= _DEPTH_MAX else max(low, 3)))
        items = schema.get("items", {})
        make = self.maker(items, depth + 1)
        columns = items.get("properties", {}).keys() if isinstance(items, dict) else ()

        def rows(draw: Draw) -> list[Any]:
            table = [row for text in draw.user_texts for row in read_table(text) if columns & row.keys()]
            if table and low <= len(table) and ("maxItems" not in schema or len(table) <= high):
                return [make(draw.of_row(row)) for row in table]
            return [make(draw) for _ in range(low + draw.below(high - low + 1))]

        return rows if columns else lambda draw: [make(draw) for _ in range(low + draw.below(high - low + 1))]


def _read(name: str, schema: Any, make: Maker) -> Maker:
    """What takes a field's value from the text where it stands there under the field's name, and else makes it up."""
    options = schema.get("anyOf", [schema]) if isinstance(schema, dict) else []
    readable = [one for one in options if isinstance(one, dict) and one.get("type") in ("string", "integer", "number")]
    if len(readable) != 1 or not _FREE.issuperset(readable[0]):
        return make
    (one,) = readable

    def read(draw: Draw) -> Any:
        value = draw.form.get(name)
        found = None if value is None else typed(value, one)
        if found is None and name == "summary" and draw.user_texts:
            found = first_sentences(draw.user_texts[0])
        return make(draw) if found is None else found

    return read


def _merged(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for part in parts:
        properties = {**merged.get("properties", {}), **part.get("properties", {})}
        merged |= part
        if properties:
            merged["properties"] = properties
    return merged


def _choice(values: Sequence[Any]) -> Maker:
    if "positive" in values and "negative" in values:
        return lambda draw: _by_sentiment(values, draw)
    if "first" in values and "second" in values:
        return lambda draw: _by_length(values, draw)
    return lambda draw: values[draw.below(len(values))]


def _by_sentiment(values: Sequence[Any], draw: Draw) -> Any:
    # The last turn that has any: after it, the user may only complain of the answer.
    score = next(filter(None, map(sentiment, reversed(draw.user_texts))), 0)
    if score:
        return "positive" if score > 0 else "negative"
    between = [value for value in ("neutral", "mixed") if value in values]
    return between[0] if between else values[draw.below(len(values))]


def _by_length(values: Sequence[Any], draw: Draw) -> Any:
    """A judge of two texts that likes length, and, of two that are about as long, what stands first."""
    first, second = (len(draw.form.get(name, "")) for name in ("first", "second"))
    if not first or not second:
        return values[draw.below(len(values))]
    return "second" if second > first * _MUCH_LONGER else "first"


def _integer(schema: dict[str, Any]) -> Maker:
    low = int(schema.get("minimum", schema.get("exclusiveMinimum", 0) + ("exclusiveMinimum" in schema)))
    high = int(schema.get("maximum", schema.get("exclusiveMaximum", low + 10) - ("exclusiveMaximum" in schema)))
    step = int(schema.get("multipleOf", 1)) or 1
    first = -(-low // step) * step
    count = max(1, (high - first) // step + 1)
    return lambda draw: first + step * draw.below(count)


def _number(schema: dict[str, Any]) -> Maker:
    low = float(schema.get("minimum", schema.get("exclusiveMinimum", 0.0)))
    high = float(schema.get("maximum", schema.get("exclusiveMaximum", low + 1.0)))
    # Never the ends themselves, which may be excluded.
    return lambda draw: round(low + (high - low) * (1 + draw.below(98)) / 100, 4)


def _boolean(schema: dict[str, Any]) -> Maker:
    return lambda draw: draw.below(2) == 1


def _null(schema: dict[str, Any]) -> Maker:
    return lambda draw: None


def _string(schema: dict[str, Any]) -> Maker:
    maker = _FORMATS.get(schema.get("format", ""))
    if maker is not None:
        return maker
    low, high = int(schema.get("minLength", 0)), int(schema.get("maxLength", 1 << 20))
    return lambda draw: f"scripted {draw.below(10_000)}".ljust(low, ".")[:high]


def _day(draw: Draw) -> str:
    return (_EPOCH + timedelta(days=draw.below(2500))).isoformat()


def _time(draw: Draw) -> str:
    return f"{draw.below(24):02}:{draw.below(60):02}:{draw.below(60):02}Z"


def _uuid(draw: Draw) -> str:
    digits = f"{draw.below(1 << 31):08x}{draw.below(1 << 31):08x}{draw.below(1 << 31):08x}{draw.below(1 << 31):08x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:]}"


_FORMATS: dict[str, Maker] = {
    "date": _day,
    "time": _time,
    "date-time": lambda draw: f"{_day(draw)}T{_time(draw)}",
    "duration": lambda draw: f"P{1 + draw.below(30)}D",
    "email": lambda draw: f"scripted{draw.below(10_000)}@example.com",
    "hostname": lambda draw: f"scripted{draw.below(10_000)}.example.com",
    "uri": lambda draw: f"https://example.com/scripted/{draw.below(10_000)}",
    "ipv4": lambda draw: f"192.0.2.{draw.below(256)}",
    "ipv6": lambda draw: f"2001:db8::{draw.below(65_536):x}",
    "uuid": _uuid,
}

_SCALARS: dict[str, Callable[[dict[str, Any]], Maker]] = {
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "null": _null,
}
