"""An output schema: what may be declared, what the provider is told, what validates, what becomes columns."""

from __future__ import annotations

import json
import math
import re
import sys
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from types import ModuleType
from typing import Any, Literal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, field_validator

from llm_assets.errors import DeclarationError, StoreError
from llm_assets.output_schema import ANSWER_CHARS_MAX, OutputSchema

FIELDS: dict[str, Any] = {
    "sentiment": {"type": "string", "enum": ["positive", "negative"], "description": "How it sounds"},
    "score": "number",
    "stars": {"type": "integer", "enum": [1, 2, 3]},
    "count": "integer",
    "sure": "boolean",
    "day": "date",
    "at": {"type": "datetime"},
    "tags": {"type": "array", "items": "string"},
    "address": {"type": "object", "fields": {"city": "string", "since": {"type": "date", "optional": True}}},
    "visits": {"type": "array", "items": {"type": "object", "fields": {"at": "datetime"}}},
    "note": {"type": "string", "optional": True},
}
ANSWER: dict[str, Any] = {
    "sentiment": "positive",
    "score": 0.5,
    "stars": 3,
    "count": -(2**63),
    "sure": True,
    "day": "2026-02-28",
    "at": "2026-02-28T12:00:00+02:00",
    "tags": ["a", "\u2028", "😀"],
    "address": {"city": "Ü", "since": None},
    "visits": [{"at": "2026-02-28T12:00:00.25Z"}],
    "note": None,
}


@pytest.fixture(scope="module")
def schema() -> OutputSchema:
    return OutputSchema.from_fields("review", FIELDS, "reviews.yaml")


def with_(**changes: Any) -> str:
    return json.dumps(ANSWER | changes)


# -- declarations ------------------------------------------------------------------------------------------

