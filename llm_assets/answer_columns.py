"""An answer's JSON schema → the columns of a table, and answers as JSON → those columns. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl
from polars.datatypes import DataTypeClass

from llm_assets.column_types import TYPES
from llm_assets.errors import DeclarationError

PolarsDataType = pl.DataType | DataTypeClass  # what polars says that its own nested types hold


def decoded(canonical: pl.Series, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """JSON texts, each an object with every field of the schema or null, as columns: as many rows, null for null."""
    found = canonical.str.json_decode(pl.Struct(_as_text(schema)))
    columns = [_cast(pl.col(name), dtype).alias(name) for name, dtype in schema.items()]
    return found.struct.unnest().select(columns)


def columns_of(schema: Mapping[str, Any], source: str) -> dict[str, pl.DataType]:
    """Column name -> type for the fields of an object schema."""
    if not schema.get("properties"):
        title = schema.get("title", "the model")
        raise DeclarationError(source, f"output: {title} has no fields to fill columns with")
    return {name: _dtype(node, name, source) for name, node in schema["properties"].items()}


def holds_time(dtype: PolarsDataType) -> bool:
    """Whether a column's values are dates or datetimes, or hold some."""
    return _text_dtype(dtype) != dtype


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
        return {"date": TYPES["date"], "date-time": TYPES["datetime"]}.get(node.get("format", ""), pl.String())
    elif kind in ("integer", "number", "boolean"):
        return TYPES[kind]
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
    if not holds_time(dtype):
        return column
    if isinstance(dtype, pl.List):
        return column.list.eval(_cast(pl.element(), dtype.inner))
    if isinstance(dtype, pl.Struct):
        inner = [_cast(column.struct.field(f.name), f.dtype).alias(f.name) for f in dtype.fields]
        return pl.when(column.is_not_null()).then(pl.struct(inner))
    if isinstance(dtype, pl.Date):
        return column.str.to_date("%Y-%m-%d")
    return _utc(column)


def _utc(column: pl.Expr) -> pl.Expr:
    """ISO 8601 texts as Datetime("us", "UTC"); those without an offset are taken as UTC."""
    zoned = pl.when(column.str.contains(r"(Z|[+-]\d\d:\d\d)$")).then(column).otherwise(column + "Z")
    return zoned.str.to_datetime("%+", time_unit="us", time_zone="UTC")
