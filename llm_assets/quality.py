"""What answers say, in shares. How these move from partition to partition shows that documents or answers changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import polars as pl

from llm_assets.enrichment import Output
from llm_assets.evidence import UNSUPPORTED

_VALUES_MAX = 12
_SHARES_MAX = 40


def answer_shares(answers: pl.LazyFrame, output: Output) -> dict[str, float]:
    """The shares of the rows of `enriched` that say something, by `field=value`.

    Of fields that are yes or no, or one of a few declared values, each value; of those that may be missing, `null`;
    and, where evidence was looked for, `unsupported`. No value is told that is not declared. Empty without rows.
    """
    said = dict(islice(_said(output.json_schema["properties"]), _SHARES_MAX))
    if UNSUPPORTED in answers.collect_schema():
        said["unsupported"] = pl.col(UNSUPPORTED).list.len() > 0
    found = answers.select(**{name: says.fill_null(False).mean() for name, says in said.items()}).collect()
    return {name: share for name, share in found.row(0, named=True).items() if share is not None} if said else {}


def _said(fields: Mapping[str, Any]) -> Iterator[tuple[str, pl.Expr]]:
    for name, schema in fields.items():
        options = schema.get("anyOf", [schema])
        for value in _values(options):
            yield f"{name}={value}", pl.col(name) == value
        if any(option.get("type") == "null" for option in options):
            yield f"{name}=null", pl.col(name).is_null()


def _values(options: list[Mapping[str, Any]]) -> list[Any]:
    """The values that are declared; none where there are too many for a person to look at."""
    if any(option.get("type") == "boolean" for option in options):
        return [True]
    values = [value for option in options for value in option.get("enum", ())]
    return values if len(values) <= _VALUES_MAX else []