NESTED: dict[str, Any] = {"type": "object"}
NESTED["fields"] = {"inner": NESTED}
TYPES = "known types are string, integer, number, boolean, date, datetime, array, object"
YAML_BOOLEANS = " (YAML reads yes, no, on and off as booleans: put them in quotes)"
NAMES = "a name begins with a letter and has at most 64 letters, digits and underscores"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        pytest.param({}, "output: has no fields; give at least one as `name: type`", id="no fields"),
        pytest.param(None, "output: has no fields; give at least one as `name: type`", id="null"),
        pytest.param(["a"], "output: has no fields; give at least one as `name: type`", id="a list"),
        pytest.param({"a": "text"}, f"output field a: has the type 'text'; {TYPES}", id="unknown type"),
        pytest.param({"a": {}}, f"output field a: has the type None; {TYPES}", id="no type"),
        pytest.param({"a": {"type": ["string"]}}, f"output field a: has the type ['string']; {TYPES}", id="types"),
        pytest.param({"a": 3}, "output field a: is a int; expected a type or a mapping with `type`", id="no mapping"),
        pytest.param(
            {"a": {"type": "string", "desciption": "x"}},
            "output field a: has unknown keys desciption; known are type, description, optional, enum, items, fields, "
            "minimum, maximum, min_length, max_length, min_items, max_items",
            id="unknown key",
        ),
        pytest.param(
            {"a": {"type": "integer", "minimum": "1"}},
            "output field a: `minimum` is '1'; it must be a whole number",
            id="a bound that is no number",
        ),
        pytest.param(
            {"a": {"type": "number", "maximum": True}},
            "output field a: `maximum` is True; it must be a number",
            id="a bound that is a truth",
        ),
        pytest.param(
            {"a": {"type": "string", "max_length": -1}},
            "output field a: `max_length` is -1; it cannot be negative",
            id="a negative length",
        ),
        pytest.param(
            {"a": {"type": "array", "items": "string", "min_items": 3, "max_items": 2}},
            "output field a: `min_items` 3 and `max_items` 2 leave nothing between",
            id="bounds that leave nothing",
        ),
        pytest.param(
            {"a": {"type": "string", "minimum": 1}},
            "output field a: `minimum` goes with the type integer or number, not with string",
            id="a bound of another type",
        ),
        pytest.param(
            {"a": {"type": "string", "description": 1}}, "output field a: `description` is no text", id="description"
        ),
        pytest.param(
            {"a": {"type": "string", "optional": "maybe"}},
            "output field a: `optional` is neither true nor false",
            id="optional",
        ),
        pytest.param(
            {"a": {"type": "string", "enum": []}},
            "output field a: `enum` holds no values; list those that the answer may take",
            id="empty enum",
        ),
        pytest.param(
            {"a": {"type": "string", "enum": [True, False]}},
            f"output field a: `enum` holds True, which is no string{YAML_BOOLEANS}",
            id="enum of YAML booleans",
        ),
        pytest.param(
            {"a": {"type": "integer", "enum": [1, True]}},
            "output field a: `enum` holds True, which is no integer",
            id="enum of wrong type",
        ),
        pytest.param(
            {"a": {"type": "string", "enum": ["x", "x"]}}, "output field a: `enum` holds a value twice", id="enum twice"
        ),
        pytest.param(
            {"a": {"type": "number", "enum": [1.5]}},
            "output field a: `enum` goes with the type string or integer, not with number",
            id="enum of numbers",
        ),
        pytest.param(
            {"a": "array"},
            "output field a: is an array without `items`; say what it holds, as in `items: {type: string}`",
            id="array without items",
        ),
        pytest.param(
            {"a": {"type": "array", "items": "thing"}},
            f"output field a.items: has the type 'thing'; {TYPES}",
            id="items",
        ),
        pytest.param(
            {"a": "object"}, "output field a: has no fields; give at least one as `name: type`", id="empty object"
        ),
        pytest.param(
            {"a": {"type": "object", "fields": {"b": "x"}}}, f"output field a.b: has the type 'x'; {TYPES}", id="inner"
        ),
        pytest.param(
            {"a": {"type": "string", "fields": {}}},
            "output field a: `fields` goes with the type object, not with string",
            id="misplaced fields",
        ),
        pytest.param({"first name": "string"}, f"output: 'first name' is no field name; {NAMES}", id="space"),
        pytest.param({"_a": "string"}, f"output: '_a' is no field name; {NAMES}", id="underscore"),
        pytest.param({"1a": "string"}, f"output: '1a' is no field name; {NAMES}", id="digit"),
        pytest.param(
            {True: "string"}, "output: the field name True is a bool, not text; put it in quotes", id="YAML on"
        ),
        pytest.param(
            {"a": NESTED},
            f"output field a{'.inner' * 9}: is nested deeper than 10 levels",
            id="a YAML anchor within itself",
        ),
    ],
)
def test_bad_fields(fields: Any, problem: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        OutputSchema.from_fields("review", fields, "reviews.yaml")
    assert str(caught.value) == f"reviews.yaml: {problem}"


@pytest.mark.parametrize("name", ["copy", "json", "schema", "model_dump", "class", "validate", "self"])
def test_a_field_may_have_a_name_that_pydantic_or_python_uses(name: str) -> None:
    schema = OutputSchema.from_fields("ad", {name: "string"}, "ads.yaml")
    answer = json.dumps({name: "buy"})
    assert schema.validate(answer) is None
    assert schema.typed(pl.Series([answer])).to_dicts() == [{name: "buy"}]


def test_json_schema_is_closed_and_all_is_required(schema: OutputSchema) -> None:
    assert schema.json_schema == {
        "type": "object",
        "properties": {
            "sentiment": {"type": "string", "enum": ["positive", "negative"], "description": "How it sounds"},
            "score": {"type": "number"},
            "stars": {"type": "integer", "enum": [1, 2, 3]},
            "count": {"type": "integer"},
            "sure": {"type": "boolean"},
            "day": {"type": "string", "format": "date"},
            "at": {"type": "string", "format": "date-time"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "address": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "since": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
                },
                "required": ["city", "since"],
                "additionalProperties": False,
            },
            "visits": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"at": {"type": "string", "format": "date-time"}},
                    "required": ["at"],
                    "additionalProperties": False,
                },
            },
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
        "required": list(FIELDS),
        "additionalProperties": False,
    }


def test_the_same_declaration_gives_the_same_bytes(schema: OutputSchema) -> None:
    again = OutputSchema.from_fields("review", FIELDS, "elsewhere.yaml")
    assert json.dumps(again.json_schema) == json.dumps(schema.json_schema)


# -- validation --------------------------------------------------------------------------------------------


