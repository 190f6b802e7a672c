from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from llm_assets.providers import get_provider
from llm_assets_tests.providers.conftest import CLOSED

BOTH = ("anthropic", "openai")


def problems(provider: str, schema: dict[str, Any]) -> list[str]:
    return get_provider(provider).dialect.schema_problems(schema)


def closed(**properties: Any) -> dict[str, Any]:
    return {**CLOSED, "properties": properties, "required": list(properties)}


def deep(levels: int) -> dict[str, Any]:
    return closed(inner=deep(levels - 1)) if levels > 1 else CLOSED


class Price(BaseModel):
    model_config = ConfigDict(extra="forbid")
    amount: float
    currency: str | None


class Product(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    prices: list[Price]


@pytest.mark.parametrize("provider", BOTH)
@pytest.mark.parametrize("schema", [CLOSED, Product.model_json_schema(), deep(10)], ids=["plain", "pydantic", "deep"])
def test_schemas_that_are_enforced(provider: str, schema: dict[str, Any]) -> None:
    assert problems(provider, schema) == []


@pytest.mark.parametrize("provider", BOTH)
@pytest.mark.parametrize(
    ("schema", "place", "words"),
    [
        ({"type": "object", "properties": CLOSED["properties"], "required": ["label"]}, "$", "open object"),
        (closed(tags={"type": "array", "items": {"type": "object"}}), "$.tags[]", "without named properties"),
        (closed(a={"type": "string", "minLength": 3}), "$.a", '"minLength"'),
        (closed(a={"oneOf": [{"type": "string"}]}), "$.a", "write anyOf"),
        (closed(a={}), "$.a", "no type"),
        (closed(a=True), "$.a", "no type"),
        (closed(a={"anyOf": [{"type": "string", "format": "color"}]}), "$.a.anyOf[0]", '"color"'),
        (closed(a={"type": "string", "pattern": "(?=x)"}), "$.a", "look-around"),
        (closed(a={"$ref": "#/$defs/Gone"}), "$.a", '"#/$defs/Gone"'),
        (closed(a={"$ref": "https://example.com/schema"}), "$.a", "not in this schema"),
        (closed() | {"$defs": {"X": {"type": "object"}}}, "$.$defs.X", "without named properties"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_nobody_enforces(provider: str, schema: dict[str, Any], place: str, words: str) -> None:
    found = problems(provider, schema)
    assert [sentence for sentence in found if sentence.startswith(f"{place} ") and words in sentence], found


@pytest.mark.parametrize(
    ("schema", "anthropic", "openai"),
    [
        (closed(a={"type": "integer", "minimum": 1}), '"minimum"', ""),
        (closed(a={"type": "array", "items": {"type": "string"}, "minItems": 2}), '"minItems" above 1', ""),
        (closed(a={"type": "string", "default": "x"}), "", '"default"'),
        (closed(a={"allOf": [CLOSED]}), "", '"allOf"'),
        ({**CLOSED, "required": []}, "", "does not require label"),
        ({"type": "array", "items": CLOSED}, "", "$ is not an object"),
        ({"anyOf": [CLOSED]}, "", "$ is not an object"),
        (closed(a={"type": "array"}), "", "does not say of what"),
        (deep(11), "", "11 deep"),
        (closed(a={"enum": [[1]]}), "lists or objects", ""),
        (
            closed(a={"$ref": "#/$defs/X", "description": "d"}) | {"$defs": {"X": {"type": "string"}}},
            "",
            'beside "$ref"',
        ),
        (
            closed(a={"$ref": "#/$defs/Tree"})
            | {"$defs": {"Tree": closed(children={"type": "array", "items": {"$ref": "#/$defs/Tree"}})}},
            "$.$defs.Tree contains itself",
            "",
        ),
        (closed(a={"$ref": "#"}), "$ contains itself", ""),
        (closed(**{f"p{n}": {"type": ["string", "null"]} for n in range(17)}), "17 unions", ""),
        (
            {**closed(**{f"p{n}": {"type": "string"} for n in range(25)}), "required": []},
            "25 optional",
            "does not require p0, p1",
        ),
        (closed(a={"enum": list(range(1001))}), "", "1001 enum values"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_one_of_them_enforces(schema: dict[str, Any], anthropic: str, openai: str) -> None:
    for provider, words in (("anthropic", anthropic), ("openai", openai)):
        found = problems(provider, schema)
        assert [words in sentence for sentence in found] == ([True] if words else []), found
