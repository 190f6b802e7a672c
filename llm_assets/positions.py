"""Where in a YAML file a problem is: the line and the key of what it names.

A problem says which key it is about (`limits.requests is 0; …`) or what it found there (`'antropic' is unknown`). So
whoever finds it need not know about files, and whoever reads it need not look for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

_SUFFIXES = (".yaml", ".yml")
_DECLARED = "attributes"


@dataclass(frozen=True, slots=True)
class Place:
    """A line, from 1, and the key that stands there, with those above it: `limits.requests`."""

    line: int
    key: str


@dataclass(frozen=True, slots=True)
class _Entry:
    path: tuple[str, ...]
    value: str | None  # of what is no mapping and no list
    line: int

    def rank(self, problem: str) -> tuple[int, int]:
        """How much speaks for a problem being about this, and then how early it is named there."""
        by_path, by_key = _named(".".join(self.path), problem), _named(self.path[-1], problem)
        named = 2 + len(self.path) if by_path is not None else 2 * (by_key is not None)
        found = 2 * (self.value is not None and repr(self.value) in problem)
        first = by_path if by_path is not None else by_key
        return named + found, -len(problem) if first is None else -first


def place_of(file: str, problem: str) -> Place | None:
    """The place that a problem is most likely about; None when the file is no YAML, or nothing in it is named."""
    if not file.endswith(_SUFFIXES):
        return None
    try:
        documents = list(yaml.compose_all(Path(file).read_text(encoding="utf-8"), yaml.SafeLoader))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    entries = [entry for document in documents for entry in _entries(document)]
    best = max(entries, key=lambda entry: entry.rank(problem), default=None)
    if best is None or best.rank(problem)[0] == 0:
        return None
    return Place(best.line, ".".join(best.path))


def _entries(document: yaml.Node | None) -> Iterator[_Entry]:
    """All that is declared, from the top down."""
    for key, value in document.value if isinstance(document, yaml.MappingNode) else ():
        if key.value == _DECLARED:
            yield from _below(value, ())


def _below(node: yaml.Node, path: tuple[str, ...]) -> Iterator[_Entry]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield _Entry((*path, str(key.value)), _scalar(value), key.start_mark.line + 1)
            yield from _below(value, (*path, str(key.value)))
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            if (value := _scalar(item)) is not None:
                yield _Entry(path, value, item.start_mark.line + 1)
            yield from _below(item, path)


def _scalar(node: yaml.Node) -> str | None:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else None


def _named(key: str, problem: str) -> int | None:
    """Where a problem names a key; None when it does not."""
    found = re.search(rf"(?<![\w./']){re.escape(key)}(?![\w'])", problem)
    return None if found is None else found.start()
