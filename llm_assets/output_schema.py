"""The shape of an answer: one pydantic model, seen as JSON schema, as a validator and as table columns.

The JSON schema is what both vendors can enforce: objects closed, all properties required, optional ones
nullable, references inlined, bounds told in the description (pydantic enforces them here). Nothing in this
module knows a provider, and no message holds a value of an answer.
"""

from __future__ import annotations

import hashlib
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from importlib import import_module
from typing import Annotated, Any, Literal, Optional, get_args

import orjson
import polars as pl
from polars.datatypes import DataTypeClass
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    ValidationError,
    WithJsonSchema,
    create_model,
)
from pydantic.errors import PydanticUserError
from pydantic.json_schema import PydanticJsonSchemaWarning
from pydantic_core import ErrorDetails
from pydantic_core.core_schema import ErrorType

from llm_assets.errors import DeclarationError, StoreError

ERROR_CHARS_MAX = 200
PolarsDataType = pl.DataType | DataTypeClass  # what polars says that its own nested types hold

# Far above what a model can say in one answer; a text beyond is refused before it is parsed.
ANSWER_CHARS_MAX = 2_000_000
ANSWER_BYTES = 512
FIELD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
DEPTH_MAX = 10


def _in_utc(moment: datetime) -> datetime:
    """The moment in UTC; without an offset it is taken as UTC."""
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("out of range") from None


