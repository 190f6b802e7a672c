"""The page on configuration: each key of each component with its default, no other, and each variable that is read."""

import re
from enum import Enum
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster.components.list import list_all_components_schema
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from llm_assets import components

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "configuration.md").read_text()
COMPONENTS = {
    name: found
    for name in components.__all__
    if isinstance(found := getattr(components, name), type) and issubclass(found, dg.Component)
}


def table(section: str) -> dict[str, str]:
    """The defaults that a section's table tells, by key."""
    text = PAGE.split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    return dict(re.findall(r"^\| `(\w+)` \| (\S+) \|", text, flags=re.MULTILINE))


def told(field: FieldInfo) -> str:
    """A default as the page writes it."""
    default: Any = field.get_default(call_default_factory=True)
    if default is PydanticUndefined:
        return "—"
    if isinstance(default, dg.Model):
        return "`{}`"
    value = default.value if isinstance(default, Enum) else default
    words = {None: "null", True: "true", False: "false"}
    return f"`{words[value] if value is None or isinstance(value, bool) else value}`"


@pytest.mark.parametrize("name", COMPONENTS)
def test_every_key_is_told_with_its_default(name: str) -> None:
    fields: dict[str, FieldInfo] = COMPONENTS[name].model_fields  # type: ignore[attr-defined]
    assert table(name) == {key: told(field) for key, field in fields.items()}


@pytest.fixture(scope="module")
def editors() -> Draft202012Validator:
    """What `dg utils generate-component-schema` writes for editors."""
    return Draft202012Validator(list_all_components_schema(entry_points=True, extra_modules=()))


@pytest.mark.parametrize("path", sorted(ROOT.glob("llm_assets/defs/*/defs.yaml")), ids=lambda path: path.parent.name)
def test_what_is_shipped_obeys_the_schema_for_editors(editors: Draft202012Validator, path: Path) -> None:
    editors.validate(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize(
    "mistake",
    [{"provder": "openai"}, {"max_tokens": [1]}, {"keep": 3}, {"budget": {"partition_eur": 1}}],
    ids=lambda mistake: next(iter(mistake)),
)
def test_mistakes_do_not(editors: Draft202012Validator, mistake: dict[str, Any]) -> None:
    declared = yaml.safe_load((ROOT / "llm_assets/defs/review_sentiment/defs.yaml").read_text())
    declared["attributes"] |= mistake
    assert not editors.is_valid(declared)


def test_every_variable_that_is_read_is_told() -> None:
    sources = [*ROOT.glob("llm_assets/**/*.py"), *ROOT.glob("llm_assets/**/defs.yaml")]
    read = {name for path in sources for name in re.findall(r"\bLLM_ASSETS_[A-Z_]*[A-Z]\b", path.read_text())}
    assert read == set(re.findall(r"`(LLM_ASSETS_\w+)`", PAGE))
