"""Evaluations: scores against known values, what is more than chance, and the page that says so."""

from collections.abc import Sequence
from datetime import UTC, datetime

import polars as pl
import pytest

from llm_assets.comparison_page import comparison_page, verdict
from llm_assets.evaluation import ANSWERS_SCHEMA, FAILED, score, worse

LABELS = ["a", "b"] * 50


def cell(name: str, answers: Sequence[str | None], labels: Sequence[str] = LABELS, usd: float = 0.001) -> pl.DataFrame:
    rows = [
        ("p", f"d{number}", name, label, answer, usd, 10, 2)
        for number, (label, answer) in enumerate(zip(labels, answers, strict=True))
    ]
    return pl.DataFrame(rows, schema=ANSWERS_SCHEMA, orient="row")


def right(count: int, labels: Sequence[str] = LABELS) -> list[str | None]:
    """The first `count` as labelled, the others not."""
    return [label if number < count else f"not {label}" for number, label in enumerate(labels)]


def test_a_cell_is_scored_with_the_exact_interval() -> None:
    (row,) = score(cell("x", right(80)), {"x": 1.5}).cells.iter_rows(named=True)
    assert (row["documents"], row["accuracy"], row["hours"]) == (100, 0.8, 1.5)
    # Clopper and Pearson's for 80 of 100, as tabulated.
    assert (row["accuracy_low"], row["accuracy_high"]) == (
        pytest.approx(0.7082, abs=1e-4),
        pytest.approx(0.8733, abs=1e-4),
    )
    assert row["usd_per_1000"] == pytest.approx(1)
    assert (row["input_tokens"], row["output_tokens"]) == (10, 2)


@pytest.mark.parametrize(
    ("labels", "answers", "accuracy", "macro_f1", "failed"),
    [
        pytest.param(["a", "a", "b"], ["a", "a", "b"], 1.0, 1.0, 0.0, id="all right"),
        pytest.param(["a", "a", "b"], ["a", "a", "a"], 2 / 3, 0.4, 0.0, id="one class only"),
        pytest.param(["a", "b"], [None, None], 0.0, 0.0, 1.0, id="all failed"),
        pytest.param(["a", "b"], ["a", None], 0.5, 0.5, 0.5, id="a failure is wrong"),
        pytest.param(["a"], ["a"], 1.0, 1.0, 0.0, id="one document"),
        pytest.param(["a", "b"], ["c", "b"], 0.5, 0.5, 0.0, id="an answer that is no label"),
    ],
)
def test_scores(labels: list[str], answers: list[str | None], accuracy: float, macro_f1: float, failed: float) -> None:
    (row,) = score(cell("x", answers, labels), {}).cells.iter_rows(named=True)
    found = (row["accuracy"], row["macro_f1"], row["failed_share"])
    assert found == (pytest.approx(accuracy), pytest.approx(macro_f1), failed)


@pytest.mark.parametrize(
    ("one", "other", "p_value", "is_significant"),
    [
        pytest.param(right(100), right(100), 1.0, False, id="the same answers"),
        pytest.param(right(60), right(55), 0.0625, False, id="five documents apart"),
        pytest.param(right(60), right(54), 0.03125, True, id="six documents apart"),
        pytest.param([None] * 100, right(50), pytest.approx(2 / 2**50), True, id="one that failed always"),
    ],
)
def test_a_difference_is_significant_when_chance_is_no_likely_reason(
    one: list[str | None], other: list[str | None], p_value: float, is_significant: bool
) -> None:
    scores = score(pl.concat([cell("x", one), cell("y", other)]), {})
    assert scores.pairs["p_value"].to_list() == [p_value]
    assert scores.significant().height == is_significant


def test_agreement_is_beyond_what_chance_gives() -> None:
    answers = [LABELS, ["a"] * 100, ["b" if label == "a" else "a" for label in LABELS]]
    cells = pl.concat([cell(name, found) for name, found in zip("xyz", answers, strict=True)])
    kappas = {(row["cell"], row["other"]): row["kappa"] for row in score(cells, {}).pairs.iter_rows(named=True)}
    assert kappas == {("x", "y"): pytest.approx(0), ("x", "z"): pytest.approx(-1), ("y", "z"): pytest.approx(0)}


