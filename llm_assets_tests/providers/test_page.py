"""The page on providers: each part of the contract, no other, and each provider with its caveat."""

import re
from pathlib import Path

import pytest

from llm_assets.providers import NAMES, Client, Dialect, caveat

PAGE = (Path(__file__).parents[2] / "docs" / "providers.md").read_text()


def firsts(after: str) -> set[str]:
    """The names in the first column of the table that follows these words."""
    text = PAGE.split(after, 1)[1].lstrip("\n").split("\n\n", 1)[0]
    rows = re.findall(r"^\| (`.*?`) \|", text, flags=re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


@pytest.mark.parametrize(
    ("contract", "after", "elsewhere"),
    [
        pytest.param(Dialect, "What a dialect says and does:\n", set(), id="dialect"),
        pytest.param(Client, "of key and `base_url`:\n", {"account", "base_url"}, id="client"),
    ],
)
def test_every_part_of_the_contract_is_told(contract: type, after: str, elsewhere: set[str]) -> None:
    parts = {*vars(contract), *contract.__annotations__}
    assert firsts(after) == {name for name in parts if not name.startswith("_")} - elsewhere


def test_every_provider_is_told_with_its_caveat() -> None:
    rows = PAGE.split("known to work? |\n", 1)[1].split("\n\n", 1)[0].splitlines()[1:]
    experimental = {row.split("`")[1]: "experimental" in row for row in rows}
    assert experimental == {name: bool(caveat(name)) for name in NAMES}
