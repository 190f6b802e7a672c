"""The runbook: its commands in its order, each in the situation that its section is about; its tables are complete."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from llm_assets.records import ShardState
from llm_assets.waves import Step
from llm_assets_tests.emulator_process import Emulator

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
RUN = "llm-assets run review_sentiment --partition 2026-11-01 --poll-seconds 1"
Shell = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture
def shell(tmp_path: Path, emulator: Emulator) -> Shell:
    """In a copy of the project, with both providers the emulator."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "llm_assets", tmp_path / "llm_assets", ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LLM_ASSETS_", "DAGSTER_"))}
    environment = kept | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": str(tmp_path),
        "NO_COLOR": "1",
        "ANTHROPIC_API_KEY": "any",
        "ANTHROPIC_BASE_URL": emulator.url,
    }

    def run(script: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", "-euc", script]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    return run


def sections() -> dict[str, str]:
    """The commands by heading; those before the first stand under an empty one."""
    found = {}
    for section in re.split(r"^## ", RUNBOOK.partition("\n")[2], flags=re.MULTILINE):
        title, _, rest = section.partition("\n")
        found[title] = "\n".join(re.findall(r"^```sh\n(.*?)^```$", rest, re.M | re.S))
    return {title: commands for title, commands in found.items() if commands}


def test_the_commands_do_what_it_says(shell: Shell, emulator: Emulator, tmp_path: Path) -> None:
    commands = {
        title: text.replace("run review_sentiment", "run review_sentiment --poll-seconds 1")
        for title, text in sections().items()
    }

    def follow(title: str) -> str:
        done = shell(commands.pop(title))
        assert done.returncode == 0, f"{title}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    first = next(iter(commands))
    assert "Nothing was sent yet" in follow(first)

    emulator.faults([{"fault": "http_401", "times": 1}])
    refused = shell(RUN)
    assert refused.returncode == 1
    assert "Nothing more is sent until somebody acts" in refused.stderr
    assert "is held" in shell("llm-assets status").stdout
    told = follow("A key was revoked, or the account is out of money")
    assert "is held" not in told
    documents = emulator.accounting()["requests"]

    assert "review_sentiment" in follow("The bill is too high")
    assert "No claim is open" in follow("A batch is stuck")

    prompt = tmp_path / "llm_assets" / "defs" / "review_sentiment" / "prompt.md"
    prompt.write_text(prompt.read_text().replace("system:\n", "system:\nThink twice.\n", 1))
    assert "requests to send" in follow("A partition must be asked again, with a new prompt")
    assert emulator.accounting()["requests"] == 2 * documents

    told = follow("A document must be erased")
    assert told.index("To be erased") < told.index("Erased")
    for table in (tmp_path / ".llm_assets").rglob("*.parquet"):
        frame = pl.read_parquet(table)
        assert "document_id" not in frame or "r-0002" not in frame["document_id"], table
    assert "No claim is open" in follow("The ledger is restored from a backup")
    assert "review_sentiment" in follow("Postgres, or the bucket, moved")
    assert not commands


@pytest.mark.parametrize("states", [Step, ShardState])
def test_every_state_has_its_row(states: type[Step] | type[ShardState]) -> None:
    rows = re.findall(r"^\| `(\w+)` \|", RUNBOOK, re.M)
    assert {state.value for state in states} <= set(rows)


def test_what_it_names_is_there() -> None:
    told = json.dumps(RUNBOOK)
    for target in re.findall(r"\]\(([^)#:]+)\)", RUNBOOK):
        assert (ROOT / "docs" / target).exists(), target
    commands = "".join(path.read_text() for path in (ROOT / "llm_assets" / "cli").glob("*.py"))
    for command in re.findall(r"`llm-assets (\w+)", told):
        assert f"def {command}" in commands
