"""Scores → a page that explains itself: a table, cost against quality, what was taken for what. Pure.

One HTML file without anything from a network. Pictures are Altair's, which the extra `evaluation` installs.
"""

from __future__ import annotations

from datetime import datetime
from importlib.resources import files
from typing import Any

import altair as alt
import minijinja
import polars as pl

from llm_assets.evaluation import CONFIDENCE, FAILED, SIGNIFICANT, Scores

_WIDTH = 640


def comparison_page(name: str, scores: Scores, *, documents: str, partitions: int, at: datetime, emulated: bool) -> str:
    """The page, as HTML."""
    return rendered(
        "comparison.html",
        name=name,
        documents=documents,
        partitions=partitions,
        at=at,
        emulated=emulated,
        confidence=f"{CONFIDENCE:.0%}",
        significant=SIGNIFICANT,
        cells=scores.cells.sort("accuracy", descending=True).to_dicts(),
        pairs=scores.pairs.to_dicts(),
        verdict=verdict(scores),
        charts=charts(scores),
    )


def rendered(template: str, *, at: datetime, charts: Any, **told: Any) -> str:
    """A page of pages/, with pictures that need no network."""
    folder = files(__package__) / "pages"
    names = ("page.html", template)
    environment = minijinja.Environment(templates={name: (folder / name).read_text(encoding="utf-8") for name in names})
    pictures = charts.to_html(inline=True, fullhtml=False, embed_options={"actions": False})
    return environment.render_template(template, at=f"{at:%Y-%m-%d %H:%M} UTC", charts=pictures, **told)


def verdict(scores: Scores) -> str:
    """What the evaluation says in one sentence or two."""
    cells = scores.cells.sort("accuracy", descending=True)
    if cells.height == 1:
        return f"{cells['cell'][0]} answers {cells['accuracy'][0]:.1%} as labelled."
    best, accuracy = cells["cell"][0], cells["accuracy"][0]
    beside = cells["cell"][1:].filter(cells["accuracy"][1:] == accuracy).to_list()
    beaten = [
        pair["other"] if pair["cell"] == best else pair["cell"]
        for pair in scores.significant().iter_rows(named=True)
        if best in (pair["cell"], pair["other"])
    ]
    level = [cell for cell in cells["cell"][1:] if cell not in (*beaten, *beside)]
    told = [f"{_listed([best, *beside])} {'each answer' if beside else 'answers'} most as labelled ({accuracy:.1%})"]
    if beaten:
        told.append(f"significantly more than {_listed(beaten)}")
    if level:
        chance = f"but that {'they are' if beside else 'it is'} better than {_listed(level)} may be chance"
        told.append(chance if beaten else "which may be chance")
    return ", ".join(told) + "."


def charts(scores: Scores) -> Any:
    """Cost against quality, and a matrix of labels and answers for each cell."""
    return alt.vconcat(cost_quality(scores.cells), _confusion(scores.confusion)).resolve_scale(color="independent")


def cost_quality(cells: pl.DataFrame) -> Any:
    """Accuracy over dollars with its interval; the line joins what nothing else beats at both."""
    cost = alt.X("usd_per_1000:Q", title="US dollars a thousand documents").scale(zero=False, padding=30)
    right = alt.Y("accuracy:Q", title="accuracy").scale(zero=False).axis(format=".0%")
    colour = alt.Color("cell:N", title=None).legend(orient="bottom", labelLimit=400, symbolOpacity=1)
    base = alt.Chart(cells)
    interval = base.mark_rule(strokeWidth=2, opacity=0.5).encode(
        cost, alt.Y("accuracy_low:Q", title="accuracy"), alt.Y2("accuracy_high:Q"), colour
    )
    front = alt.Chart(cells.filter("on_front")).mark_line(strokeDash=[5, 4], color="#888").encode(cost, right)
    points = base.mark_point(size=110, filled=True, opacity=1).encode(
        cost,
        right,
        colour,
        tooltip=[
            alt.Tooltip("cell:N"),
            alt.Tooltip("accuracy:Q", format=".1%"),
            alt.Tooltip("macro_f1:Q", format=".3f"),
            alt.Tooltip("usd_per_1000:Q", format="$.4f"),
        ],
    )
    title = alt.TitleParams("Cost and quality", subtitle="the dashed line: nothing else is both cheaper and better")
    return alt.layer(front, interval, points).properties(width=_WIDTH, height=280, title=title)


def _confusion(confusion: pl.DataFrame) -> Any:
    shares = confusion.with_columns(share=pl.col("count") / pl.col("count").sum().over("cell", "label"))
    order = [*sorted(set(confusion["answer"]) - {FAILED}), FAILED]
    base = alt.Chart(shares).encode(
        alt.X("answer:N", title="answer", sort=order).axis(labelAngle=0), alt.Y("label:N", title="label")
    )
    color = alt.Color("share:Q", title="share of the label").scale(scheme="blues", domain=[0, 1]).legend(format=".0%")
    numbers = base.mark_text().encode(
        alt.Text("count:Q"), color=alt.condition("datum.share > 0.55", alt.value("white"), alt.value("#222"))
    )
    layered = alt.layer(base.mark_rect().encode(color), numbers).properties(width=210, height=130)
    return layered.facet(facet=alt.Facet("cell:N", title=None), columns=3, title="What was taken for what")


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
