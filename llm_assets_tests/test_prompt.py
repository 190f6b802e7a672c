"""A prompt: turns split before rendering, variables known, documents that come through unchanged."""

from __future__ import annotations

import re
import traceback
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_assets.errors import DeclarationError
from llm_assets.prompt import Prompt, PromptFailed
from llm_assets.records import Message

FEW_SHOT = """\
system:
You label reviews.

user:
Great!
assistant:
positive

user:
{{ title or '' }}
{{ text }}
"""


def rendered(template: str, **row: object) -> str:
    (message,) = Prompt.parse(template, "prompt.md").render(row)
    return message.text


def test_markers_split_a_file_into_turns() -> None:
    prompt = Prompt.parse(FEW_SHOT, "prompt.md")
    assert prompt.variables == {"title", "text"}
    assert prompt.render({"text": "Meh.", "title": None, "unused": object()}) == (
        Message("system", "You label reviews."),
        Message("user", "Great!"),
        Message("assistant", "positive"),
        Message("user", "\nMeh."),
    )


@pytest.mark.parametrize(
    ("template", "turns"),
    [
        pytest.param("{{ text }}", [("user", "T")], id="no marker: one user turn"),
        pytest.param("\n\nuser:\n\n{{ text }}\n\n\n", [("user", "T")], id="blank lines around a turn are not part"),
        pytest.param("user:\na\n\nb {{ text }}", [("user", "a\n\nb T")], id="blank lines within it are"),
        pytest.param("  {{ text }}  \n", [("user", "  T  ")], id="spaces are kept"),
        pytest.param("user:  \n{{ text }}", [("user", "T")], id="spaces after a marker"),
        pytest.param("\ufeffuser:\r\na\r\n{{ text }}\r\n", [("user", "a\nT")], id="saved by a Windows editor"),
        pytest.param(
            "first {{ text }}\nassistant:\nx\nuser:\ny",
            [("user", "first T"), ("assistant", "x"), ("user", "y")],
            id="text before a marker",
        ),
        pytest.param("The user: {{ text }}", [("user", "The user: T")], id="a marker is a whole line"),
        pytest.param("{{ 'user:' }}\n{{ text }}", [("user", "user:\nT")], id="a marker as text"),
        pytest.param("{% raw %}{{ text }}{% endraw %}{# note #}", [("user", "{{ text }}")], id="raw and comments"),
    ],
)
def test_turns(template: str, turns: list[tuple[str, str]]) -> None:
    messages = Prompt.parse(template, "prompt.md").render({"text": "T"})
    assert [(message.role, message.text) for message in messages] == turns


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("", "the prompt has no user turn; write one below a line `user:`"),
        ("system:\nx", "the prompt has no user turn; write one below a line `user:`"),
        ("user:\n{{ text }}\nassistant:\nx", "the prompt ends with an assistant turn; the last one must be the user's"),
        ("user:\nx\nsystem:\ny\nuser:\nz", "a system turn stands after another turn; only the first can be one"),
        ("assistant:\nx\nuser:\ny", "an assistant turn comes first; a conversation begins with the user"),
        ("system:\nx\nuser:\n\n", "turn 2 (user), line 5: is empty; write or remove it"),
        (
            "System:\nx\nuser:\ny",
            "line 1 looks like a role marker but is none: write `system:` in lower case at the beginning of the "
            "line, or `{{ 'System:' }}` if it is meant as text",
        ),
        (
            "x\n # user:\ny",
            "line 2 looks like a role marker but is none: write `user:` in lower case at the beginning of the "
            "line, or `{{ 'user:' }}` if it is meant as text",
        ),
        (
            "a\n\nuser:\nb\n{{ text",
            "turn 2 (user), line 5: SyntaxError: unexpected end of input, expected end of variable block",
        ),
        ("{% if text %}x", "turn 1 (user), line 1: SyntaxError: unexpected end of input, expected end of block"),
        ("a\n{{ text|nosuch }}", "turn 1 (user), line 2: UnknownFilter: filter nosuch is unknown"),
        ("{{ text is nosuch }}", "turn 1 (user), line 1: UnknownTest: test nosuch is unknown"),
        ("{{ range(3) }}", "turn 1 (user), line 1: UnknownFunction: range is unknown"),
        ("{{ self.x() }}", "turn 1 (user), line 1: UnknownBlock: block 'x' not found"),
        (
            "a\n{% include 'secrets' %}",
            "turn 1 (user), line 2: `include` is not available; a prompt is one file and uses variables, conditions, "
            "loops, set and macros",
        ),
        (
            "{%- extends 'x' %}",
            "turn 1 (user), line 1: `extends` is not available; a prompt is one file and uses variables, conditions, "
            "loops, set and macros",
        ),
        ("{% for x in [1]*100000000 %}{% endfor %}", "turn 1 (user), line 1: OutOfFuel"),
        ("{{ none }}", "turn 1 (user) prints a null (none); write {{ column or '' }} where a null is fine"),
        ("{{ '' }}", "turn 1 (user) renders to nothing"),
    ],
)
def test_bad_prompt(template: str, problem: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        Prompt.parse(template, "prompt.md")
    assert str(caught.value) == f"prompt.md: {problem}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x", "x"),
        ("<b>&'\"", "<b>&'\""),
        (7, "7"),
        (2**62 + 1, "4611686018427387905"),
        (1.5, "1.5"),
        (True, "True"),
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, 3, 4, tzinfo=UTC), "2026-01-02T03:04:00+00:00"),
        (Decimal("1.20"), "1.20"),
        (["a", date(2026, 1, 2)], "['a', '2026-01-02']"),
        ({"a": {"b": None}}, "{'a': {'b': None}}"),
    ],
)
def test_values(value: object, text: str) -> None:
    assert rendered("{{ value }}", value=value) == text


