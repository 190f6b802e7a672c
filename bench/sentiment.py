"""`python -m bench.sentiment`: three ways of asking, over sentences that people labelled: what is more than chance?

The cells: a small language model with the shipped examples in its prompt, the same without, and a lexicon. All are
asked through the emulator and the platform, and compared as an `Evaluation` is. The sentences lie beside the project.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import polars as pl
import typer
import yaml
from rich.console import Console
from rich.table import Table

import llm_assets
from llm_assets.comparison_page import comparison_page, verdict
from llm_assets.components import Enrichment as Declaration
from llm_assets.enrichment import Enrichment
from llm_assets.evaluation import ANSWERS_SCHEMA, Scores, score
from llm_assets.platform import Platform, utc_now
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.platforms import P, enriched, failed, finish_in_time, open_platform, submit

REVIEWS = Path(__file__).parents[2] / "shared" / "data" / "reviews"
SEED = 20261101
_DEFS = Path(llm_assets.__file__).parent / "defs"
_SECONDS_MAX = 1800
LEAST_TOLD = 0.0001
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Cell:
    """A shipped enrichment, and the emulator's model that answers it."""

    title: str
    shipped: str
    model: str

    def enrichment(self) -> Enrichment:
        """What is asked, with the label beside each answer."""
        folder = _DEFS / self.shipped
        declared = Declaration(**yaml.safe_load((folder / "defs.yaml").read_text())["attributes"]).declared(folder)
        return replace(declared, keep=("label",), reuse_days=0)


CELLS = (
    Cell("SmolLM2 few-shot", "review_sentiment", "smollm2"),
    Cell("SmolLM2 zero-shot", "review_sentiment_zero_shot", "smollm2"),
    Cell("lexicon", "review_sentiment_zero_shot", "scripted"),
)


def sample(folder: Path, each: int, seed: int = SEED) -> pl.DataFrame:
    """So many sentences of each file, as documents with the labels that people gave them; none without the files."""
    random = Random(seed)  # noqa: S311 (a sample, no secret)
    rows = []
    for file in sorted(folder.glob("*_labelled.txt")):
        # Cut at line feeds only: some sentences hold U+0085, at which `splitlines` would cut, too.
        lines = [line for line in file.read_text(encoding="utf-8", errors="replace").split("\n") if line.strip()]
        for number, line in enumerate(random.sample(lines, each)):
            text, _, label = line.rpartition("\t")
            rows.append((f"{file.stem}-{number}", text.strip(), "positive" if label.strip() == "1" else "negative"))
    return pl.DataFrame(rows, schema=["document_id", "text", "label"], orient="row")


def answers(cells: tuple[Cell, ...], reviews: pl.DataFrame, folder: Path, tell: Tell) -> pl.DataFrame:
    """What the cells say (evaluation.ANSWERS_SCHEMA), each model in an emulator of its own."""
    found = []
    for model in dict.fromkeys(cell.model for cell in cells):
        with Emulator(folder / f"emulator-{model}", model=model) as emulator:
            platform = open_platform(folder / f"store-{model}", emulator.url)
            try:
                for cell in (cell for cell in cells if cell.model == model):
                    tell(f"{cell.title}: {reviews.height} sentences")
                    found.append(_answered(platform, cell, reviews))
            finally:
                platform.close()
    return pl.concat(found)


def _answered(platform: Platform, cell: Cell, reviews: pl.DataFrame) -> pl.DataFrame:
    enrichment = cell.enrichment()
    platform.store.write(platform.store.documents(enrichment.documents, P), reviews)
    submit(platform, enrichment)
    finish_in_time(platform, enrichment, seconds_max=_SECONDS_MAX)
    said = enriched(platform, enrichment).rename({"sentiment": "answer"})
    lost = failed(platform, enrichment).with_columns(pl.lit(None, pl.String).alias("answer"))
    titled = (pl.lit(P).alias("partition"), pl.lit(cell.title).alias("cell"))
    return pl.concat([table.with_columns(*titled).select(list(ANSWERS_SCHEMA)) for table in (said, lost)])


def main(
    each: Annotated[int, typer.Option(min=1, max=1000, help="Sentences of each of the three files.")] = 50,
    reviews: Annotated[Path, typer.Option(help="The folder of the labelled sentences.")] = REVIEWS,
    output: Annotated[Path, typer.Option(help="The file for the numbers; a page comes beside it.")] = Path(
        ".bench/sentiment.json"
    ),
) -> None:
    """Compare a small language model with and without examples, and a lexicon, over labelled sentences."""
    console = Console()
    documents = sample(reviews, each)
    if documents.is_empty():
        console.print(f"There are no *_labelled.txt in {reviews}: name their folder with --reviews.")
        raise typer.Exit(2)
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="scratch-", dir=output.parent) as scratch, console.status("") as status:
        said = answers(CELLS, documents, Path(scratch), status.update)
    scores = score(said, {})
    output.write_text(json.dumps(numbers(scores), indent=2) + "\n")
    page = comparison_page("Labelled sentences", scores, documents="reviews", partitions=1, at=utc_now(), emulated=True)
    output.with_suffix(".html").write_text(page, encoding="utf-8")
    console.print(table(scores))
    console.print(verdict(scores))
    console.print(f"The numbers are in {output}, the page in {output.with_suffix('.html')}.")


def numbers(scores: Scores) -> dict[str, Any]:
    """What was found, to be kept."""
    return {"verdict": verdict(scores), "cells": scores.cells.to_dicts(), "pairs": scores.pairs.to_dicts()}


def table(scores: Scores) -> Table:
    """The cells, as they are compared."""
    shown = Table("cell", "accuracy", "95 % interval", "macro F1", "failed", "p against the best")
    cells = scores.cells.sort("accuracy", descending=True)
    best = cells["cell"][0]
    for row in cells.iter_rows(named=True):
        both = [best, row["cell"]]
        pair = scores.pairs.filter(pl.col("cell").is_in(both) & pl.col("other").is_in(both))
        shown.add_row(
            row["cell"],
            f"{row['accuracy']:.1%}",
            f"{row['accuracy_low']:.1%}–{row['accuracy_high']:.1%}",
            f"{row['macro_f1']:.3f}",
            f"{row['failed_share']:.1%}",
            "" if pair.is_empty() else _told(pair["p_adjusted"][0]),
        )
    return shown


def _told(p_value: float) -> str:
    return f"{p_value:.4f}" if p_value >= LEAST_TOLD else f"< {LEAST_TOLD}"


if __name__ == "__main__":
    typer.run(main)
