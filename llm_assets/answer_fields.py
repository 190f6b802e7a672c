"""Fields declared in YAML, or the path of a class → the pydantic model that answers are read with.

Pure, but that it imports the class. Every mistake is told with where in the declaration it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib import import_module
from typing import Annotated, Any, Literal, Optional

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, WithJsonSchema, create_model

from llm_assets.errors import DeclarationError

FIELD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
DEPTH_MAX = 10
_REASON_CHARS_MAX = 200


def in_utc(moment: datetime) -> datetime:
    """The moment in UTC; without an offset it is taken as UTC."""
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("out of range") from None


_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
_INT64 = Annotated[int, Field(ge=_INT64_MIN, le=_INT64_MAX), WithJsonSchema({"type": "integer"})]
_SCALARS: dict[str, Any] = {
    "string": str,
    "integer": _INT64,
    "number": float,
    "boolean": bool,
    "date": date,
    "datetime": Annotated[datetime, AfterValidator(in_utc)],
}
TYPES = (*_SCALARS, "array", "object")
# What may be declared of a value besides its type: the JSON schema's keyword, and the types that have it.
_BOUND_KEYS = {
    "minimum": ("minimum", ("integer", "number")),
    "maximum": ("maximum", ("integer", "number")),
    "min_length": ("minLength", ("string",)),
    "max_length": ("maxLength", ("string",)),
    "min_items": ("minItems", ("array",)),
    "max_items": ("maxItems", ("array",)),
}
_KEYS = ("type", "description", "optional", "enum", "items", "fields", *_BOUND_KEYS)
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)


def declared_model(name: str, fields: Any, source: str) -> type[BaseModel]:
    """The model that a mapping `field name -> type or specification` declares. Raises DeclarationError for others."""
    return _model(name, fields, _Place(source))


class _FailFast(FailFast):
    """Pydantic's own has no hash, which `Optional` asks for before Python 3.11.9."""

    __hash__ = object.__hash__


_FIRST_ONLY = _FailFast()


@dataclass(frozen=True)
class _Place:
    """Where in a declaration we are, for messages."""

    source: str
    path: tuple[str, ...] = ()

    def at(self, step: str) -> _Place:
        return _Place(self.source, (*self.path, step))

    def error(self, problem: str) -> DeclarationError:
        where = f"output field {'.'.join(self.path)}: " if self.path else "output: "
        return DeclarationError(self.source, where + problem)


def _model(name: str, fields: Any, place: _Place) -> type[BaseModel]:
    """The model that a mapping of fields declares."""
    if not isinstance(fields, Mapping) or not fields:
        raise place.error("has no fields; give at least one as `name: type`")
    if len(place.path) >= DEPTH_MAX:
        raise place.error(f"is nested deeper than {DEPTH_MAX} levels")
    # Aliases, as a field may have a name that pydantic's BaseModel uses itself (copy, json, schema).
    definitions: dict[str, Any] = {}
    for number, (key, specification) in enumerate(fields.items()):
        key = _field_name(key, place)
        definitions[f"field_{number}"] = _definition(name, key, specification, place.at(key))
    return create_model(name, __config__=_STRICT, **definitions)


def _field_name(key: Any, place: _Place) -> str:
    if not isinstance(key, str):
        raise place.error(f"the field name {key!r} is a {type(key).__name__}, not text; put it in quotes")
    if not FIELD_NAME.fullmatch(key):
        raise place.error(
            f"{key[:80]!r} is no field name; a name begins with a letter and has at most 64 letters, digits "
            "and underscores"
        )
    return key


def _definition(model_name: str, key: str, specification: Any, place: _Place) -> tuple[Any, Any]:
    """What pydantic.create_model takes for one field: its annotation and its Field."""
    keys = _keys(specification, place)
    annotation = _annotation(f"{model_name}_{key}", keys, place)
    described = {"description": keys["description"]} if "description" in keys else {}
    if keys.get("optional", False):
        return Optional[annotation], Field(default=None, alias=key, **described)  # noqa: UP045
    return annotation, Field(alias=key, **described)


def _keys(specification: Any, place: _Place) -> Mapping[str, Any]:
    """The specification with its shorthand expanded; only known keys, each of its own type."""
    keys = {"type": specification} if isinstance(specification, str) else specification
    if not isinstance(keys, Mapping):
        raise place.error(f"is a {type(keys).__name__}; expected a type or a mapping with `type`")
    unknown = [str(key) for key in keys if key not in _KEYS]
    if unknown:
        raise place.error(f"has unknown keys {', '.join(unknown)}; known are {', '.join(_KEYS)}")
    if not isinstance(keys.get("description", ""), str):
        raise place.error("`description` is no text")
    if not isinstance(keys.get("optional", False), bool):
        raise place.error("`optional` is neither true nor false")
    return keys


