"""The scripted model: valid for any schema that it may meet, the same each time, and not quite blind."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from llm_assets.emulator.models import Question, load_model

MODEL = load_model("scripted")


def answer(text: str, schema: dict[str, Any] | None, max_tokens: int = 100_000) -> Any:
    reply = MODEL.answer(Question("", (("user", text),), schema, max_tokens))
    return reply.text if schema is None else json.loads(reply.text)


scalars = st.sampled_from(
    [
        *({"type": name} for name in ("string", "integer", "number", "boolean", "null")),
        *({"type": "string", "format": name} for name in ("date", "date-time", "time", "email", "uuid", "uri", "ipv4")),
        {"type": "integer", "minimum": 3, "maximum": 9, "multipleOf": 3},
        {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5},
        {"type": "number", "minimum": -1, "maximum": 1},
        {"type": "string", "minLength": 30},
        {"type": ["string", "null"]},
        {"enum": ["a", 1, None]},
        {"const": "x"},
        {"$ref": "#/$defs/tree"},
    ]
)


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    properties = st.dictionaries(st.text(min_size=1, max_size=5), inner, max_size=4)
    return properties.map(
        lambda found: {
            "type": "object",
            "properties": found,
            "required": list(found),
            "additionalProperties": False,
        }
    )


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    arrays = inner.map(lambda items: {"type": "array", "items": items, "minItems": 1, "maxItems": 2})
    unions = st.lists(inner, min_size=1, max_size=3).map(lambda options: {"anyOf": options})
    return objects(inner) | arrays | unions


TREE = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "next": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}]},
        "all": {"type": "array", "items": {"$ref": "#/$defs/tree"}},
    },
    "required": ["name", "next", "all"],
    "additionalProperties": False,
}


@given(objects(st.recursive(scalars, nested, max_leaves=6)), st.text(max_size=20))
def test_answers_obey_the_schema(schema: dict[str, Any], text: str) -> None:
    schema = schema | {"$defs": {"tree": TREE}}
    found = answer(text, schema)
    Draft202012Validator(schema).validate(found)
    assert found == answer(text, schema)


SENTIMENT = {"type": "object", "properties": {"label": {"enum": ["negative", "neutral", "positive"]}}}


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("I love it, it is great", "positive"),
        ("Terrible. It broke and I want a refund!", "negative"),
        ("It is not good", "negative"),
        ("The parcel holds a chair", "neutral"),
        ("Great sound, terrible battery", "neutral"),
    ],
)
def test_sentiment(text: str, label: str) -> None:
    assert answer(text, SENTIMENT) == {"label": label}


INVOICE = """The invoice:
Vendor: Halloway Timber
Issued on: 3 November 2026
Total: EUR 1,204.50

| Description | Quantity | Unit price |
|---|---:|---:|
| Oak board | 3 | 400.00 |
| Glue, waterproof | 1 | 4.50 |
"""
FIELDS = {
    "type": "object",
    "properties": {
        "vendor": {"type": "string"},
        "issued_on": {"type": "string", "format": "date"},
        "total": {"type": "number"},
        "due_on": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
        "lines": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"description": {"type": "string"}, "quantity": {"type": "integer"}},
            },
        },
    },
}


def test_labelled_values_and_tables_are_read() -> None:
    found = answer(INVOICE, FIELDS)
    assert (found["vendor"], found["issued_on"], found["total"]) == ("Halloway Timber", "2026-11-03", 1204.5)
    assert found["lines"] == [
        {"description": "Oak board", "quantity": 3},
        {"description": "Glue, waterproof", "quantity": 1},
    ]


def test_a_summary_is_the_first_sentences() -> None:
    schema = {"type": "object", "properties": {"summary": {"type": "string"}}}
    assert answer("Summarise:\nIt rained. Nobody came! The end.", schema) == {"summary": "It rained. Nobody came!"}


def test_only_the_last_message_counts() -> None:
    question = Question("love love love", (("user", "I love it"), ("user", "awful")), SENTIMENT, 100)
    assert json.loads(MODEL.answer(question).text) == {"label": "negative"}


def test_answers_end_at_max_tokens() -> None:
    reply = MODEL.answer(Question("", (("user", "x"),), None, 2))
    assert (reply.truncated, reply.output_tokens) == (True, 2)
    assert answer("x", None).startswith(reply.text)
