"""The tutorial and the walk, word for word, in a copy of the project; and what `dg scaffold` refuses."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llm_assets_tests.ports import free_port

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The project as somebody else has it."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "llm_assets", folder / "llm_assets", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "workspace.yaml", "dagster.yaml"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def shell(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run in the copy, with its code and nothing of the user's environment that leads elsewhere."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LLM_ASSETS_", "DAGSTER_"))}
    environment = kept | {"PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(folder), "NO_COLOR": "1"}
    command = ["bash", "-euc", script]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=180, check=False
    )


def test_the_tutorial_leads_from_a_file_to_answers(copy: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "tutorial.md").read_text(), flags=re.DOTALL)
    script = "\n".join(["trap 'kill %1' EXIT", *blocks]).replace("8089", str(free_port()))

    done = shell(script, copy)

    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^ticket_mood +tickets +openai +", done.stdout, flags=re.MULTILINE)
    answers = dict(re.findall(r"│ (T-\d) +┆ \w+ +┆ (\w+) +│", done.stdout))
    assert answers == {"T-1": "negative", "T-2": "positive", "T-3": "neutral"}

    (copy.parent / "elsewhere").mkdir()
    again = shell("cd ../elsewhere; OPENAI_API_KEY=k llm-assets run ticket_mood --partition 2026-11-01", copy)
    assert again.returncode == 2
    assert f"this project keeps its tables in {copy / '.llm_assets'}: go to {copy}, or set" in again.stderr
    assert not list((copy.parent / "elsewhere").iterdir())


def test_the_walk_leads_from_a_file_on_s3_to_answers_on_s3_in_under_ten_commands(copy: Path) -> None:
    page = (ROOT / "docs" / "walk.md").read_text()
    steps = re.findall(r"^\*\*(\d+)\.\*\*", page, flags=re.MULTILINE)
    assert [int(step) for step in steps] == list(range(1, len(steps) + 1))
    assert len(steps) == len(re.findall(r"^```\w*\n.*?^```$", page, flags=re.MULTILINE | re.DOTALL)) < 10
    blocks = re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL)
    script = "\n".join(["trap 'kill $(jobs -p)' EXIT", *blocks])
    script = script.replace("8089", str(free_port())).replace("8333", str(free_port()))

    done = shell(script, copy)

    assert done.returncode == 0, done.stdout + done.stderr
    answers = dict(re.findall(r"│ (T-\d) +┆ \w+ +┆ (\w+) +│", done.stdout))
    assert answers.keys() == {"T-1", "T-2", "T-3"}
    assert set(answers.values()) <= {"quality", "price", "delivery", "service", "other"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(
            "Enrichment Ticket-Mood", "'Ticket-Mood' is no name: lower-case letters", id="a name that is none"
        ),
        pytest.param("Documents tickets --format python", "only YAML is scaffolded", id="Python"),
    ],
)
def test_what_is_not_scaffolded_is_told(copy: Path, arguments: str, told: str) -> None:
    done = shell(f"dg scaffold defs llm_assets.components.{arguments}", copy)
    assert done.returncode != 0
    assert told in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("found", "instead", "told"),
    [
        pytest.param(
            "max_tokens",
            "max_tokenz",
            "{place} (max_tokenz): there is no such key; did you mean `max_tokens`?",
            id="a strange key",
        ),
        pytest.param("max_tokens: ", "max_tokens: so ", "{place} (max_tokens): input should be a valid int", id="type"),
        pytest.param("max_tokens: ", "budget: ", "{place} (budget): input should be an object", id="no mapping"),
        pytest.param(
            "components.Enrichment",
            "components.Enrichmnt",
            "defs.yaml:2: llm_assets.components has no Enrichmnt; did you mean Enrichment?",
            id="a misspelt type",
        ),
        pytest.param(
            "name: letter_topics",
            "name: review_sentiment",
            "the name 'review_sentiment' is declared 2 times, in llm_assets/defs/letter_topics/defs.yaml:",
            id="a name that is taken",
        ),
        pytest.param("  max_tokens", "   max_tokens", "{place}: no YAML: ", id="a blank too many"),
    ],
)
def test_what_is_wrong_with_a_declaration_is_told_in_one_line(copy: Path, found: str, instead: str, told: str) -> None:
    declared = copy / "llm_assets" / "defs" / "letter_topics" / "defs.yaml"
    lines = declared.read_text().splitlines()
    line = next(number for number, text in enumerate(lines, 1) if "max_tokens" in text)
    declared.write_text("\n".join(lines).replace(found, instead))

    done = shell("llm-assets check", copy)

    assert done.returncode == 2
    (said,) = done.stderr.splitlines()
    assert told.format(place=f"{declared.relative_to(copy)}:{line}") in said


def test_a_price_of_a_model_that_nobody_asks_is_told(copy: Path) -> None:
    declared = copy / "llm_assets" / "defs" / "spending" / "defs.yaml"
    price = "{provider: openai, model_name: gpt-6-lunna, batch: {input: 0.1, output: 0.2}}"
    declared.write_text(f"{declared.read_text()}  prices: [{price}]\n")

    done = shell("llm-assets check", copy)

    assert done.returncode == 0
    assert "no enrichment asks openai gpt-6-lunna; did you mean 'gpt-6-luna'?" in done.stderr