def test_a_good_answer_validates(schema: OutputSchema) -> None:
    assert schema.validate(json.dumps(ANSWER)) is None
    assert schema.validate(f"\n {json.dumps(ANSWER, ensure_ascii=False)} \n") is None


def test_an_optional_field_may_be_left_out(schema: OutputSchema) -> None:
    assert schema.validate(json.dumps({k: v for k, v in ANSWER.items() if k != "note"})) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("", r"answer: Invalid JSON: EOF .* \[json_invalid\]", id="nothing"),
        pytest.param("Sure! {}", r"answer: Invalid JSON: .*", id="prose"),
        pytest.param("[]", r"answer: .*\[model_type\]", id="another type"),
        pytest.param(with_() + "{}", r"answer: Invalid JSON: trailing characters .*", id="two values"),
        pytest.param(f"```json\n{with_()}\n```", r"answer: Invalid JSON: .*", id="fenced"),
        pytest.param("\ufeff" + with_(), r"answer: Invalid JSON: .*", id="byte order mark"),
        pytest.param("[" * 10_000, r"answer: Invalid JSON: recursion limit exceeded .*", id="10,000 brackets"),
        pytest.param('{"a":' * 10_000, r"answer: Invalid JSON: recursion limit exceeded .*", id="10,000 braces"),
        pytest.param("\ud800", r"answer: .*\[string_unicode\]", id="lone surrogate"),
        pytest.param(with_(note="SECRET\ud800"), r"answer: Invalid JSON: .*hex escape.*", id="escaped surrogate"),
        pytest.param(with_(score=math.nan), r"score: Input should be a finite number .*", id="NaN"),
        pytest.param(with_(score=-math.inf), r"score: Input should be a finite number .*", id="-Infinity"),
        pytest.param(with_().replace("0.5", "1e999"), r"score: Input should be a finite number .*", id="1e999"),
        pytest.param(with_(count=2**63), r"count: Input should be less than .*", id="beyond int64"),
        pytest.param(with_().replace(str(-(2**63)), "9" * 5000), r"answer: Invalid JSON: number .*", id="5000 digits"),
        pytest.param(with_(count="7"), r"count: Input should be a valid integer \[int_type\]", id="a string"),
        pytest.param(with_(count=1.0), r"count: Input should be a valid integer \[int_type\]", id="a float"),
        pytest.param(with_(sure=1), r"sure: Input should be a valid boolean \[bool_type\]", id="one for true"),
        pytest.param(with_(stars=4), r"stars: Input should be 1, 2 or 3 \[literal_error\]", id="integer enum"),
        pytest.param(
            with_(sentiment="SECRET"), r"sentiment: Input should be 'positive' or 'negative' \[.*\]", id="enum"
        ),
        pytest.param(with_(day="SECRET"), r"day: Input should be a valid date .*", id="date"),
        pytest.param(with_(at="0001-01-01T00:00:00+01:00"), r"at: refused by a validator.*", id="year 0 in UTC"),
        pytest.param(with_(SECRET=1), r"\(undeclared\): Extra inputs are not permitted \[.*\]", id="undeclared key"),
        pytest.param(with_(address={}), r"address\.city: Field required \[missing\]", id="nested"),
        pytest.param(with_(tags=[1] * 1000), r"tags\.0: Input should be a valid string .*", id="a thousand errors"),
        pytest.param("{}", r"sentiment: Field required \[missing\]; .* \(and 7 more\)", id="all missing"),
        pytest.param("x" * 50_000_000, r"the answer has 50,000,000 characters, more than 2,000,000", id="50 MB"),
        pytest.param(
            '{"note":"' + "x" * (ANSWER_CHARS_MAX - 20) + '"}', r"sentiment: Field required.*", id="as long as can be"
        ),
    ],
)
def test_a_bad_answer_is_told_without_its_values(schema: OutputSchema, text: str, problem: str) -> None:
    told = schema.validate(text)
    assert told is not None
    assert re.fullmatch(problem, told)
    assert len(told) <= 200
    assert "SECRET" not in told


@given(st.text() | st.binary().map(lambda raw: raw.decode("utf-8", "surrogateescape")))
def test_validate_never_raises(text: str) -> None:
    schema = OutputSchema.from_fields("review", {"a": "string"}, "reviews.yaml")
    told = schema.validate(text)
    assert told is not None
    assert len(told) <= 200


# -- columns -----------------------------------------------------------------------------------------------