_INT64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1), WithJsonSchema({"type": "integer"})]
_SCALARS: dict[str, Any] = {
    "string": str,
    "integer": _INT64,
    "number": float,
    "boolean": bool,
    "date": date,
    "datetime": Annotated[datetime, AfterValidator(_in_utc)],
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

# The formats that both vendors enforce, and the keywords that at least one of them refuses.
_FORMATS = {"date", "date-time", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
_BOUNDS = (
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "uniqueItems",
)
_UTC = pl.Datetime("us", "UTC")
_FRAME_SCALARS: dict[str, pl.DataType] = {
    "string": pl.String(),
    "integer": pl.Int64(),
    "number": pl.Float64(),
    "boolean": pl.Boolean(),
}
# Messages that a model's own validators write may quote the answer; pydantic's do not.
_QUOTABLE = {*get_args(ErrorType)} - {"value_error", "assertion_error"}


@dataclass(frozen=True)
class OutputSchema:
    """What an enrichment's answer must look like.

    `name` goes to the provider with the schema; `source` says who declared it.
    """

    name: str
    json_schema: dict[str, Any]
    frame_schema: dict[str, pl.DataType]
    model: type[BaseModel] = field(compare=False, repr=False)
    foreign: bool  # the model is a class of the user's own, less strict than those built here

    @classmethod
    def from_fields(cls, name: str, fields: Mapping[str, Any], source: str) -> OutputSchema:
        """The schema that a mapping `field name -> type or specification` declares.

        Raises DeclarationError for anything that is no such mapping.
        """
        return cls._of(name, _model(name, fields, _Place(source)), source, foreign=False)

    @classmethod
    def from_class_path(cls, path: str, source: str) -> OutputSchema:
        """The schema of a pydantic class of the user's own, `package.module:Class` or `package.module.Class`.

        Raises DeclarationError when the path leads to no model, or to one that no table can hold.
        """
        model = _imported(path, source)
        return cls._of(model.__name__, model, source, foreign=True)

    @classmethod
    def _of(cls, name: str, model: type[BaseModel], source: str, *, foreign: bool) -> OutputSchema:
        asked, given = (_inlined(model, mode, source) for mode in ("validation", "serialization"))
        frame_schema = _frame_schema(asked, source)
        if frame_schema != _frame_schema(given, source):
            raise DeclarationError(
                source,
                f"{model.__name__} reads other fields than it writes (an alias, a computed field or a "
                "serializer); one name and one type per field are needed",
            )
        return cls(name, _strict(asked), frame_schema, model, foreign)

    @cached_property
    def digest(self) -> str:
        """Names what the JSON schema asks for, in whatever order it says so."""
        canonical = orjson.dumps(self.json_schema, option=orjson.OPT_SORT_KEYS)
        return hashlib.blake2b(canonical, digest_size=16).hexdigest()

    def validate(self, text: str) -> str | None:
        """None when `text` is one JSON value that obeys the schema, else why not: a location and a reason
        in at most 200 characters, without any value of the answer. Never raises.
        """
        if len(text) > ANSWER_CHARS_MAX:
            return f"the answer has {len(text):,} characters, more than {ANSWER_CHARS_MAX:,}"
        try:
            answer = self._read(text, strict=True)
        except ValidationError as error:
            return _told(error)
        except Exception as error:  # a validator of the user's model may raise anything
            return f"the model's own validation raised {type(error).__name__}"[:ERROR_CHARS_MAX]
        return self._unfit(answer) if self.foreign else None

    @property
    def answer_bytes(self) -> int:
        """About how long an answer is: a guess, for who has to fit many into memory."""
        return ANSWER_BYTES

    def shown(self, text: str) -> dict[str, Any]:
        """What a person sees of a validated answer."""
        return dict(orjson.loads(text))

    def typed(self, answers: pl.Series) -> pl.DataFrame:
        """Validated answers (String, a JSON text or null a row) as the columns of `frame_schema`.

        As many rows as `answers`, null where the text is null. Datetimes without an offset are read as UTC.
        Raises StoreError for a text that `validate` does not accept.
        """
        canonical = pl.Series([self._canonical(text) for text in answers], dtype=pl.String)
        decoded = canonical.str.json_decode(pl.Struct(_as_text(self.frame_schema)))
        columns = [_cast(pl.col(name), dtype).alias(name) for name, dtype in self.frame_schema.items()]
        return decoded.struct.unnest().select(columns)

    @cached_property
    def _read(self) -> Callable[..., Any]:
        return self.model.__pydantic_validator__.validate_json

    @cached_property
    def _write(self) -> Callable[..., bytes]:
        return self.model.__pydantic_serializer__.to_json

    def _canonical(self, text: str | None) -> str | None:
        """The answer as the model writes it: polars takes the first of two equal keys, pydantic the last."""
        if text is None:
            return None
        try:
            return self._write(self._read(text, strict=True), by_alias=True).decode()
        except ValidationError as error:
            raise StoreError(
                f"a stored answer does not obey {self.name}: {_told(error)}; was the validation of the model "
                "changed after the answer was collected?"
            ) from None

    def _unfit(self, answer: BaseModel) -> str | None:
        """Why a column cannot hold the answer, although the user's own model takes it."""
        try:
            values = self.model.__pydantic_serializer__.to_python(answer, mode="python", by_alias=True)
        except Exception as error:  # a serializer of the user's model may raise anything
            return f"the model's own serialization raised {type(error).__name__}"[:ERROR_CHARS_MAX]
        return next(_misfits(values), None)


# -- declarations -> a model -------------------------------------------------------------------------------


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
        return Annotated[annotation, Field(ge=low, le=high), WithJsonSchema({"type": "integer", **told})]
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


def _imported(path: str, source: str) -> type[BaseModel]:
    """The pydantic class at this import path."""
    module_name, _, class_name = path.partition(":") if ":" in path else path.rpartition(".")
    if not module_name or not class_name:
        raise DeclarationError(source, f"output: {path!r} is no import path; expected package.module:Class")
    try:
        found = getattr(import_module(module_name), class_name)
    except Exception as error:  # whatever the user's module raises
        why = f"{type(error).__name__}: {error}"[:ERROR_CHARS_MAX]
        raise DeclarationError(source, f"output: {path} cannot be imported ({why})") from error
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        raise DeclarationError(source, f"output: {path} is no pydantic model (a class below BaseModel)")
    return found


# -- a model -> its JSON schema ----------------------------------------------------------------------------


def _inlined(model: type[BaseModel], mode: Literal["validation", "serialization"], source: str) -> Any:
    """The model's JSON schema without references. Raises DeclarationError for a recursive model."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PydanticJsonSchemaWarning)  # about defaults, which are left out
            schema = model.model_json_schema(by_alias=True, mode=mode)
    except PydanticUserError as error:
        why = str(error).partition("\n")[0][:ERROR_CHARS_MAX]
        raise DeclarationError(source, f"output: {model.__name__} has no JSON schema ({why})") from error
    definitions = schema.get("$defs", {})

    def expand(node: Any, within: tuple[str, ...]) -> Any:
        if isinstance(node, list):
            return [expand(item, within) for item in node]
        if not isinstance(node, dict):
            return node
        beside = {key: expand(value, within) for key, value in node.items() if key not in ("$ref", "$defs")}
        if "$ref" not in node:
            return beside
        name = node["$ref"].removeprefix("#/$defs/")
        if name in within:
            raise DeclarationError(source, f"output: {name} holds itself; a column cannot be recursive")
        return {**expand(definitions[name], (*within, name)), **beside}

    return expand(schema, ())


def _strict(node: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a JSON schema that both vendors enforce; bounds go into the description."""
    strict = {key: node[key] for key in ("type", "enum", "pattern") if key in node}
    if "const" in node:
        strict["enum"] = [node["const"]]
    if node.get("format") in _FORMATS:
        strict["format"] = node["format"]
    if description := _description(node):
        strict["description"] = description
    if "anyOf" in node:
        strict["anyOf"] = [_strict(option) for option in node["anyOf"]]
    if "items" in node:
        strict["items"] = _strict(node["items"])
    if "properties" in node:
        strict["properties"] = {name: _strict(value) for name, value in node["properties"].items()}
        strict |= {"required": list(node["properties"]), "additionalProperties": False}
    return strict


def _description(node: Mapping[str, Any]) -> str:
    told = [f"{key}: {node[key]}" for key in _BOUNDS if key in node]
    if "format" in node and node["format"] not in _FORMATS:
        told.append(f"format: {node['format']}")
    return " ".join([node.get("description", ""), f"({', '.join(told)})" if told else ""]).strip()


# -- a JSON schema -> columns ------------------------------------------------------------------------------


def _frame_schema(schema: Mapping[str, Any], source: str) -> dict[str, pl.DataType]:
    """Column name -> type for the fields of an object schema."""
    if not schema.get("properties"):
        title = schema.get("title", "the model")
        raise DeclarationError(source, f"output: {title} has no fields to fill columns with")
    return {name: _dtype(node, name, source) for name, node in schema["properties"].items()}


def _dtype(node: Mapping[str, Any], path: str, source: str) -> pl.DataType:
    """The column type that holds every value of a JSON schema."""
    kind = node.get("type")
    if "anyOf" in node:
        options = [option for option in node["anyOf"] if option.get("type") != "null"]
        if len(options) == 1:
            return _dtype(options[0], path, source)
    elif kind == "array" and isinstance(node.get("items"), dict):
        return pl.List(_dtype(node["items"], f"{path}.items", source))
    elif kind == "object" and node.get("properties"):
        inner = {name: _dtype(value, f"{path}.{name}", source) for name, value in node["properties"].items()}
        return pl.Struct(inner)
    elif kind == "string":
        return {"date": pl.Date(), "date-time": _UTC}.get(node.get("format", ""), pl.String())
    elif kind in _FRAME_SCALARS:
        return _FRAME_SCALARS[kind]
    raise DeclarationError(
        source,
        f"output field {path}: no column type holds all of its values; use string, integer, number, boolean, "
        "date, datetime, a list of one type or a model with declared fields",
    )


def _as_text(schema: Mapping[str, pl.DataType]) -> dict[str, pl.DataType]:
    return {name: _text_dtype(dtype) for name, dtype in schema.items()}


def _text_dtype(dtype: PolarsDataType) -> pl.DataType:
    """The type to decode JSON with: dates and datetimes as the strings that they are in JSON."""
    if isinstance(dtype, pl.List):
        return pl.List(_text_dtype(dtype.inner))
    if isinstance(dtype, pl.Struct):
        return pl.Struct({inner.name: _text_dtype(inner.dtype) for inner in dtype.fields})
    whole = dtype if isinstance(dtype, pl.DataType) else dtype()
    return pl.String() if whole.is_temporal() else whole


def _cast(column: pl.Expr, dtype: PolarsDataType) -> pl.Expr:
    """The decoded column in its own type."""
    if not _holds_time(dtype):
        return column
    if isinstance(dtype, pl.List):
        return column.list.eval(_cast(pl.element(), dtype.inner))
    if isinstance(dtype, pl.Struct):
        inner = [_cast(column.struct.field(f.name), f.dtype).alias(f.name) for f in dtype.fields]
        return pl.when(column.is_not_null()).then(pl.struct(inner))
    if isinstance(dtype, pl.Date):
        return column.str.to_date("%Y-%m-%d")
    return utc(column)


def _holds_time(dtype: PolarsDataType) -> bool:
    return _text_dtype(dtype) != dtype


def utc(column: pl.Expr) -> pl.Expr:
    """ISO 8601 texts as Datetime("us", "UTC"); those without an offset are taken as UTC."""
    zoned = pl.when(column.str.contains(r"(Z|[+-]\d\d:\d\d)$")).then(column).otherwise(column + "Z")
    return zoned.str.to_datetime("%+", time_unit="us", time_zone="UTC")


# -- errors ------------------------------------------------------------------------------------------------


def _told(error: ValidationError) -> str:
    """The first errors of a validation, without input values."""
    details = error.errors(include_input=False, include_url=False, include_context=False)
    told = "; ".join(_detail(detail) for detail in details[:3])
    more = f" (and {len(details) - 3} more)" if len(details) > 3 else ""
    return told[: ERROR_CHARS_MAX - len(more)] + more


def _detail(detail: ErrorDetails) -> str:
    kind, steps = detail["type"], [str(step)[:64] for step in detail["loc"]]
    if kind == "extra_forbidden":
        steps[-1] = "(undeclared)"  # the key is the answer's own text
    message = detail["msg"] if kind in _QUOTABLE else "refused by a validator of the model"
    return f"{'.'.join(steps) or 'answer'}: {message} [{kind}]"


def _misfits(value: Any, path: str = "answer") -> Iterator[str]:
    """What no column can hold: integers beyond 64 bits, NaN and infinities, moments before the year 1."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _misfits(inner, f"{path}.{key}")
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            yield from _misfits(inner, path)
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        yield f"{path}: the integer does not fit into 64 bits"
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{path}: the number is not finite"
    elif isinstance(value, datetime) and not _has_utc(value):
        yield f"{path}: the moment is out of range"


def _has_utc(moment: datetime) -> bool:
    try:
        _in_utc(moment)
    except ValueError:
        return False
    return True
