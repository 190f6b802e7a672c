"""Answers × labels → scores, several models and prompts side by side. Pure.

Every cell of an evaluation answered the same labelled documents. A document without an answer is a wrong one. The
statistics are scikit-learn's and scipy's, which the extra `evaluation` installs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isfinite

import polars as pl
from scipy.stats import binomtest, false_discovery_control  # type: ignore[import-untyped]
from sklearn.metrics import cohen_kappa_score, f1_score  # type: ignore[import-untyped]

from llm_assets.records import DOCUMENT_ID

CONFIDENCE = 0.95
SIGNIFICANT = 0.05
FAILED = "(failed)"

# What an evaluation looks at: a row for each document and cell.
ANSWERS_SCHEMA: dict[str, pl.DataType] = {
    "partition": pl.String(),
    DOCUMENT_ID: pl.String(),
    "cell": pl.String(),
    "label": pl.String(),
    "answer": pl.String(),  # null when it failed
    "cost_usd": pl.Float64(),
    "input_tokens": pl.Int64(),
    "output_tokens": pl.Int64(),
}

SCORES_SCHEMA: dict[str, pl.DataType] = {
    "cell": pl.String(),
    "documents": pl.Int64(),
    "accuracy": pl.Float64(),
    "accuracy_low": pl.Float64(),
    "accuracy_high": pl.Float64(),
    "macro_f1": pl.Float64(),
    "failed_share": pl.Float64(),
    "usd_per_1000": pl.Float64(),
    "input_tokens": pl.Float64(),
    "output_tokens": pl.Float64(),
    "hours": pl.Float64(),
    "on_front": pl.Boolean(),
}

PAIRS_SCHEMA: dict[str, pl.DataType] = {
    "cell": pl.String(),
    "other": pl.String(),
    "documents": pl.Int64(),
    "only_cell_right": pl.Int64(),
    "only_other_right": pl.Int64(),
    "p_value": pl.Float64(),
    "p_adjusted": pl.Float64(),
    "kappa": pl.Float64(),
}


@dataclass(frozen=True, slots=True)
class Scores:
    """What came of an evaluation.

    `cells` (SCORES_SCHEMA) has a row a cell: the share of right answers with its exact interval of confidence, tokens a
    document, the hours that a batch took as a median, and whether no other cell is both cheaper and better. `pairs`
    (PAIRS_SCHEMA) has a row for each two: how many documents only one got right, the exact McNemar test of that, also
    adjusted for the number of pairs (Benjamini-Hochberg), and how far they agree. `confusion` counts answers by cell
    and label.
    """

    cells: pl.DataFrame
    pairs: pl.DataFrame
    confusion: pl.DataFrame

    def significant(self) -> pl.DataFrame:
        """The pairs whose difference is more than chance."""
        return self.pairs.filter(pl.col("p_adjusted") <= SIGNIFICANT)


def score(answers: pl.DataFrame, hours: Mapping[str, float | None]) -> Scores:
    """Compare cells. `answers` has ANSWERS_SCHEMA, the same labelled documents for each cell; `hours` is by cell."""
    cells = answers["cell"].unique(maintain_order=True).to_list()
    rows = [_scores(answers.filter(pl.col("cell") == cell), cell, hours.get(cell)) for cell in cells]
    scored = pl.DataFrame(rows, schema={name: dtype for name, dtype in SCORES_SCHEMA.items() if name != "on_front"})
    confusion = answers.group_by("cell", "label", pl.col("answer").fill_null(FAILED), maintain_order=True).len("count")
    return Scores(scored.with_columns(_on_front(scored)), _pairs(answers, cells), confusion)


def worse(now: pl.DataFrame, accepted: pl.DataFrame) -> pl.DataFrame:
    """Of each cell that both have (ANSWERS_SCHEMA), what became of the accuracy over the documents that both have.

    Columns: cell, documents, accuracy, accepted_accuracy, p_value (exact McNemar), and is_worse: whether it fell by
    more than chance.
    """
    both = now.join(accepted, on=["partition", DOCUMENT_ID, "cell", "label"], how="inner", suffix="_accepted")
    found = []
    for (cell,), rows in both.group_by("cell", maintain_order=True):
        right, before = _right(rows), _right(rows, "answer_accepted")
        lost, won = int((before & ~right).sum()), int((right & ~before).sum())
        p_value = _mcnemar(lost, won)
        found.append(
            {
                "cell": cell,
                "documents": rows.height,
                "accuracy": right.mean(),
                "accepted_accuracy": before.mean(),
                "p_value": p_value,
                "is_worse": lost > won and p_value <= SIGNIFICANT,
            }
        )
    schema = {"cell": pl.String, "documents": pl.Int64, "accuracy": pl.Float64, "accepted_accuracy": pl.Float64}
    return pl.DataFrame(found, schema=schema | {"p_value": pl.Float64, "is_worse": pl.Boolean})


def _scores(rows: pl.DataFrame, cell: str, hours: float | None) -> dict[str, object]:
    right, count = int(_right(rows).sum()), rows.height
    interval = binomtest(right, count).proportion_ci(CONFIDENCE, method="exact")
    labels = sorted(rows["label"].unique())
    answers = rows["answer"].fill_null(FAILED).to_list()
    return {
        "cell": cell,
        "documents": count,
        "accuracy": right / count,
        "accuracy_low": float(interval.low),
        "accuracy_high": float(interval.high),
        "macro_f1": float(f1_score(rows["label"].to_list(), answers, labels=labels, average="macro", zero_division=0)),
        "failed_share": rows["answer"].null_count() / count,
        "usd_per_1000": 1000 * float(rows["cost_usd"].sum()) / count,
        "input_tokens": rows["input_tokens"].sum() / count,
        "output_tokens": rows["output_tokens"].sum() / count,
        "hours": hours,
    }


def _pairs(answers: pl.DataFrame, cells: Sequence[str]) -> pl.DataFrame:
    found = []
    key = ["partition", DOCUMENT_ID]
    for cell, other in combinations(cells, 2):
        both = answers.filter(pl.col("cell") == cell).join(
            answers.filter(pl.col("cell") == other), on=key, how="inner", suffix="_other", maintain_order="left"
        )
        right, other_right = _right(both), _right(both, "answer_other")
        won, lost = int((right & ~other_right).sum()), int((other_right & ~right).sum())
        said = [both[name].fill_null(FAILED).to_list() for name in ("answer", "answer_other")]
        kappa = 1.0 if said[0] == said[1] else float(cohen_kappa_score(*said))
        found.append((cell, other, both.height, won, lost, _mcnemar(won, lost), kappa if isfinite(kappa) else None))
    names = [name for name in PAIRS_SCHEMA if name != "p_adjusted"]
    pairs = pl.DataFrame(found, schema={name: PAIRS_SCHEMA[name] for name in names}, orient="row")
    adjusted = false_discovery_control(pairs["p_value"].to_list()) if found else []
    return pairs.with_columns(pl.Series("p_adjusted", list(adjusted), dtype=pl.Float64)).select(list(PAIRS_SCHEMA))


def _mcnemar(won: int, lost: int) -> float:
    """How likely it is by chance alone that discordant documents are shared out so unevenly."""
    return float(binomtest(won, won + lost).pvalue) if won + lost else 1.0


def _right(rows: pl.DataFrame, answer: str = "answer") -> pl.Series:
    return (rows[answer] == rows["label"]).fill_null(value=False)


def _on_front(scored: pl.DataFrame) -> pl.Series:
    """Whether no other cell costs no more and is no worse, and one of them really."""
    points = list(scored.select("usd_per_1000", "accuracy").iter_rows())
    front = [
        not any(usd <= mine and right >= ours and (usd, right) != (mine, ours) for usd, right in points)
        for mine, ours in points
    ]
    return pl.Series("on_front", front, dtype=pl.Boolean)