@pytest.mark.parametrize(
    ("template", "row", "problem"),
    [
        ("{{ text }} {{ title }}", {"text": "SECRET"}, r"the row has no column title"),
        ("{{ text }} {{ title }}", {"text": "SECRET", "title": None}, r"turn 1 \(user\) prints a null \(title\).*"),
        ("a\n{{ text.x.y }}", {"text": "SECRET"}, r"turn 1 \(user\), line 2: UndefinedError"),
        ("{{ text + 1 }}", {"text": "SECRET"}, r"turn 1 \(user\), line 1: InvalidOperation"),
        ("{{ text|int }}", {"text": "SECRET"}, r"turn 1 \(user\), line 1: InvalidOperation"),
        ("{{ text|format(1) }}", {"text": "SECRET %q"}, r"turn 1 \(user\), line 1: InvalidOperation"),
        ("{{ text.isoformat() }}", {"text": date(2026, 1, 2)}, r"turn 1 \(user\), line 1: UnknownMethod"),
        ("{{ text.SECRET() }}", {"text": {"a": 1}}, r"turn 1 \(user\): AttributeError"),
        ("{{ text }}", {"text": " \n\u2003"}, r"turn 1 \(user\) renders to nothing"),
        (
            "{% for a in text %}{% for b in text %}{% endfor %}{% endfor %}",
            {"text": "x" * 10_000},
            r"turn 1 \(user\), line 1: OutOfFuel",
        ),
    ],
)
def test_a_row_that_fails_is_told_without_its_values(template: str, row: dict[str, Any], problem: str) -> None:
    prompt = Prompt.parse(template, "prompt.md")
    with pytest.raises(PromptFailed) as caught:
        prompt.render(row)
    assert re.fullmatch(problem, str(caught.value))
    assert "SECRET" not in "".join(traceback.format_exception(caught.value, limit=0))


def test_a_template_cannot_change_the_row() -> None:
    row = {"tags": ["a"]}
    assert rendered("{{ tags.append('b') or '' }}{{ tags|length }}", **row) == "2"
    assert row == {"tags": ["a"]}


def test_a_turn_without_variables_is_rendered_once() -> None:
    prompt = Prompt.parse(FEW_SHOT, "prompt.md")
    one, other = (prompt.render({"text": text, "title": "t"}) for text in "ab")
    assert [a is b for a, b in zip(one, other, strict=True)] == [True, True, True, False]


_ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_MARKUP = ["user:\n", "\nsystem:\n", "assistant:", "{{ title }}", "{% raw %}", "{#", "\r\n", "\u2028", "\0", "&lt;"]
_HOSTILE = st.lists(st.sampled_from(_MARKUP) | _ANY_TEXT).map("".join)


@given(_ANY_TEXT | _HOSTILE)
def test_a_document_comes_through_unchanged(text: str) -> None:
    prompt = Prompt.parse(FEW_SHOT, "prompt.md")
    messages = prompt.render({"text": text, "title": "T"})
    assert [message.role for message in messages] == ["system", "user", "assistant", "user"]
    assert messages[-1].text == f"T\n{text}"
    assert messages == prompt.render({"text": text, "title": "T"})
    if text.strip():
        assert prompt.render({"text": text, "title": None})[-1].text == f"\n{text}"


_PIECES = [
    "{{ a }}",
    "{{b}}",
    "{{\n a\t}}",
    "{",
    "}",
    "{{",
    "}}",
    "%",
    "%s",
    "%(a)s",
    "{%",
    "{#",
    "{{ a -}}",
    "{{ a|upper }}",
]


@given(st.lists(st.sampled_from(_PIECES) | st.text("x \n\r", max_size=3)).map("".join))
def test_texts_are_filled_in_as_the_template_says(template: str) -> None:
    """Templates that do nothing but print take a short cut, which a value that is no text does not."""
    try:
        prompt = Prompt.parse(template, "prompt.md")
    except DeclarationError:
        return
    assert prompt.render({"a": "7", "b": "8"}) == prompt.render({"a": 7, "b": 8})
