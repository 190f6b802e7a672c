"""The comparison over labelled sentences: what it reads, compares and says. How good a model is, no test asserts."""

from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from bench.sentiment import CELLS, answers, main, numbers, sample, table
from llm_assets.evaluation import score

LINES = "I love it, a great film.\t1\nTerrible, a waste of time.\t0\nGood\x85 value, works fine.\t1\nIt broke.\t0\n"


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    for name in ("films", "phones"):
        (tmp_path / f"{name}_labelled.txt").write_text(LINES, encoding="utf-8")
    return tmp_path


def test_a_sample_has_as_many_of_each_file_and_is_always_the_same(reviews: Path) -> None:
    found = sample(reviews, 4)
    assert found["label"].to_list().count("positive") == 4
    assert any("\x85" in text for text in found["text"])
    assert sample(reviews, 2).equals(sample(reviews, 2))
    assert sample(reviews / "nowhere", 2).is_empty()


def test_cells_are_asked_and_compared(reviews: Path, tmp_path: Path) -> None:
    cells = tuple(replace(cell, model="scripted") for cell in CELLS)
    said = answers(cells, sample(reviews, 4), tmp_path / "work", lambda told: None)
    assert said.height == 3 * 8
    scores = score(said, {})
    assert dict(scores.cells.select("cell", "accuracy").iter_rows())["lexicon"] == 1
    assert table(scores).row_count == len(numbers(scores)["cells"]) == 3


def test_without_the_sentences_it_says_where_it_looked(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(main)
    said = CliRunner().invoke(app, ["--reviews", str(tmp_path)])
    assert said.exit_code == 2
    assert "no *_labelled.txt" in said.output
