"""What a script can read in a text without understanding it: `Label: value` lines, tables, the first sentences."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

Form = dict[str, str]

_LINE = re.compile(r"^[ \t]*([A-Za-z][A-Za-z _]{0,39}?)[ \t]*:[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)
_ROW = re.compile(r"^[ \t]*\|(.+)\|[ \t]*$", re.MULTILINE)
_RULE = re.compile(r"[-:| ]+")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_DATES = ("%Y-%m-%d", "%d %B %Y", "%d.%m.%Y", "%B %d, %Y")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_SENTENCES = 2
_PARAGRAPHS = 3


def read_form(text: str) -> Form:
    """The values of a text's labelled lines, by label: `Invoice number: 7` is `invoice_number`."""
    return {_name(label): value for label, value in _LINE.findall(text)} if ":" in text else {}


def read_table(text: str) -> list[Form]:
    """The rows of the first table of a text, written with bars, by the names in its first line."""
    lines = [[cell.strip() for cell in row.split("|")] for row in _ROW.findall(text) if not _RULE.fullmatch(row)]
    if not lines:
        return []
    header, *rows = lines
    names = [_name(cell) for cell in header]
    return [dict(zip(names, row, strict=False)) for row in rows]


def first_sentences(text: str) -> str:
    """What a summary of a text may begin with: the first sentences, or the first of each of its first paragraphs."""
    prose = [_prose(paragraph) for paragraph in text.split("\n\n")]
    paragraphs = [_SENTENCE.split(one, _SENTENCES) for one in prose if one]
    if len(paragraphs) < 2:
        return " ".join(sentence for sentences in paragraphs for sentence in sentences[:_SENTENCES])
    return " ".join(sentences[0] for sentences in paragraphs[:_PARAGRAPHS])


def _prose(paragraph: str) -> str:
    return " ".join(line for line in paragraph.splitlines() if line.strip() and not line.rstrip().endswith(":"))


def typed(value: str, schema: dict[str, Any]) -> Any:
    """A value as a schema's type wants it; None when it is none."""
    kind = schema.get("type")
    if kind == "string":
        return _date(value) if schema.get("format") == "date" else value if "format" not in schema else None
    found = _NUMBER.search(value)
    if found is None or kind not in ("integer", "number"):
        return None
    number = float(found[0].replace(",", ""))
    if kind == "number":
        return number
    return int(number) if number.is_integer() else None


def _date(value: str) -> str | None:
    for form in _DATES:
        try:
            return datetime.strptime(value, form).date().isoformat()
        except ValueError:
            continue
    return None


def _name(label: str) -> str:
    return "_".join(label.lower().split())