def test_typed_answers_have_the_declared_types(schema: OutputSchema) -> None:
    at = pl.Datetime("us", "UTC")
    assert schema.frame_schema == {
        "sentiment": pl.String(),
        "score": pl.Float64(),
        "stars": pl.Int64(),
        "count": pl.Int64(),
        "sure": pl.Boolean(),
        "day": pl.Date(),
        "at": at,
        "tags": pl.List(pl.String()),
        "address": pl.Struct({"city": pl.String(), "since": pl.Date()}),
        "visits": pl.List(pl.Struct({"at": at})),
        "note": pl.String(),
    }
    frame = schema.typed(pl.Series([None, json.dumps(ANSWER)], dtype=pl.String))
    assert dict(frame.schema) == schema.frame_schema
    empty, full = frame.to_dicts()
    assert set(empty.values()) == {None}
    assert full == ANSWER | {
        "day": date(2026, 2, 28),
        "at": datetime(2026, 2, 28, 10, tzinfo=UTC),
        "visits": [{"at": datetime(2026, 2, 28, 12, 0, 0, 250_000, tzinfo=UTC)}],
    }


@pytest.mark.parametrize("answers", [[], [None], [None, None]], ids=["none", "one null", "two nulls"])
def test_typed_keeps_the_row_count_without_answers(schema: OutputSchema, answers: list[None]) -> None:
    frame = schema.typed(pl.Series(answers, dtype=pl.String))
    assert frame.height == len(answers)
    assert dict(frame.schema) == schema.frame_schema


def test_the_last_of_two_equal_keys_is_what_was_validated() -> None:
    schema = OutputSchema.from_fields("review", {"a": "integer"}, "reviews.yaml")
    text = '{"a": "x", "a": 2}'
    assert schema.validate(text) is None
    assert schema.typed(pl.Series([text]))["a"].to_list() == [2]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05.123456-05:00", datetime(2026, 1, 2, 8, 4, 5, 123456, tzinfo=UTC)),
        ("2026-01-02T03:04", datetime(2026, 1, 2, 3, 4, tzinfo=UTC)),
        ("2026-01-02 03:04:05", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("9999-12-31T23:59:59.999999Z", datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
        ("0001-01-01T00:00:00", datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_moments_are_in_utc(text: str, moment: datetime) -> None:
    schema = OutputSchema.from_fields("review", {"at": "datetime"}, "reviews.yaml")
    answer = json.dumps({"at": text})
    assert schema.validate(answer) is None
    assert schema.typed(pl.Series([answer]))["at"].to_list() == [moment]


def test_typing_what_was_never_validated_is_an_error(schema: OutputSchema) -> None:
    with pytest.raises(StoreError, match=r"^a stored answer does not obey review: score: .*was the validation"):
        schema.typed(pl.Series([with_(score="SECRET")]))


_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
_NAIVE = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1))
_MOMENTS = _NAIVE | st.builds(lambda moment, offset: moment.replace(tzinfo=offset), _NAIVE, _OFFSETS)
_ANSWERS = st.fixed_dictionaries(
    {
        "text": _TEXT,
        "count": st.integers(-(2**63), 2**63 - 1),
        "score": st.floats(allow_nan=False, allow_infinity=False),
        "day": st.dates(),
        "at": _MOMENTS,
        "tags": st.lists(_TEXT, max_size=3),
        "inner": st.fixed_dictionaries({"note": st.none() | _TEXT, "days": st.lists(st.dates(), max_size=2)}),
    }
)
_ROUND_TRIP = OutputSchema.from_fields(
    "all",
    {
        "text": "string",
        "count": "integer",
        "score": "number",
        "day": "date",
        "at": "datetime",
        "tags": {"type": "array", "items": "string"},
        "inner": {
            "type": "object",
            "fields": {
                "note": {"type": "string", "optional": True},
                "days": {"type": "array", "items": "date"},
            },
        },
    },
    "all.yaml",
)


@given(st.lists(st.none() | _ANSWERS, max_size=4), st.booleans())
def test_what_validates_comes_back_as_it_was(answers: list[dict[str, Any] | None], ascii_only: bool) -> None:
    texts = [a and json.dumps(a, default=lambda value: value.isoformat(), ensure_ascii=ascii_only) for a in answers]
    assert [text and _ROUND_TRIP.validate(text) for text in texts] == [None] * len(texts)
    rows = _ROUND_TRIP.typed(pl.Series(texts, dtype=pl.String)).to_dicts()
    for row, answer in zip(rows, answers, strict=True):
        if answer is None:
            assert set(row.values()) == {None}
        else:
            at = answer["at"]
            in_utc = at.replace(tzinfo=UTC) if at.tzinfo is None else datetime.fromisoformat(at.isoformat())
            assert row == answer | {"at": in_utc}


_WITHOUT_DATES = OutputSchema.from_fields(
    "plain",
    {
        "text": "string",
        "count": "integer",
        "score": "number",
        "sure": "boolean",
        "note": {"type": "string", "optional": True},
        "scores": {"type": "array", "items": {"type": "number", "optional": True}},
        "inner": {"type": "object", "fields": {"copy": "string", "counts": {"type": "array", "items": "integer"}}},
    },
    "all.yaml",
)
_NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)
_INTEGERS = st.integers(-(2**63), 2**63 - 1)
_PLAIN_ANSWERS = st.fixed_dictionaries(
    {
        "text": _TEXT,
        "count": _INTEGERS,
        "score": _NUMBERS,
        "sure": st.booleans(),
        "scores": st.lists(st.none() | _NUMBERS, max_size=3),
        "inner": st.fixed_dictionaries({"copy": _TEXT, "counts": st.lists(_INTEGERS, max_size=2)}),
    },
    optional={"note": st.none() | _TEXT},
)


