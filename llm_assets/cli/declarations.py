"""What Dagster says of declarations that it cannot load → one line: which file and key, and what to write there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from dagster.components.resolved.errors import ResolutionException
from dagster_shared.error import DagsterUnresolvableSymbolError
from pydantic import ValidationError

from llm_assets.positions import place_of

_FILE = "defs.yaml"
_LOADING = re.compile(r"Error while loading component (\S+?)(\[\d+\])?:")
_DUPLICATE = re.compile(r"Duplicate asset key: AssetKey\(\[(.*)\]\)")
_MISSING = re.compile(r"Module `(\S+)` (?:has no attribute `(\S+)`|not found)")
# `attributes.max_tokenz at …/defs.yaml:12`, as Dagster names a place in a declaration.
_PLACE = re.compile(r"(?:attributes\.)?(?P<key>.*) at (?P<file>.*):(?P<line>\d+)")
_TEMPLATE = re.compile(r"(?P<file>.*):(?P<line>\d+) - attributes\.(?P<key>\S+)")
_ALL_KEYS = "docs/configuration.md has all keys"


def told(chain: Sequence[BaseException], folder: Path) -> str | None:
    """The line for an error and what it wraps; None for what is no problem of a declaration.

    `folder` is the one that holds the declarations.
    """
    folder = _near(folder)
    loading = next(filter(None, (_LOADING.search(str(error)) for error in chain)), None)
    for error in chain:
        if isinstance(error, ValidationError):
            wrong = error.errors(include_input=False)
            places = [_PLACE.fullmatch(".".join(map(str, each["loc"]))) for each in wrong]
            if all(places):
                return _misfits([(place, each) for place, each in zip(places, wrong, strict=True) if place])
            if loading:
                return _mistyped(folder, loading[1], wrong)
        if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
            mark = error.problem_mark
            return f"{mark.name}:{mark.line + 1}: no YAML: {error.problem} (column {mark.column + 1})"
        if isinstance(error, ResolutionException) and (place := _TEMPLATE.match(str(error))):
            last = str(error).strip().rpartition("\n")[2].strip(" │|")
            return f"{_shown(place)} ({place['key']}): {last}"
        if isinstance(error, DagsterUnresolvableSymbolError) and (missing := _MISSING.search(str(error))):
            return _no_such_type(folder, *missing.groups())
        if duplicate := _DUPLICATE.search(str(error)):
            return _declared_twice(folder, re.findall(r"'([^']*)'", duplicate[1]))
    return None


def _misfits(found: Sequence[tuple[re.Match[str], Any]]) -> str:
    """What does not fit Dagster's schema of a component, each with its place.

    Where a mapping is expected, the schema takes a template in its stead: nobody who wrote a mapping means that.
    """
    wrong = [each for each in found if not each[0]["key"].endswith(".str")] or list(found)
    lines = [f"{_shown(place)} ({key}): {_misfit(place, key, each)}" for place, key, each in _keyed(wrong)]
    return "; ".join(dict.fromkeys(lines))


def _shown(place: re.Match[str]) -> str:
    return f"{_near(Path(place['file']))}:{place['line']}"


def _near(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _keyed(found: Sequence[tuple[re.Match[str], Any]]) -> Iterator[tuple[re.Match[str], str, Any]]:
    for place, each in found:
        parts = [part for part in place["key"].split(".") if not re.fullmatch(r"[A-Z]\w*Model|str", part)]
        yield place, ".".join(parts), each


def _misfit(place: re.Match[str], key: str, error: Any) -> str:
    if error["type"] == "extra_forbidden":
        near = get_close_matches(key.rpartition(".")[2], _keys_of(place["file"]), n=1)
        return f"there is no such key{f'; did you mean `{near[0]}`?' if near else f'; {_ALL_KEYS}'}"
    if error["type"] == "missing":
        return "is missing"
    return f"{error['msg'][0].lower()}{error['msg'][1:]}; {_ALL_KEYS}"


def _keys_of(file: str) -> set[str]:
    """The keys that a file's component may have, those within keys among them; none where that cannot be told."""
    with suppress(yaml.YAMLError, LookupError, ImportError, AttributeError):  # several in a file, somebody else's
        declared = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
        module, _, name = str(declared["type"]).rpartition(".")
        schema = getattr(import_module(module), name).get_model_cls().model_json_schema()
        return {key for each in (schema, *schema.get("$defs", {}).values()) for key in each.get("properties", ())}
    return set()


def _mistyped(folder: Path, component: str, wrong: Sequence[Any]) -> str:
    """Values of another type than their key's, of which Dagster says the component alone."""
    file = folder / component / _FILE
    lines = []
    for each in wrong:
        key, problem = ".".join(map(str, each["loc"])), f"{each['msg'][0].lower()}{each['msg'][1:]}"
        place = place_of(str(file), key)
        where = f"{file}:{place.line} ({place.key})" if place else f"component {component}: {key}"
        lines.append(f"{where}: {problem}")
    return f"{'; '.join(lines)}. {_ALL_KEYS}"


def _no_such_type(folder: Path, module: str, name: str | None) -> str:
    if name is None:
        where = next(_lines(folder, rf"type:\s*['\"]?{re.escape(module)}\..*"), "a declaration")
        return f"{where}: there is no module {module}; components are llm_assets.components.NAME"
    there = sorted(getattr(import_module(module), "__all__", ()))
    near = get_close_matches(name, there, n=1)
    meant = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(there)}" if there else ""
    where = next(_lines(folder, rf"type:\s*['\"]?{re.escape(module)}\.{re.escape(name)}\b"), "a declaration")
    return f"{where}: {module} has no {name}{meant}"


def _declared_twice(folder: Path, key: Sequence[str]) -> str:
    """Two components of one name, which are found by it: Dagster says only which asset there is twice."""
    for name in key:
        found = list(_lines(folder, rf"\s+name:\s*['\"]?{re.escape(name)}['\"]?\s*(#.*)?"))
        if len(found) > 1:
            return f"the name {name!r} is declared {len(found)} times, in {' and '.join(found)}: give each its own"
    return f"two components make the asset {'/'.join(key)}: give one of them another name"


def _lines(folder: Path, pattern: str) -> Iterator[str]:
    """Where in the declarations a line says so."""
    for file in sorted(folder.rglob(_FILE)):
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").split("\n"), start=1):
            if re.fullmatch(pattern, line):
                yield f"{file}:{number}"
