"""What judges say of pairs of answers → a page that explains itself. Pure; like comparison_page.py."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import altair as alt
import polars as pl

from llm_assets.comparison_page import rendered
from llm_assets.judging import CONFIDENCE, SIGNIFICANT

_WIDTH = 640
_ONE, _TIE, _OTHER = "#4c78a8", "#c8d0d8", "#e45756"


def judgement_page(
    name: str, judges: pl.DataFrame, *, documents: str, partitions: int, at: datetime, emulated: bool
) -> str:
    """The page, as HTML; `judges` is what `judging.scored` says."""
    return rendered(
        "judgement.html",
        name=name,
        documents=documents,
        partitions=partitions,
        at=at,
        emulated=emulated,
        confidence=f"{CONFIDENCE:.0%}",
        significant=SIGNIFICANT,
        judges=judges.to_dicts(),
        verdict=verdict(judges),
        charts=chart(judges),
    )


def verdict(judges: pl.DataFrame) -> str:
    """What the judges say, a sentence or two each."""
    return " ".join(_told(row) for row in judges.iter_rows(named=True))


def _told(row: dict[str, Any]) -> str:
    better, worse = (row["one"], row["other"]) if row["one_count"] >= row["other_count"] else (row["other"], row["one"])
    wins, losses = sorted((row["one_count"], row["other_count"]), reverse=True)
    if not wins:
        said = f"{row['judge']} prefers neither {better} nor {worse} in any of {row['documents']:,} documents."
    elif row["p_adjusted"] <= SIGNIFICANT:
        said = f"{row['judge']} prefers {better} to {worse} significantly: {wins:,} to {losses:,}."
    else:
        said = f"{row['judge']} prefers {better} to {worse} {wins:,} to {losses:,}, which may be chance."
    if row["order_p_value"] <= SIGNIFICANT:
        place = "first" if row["first_twice"] > row["second_twice"] else "second"
        said += f" It prefers what stands {place}, whatever it is ({row[f'{place}_twice']:,} pairs)."
    return said


def chart(judges: pl.DataFrame) -> Any:
    """How the pairs that were judged are shared out, a bar a judge."""
    sides = judges.select("one", "other").unique()
    # By name where all judges compare the same two.
    one, other = sides.row(0) if sides.height == 1 else ("one", "other")
    colours = {f"{one} wins": _ONE, "tie": _TIE, f"{other} wins": _OTHER}
    ties = pl.col("tie_count") + pl.col("disagreed_count") + pl.col("same_count")
    counts = [pl.col("one_count"), ties, pl.col("other_count")]
    wide = judges.select("judge", *(count.alias(name) for count, name in zip(counts, colours, strict=True)))
    long = wide.unpivot(index="judge", variable_name="outcome")
    order = long.with_columns(place=pl.col("outcome").replace_strict({name: n for n, name in enumerate(colours)}))
    colour = alt.Color("outcome:N", title=None, sort=list(colours))
    return (
        alt.Chart(order)
        .mark_bar()
        .encode(
            alt.X("value:Q", title="share of the pairs").stack("normalize").axis(format=".0%"),
            alt.Y("judge:N", title=None).axis(labelLimit=300),
            colour.scale(domain=list(colours), range=list(colours.values())).legend(orient="bottom", labelLimit=400),
            alt.Order("place:O"),
            tooltip=["judge:N", "outcome:N", alt.Tooltip("value:Q", title="pairs")],
        )
        .properties(width=_WIDTH, height=alt.Step(38), title="What the judge prefers in both orders")
    )