@given(st.lists(st.none() | _PLAIN_ANSWERS, max_size=4), st.booleans(), st.sampled_from([None, 2]))
def test_answers_without_dates_come_back_as_they_were(
    answers: list[dict[str, Any] | None], ascii_only: bool, indent: int | None
) -> None:
    texts = [answer and json.dumps(answer, ensure_ascii=ascii_only, indent=indent) for answer in answers]
    assert [text and _WITHOUT_DATES.validate(text) for text in texts] == [None] * len(texts)
    rows = _WITHOUT_DATES.typed(pl.Series(texts, dtype=pl.String)).to_dicts()
    for row, answer in zip(rows, answers, strict=True):
        if answer is None:
            assert set(row.values()) == {None}
        else:
            assert row == {"note": None} | answer


@pytest.mark.parametrize("text", ['{"b":1}', '{"a":null}', '{"a":"SECRET"}', "[1]", "{", '{"a":"\\ud800"}'])
def test_a_stored_text_that_is_no_such_answer_is_an_error(text: str) -> None:
    schema = OutputSchema.from_fields("review", {"a": "integer", "b": {"type": "string", "optional": True}}, "r.yaml")
    with pytest.raises(StoreError, match=r"^a stored answer does not obey review: ((?!SECRET).)*$"):
        schema.typed(pl.Series(['{"a":1}', text]))


@pytest.mark.parametrize(
    ("items", "value"),
    [
        ("string", ["x"]),
        ({"type": "array", "items": "integer", "optional": True}, [[1], None]),
        ({"type": "object", "fields": {"a": "number"}}, [{"a": 1.5}]),
        ({"type": "string", "enum": ["x", "y"]}, ["y"]),
    ],
    ids=["texts", "lists", "objects", "enum"],
)
def test_a_list_may_be_left_out(items: object, value: object) -> None:
    fields = {"found": {"type": "array", "items": items, "optional": True}}
    schema = OutputSchema.from_fields("review", fields, "reviews.yaml")
    texts = [json.dumps({"found": value}), '{"found":null}', "{}"]
    assert [schema.validate(text) for text in texts] == [None] * 3
    assert schema.typed(pl.Series(texts))["found"].to_list() == [value, None, None]
    assert schema.validate('{"found":[{"b":1}]}') is not None


# -- classes of the user's own -----------------------------------------------------------------------------


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Part(BaseModel):
    """A part."""

    share: float = Field(ge=0, le=1, description="of the whole")
    color: Color = Color.RED


class Review(BaseModel):
    label: Literal["a", "b"]
    main: Part = Field(description="the largest")
    parts: list[Part] = []
    number: int = Field(3, alias="No")
    at: datetime | None = None
    score: float | None = None
    code: str = Field("", pattern="^a*$", max_length=5)

    @field_validator("code")
    @classmethod
    def _check(cls, code: str) -> str:
        if code == "aa":
            raise ValueError(f"SECRET {code}")
        if code == "aaa":
            raise RuntimeError(f"SECRET {code}")
        return code


