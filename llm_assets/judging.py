"""Verdicts on pairs of answers, each asked for in both orders → who wins, and whether the order decides. Pure.

A side wins a pair when the judge prefers it in both orders; all else is a tie. The statistics are scipy's and
scikit-learn's, which the extra `evaluation` installs.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import polars as pl
from scipy.stats import binomtest, false_discovery_control  # type: ignore[import-untyped]
from sklearn.metrics import cohen_kappa_score  # type: ignore[import-untyped]

from llm_assets.evaluation import CONFIDENCE, SIGNIFICANT
from llm_assets.pairing import FIRST, SECOND
from llm_assets.records import DOCUMENT_ID

__all__ = ["CONFIDENCE", "SIGNIFICANT", "VERDICTS_SCHEMA", "Outcome", "outcomes", "scored"]


class Outcome(StrEnum):
    """What became of a pair."""

    ONE = "one"  # preferred in both orders
    OTHER = "other"
    TIE = "tie"  # in both orders
    DISAGREED = "disagreed"  # the orders do not agree: a tie
    SAME = "same"  # both answers are the same, and nobody was asked: a tie
    UNJUDGED = "unjudged"  # a verdict is missing
    UNANSWERED = "unanswered"  # an answer is missing


# What a judgement looks at: a row for each document and judge.
VERDICTS_SCHEMA: dict[str, pl.DataType] = {
    "partition": pl.String(),
    DOCUMENT_ID: pl.String(),
    "judge": pl.String(),
    "one": pl.String(),  # the answers; null when there is none
    "other": pl.String(),
    "as_declared": pl.String(),  # the verdicts: first, second, anything else for a tie; null when there is none
    "swapped": pl.String(),
    "label": pl.String(),  # what a person said: one, other, tie; null when nobody did
    "cost_usd": pl.Float64(),  # of both questions
}


def outcomes(verdicts: pl.DataFrame) -> pl.Series:
    """What became of each row of VERDICTS_SCHEMA, an `Outcome`."""
    sides = {"as_declared": (Outcome.ONE, Outcome.OTHER), "swapped": (Outcome.OTHER, Outcome.ONE)}
    picked = {
        order: pl.col(order).replace_strict({FIRST: first, SECOND: second}, default=Outcome.TIE)
        for order, (first, second) in sides.items()
    }
    outcome = (
        pl.when(pl.col("one").is_null() | pl.col("other").is_null())
        .then(pl.lit(Outcome.UNANSWERED))
        .when(pl.col("one") == pl.col("other"))
        .then(pl.lit(Outcome.SAME))
        .when(pl.col("as_declared").is_null() | pl.col("swapped").is_null())
        .then(pl.lit(Outcome.UNJUDGED))
        .when(picked["as_declared"] == picked["swapped"])
        .then(picked["as_declared"])
        .otherwise(pl.lit(Outcome.DISAGREED))
    )
    return verdicts.select(outcome.alias("outcome"))["outcome"]


def scored(verdicts: pl.DataFrame, sides: dict[str, tuple[str, str]]) -> pl.DataFrame:
    """A row for each judge of `verdicts` (VERDICTS_SCHEMA), whose `sides` are what the two that it compares are called.

    Columns: how many documents there are with each `Outcome`; `one_share`, how many of the pairs with a winner `one`
    wins, with its exact interval (Clopper-Pearson), and the exact sign test of that, also adjusted for the number of
    judges (Benjamini-Hochberg); `first_twice` and `second_twice`, the pairs of which the same place was preferred in
    both orders, and the exact sign test of these, which says whether the order decides; how often the judge says what a
    person said of the `labelled` pairs that it judged, with interval and Cohen's kappa; dollars for 1,000 pairs asked.
    """
    rows = [
        {"judge": judge, "one": one, "other": other, **_scores(verdicts.filter(pl.col("judge") == judge))}
        for judge, (one, other) in sides.items()
    ]
    found = pl.DataFrame(rows, infer_schema_length=None)
    adjusted = false_discovery_control(found["p_value"].to_list())
    return found.with_columns(pl.Series("p_adjusted", list(adjusted), dtype=pl.Float64))


def _scores(rows: pl.DataFrame) -> dict[str, object]:
    outcome = outcomes(rows)
    counts = {each: int((outcome == each).sum()) for each in Outcome}
    ones, others = counts[Outcome.ONE], counts[Outcome.OTHER]
    share, low, high = _share(ones, ones + others)
    disagreed = rows.filter(outcome == Outcome.DISAGREED)
    first_twice, second_twice = (
        disagreed.filter((pl.col("as_declared") == place) & (pl.col("swapped") == place)).height
        for place in (FIRST, SECOND)
    )
    asked = rows.filter(outcome.is_in([Outcome.SAME, Outcome.UNANSWERED]).not_())
    return {
        "documents": rows.height,
        **{f"{each}_count": count for each, count in counts.items()},
        "one_share": share,
        "one_low": low,
        "one_high": high,
        "p_value": _sign_test(ones, others),
        "first_twice": first_twice,
        "second_twice": second_twice,
        "order_p_value": _sign_test(first_twice, second_twice),
        **_agreement(rows["label"], outcome),
        "usd_per_1000": 1000 * float(asked["cost_usd"].sum()) / max(asked.height, 1),
    }


def _agreement(label: pl.Series, outcome: pl.Series) -> dict[str, object]:
    """How far the judge and a person agree, where both said something."""
    said = outcome.replace(Outcome.DISAGREED, Outcome.TIE)  # of the same answers the judge said nothing
    both = pl.DataFrame({"label": label, "said": said}).filter(
        pl.col("label").is_not_null(), pl.col("said").is_in([Outcome.ONE, Outcome.OTHER, Outcome.TIE])
    )
    share, low, high = _share(int((both["label"] == both["said"]).sum()), both.height)
    return {
        "labelled": both.height,
        "agreement": share,
        "agreement_low": low,
        "agreement_high": high,
        "kappa": _kappa(both["label"].to_list(), both["said"].to_list()),
    }


def _kappa(labels: Sequence[str], said: Sequence[str]) -> float | None:
    if not labels:
        return None
    return 1.0 if labels == said else float(cohen_kappa_score(labels, said))  # which of one label alone says nothing


def _share(some: int, count: int) -> tuple[float | None, float | None, float | None]:
    """A share with its exact interval; nothing of nothing."""
    if not count:
        return None, None, None
    interval = binomtest(some, count).proportion_ci(CONFIDENCE, method="exact")
    return some / count, float(interval.low), float(interval.high)


def _sign_test(some: int, others: int) -> float:
    """How likely it is by chance alone that wins are shared out so unevenly."""
    return float(binomtest(some, some + others).pvalue) if some + others else 1.0