def test_p_values_are_adjusted_for_the_number_of_pairs() -> None:
    cells = pl.concat([cell("x", right(60)), cell("y", right(54)), cell("z", right(57))])
    pairs = score(cells, {}).pairs
    assert pairs["p_value"].to_list() == [0.03125, 0.25, 0.25]
    assert pairs["p_adjusted"].to_list() == pytest.approx([0.09375, 0.25, 0.25])


def test_the_front_is_what_nothing_beats_at_both_price_and_quality() -> None:
    cells = [cell("dear and good", right(90), usd=3), cell("dear and bad", right(60), usd=3)]
    cells += [cell("cheap", right(80), usd=1), cell("as good for more", right(80), usd=2)]
    scored = score(pl.concat(cells), {}).cells
    assert scored.filter("on_front")["cell"].to_list() == ["dear and good", "cheap"]


def test_confusion_counts_what_was_said_of_each_label() -> None:
    confusion = score(cell("x", ["a", None, "b"], ["a", "a", "b"]), {}).confusion
    assert set(confusion.rows()) == {("x", "a", "a", 1), ("x", "a", FAILED, 1), ("x", "b", "b", 1)}


@pytest.mark.parametrize(
    ("now", "is_worse"),
    [
        pytest.param(60, False, id="the same"),
        pytest.param(55, False, id="a little less"),
        pytest.param(50, True, id="much less"),
        pytest.param(90, False, id="better"),
    ],
)
def test_only_a_fall_beyond_chance_is_worse(now: int, is_worse: bool) -> None:
    found = worse(cell("x", right(now)), cell("x", right(60)))
    assert found["is_worse"].to_list() == [is_worse]


def test_cells_and_documents_that_only_one_of_both_has_are_not_compared() -> None:
    now = pl.concat([cell("x", right(60)), cell("new", right(1))])
    before = pl.concat([cell("x", right(60)).head(10), cell("gone", right(100))])
    found = worse(now, before)
    assert found.select("cell", "documents", "is_worse").rows() == [("x", 10, False)]
    assert worse(now, before.clear()).is_empty()


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        pytest.param({"x": 80}, "x answers 80.0% as labelled.", id="one"),
        pytest.param({"x": 80, "y": 79}, "x answers most as labelled (80.0%), which may be chance.", id="chance"),
        pytest.param({"x": 80, "y": 80}, "x and y each answer most as labelled (80.0%).", id="level"),
        pytest.param(
            {"x": 80, "y": 80, "z": 50},
            "x and y each answer most as labelled (80.0%), significantly more than z.",
            id="level, and more",
        ),
        pytest.param({"x": 80, "y": 50}, "x answers most as labelled (80.0%), significantly more than y.", id="more"),
        pytest.param(
            {"x": 80, "y": 50, "z": 79},
            "x answers most as labelled (80.0%), significantly more than y, but that it is better than z may be "
            "chance.",
            id="both",
        ),
    ],
)
def test_the_verdict_says_no_more_than_the_numbers(cells: dict[str, int], told: str) -> None:
    answers = pl.concat([cell(name, right(count)) for name, count in cells.items()])
    assert verdict(score(answers, {})) == told


def test_the_page_holds_everything_and_needs_no_network() -> None:
    answers = pl.concat([cell("<b>x</b>", right(80)), cell("y", right(50))])
    page = comparison_page(
        "sentiment",
        score(answers, {}),
        documents="reviews",
        partitions=2,
        at=datetime(2026, 11, 1, tzinfo=UTC),
        emulated=True,
    )
    assert "&lt;b&gt;x" in page
    assert "<b>x</b>" not in page.partition("<script")[0]
    assert "local emulator" in page
    assert '<script src="http' not in page
    assert "<link" not in page
    assert "80.0 %" in page