class Chain(BaseModel):
    next: Chain | None = None


class Renamed(BaseModel):
    number: int = Field(validation_alias="No")


class Free(BaseModel):
    data: dict[str, int]


class Exact(BaseModel):
    price: Decimal


class Either(BaseModel):
    value: int | str


class Empty(BaseModel):
    pass


@pytest.fixture(autouse=True)
def answers_module(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("answers_of_ours")
    for found in (Review, Chain, Renamed, Free, Exact, Either, Empty, Color):
        setattr(module, found.__name__, found)
    monkeypatch.setitem(sys.modules, "answers_of_ours", module)


@pytest.mark.parametrize("path", ["answers_of_ours:Review", "answers_of_ours.Review"])
def test_a_class_becomes_a_strict_schema(path: str) -> None:
    schema = OutputSchema.from_class_path(path, "reviews.yaml")
    part = {
        "type": "object",
        "properties": {
            "share": {"type": "number", "description": "of the whole (minimum: 0, maximum: 1)"},
            "color": {"type": "string", "enum": ["red", "blue"]},
        },
        "required": ["share", "color"],
        "additionalProperties": False,
    }
    assert schema.name == "Review"
    assert schema.json_schema == {
        "type": "object",
        "properties": {
            "label": {"type": "string", "enum": ["a", "b"]},
            "main": part | {"description": "the largest"},
            "parts": {"type": "array", "items": part | {"description": "A part."}},
            "No": {"type": "integer"},
            "at": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]},
            "score": {"anyOf": [{"type": "number"}, {"type": "null"}]},
            "code": {"type": "string", "pattern": "^a*$", "description": "(maxLength: 5)"},
        },
        "required": ["label", "main", "parts", "No", "at", "score", "code"],
        "additionalProperties": False,
    }


NO_COLUMN = (
    "no column type holds all of its values; use string, integer, number, boolean, date, datetime, a list of one "
    "type or a model with declared fields"
)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("Review", "output: 'Review' is no import path; expected package.module:Class"),
        (
            "nowhere:Review",
            "output: nowhere:Review cannot be imported (ModuleNotFoundError: No module named 'nowhere')",
        ),
        (
            "answers_of_ours:Revue",
            "output: answers_of_ours:Revue cannot be imported (AttributeError: module 'answers_of_ours' has no "
            "attribute 'Revue')",
        ),
        ("answers_of_ours:Color", "output: answers_of_ours:Color is no pydantic model (a class below BaseModel)"),
        ("answers_of_ours:Chain", "output: Chain holds itself; a column cannot be recursive"),
        ("answers_of_ours:Empty", "output: Empty has no fields to fill columns with"),
        ("answers_of_ours:Free", f"output field data: {NO_COLUMN}"),
        ("answers_of_ours:Exact", f"output field price: {NO_COLUMN}"),
        ("answers_of_ours:Either", f"output field value: {NO_COLUMN}"),
        (
            "answers_of_ours:Renamed",
            "Renamed reads other fields than it writes (an alias, a computed field or a serializer); one name and "
            "one type per field are needed",
        ),
    ],
)
def test_bad_class(path: str, problem: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        OutputSchema.from_class_path(path, "reviews.yaml")
    assert str(caught.value) == f"reviews.yaml: {problem}"


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        pytest.param("", None, id="defaults"),
        pytest.param(',"unknown":1', None, id="the class ignores unknown keys"),
        pytest.param(',"No":99999999999999999999', "answer.No: the integer does not fit into 64 bits", id="int"),
        pytest.param(',"score":NaN', "answer.score: the number is not finite", id="NaN"),
        pytest.param(',"score":1e999', "answer.score: the number is not finite", id="1e999"),
        pytest.param(',"at":"0001-01-01T00:00:00+01:00"', "answer.at: the moment is out of range", id="year 0"),
        pytest.param(',"code":"aa"', "code: refused by a validator of the model [value_error]", id="validator"),
        pytest.param(',"code":"aaa"', "the model's own validation raised RuntimeError", id="raising validator"),
        pytest.param(',"code":"aaaaaa"', "code: String should have at most 5 characters [string_too_long]", id="long"),
        pytest.param(',"No":"3"', "No: Input should be a valid integer [int_type]", id="strict"),
    ],
)
def test_a_class_validates_strictly(extra: str, problem: str | None) -> None:
    schema = OutputSchema.from_class_path("answers_of_ours:Review", "reviews.yaml")
    text = f'{{"label":"a","main":{{"share":0.5}}{extra}}}'
    assert schema.validate(text) == problem
    if problem is None:
        row = schema.typed(pl.Series([text])).to_dicts()[0]
        assert row["main"] == {"share": 0.5, "color": "red"}
        assert row["No"] == 3


