"""Shares of what answers say: of declared values only, and without a division by nothing."""

from typing import Any

import polars as pl
import pytest

from llm_assets.output_schema import OutputSchema
from llm_assets.quality import answer_shares

FIELDS: dict[str, Any] = {
    "mood": {"type": "string", "enum": ["good", "bad"]},
    "urgent": {"type": "boolean", "optional": True},
    "stars": {"type": "integer", "enum": [1, 2]},
    "note": {"type": "string", "optional": True},
    "many": {"type": "integer", "enum": list(range(50))},
    "text": "string",
}
OUTPUT = OutputSchema.from_fields("answer", FIELDS, "test")


def answers(*rows: tuple[str, bool | None, int, str | None]) -> pl.LazyFrame:
    columns = {name: [row[number] for row in rows] for number, name in enumerate(("mood", "urgent", "stars", "note"))}
    rest = {"many": [1] * len(rows), "text": ["a secret"] * len(rows)}
    return pl.LazyFrame(columns | rest, schema=OUTPUT.frame_schema)


@pytest.mark.parametrize(
    ("table", "shares"),
    [
        pytest.param(
            answers(("good", True, 1, None), ("bad", None, 1, "x"), ("good", False, 2, None), ("good", None, 1, "y")),
            {
                "mood=good": 0.75,
                "mood=bad": 0.25,
                "urgent=True": 0.25,
                "urgent=null": 0.5,
                "stars=1": 0.75,
                "stars=2": 0.25,
                "note=null": 0.5,
            },
            id="each-field-with-few-values",
        ),
        pytest.param(answers(), {}, id="no-rows"),
        pytest.param(
            answers(("good", True, 1, "x"), ("good", True, 1, "x")).with_columns(unsupported=pl.Series([["note"], []])),
            {
                "mood=good": 1,
                "mood=bad": 0,
                "urgent=True": 1,
                "urgent=null": 0,
                "stars=1": 1,
                "stars=2": 0,
                "note=null": 0,
                "unsupported": 0.5,
            },
            id="evidence",
        ),
    ],
)
def test_shares(table: pl.LazyFrame, shares: dict[str, float]) -> None:
    assert answer_shares(table, OUTPUT) == shares
