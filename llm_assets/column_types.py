"""What columns of documents can be declared as, and how what a file holds becomes that. Pure."""

from __future__ import annotations

import polars as pl

_UTC = pl.Datetime("us", "UTC")
TYPES: dict[str, pl.DataType] = {
    "string": pl.String(),
    "integer": pl.Int64(),
    "number": pl.Float64(),
    "boolean": pl.Boolean(),
    "date": pl.Date(),
    "datetime": _UTC,
}
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}


def storable(dtype: pl.DataType) -> pl.DataType:
    """A column of nothing but nulls is stored as strings, which every reader knows."""
    return pl.String() if dtype == pl.Null else dtype


def as_string(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """A column of this type as strings."""
    return column if dtype == pl.String else column.cast(pl.String)


def converted(column: pl.Expr, dtype: pl.DataType, kind: str) -> pl.Expr:
    """The column as a declared type, null where a value is none of it."""
    target = TYPES[kind]
    if dtype in (target, pl.Null):
        return column.cast(target)
    if dtype.is_nested() or dtype == pl.Binary:
        return pl.lit(None, target)
    if kind == "string":
        return column.cast(pl.String)
    if dtype == pl.String:
        return _parsed(column.str.strip_chars(), kind)
    if kind == "number" and dtype.is_numeric():
        return column.cast(pl.Float64)
    if kind == "integer" and dtype.is_numeric():
        whole = column.cast(pl.Int64, strict=False)
        return pl.when(whole.cast(dtype, strict=False) == column).then(whole)
    if kind == "datetime" and isinstance(dtype, pl.Datetime):
        zoned = column if dtype.time_zone else column.dt.replace_time_zone("UTC")
        return zoned.dt.convert_time_zone("UTC").dt.cast_time_unit("us")
    return pl.lit(None, target)


def _parsed(text: pl.Expr, kind: str) -> pl.Expr:
    if kind == "boolean":
        return text.str.to_lowercase().replace_strict(_BOOLEANS, default=None, return_dtype=pl.Boolean)
    if kind == "date":
        return text.str.to_date("%Y-%m-%d", strict=False)
    if kind == "datetime":
        return _moment(text)
    return text.cast(TYPES[kind], strict=False)


def _moment(text: pl.Expr) -> pl.Expr:
    """ISO 8601 texts as moments: seconds may be missing, and so may the offset, which is UTC then."""
    zoned = pl.when(text.str.contains(r"(Z|[+-]\d\d:?\d\d)$")).then(text).otherwise(text + "Z")
    whole = zoned.str.replace(" ", "T").str.replace(r"(T\d\d:\d\d)(Z|[+-])", "${1}:00${2}")
    return whole.str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False)
