"""Answers × texts → which values of an answer do not stand in the text that was asked about.

Pure. A model that extracts may make values up that look right; what was declared as evidence is looked for, whatever
the prompt begged for.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from functools import lru_cache
from typing import Any

import polars as pl

UNSUPPORTED = "unsupported"
_NUMBER = re.compile(r"\d[\d.,'\u00a0\u202f]*")
_GROUPS = re.compile(r"[.,'\u00a0\u202f](?=\d{3}(?:\D|$))")
_DATES = ("%Y-%m-%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d %B %Y", "%B %d, %Y", "%d %b %Y")
_ZERO = re.compile(r"\b0(?=\d)")


def unsupported(answers: pl.DataFrame, paths: Sequence[str], texts: pl.Series) -> pl.Series:
    """For each row the paths of the values that its text does not hold: List(String), null where there is no text.

    A path is a field, or fields with dots between them; lists are gone through. Texts are compared without regard to
    case and blanks, numbers by value however their thousands are set off, dates in the usual ways of writing them. What
    is null says nothing and needs no evidence.
    """
    fields = sorted({path.partition(".")[0] for path in paths})
    rows = answers.select(fields).iter_rows(named=True)
    found = [
        None if text is None else [path for path in paths if not _holds(text, row, path)]
        for row, text in zip(rows, texts, strict=True)
    ]
    return pl.Series(UNSUPPORTED, found, dtype=pl.List(pl.String()))


def path_problem(schema: Mapping[str, pl.DataType], path: str) -> str | None:
    """Why there is no such value in answers with these columns; None when there is."""
    dtype: Any = pl.Struct(dict(schema))
    for step in path.split("."):
        while isinstance(dtype, pl.List):
            dtype = dtype.inner
        there = {field.name: field.dtype for field in dtype.fields} if isinstance(dtype, pl.Struct) else {}
        if step not in there:
            return f"{step!r} is none of {', '.join(there) or 'its fields: it has none'}"
        dtype = there[step]
    while isinstance(dtype, pl.List):
        dtype = dtype.inner
    return "it is an object: name one of its fields" if isinstance(dtype, pl.Struct) else None


def _holds(text: str, row: Mapping[str, Any], path: str) -> bool:
    return all(_is_in(value, text) for value in _values(row, path.split(".")))


def _values(found: Any, steps: Sequence[str]) -> Iterator[Any]:
    if isinstance(found, list):
        for each in found:
            yield from _values(each, steps)
    elif steps and isinstance(found, Mapping):
        yield from _values(found[steps[0]], steps[1:])
    elif found is not None:
        yield found


def _is_in(value: Any, text: str) -> bool:
    if isinstance(value, bool):
        return True  # true and false stand in no text
    if isinstance(value, int | float):
        return abs(value) in _numbers(text)
    if isinstance(value, datetime | date):
        return any(_plain(value.strftime(way)) in _plain(text) for way in _DATES)
    return _plain(str(value)) in _plain(text)


@lru_cache(maxsize=8)
def _plain(text: str) -> str:
    """Without what differs between a value and the place that it was taken from: case, blanks, leading zeros."""
    return _ZERO.sub("", " ".join(unicodedata.normalize("NFKC", text).casefold().split()))


@lru_cache(maxsize=8)
def _numbers(text: str) -> frozenset[float]:
    """The numbers of a text, each in all ways in which it may be meant: 1,234 is a thousand and more, or 1.234."""
    found: set[float] = set()
    for token in _NUMBER.findall(text):
        bare = token.rstrip(".,'\u00a0\u202f")
        for form in (bare, _GROUPS.sub("", bare), bare.replace(".", "").replace(",", ".")):
            try:
                found.add(float(form.replace(",", "") if form.count(",") > 1 else form.replace(",", ".")))
            except ValueError:
                continue
    return frozenset(found)
