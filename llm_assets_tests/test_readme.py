"""The README's own commands and declarations, taken from its text and run."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster.components.testing import create_defs_folder_sandbox

from llm_assets.components.resources import PlatformResource
from llm_assets_tests.emulator_process import Emulator

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The README's code blocks of a language ("" for none)."""
    return [text for kind, text in re.findall(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S) if kind == language]


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]
MAKE = [line for line in COMMANDS if line.startswith("make ")]
OURS = [line for line in COMMANDS if line.startswith("llm-assets ")]


def test_the_readme_shows_the_two_commands_and_how_to_run_a_partition() -> None:
    assert {"make demo", "make dev", "make test"} <= set(MAKE)
    assert [line.split()[1] for line in OURS] == [
        "run",
        "status",
        "preview",
        "cost",
        "failed",
        "reconcile",
        "reconcile",
    ]


@pytest.mark.parametrize("command", MAKE)
def test_make_knows_the_target(command: str) -> None:
    subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, check=True, capture_output=True)


def test_our_commands_run_as_they_are_shown(emulator: Emulator, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DAGSTER")} | {
        "ANTHROPIC_API_KEY": "any",
        "ANTHROPIC_BASE_URL": emulator.url,
        "OPENAI_API_KEY": "any",
        "OPENAI_BASE_URL": f"{emulator.url}/v1",
        "LLM_ASSETS_ROOT": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    shown = {}
    for command in OURS:
        done = subprocess.run(
            [*shlex.split(command), "--json"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        shown[command.split()[1]] = json.loads(done.stdout)
    assert "review_sentiment" in json.dumps(shown["status"])
    assert len(shown["preview"]["answers"]) == 5
    assert [row["enrichment"] for row in shown["cost"]["spending"]] == ["review_sentiment"]
    assert shown["reconcile"] == {"claims": [], "other_accounts": []}


def test_the_enrichment_and_the_documents_that_it_teaches_load() -> None:
    enrichment, documents, spending = sorted(blocks("yaml"), key=_kind)
    (budget,) = [block for block in blocks("") if block.startswith("budget:")]
    enrichment += "".join(f"  {line}\n" for line in budget.splitlines())
    (prompt,) = [block for block in blocks("") if block.startswith("system:")]
    reviews = (ROOT / "llm_assets" / "defs" / "reviews" / "defs.yaml").read_text()
    with create_defs_folder_sandbox() as sandbox:
        declared = {"reviews": reviews, "topic": enrichment, "tickets": documents, "spending": spending}
        for name, text in declared.items():
            (sandbox.defs_folder_path / name).mkdir()
            (sandbox.defs_folder_path / name / "defs.yaml").write_text(text)
        (sandbox.defs_folder_path / "topic" / yaml.safe_load(enrichment)["attributes"]["prompt"]).write_text(prompt)
        with sandbox.build_all_defs() as definitions:
            platform = dg.Definitions(resources={"platform": PlatformResource()})
            specs = dg.Definitions.merge(definitions, platform).resolve_all_asset_specs()
    keys = {spec.key.to_user_string() for spec in specs}
    assert {"documents/tickets", "review_topic/batches", "review_topic/enriched", "review_topic/failed"} <= keys
    assert "spending" in keys


def _kind(declaration: str) -> int:
    """Enrichment, Documents, Spending: the order in which the test takes them."""
    kinds = ("Enrichment", "Documents", "Spending")
    return kinds.index(yaml.safe_load(declaration)["type"].rpartition(".")[2])


def test_every_file_and_variable_it_names_exists() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
    platform = (ROOT / "llm_assets" / "platform.py").read_text()
    for variable in re.findall(r"`(LLM_ASSETS_\w+)`", README):
        assert variable in platform