BOUNDED: dict[str, Any] = {
    "count": {"type": "integer", "minimum": 1, "maximum": 3, "description": "How many."},
    "price": {"type": "number", "minimum": 0, "optional": True},
    "code": {"type": "string", "min_length": 2, "max_length": 3},
    "tags": {"type": "array", "items": {"type": "string", "max_length": 1}, "min_items": 1, "max_items": 2},
}
WITHIN = {"count": 1, "price": 0, "code": "ab", "tags": ["x"]}


@pytest.mark.parametrize(
    ("beyond", "problem"),
    [
        pytest.param({"count": 0}, "count: ", id="below a minimum"),
        pytest.param({"count": 4}, "count: ", id="above a maximum"),
        pytest.param({"price": -0.01}, "price: ", id="below the minimum of something optional"),
        pytest.param({"code": "a"}, "code: ", id="too short"),
        pytest.param({"code": "abcd"}, "code: ", id="too long"),
        pytest.param({"tags": []}, "tags: ", id="too few"),
        pytest.param({"tags": ["x", "y", "z"]}, "tags: ", id="too many"),
        pytest.param({"tags": ["xy"]}, "tags.0: ", id="an item beyond its own bound"),
    ],
)
def test_bounds_hold(beyond: dict[str, Any], problem: str) -> None:
    schema = OutputSchema.from_fields("bounded", BOUNDED, "")
    assert schema.validate(json.dumps(WITHIN)) is None
    assert schema.validate(json.dumps(WITHIN | {"price": None})) is None
    assert (schema.validate(json.dumps(WITHIN | beyond)) or "").startswith(problem)


def test_the_providers_are_told_of_bounds_in_words() -> None:
    properties = OutputSchema.from_fields("bounded", BOUNDED, "").json_schema["properties"]
    assert properties["count"] == {"type": "integer", "description": "How many. (minimum: 1, maximum: 3)"}
    assert properties["code"] == {"type": "string", "description": "(minLength: 2, maxLength: 3)"}


@pytest.mark.parametrize("bound", [{"minimum": 0}, {"maximum": 2**80}, {"minimum": -5, "maximum": 5}])
def test_a_bounded_integer_fits_into_its_column_all_the_same(bound: dict[str, int]) -> None:
    schema = OutputSchema.from_fields("e", {"count": {"type": "integer"} | bound}, "e")
    assert schema.validate(f'{{"count": {2**70}}}') is not None
    assert schema.typed(pl.Series(['{"count": 3}']))["count"].to_list() == [3]


def test_lists_are_not_nested_without_end() -> None:
    items: dict[str, Any] = {"type": "array"}
    items["items"] = items
    with pytest.raises(DeclarationError, match="deeper than"):
        OutputSchema.from_fields("e", {"lists": items}, "e")


class Met(BaseModel):
    at: datetime


def test_a_moment_may_be_half_an_hour_off() -> None:
    schema = OutputSchema.from_class_path(f"{__name__}:Met", "e")
    answer = '{"at": "2026-11-01T12:00:00+05:30"}'
    assert schema.validate(answer) is None
    assert schema.typed(pl.Series([answer]))["at"].to_list() == [datetime(2026, 11, 1, 6, 30, tzinfo=UTC)]


class Lenient(BaseModel):
    a: int


def test_what_a_model_of_ones_own_ignores_keeps_nobody_from_seeing_the_answer() -> None:
    schema = OutputSchema.from_class_path(f"{__name__}:Lenient", "e")
    answer = '{"a": 1, "confidence": NaN}'
    assert schema.validate(answer) is None
    assert schema.shown(answer) == {"a": 1}
