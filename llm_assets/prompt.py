"""A prompt file: turns, split before anything is rendered, each a Jinja template for one document's columns.

A line that says `system:`, `user:` or `assistant:` and nothing else begins a turn; text before the first
one is a user turn. As documents are filled in after the split, nothing in a document can begin a turn, and
as a document is a value and never template source, nothing in it is evaluated.

A null column is `none`: `{{ title or '' }}` works, while printing it bare fails the row, as the word "None"
in a paid prompt helps nobody. Messages hold names, kinds and line numbers; never a value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from minijinja import Environment, TemplateError

from llm_assets.errors import DeclarationError, LLMAssetsError
from llm_assets.records import Message

# Instructions that one turn may take: far beyond any prompt, far below a second.
FUEL = 100_000

_MARKER = re.compile(r"(system|user|assistant):[ \t]*")
_ANY_MARKER = re.compile(r"(?!(?:system|assistant):)[A-Za-z]{1,12}:[ \t]*")
_NEAR_MARKER = re.compile(r"\s*#*\s*(system|user|assistant)\s*:\s*", re.IGNORECASE)
_VARIABLE = re.compile(r"\{\{\s*([A-Za-z_]\w*)\s*\}\}", re.ASCII)
_MARKUP = re.compile(r"\{[{%#]|\{\Z")
_FORBIDDEN = re.compile(r"\{%[-+]?\s*(include|import|from|extends|block|do)\b")
# Kinds that are wrong whatever the values are, so that a trial with made-up values finds them.
_TEMPLATE_FAULTS = {"UnknownFilter", "UnknownTest", "UnknownFunction", "UnknownBlock", "TemplateNotFound"}
_MADE_UP = ("x", 1, None)


class PromptFailed(LLMAssetsError):
    """A prompt cannot be rendered for one row; the message holds none of its values."""


@dataclass(frozen=True)
class _Turn:
    """One turn: its template's name in the environments, or its text where it is the same for all rows.

    `pattern` says the same of texts as a template that does nothing but print them, in a tenth of its time.
    """

    role: str
    number: int
    line: int  # of the file, where its template begins
    variables: frozenset[str]
    constant: Message | None = None
    pattern: str | None = None

    @cached_property
    def name(self) -> str:
        return f"turn {self.number} ({self.role})"


@dataclass(frozen=True)
class Prompt:
    """A parsed prompt. `text` is the file as it was parsed; `variables` are the columns that it uses."""

    source: str
    text: str
    variables: frozenset[str]
    turns: tuple[_Turn, ...] = field(repr=False)
    # The same templates twice: noticing a printed null costs a call into Python for each printed value.
    _plain: Environment = field(repr=False, compare=False)
    _wary: Environment = field(repr=False, compare=False)

    @classmethod
    def parse(cls, text: str, source: str) -> Prompt:
        """The prompt in a file's text. Raises DeclarationError when it cannot work for any document."""
        text = text.removeprefix("\ufeff").replace("\r\n", "\n")
        parts = _split(text, source)
        _check_order([role for role, _, _ in parts], text, source)
        plain, wary = _environment(), _environment(finalizer=_printed)
        turns = []
        for number, (role, line, template) in enumerate(parts, start=1):
            turn = _Turn(role, number, line, frozenset())
            turns.append(_compiled(turn, template, (plain, wary), source))
        variables = frozenset[str]().union(*(turn.variables for turn in turns))
        return cls(source, text, variables, tuple(turns), plain, wary)

    def render(self, row: Mapping[str, object]) -> tuple[Message, ...]:
        """One message a turn for a document's columns. Raises PromptFailed, without any of their values."""
        return self.messages(self.texts(row))

    def texts(self, row: Mapping[str, object]) -> list[str]:
        """The texts of those turns that differ from document to document. Raises PromptFailed as `render` does."""
        try:
            values = {name: row[name] for name in self.variables}
        except KeyError:
            missing = ", ".join(sorted(self.variables - row.keys()))
            raise PromptFailed(f"the row has no column {missing}") from None
        if {str}.issuperset(map(type, values.values())):
            return [
                _not_blank(turn, turn.pattern % values) if turn.pattern else _rendered(turn, self._plain, values)
                for turn in self._varying
            ]
        values = {name: _value(value) for name, value in values.items()}
        environment = self._wary if None in values.values() else self._plain
        return [_rendered(turn, environment, values) for turn in self._varying]

    @cached_property
    def _varying(self) -> list[_Turn]:
        return [turn for turn in self.turns if turn.constant is None]

    def messages(self, texts: Sequence[str]) -> tuple[Message, ...]:
        """All turns, with these texts for those that differ from document to document."""
        left = iter(texts)
        return tuple([turn.constant or Message(turn.role, next(left)) for turn in self.turns])


def _environment(**options: Any) -> Environment:
    """Templates with nothing in reach but their variables and the pure built-in filters."""
    environment = Environment(
        undefined_behavior="strict",
        auto_escape_callback=lambda _name: False,
        pycompat=False,
        keep_trailing_newline=True,
        debug=False,
        fuel=FUEL,
        **options,
    )
    for name in list(environment.globals):
        environment.remove_global(name)
    return environment


class _PrintedNull(Exception):
    """A template prints a value that is null."""


def _printed(value: object) -> object:
    if value is None:
        raise _PrintedNull
    return value


# -- parsing -----------------------------------------------------------------------------------------------


