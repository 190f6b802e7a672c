"""Judges of pairs: who wins, what the order decides, what is asked at all, and the page that says so."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from llm_assets.components.paired import Pairs
from llm_assets.errors import DocumentsError
from llm_assets.judgement_page import chart, judgement_page, verdict
from llm_assets.judging import VERDICTS_SCHEMA, Outcome, outcomes, scored
from llm_assets.pairing import PAIR_SCHEMA, in_both_orders, paired, with_verdicts
from llm_assets.store import Store

SIDES = {"j": ("x", "y")}
Row = tuple[str | None, str | None, str | None, str | None, str | None]
WON: Row = ("p", "q", "first", "second", None)
LOST: Row = ("p", "q", "second", "first", None)
FIRST_TWICE: Row = ("p", "q", "first", "first", None)
SECOND_TWICE: Row = ("p", "q", "second", "second", None)


def verdicts(*rows: Row, judge: str = "j") -> pl.DataFrame:
    """Rows of one answer, the other, the verdicts as declared and swapped, and what a person said."""
    full = [("2026", f"d{number}", judge, *row, 0.002) for number, row in enumerate(rows)]
    return pl.DataFrame(full, schema=VERDICTS_SCHEMA, orient="row")


@pytest.mark.parametrize(
    ("row", "outcome"),
    [
        pytest.param(WON, Outcome.ONE, id="preferred in both orders"),
        pytest.param(LOST, Outcome.OTHER, id="the other is"),
        pytest.param(("p", "q", "tie", "tie", None), Outcome.TIE, id="a tie in both"),
        pytest.param(("p", "q", "tie", "neither", None), Outcome.TIE, id="anything else is a tie"),
        pytest.param(FIRST_TWICE, Outcome.DISAGREED, id="first whatever it is"),
        pytest.param(("p", "q", "first", "tie", None), Outcome.DISAGREED, id="once, and a tie"),
        pytest.param(("p", "q", None, "second", None), Outcome.UNJUDGED, id="a verdict that failed"),
        pytest.param(("p", "q", "first", None, None), Outcome.UNJUDGED, id="the other failed"),
        pytest.param(("p", "q", None, None, None), Outcome.UNJUDGED, id="both failed"),
        pytest.param(("p", "p", None, None, None), Outcome.SAME, id="the same answers"),
        pytest.param(("p", None, None, None, None), Outcome.UNANSWERED, id="one answer"),
        pytest.param((None, None, None, None, None), Outcome.UNANSWERED, id="no answer"),
    ],
)
def test_a_side_wins_when_both_orders_say_so(row: Row, outcome: Outcome) -> None:
    assert outcomes(verdicts(row)).to_list() == [outcome]


def test_wins_have_an_exact_interval_and_the_sign_test() -> None:
    (row,) = scored(verdicts(*[WON] * 15, *[LOST] * 5, *[FIRST_TWICE] * 3), SIDES).iter_rows(named=True)
    assert (row["one_count"], row["other_count"], row["disagreed_count"], row["one_share"]) == (15, 5, 3, 0.75)
    # Clopper and Pearson's for 15 of 20, and twice the tail of a fair coin: both as tabulated.
    assert (row["one_low"], row["one_high"]) == (pytest.approx(0.5090, abs=1e-4), pytest.approx(0.9134, abs=1e-4))
    assert row["p_value"] == pytest.approx(0.04139, abs=1e-5)
    assert row["usd_per_1000"] == pytest.approx(2)


def test_what_has_no_verdict_counts_for_nobody_and_is_counted() -> None:
    rows = [WON, ("p", "q", None, "first", None), ("p", None, None, None, None), ("p", "p", None, None, None)]
    (row,) = scored(verdicts(*rows), SIDES).iter_rows(named=True)
    assert row["documents"] == sum(row[f"{each}_count"] for each in Outcome) == 4
    assert (row["one_share"], row["unjudged_count"], row["unanswered_count"], row["same_count"]) == (1, 1, 1, 1)


def test_what_nobody_was_asked_makes_no_question_cheaper() -> None:
    rows = [WON, ("p", "q", None, "first", None), ("p", None, None, None, None), ("p", "p", None, None, None)]
    cost = pl.Series("cost_usd", [0.002, 0.004, 0.0, 0.0])
    assert scored(verdicts(*rows).with_columns(cost), SIDES)["usd_per_1000"].to_list() == [pytest.approx(3)]


@pytest.mark.parametrize(
    ("rows", "p_value", "told"),
    [
        pytest.param([FIRST_TWICE] * 6, 0.03125, "It prefers what stands first, whatever it is (6 pairs).", id="first"),
        pytest.param([SECOND_TWICE] * 6, 0.03125, "stands second, whatever it is (6 pairs).", id="second"),
        pytest.param([FIRST_TWICE] * 5 + [SECOND_TWICE], 0.21875, "", id="may be chance"),
        pytest.param([WON] * 9, 1.0, "", id="the order does not matter"),
    ],
)
def test_a_judge_that_goes_by_the_order_is_found_out(rows: list[Row], p_value: float, told: str) -> None:
    found = scored(verdicts(*rows), SIDES)
    assert found["order_p_value"].to_list() == [p_value]
    assert verdict(found).endswith(told)
    assert ("whatever it is" in verdict(found)) == bool(told)


def test_agreement_with_people_counts_where_both_said_something() -> None:
    rows: list[Row] = [
        (*WON[:4], "one"),
        (*WON[:4], "other"),
        (*LOST[:4], "other"),
        (*FIRST_TWICE[:4], "tie"),
        WON,
        ("p", "q", None, "first", "one"),
        ("p", "p", None, None, "tie"),  # nobody was asked
    ]
    (row,) = scored(verdicts(*rows), SIDES).iter_rows(named=True)
    assert (row["labelled"], row["agreement"]) == (4, 0.75)
    assert row["kappa"] == pytest.approx(0.6364, abs=1e-4)
    (without,) = scored(verdicts(WON), SIDES).iter_rows(named=True)
    assert (without["labelled"], without["agreement"], without["kappa"]) == (0, None, None)


def test_p_values_are_adjusted_for_the_number_of_judges() -> None:
    rows = pl.concat([verdicts(*[WON] * 6), verdicts(*[WON] * 3, judge="k")])
    found = scored(rows, SIDES | {"k": ("x", "y")})
    assert found["p_adjusted"].to_list() == pytest.approx([0.0625, 0.25])


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        pytest.param([WON] * 6, "j prefers x to y significantly: 6 to 0.", id="more than chance"),
        pytest.param([LOST, LOST, WON], "j prefers y to x 2 to 1, which may be chance.", id="chance"),
        pytest.param([FIRST_TWICE], "j prefers neither x nor y in any of 1 documents.", id="nothing"),
    ],
)
def test_the_verdict_says_no_more_than_the_numbers(rows: list[Row], told: str) -> None:
    assert verdict(scored(verdicts(*rows), SIDES)) == told


DOCUMENTS = pl.LazyFrame({"document_id": ["a", "b", "c", "d"], "text": ["A", "B", "C", "D"], "stars": [1, 2, 3, 4]})
ONE = pl.LazyFrame({"document_id": ["a", "b", "c"], "answer": ["one a", "same", "one c"]})
OTHER = pl.LazyFrame({"document_id": ["a", "b", "d"], "answer": ["other a", "same", "other d"]})


def test_only_what_can_be_compared_is_asked_for_in_both_orders() -> None:
    asked = in_both_orders(paired(DOCUMENTS, ONE, OTHER), ("stars",)).collect()
    assert asked.rows() == [
        ("a#1", "A", "a", "as declared", "one a", "other a", 1),
        ("a#2", "A", "a", "swapped", "other a", "one a", 1),
    ]
    assert asked.schema == {**PAIR_SCHEMA, "stars": pl.Int64}


def test_verdicts_find_their_pairs() -> None:
    said = pl.LazyFrame({"document_id": ["a#2", "a#1"], "verdict": ["second", None], "cost_usd": [0.25, 0.5]})
    found = with_verdicts(paired(DOCUMENTS, ONE, OTHER), said).collect()
    assert found.select("document_id", "as_declared", "swapped", "cost_usd").rows() == [
        ("a", None, "second", 0.75),
        ("b", None, None, 0.0),
        ("c", None, None, 0.0),
        ("d", None, None, 0.0),
    ]


def test_the_page_holds_everything_and_needs_no_network() -> None:
    judges = scored(verdicts(*[(*WON[:4], "one")] * 6, FIRST_TWICE), SIDES)
    at = datetime(2026, 11, 1, tzinfo=UTC)
    page = judgement_page("<b>who</b>", judges, documents="minutes", partitions=1, at=at, emulated=True)
    assert "&lt;b&gt;who" in page
    assert "j prefers x to y significantly: 6 to 0." in page
    assert "local emulator" in page
    assert '<script src="http' not in page
    assert "<link" not in page


@pytest.mark.parametrize(
    ("judges", "legend"),
    [
        pytest.param({"j": ("x", "y")}, ["x wins", "tie", "y wins"], id="by name"),
        pytest.param({"j": ("x", "y"), "k": ("x", "y")}, ["x wins", "tie", "y wins"], id="of several judges"),
        pytest.param({"j": ("x", "y"), "k": ("v", "w")}, ["one wins", "tie", "other wins"], id="of other pairs"),
    ],
)
def test_the_chart_says_who_wins(judges: dict[str, tuple[str, str]], legend: list[str]) -> None:
    found = scored(pl.concat([verdicts(WON, LOST, judge=judge) for judge in judges]), judges)
    assert chart(found).to_dict()["encoding"]["color"]["scale"]["domain"] == legend


def test_answers_about_other_documents_are_not_paired(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(store.documents("texts", "p"), DOCUMENTS.collect())
    store.write(store.enriched("x", "p"), ONE.collect())
    store.write(store.enriched("y", "p"), OTHER.collect().with_columns(pl.col("document_id") + "?"))
    with pytest.raises(
        DocumentsError, match=r"3 rows of enrichments/y/enriched/p.parquet are of documents that texts does not"
    ):
        Pairs("pairs", "texts", "x", "y", "answer").scan(store, "p")