def _annotation(name: str, keys: Mapping[str, Any], place: _Place) -> Any:
    """The Python type that one specification declares."""
    kind = keys.get("type")
    if not isinstance(kind, str) or kind not in TYPES:
        raise place.error(f"has the type {kind!r}; known types are {', '.join(TYPES)}")
    _misplaced(kind, keys, place)
    if kind == "object":
        return _model(name, keys.get("fields"), place)
    if "enum" in keys:
        return _enum(kind, keys["enum"], place)
    annotation = _array(name, keys, place) if kind == "array" else _SCALARS[kind]
    return _bounded(kind, annotation, keys, place)


def _bounded(kind: str, annotation: Any, keys: Mapping[str, Any], place: _Place) -> Any:
    """The type, held within the bounds that are declared; the vendors are told of them in words."""
    bounds = {key: keys[key] for key in _BOUND_KEYS if key in keys}
    if not bounds:
        return annotation
    wanted = int | float if kind == "number" else int
    for key, bound in bounds.items():
        if isinstance(bound, bool) or not isinstance(bound, wanted):
            raise place.error(
                f"`{key}` is {bound!r}; it must be {'a number' if kind == 'number' else 'a whole number'}"
            )
        if key.startswith(("min_", "max_")) and bound < 0:
            raise place.error(f"`{key}` is {bound}; it cannot be negative")
    low, high = (next((b for key, b in bounds.items() if key.startswith(word)), None) for word in ("min", "max"))
    if low is not None and high is not None and low > high:
        raise place.error(f"{' and '.join(f'`{key}` {bound}' for key, bound in bounds.items())} leave nothing between")
    told = {_BOUND_KEYS[key][0]: bound for key, bound in bounds.items()}
    if kind == "integer":
        # A column holds no others, whatever is declared.
        least = _INT64_MIN if low is None else max(low, _INT64_MIN)
        most = _INT64_MAX if high is None else min(high, _INT64_MAX)
        return Annotated[annotation, Field(ge=least, le=most), WithJsonSchema({"type": "integer", **told})]
    if kind == "number":
        return Annotated[annotation, Field(ge=low, le=high)]
    return Annotated[annotation, Field(min_length=low, max_length=high)]


def _misplaced(kind: str, keys: Mapping[str, Any], place: _Place) -> None:
    """Raise for a key that this type does not take."""
    homes = {"enum": ("string", "integer"), "items": ("array",), "fields": ("object",)}
    homes |= {key: kinds for key, (_, kinds) in _BOUND_KEYS.items()}
    for key, kinds in homes.items():
        if key in keys and kind not in kinds:
            raise place.error(f"`{key}` goes with the type {' or '.join(kinds)}, not with {kind}")


def _array(name: str, keys: Mapping[str, Any], place: _Place) -> Any:
    if "items" not in keys:
        raise place.error("is an array without `items`; say what it holds, as in `items: {type: string}`")
    items = _keys(keys["items"], place.at("items"))
    if len(place.path) >= DEPTH_MAX:
        raise place.error(f"is nested deeper than {DEPTH_MAX} levels")
    item: Any = _annotation(f"{name}_item", items, place.at("items"))
    if items.get("optional", False):
        item = Optional[item]  # noqa: UP045
    # An answer of a million wrong items is told by its first one.
    return Annotated[list[item], _FIRST_ONLY]


def _enum(kind: str, values: Any, place: _Place) -> Any:
    if not isinstance(values, list | tuple) or not values:
        raise place.error("`enum` holds no values; list those that the answer may take")
    python_type = {"string": str, "integer": int}[kind]
    wrong = [value for value in values if type(value) is not python_type]
    if wrong:
        hint = " (YAML reads yes, no, on and off as booleans: put them in quotes)"
        raise place.error(f"`enum` holds {wrong[0]!r}, which is no {kind}{hint if kind == 'string' else ''}")
    if len(set(values)) < len(values):
        raise place.error("`enum` holds a value twice")
    return Literal[tuple(values)]


def imported_model(path: str, source: str) -> type[BaseModel]:
    """The pydantic class at an import path, `package.module:Class`. Raises DeclarationError when there is none."""
    module_name, _, class_name = path.partition(":") if ":" in path else path.rpartition(".")
    if not module_name or not class_name:
        raise DeclarationError(source, f"output: {path!r} is no import path; expected package.module:Class")
    try:
        found = getattr(import_module(module_name), class_name)
    except Exception as error:  # whatever the user's module raises
        why = f"{type(error).__name__}: {error}"[:_REASON_CHARS_MAX]
        raise DeclarationError(source, f"output: {path} cannot be imported ({why})") from error
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        raise DeclarationError(source, f"output: {path} is no pydantic model (a class below BaseModel)")
    return found