def _split(text: str, source: str) -> list[tuple[str, int, str]]:
    """(role, line of the file, template) for each turn."""
    parts: list[tuple[str, int, list[str]]] = [("user", 1, [])]
    for number, line in enumerate(text.split("\n"), start=1):
        if marker := _MARKER.fullmatch(line):
            parts.append((marker[1], number + 1, []))
        elif near := _NEAR_MARKER.fullmatch(line):
            raise DeclarationError(
                source,
                f"line {number} looks like a role marker but is none: write `{near[1].lower()}:` in lower "
                f"case at the beginning of the line, or `{{{{ '{near[1]}:' }}}}` if it is meant as text",
            )
        else:
            parts[-1][2].append(line)
    if not "".join(parts[0][2]).strip():
        parts = parts[1:]  # nothing before the first marker
    return [_trimmed(role, line, lines) for role, line, lines in parts]


def _trimmed(role: str, line: int, lines: list[str]) -> tuple[str, int, str]:
    """The turn without the blank lines around it; `line` moves with its first one."""
    body = "\n".join(lines)
    template = body.lstrip("\n")
    return role, line + len(body) - len(template), template.rstrip("\n")


def _check_order(roles: list[str], text: str, source: str) -> None:
    if "user" not in roles:
        raise DeclarationError(source, f"the prompt has no user turn; write one below a line `user:`{_unlike(text)}")
    if "system" in roles[1:]:
        raise DeclarationError(source, "a system turn stands after another turn; only the first can be one")
    if roles[roles[0] == "system"] != "user":
        raise DeclarationError(source, "an assistant turn comes first; a conversation begins with the user")
    if roles[-1] != "user":
        raise DeclarationError(source, "the prompt ends with an assistant turn; the last one must be the user's")


def _unlike(text: str) -> str:
    """Which lines look like the beginning of a turn, and are none."""
    lines = enumerate(text.split("\n"), start=1)
    near = [f"line {number} is `{line.strip()}`" for number, line in lines if _ANY_MARKER.fullmatch(line)]
    return f" ({', '.join(near[:3])})" if near else ""


def _compiled(turn: _Turn, template: str, environments: tuple[Environment, ...], source: str) -> _Turn:
    """The turn with its variables, or with its message when it has none."""
    _check_template(turn, template, source)
    try:
        for environment in environments:
            environment.add_template(turn.name, template)
        variables = frozenset(environments[0].undeclared_variables_in_template(turn.name))
    except TemplateError as error:
        raise DeclarationError(source, _told(turn, error, detailed=True)) from None
    turn = _Turn(turn.role, turn.number, turn.line, variables)
    _try(turn, environments[0], source)
    if variables:
        return replace(turn, pattern=_pattern(template, variables))
    try:
        constant = Message(turn.role, _rendered(turn, environments[1], {}))
    except PromptFailed as error:
        raise DeclarationError(source, str(error)) from None
    return replace(turn, constant=constant)


def _pattern(template: str, variables: frozenset[str]) -> str | None:
    """The format for a template that prints variables and does nothing else; None for any other."""
    literals = _VARIABLE.split(template)
    names, literals = literals[1::2], literals[::2]
    if set(names) != variables or any(_MARKUP.search(part) for part in literals):
        return None
    first, *others = (part.replace("%", "%%") for part in literals)
    return first + "".join(f"%({name})s{part}" for name, part in zip(names, others, strict=True))


def _check_template(turn: _Turn, template: str, source: str) -> None:
    if not template.strip():
        raise DeclarationError(source, f"{turn.name}, line {turn.line}: is empty; write or remove it")
    if found := _FORBIDDEN.search(template):
        line = turn.line + template.count("\n", 0, found.start())
        raise DeclarationError(
            source,
            f"{turn.name}, line {line}: `{found[1]}` is not available; a prompt is one file and uses "
            "variables, conditions, loops, set and macros",
        )


def _try(turn: _Turn, environment: Environment, source: str) -> None:
    """Find what no document could make right, by rendering made-up values."""
    # Without any values too: a function that is not there counts as a variable, and a value would hide it.
    for row in ({}, *(dict.fromkeys(turn.variables, value) for value in _MADE_UP)):
        try:
            environment.render_template(turn.name, **row)
        except TemplateError as error:
            if error.kind in _TEMPLATE_FAULTS:
                raise DeclarationError(source, _told(turn, error, detailed=True)) from None
        except Exception:  # noqa: S112 - the made-up value is to blame
            continue


# -- rendering ---------------------------------------------------------------------------------------------


def _value(value: object) -> object:
    """A plain value for a template: dates as ISO text, so that no Python object is in reach."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_value(inner) for inner in value]
    isoformat = getattr(value, "isoformat", None)
    return isoformat() if isoformat else str(value)


def _rendered(turn: _Turn, environment: Environment, values: Mapping[str, object]) -> str:
    try:
        text = environment.render_template(turn.name, **values)
    except TemplateError as error:
        raise PromptFailed(_told(turn, error)) from None
    except _PrintedNull:
        nulls = ", ".join(sorted(name for name in turn.variables if values[name] is None)) or "none"
        raise PromptFailed(
            f"{turn.name} prints a null ({nulls}); write {{{{ column or '' }}}} where a null is fine"
        ) from None
    except Exception as error:
        raise PromptFailed(f"{turn.name}: {type(error).__name__}") from None
    return _not_blank(turn, text)


def _not_blank(turn: _Turn, text: str) -> str:
    if not text or text.isspace():
        raise PromptFailed(f"{turn.name} renders to nothing")
    return text


def _told(turn: _Turn, error: TemplateError, *, detailed: bool = False) -> str:
    """Where and what; `detail` quotes the template only while no values are there to be quoted."""
    line = turn.line + (error.line or 1) - 1
    detail = f": {error.detail[:120]}" if detailed and error.detail else ""
    return f"{turn.name}, line {line}: {error.kind}{detail}"
