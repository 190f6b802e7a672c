"""The page on kinds of work shows what is shipped, and every kind that can be asked for is on it."""

import re
from pathlib import Path

import yaml

from llm_assets.definitions import defs
from llm_assets.demo import KINDS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "kinds.md").read_text()


def test_every_declaration_on_the_page_is_one_that_is_shipped() -> None:
    blocks = re.findall(r"```yaml\n# (\S+)\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(blocks) == PAGE.count("```yaml")
    for path, block in blocks:
        assert yaml.safe_load(block) == yaml.safe_load((ROOT / path).read_text()), path


def test_every_kind_is_on_the_page_and_all_that_it_shows_is_declared() -> None:
    keys = {key.to_user_string() for key in defs().resolve_asset_graph().get_all_asset_keys()}
    for name, kind in KINDS.items():
        assert f"| `{name}` |" in PAGE
        assert {f"documents/{kind.documents}", *(f"{one}/enriched" for one in kind.all_enrichments)} <= keys
        assert not kind.evaluation or f"{kind.evaluation}/comparison" in keys
