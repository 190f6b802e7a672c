"""Walking a JSON schema: every subschema with its place, and what no vendor enforces.

What a vendor enforces beyond the common keywords stands in its own module, as a table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_SUBSCHEMA_LISTS = ("anyOf", "allOf", "oneOf", "prefixItems")
_SUBSCHEMA_MAPS = ("$defs", "definitions")
_SAYS_TYPE = ("type", "enum", "const", "anyOf", "allOf", "oneOf", "$ref")

# What all vendors' subsets have, and what to write instead of some that none has.
KEYWORDS = frozenset(
    {"type", "enum", "const", "anyOf", "$ref", "$defs", "definitions", "properties", "required"}
    | {"additionalProperties", "items", "minItems", "format", "pattern", "title", "description"}
)
FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
_CHECKED_LATER = "say it in the description, and check it when the answer has come"
INSTEAD = {
    "oneOf": "write anyOf",
    "allOf": "write the properties of all parts into one object",
    "not": "say it in the description",
    "default": "remove it: an answer holds every required property",
    "prefixItems": "write an object with one property for each element",
    "patternProperties": "write an array of objects with a key and a value",
    **dict.fromkeys(("minLength", "maxLength", "uniqueItems", "maxItems"), _CHECKED_LATER),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _CHECKED_LATER),
    **dict.fromkeys(("multipleOf", "minProperties", "maxProperties"), _CHECKED_LATER),
}
# What finite automata cannot match: look-around, back references, word boundaries.
_IRREGULAR = re.compile(r"\(\?[=!<]|\\[1-9]|\\b|\\B")


@dataclass(frozen=True, slots=True)
class Node:
    """A subschema and its place: `$` is the answer, `.name` a property, `[]` an array's elements."""

    path: str
    schema: Mapping[str, Any]

    @property
    def types(self) -> list[str]:
        """The JSON types that the node names."""
        named = self.schema.get("type")
        return [named] if isinstance(named, str) else [name for name in _list(named) if isinstance(name, str)]

    @property
    def is_object(self) -> bool:
        """Whether the node describes an object."""
        return "object" in self.types or "properties" in self.schema

    @property
    def properties(self) -> Mapping[str, Any]:
        """The properties that the node names."""
        return _map(self.schema.get("properties"))

    @property
    def optional(self) -> list[str]:
        """The properties that the node does not require."""
        required = _list(self.schema.get("required"))
        return [name for name in self.properties if name not in required]


@dataclass(frozen=True, slots=True)
class Subset:
    """The part of JSON Schema that a vendor enforces: keywords, and string formats."""

    vendor: str
    keywords: frozenset[str]
    formats: frozenset[str]


def nodes(schema: object, path: str = "$") -> Iterator[Node]:
    """All subschemas, each before those inside it. What is no JSON object is yielded as an empty schema."""
    node = Node(path, schema if isinstance(schema, Mapping) else {})
    yield node
    for name, inner in node.properties.items():
        yield from nodes(inner, f"{path}.{name}")
    if "items" in node.schema:
        yield from nodes(node.schema["items"], f"{path}[]")
    for keyword in _SUBSCHEMA_LISTS:
        for index, inner in enumerate(_list(node.schema.get(keyword))):
            yield from nodes(inner, f"{path}.{keyword}[{index}]")
    for keyword in _SUBSCHEMA_MAPS:
        for name, inner in _map(node.schema.get(keyword)).items():
            yield from nodes(inner, f"{path}.{keyword}.{name}")


def problems(schema: Mapping[str, Any], subset: Subset) -> Iterator[str]:
    """Sentences on what no vendor enforces, and on keywords outside the subset: found, where, instead."""
    for node in nodes(schema):
        yield from _type_problems(node, subset)
        yield from _object_problems(node, subset)
        yield from _keyword_problems(node, subset)
        yield from _reference_problems(node, schema)


