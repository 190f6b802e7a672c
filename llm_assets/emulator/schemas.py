"""Which JSON schemas the vendors enforce: the first thing that is wrong with one, in the vendor's words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import orjson

_CACHED_MAX = 1000
_BOUNDS = ("minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_NOT_AT_ANTHROPIC = (*_BOUNDS, "maxItems", "minProperties", "maxProperties")
_NOT_AT_OPENAI = (
    *("minLength", "maxLength", "default", "oneOf", "allOf", "not", "if", "then", "else"),
    *("dependentRequired", "dependentSchemas", "patternProperties", "minProperties", "maxProperties"),
)

Check = Callable[[dict[str, Any]], str | None]


def _cached(check: Check) -> Check:
    """A batch asks the same schema thousands of times."""
    known: dict[bytes, str | None] = {}

    def problem(schema: dict[str, Any]) -> str | None:
        key = orjson.dumps(schema)
        if key not in known:
            if len(known) >= _CACHED_MAX:
                known.clear()
            known[key] = check(schema)
        return known[key]

    return problem


def anthropic_check() -> Check:
    """What Anthropic says about a schema; None when it takes it."""
    return _cached(_anthropic_problem)


def openai_check() -> Check:
    """What OpenAI's strict mode says about a schema; None when it takes it."""
    return _cached(_openai_problem)


def _anthropic_problem(schema: dict[str, Any]) -> str | None:
    if _recursive(schema):
        return "Recursive schemas are not supported"
    for _, node in _nodes(schema):
        kind = node.get("type")
        if _is_object(node) and node.get("additionalProperties") is not False:
            return "For 'object' type, 'additionalProperties' must be explicitly set to false"
        for keyword in _NOT_AT_ANTHROPIC:
            if keyword in node:
                return f"For '{kind}' type, property '{keyword}' is not supported"
        if node.get("minItems", 0) not in (0, 1):
            return "For 'array' type, 'minItems' values other than 0 or 1 are not supported"
    return None


def _openai_problem(schema: dict[str, Any]) -> str | None:
    if schema.get("type") != "object":
        return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{schema.get('type')}\"'."
    for path, node in _nodes(schema):
        context = f"In context=({', '.join(repr(part) for part in path)})"
        if _is_object(node):
            if node.get("additionalProperties") is not False:
                return f"{context}, 'additionalProperties' is required to be supplied and to be false."
            missing = [name for name in node.get("properties", {}) if name not in node.get("required", ())]
            if missing:
                return (
                    f"{context}, 'required' is required to be supplied and to be an array including every key in "
                    f"properties. Missing '{missing[0]}'."
                )
        for keyword in _NOT_AT_OPENAI:
            if keyword in node:
                return f"{context}, '{keyword}' is not permitted."
    return None


def _is_object(node: dict[str, Any]) -> bool:
    kind = node.get("type")
    return kind == "object" or "properties" in node or (isinstance(kind, list) and "object" in kind)


def _nodes(schema: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every schema inside a schema, itself first; names of properties are no keywords."""
    if not isinstance(schema, dict):
        return
    yield path, schema
    for keyword in ("properties", "$defs", "definitions"):
        for name, inner in (schema.get(keyword) or {}).items():
            yield from _nodes(inner, (*path, keyword, name))
    for keyword in ("anyOf", "oneOf", "allOf", "prefixItems"):
        for number, inner in enumerate(schema.get(keyword) or ()):
            yield from _nodes(inner, (*path, keyword, str(number)))
    yield from _nodes(schema.get("items"), (*path, "items"))


def _recursive(schema: dict[str, Any]) -> bool:
    definitions = {
        f"#/{keyword}/{name}": inner
        for keyword in ("$defs", "definitions")
        for name, inner in (schema.get(keyword) or {}).items()
    }

    def reaches_itself(reference: str, seen: tuple[str, ...]) -> bool:
        if reference in seen or reference == "#":
            return True
        return any(reaches_itself(one, (*seen, reference)) for one in _references(definitions.get(reference)))

    return any(reaches_itself(reference, ()) for reference in _references(schema))


def _references(schema: Any) -> set[str]:
    return {node["$ref"] for _, node in _nodes(schema) if isinstance(node.get("$ref"), str)}
