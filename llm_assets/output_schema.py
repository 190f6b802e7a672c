"""The shape of an answer: one pydantic model, seen as JSON schema, as a validator and as table columns.

The JSON schema is what both vendors can enforce: objects closed, all properties required, optional ones
nullable, references inlined, bounds told in the description (pydantic enforces them here). Nothing in this
module knows a provider, and no message holds a value of an answer.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Literal, get_args

import orjson
import polars as pl
from polars.exceptions import PolarsError
from pydantic import BaseModel, ValidationError
from pydantic.errors import PydanticUserError
from pydantic.json_schema import PydanticJsonSchemaWarning
from pydantic_core import ErrorDetails
from pydantic_core.core_schema import ErrorType

from llm_assets.answer_columns import columns_of, decoded, holds_time
from llm_assets.answer_fields import declared_model, imported_model, in_utc
from llm_assets.errors import DeclarationError, StoreError

ERROR_CHARS_MAX = 200

# Far above what a model can say in one answer; a text beyond is refused before it is parsed.
ANSWER_CHARS_MAX = 2_000_000
ANSWER_BYTES = 512

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
        return cls._of(name, declared_model(name, fields, source), source, foreign=False)

    @classmethod
    def from_class_path(cls, path: str, source: str) -> OutputSchema:
        """The schema of a pydantic class of the user's own, `package.module:Class` or `package.module.Class`.

        Raises DeclarationError when the path leads to no model, or to one that no table can hold.
        """
        model = imported_model(path, source)
        return cls._of(model.__name__, model, source, foreign=True)

    @classmethod
    def _of(cls, name: str, model: type[BaseModel], source: str, *, foreign: bool) -> OutputSchema:
        asked, given = (_inlined(model, mode, source) for mode in ("validation", "serialization"))
        frame_schema = columns_of(asked, source)
        if frame_schema != columns_of(given, source):
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
        return dict(orjson.loads(self._canonical(text) or "{}"))

    def typed(self, answers: pl.Series) -> pl.DataFrame:
        """Validated answers (String, a JSON text or null a row) as the columns of `frame_schema`.

        As many rows as `answers`, null where the text is null. Datetimes without an offset are read as UTC.
        Raises StoreError for a text that is no such answer, where that shows.
        """
        if not self._is_plain:
            return self._typed(answers, self._canonical)
        # In less than half of the time. Of equal keys polars takes the first, validation took the last: of what
        # validated no more is needed than to leave the others out.
        with suppress(PolarsError, orjson.JSONDecodeError):
            found = self._typed(answers, _rewritten)
            if all(found[name].null_count() == answers.null_count() for name in self._always_there):
                return found
        return self._typed(answers, self._canonical)

    def _typed(self, answers: pl.Series, canonical: Callable[[str | None], str | None]) -> pl.DataFrame:
        return decoded(pl.Series(map(canonical, answers), dtype=pl.String), self.frame_schema)

    @cached_property
    def _is_plain(self) -> bool:
        """Whether what an answer says is what the model makes of it: nothing of the user's own, no dates."""
        return not self.foreign and not any(map(holds_time, self.frame_schema.values()))

    @cached_property
    def _always_there(self) -> list[str]:
        """The columns that are null only where there is no answer."""
        return [field.alias or name for name, field in self.model.model_fields.items() if field.is_required()]

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


def _rewritten(text: str | None) -> str | None:
    """The answer without the first of equal keys, which polars would take and validation does not."""
    return None if text is None else orjson.dumps(orjson.loads(text)).decode()


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
        in_utc(moment)
    except ValueError:
        return False
    return True