def resolved(schema: Mapping[str, Any], reference: object) -> Mapping[str, Any] | None:
    """What a reference such as `#/$defs/Item` points to in `schema`; None when it points nowhere."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    target: object = schema
    for step in reference.split("/")[1:]:
        target = _map(target).get(step.replace("~1", "/").replace("~0", "~"))
    return target if isinstance(target, Mapping) else None


def recursions(schema: Mapping[str, Any]) -> list[str]:
    """The references that lead back to something they stand in, in order."""
    references = {node.schema["$ref"] for node in nodes(schema) if isinstance(node.schema.get("$ref"), str)}
    return sorted(reference for reference in references if reference in _reached(schema, reference))


def object_depth(schema: Mapping[str, Any]) -> int:
    """Objects inside objects, the outermost counted; a reference is followed until it repeats itself."""
    return _depth(schema, schema, ())


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _depth(schema: Mapping[str, Any], node: Mapping[str, Any], followed: tuple[str, ...]) -> int:
    reference = node.get("$ref")
    if isinstance(reference, str):
        again = reference in followed
        return 0 if again else _depth(schema, resolved(schema, reference) or {}, (*followed, reference))
    inner = [*_map(node.get("properties")).values(), node.get("items")]
    inner += [variant for keyword in _SUBSCHEMA_LISTS for variant in _list(node.get(keyword))]
    deepest = max((_depth(schema, one, followed) for one in inner if isinstance(one, Mapping)), default=0)
    return deepest + Node("$", node).is_object


def _reached(schema: Mapping[str, Any], start: str) -> set[str]:
    """All references that following `start` meets, itself only if it is met again."""
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        target = resolved(schema, waiting.pop())
        # A reference to the root meets the definitions too, which is what the root holds.
        for node in nodes(target or {}):
            reference = node.schema.get("$ref")
            if isinstance(reference, str) and reference not in reached:
                reached.add(reference)
                waiting.append(reference)
    return reached


def _type_problems(node: Node, subset: Subset) -> Iterator[str]:
    if not any(keyword in node.schema for keyword in _SAYS_TYPE):
        yield (
            f'{node.path} says no type, so {subset.vendor} would allow anything; write a "type" '
            "(such as string), an enum or an anyOf"
        )


def _object_problems(node: Node, subset: Subset) -> Iterator[str]:
    if not node.is_object or node.schema.get("additionalProperties") is False:
        return
    if node.properties:
        yield (
            f"{node.path} is an open object, and {subset.vendor} enforces closed ones only; write "
            '"additionalProperties": false (pydantic: extra="forbid")'
        )
    else:
        yield (
            f"{node.path} is an object without named properties, which {subset.vendor} cannot enforce; name "
            "its properties, or write an array of objects with a key and a value"
        )


def _keyword_problems(node: Node, subset: Subset) -> Iterator[str]:
    for keyword in node.schema:
        if keyword not in subset.keywords:
            instead = INSTEAD.get(keyword, "remove it")
            yield f'{node.path} has "{keyword}", which {subset.vendor} does not enforce; {instead}'
    given = node.schema.get("format")
    if isinstance(given, str) and "format" in subset.keywords and given not in subset.formats:
        known = ", ".join(sorted(subset.formats))
        yield f'{node.path} has the format "{given}", which {subset.vendor} does not know; use one of {known}'
    pattern = node.schema.get("pattern")
    if isinstance(pattern, str) and _IRREGULAR.search(pattern):
        yield (
            f"{node.path} has a pattern with look-around, a back reference or a word boundary, which "
            f"{subset.vendor} does not enforce; write it without, or check it after the answer came"
        )


def _reference_problems(node: Node, schema: Mapping[str, Any]) -> Iterator[str]:
    if "$ref" in node.schema and resolved(schema, node.schema["$ref"]) is None:
        yield (
            f'{node.path} refers to "{node.schema["$ref"]}", which is not in this schema; define it under '
            '"$defs" and refer to it as "#/$defs/…"'
        )
