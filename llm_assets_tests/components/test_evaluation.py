"""An evaluation in Dagster: what is compared, what follows by itself, what is refused, what has become worse."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from typer.testing import CliRunner

from llm_assets.cli import app
from llm_assets.definitions import defs
from llm_assets.store import Store
from llm_assets_tests.components import projects
from llm_assets_tests.components.projects import causes, failure_of, materialize
from llm_assets_tests.components.test_declarations import DOCUMENTS, ENRICHMENT, PROMPT

DAYS = ("2026-11-01", "2026-11-02", "2026-11-03")
CELLS = ("review_sentiment", "review_sentiment_openai", "review_sentiment_zero_shot")
COMPARISON = dg.AssetKey(["sentiment_evaluation", "comparison"])
LOOKED_AT = dg.AssetSelection.assets(COMPARISON)
EVALUATION: dict[str, Any] = {
    "name": "topics",
    "documents": "reviews",
    "label": "product",
    "answer": "topic",
    "cells": [{"enrichment": "topic"}],
}


def load(evaluation: dict[str, Any], other: dict[str, Any]) -> dg.Definitions:
    declared = {
        "reviews": ("Documents", DOCUMENTS),
        "others": ("Documents", DOCUMENTS | {"name": "others"}),
        "topic": ("Enrichment", ENRICHMENT),
        "other": ("Enrichment", ENRICHMENT | {"name": "other", "prompt": "../topic/prompt.md"} | other),
        "evaluation": ("Evaluation", EVALUATION | evaluation),
        "completion": ("BatchCompletion", {"every_seconds": 30}),
    }
    return projects.load(declared, {"topic": PROMPT})


TWO = [{"enrichment": "topic"}, {"enrichment": "other"}]


@pytest.mark.parametrize(
    ("evaluation", "other", "told"),
    [
        pytest.param({"cells": []}, {}, "no cells are declared", id="nothing to compare"),
        pytest.param({"cells": [{"enrichment": "tpoic"}]}, {}, "'tpoic' is not declared; there are: ", id="unknown"),
        pytest.param({"label": "labels"}, {}, "label names the column 'labels', but reviews has", id="no such label"),
        pytest.param({"answer": "topics"}, {}, "answer names 'topics', but topic answers with", id="no such answer"),
        pytest.param({"cells": TWO}, {"keep": []}, "other does not keep the label", id="a label that is not kept"),
        pytest.param({"cells": TWO}, {"documents": "others"}, "other is about others, not about reviews", id="others"),
        pytest.param({"cells": [TWO[0], TWO[0]]}, {}, "two cells are called 'topic'", id="the same cell twice"),
        pytest.param({"documents": "review"}, {}, "documents 'review' are not declared", id="no such documents"),
    ],
)
def test_what_cannot_be_compared_is_told_with_the_file(
    evaluation: dict[str, Any], other: dict[str, Any], told: str
) -> None:
    with pytest.raises(Exception, match=r".") as raised:
        load(evaluation, other)
    assert any("defs.yaml" in cause and told in cause for cause in causes(raised.value)), list(causes(raised.value))


def answer_all(
    definitions: dg.Definitions, instance: dg.DagsterInstance, day: str, cells: Sequence[str] = CELLS
) -> None:
    materialize(definitions, instance, "documents/reviews", day=day)
    for cell in cells:
        for keys in ((f"{cell}/batches",), (f"{cell}/enriched", f"{cell}/failed")):
            assert materialize(definitions, instance, *keys, day=day).success


def compared(definitions: dg.Definitions, instance: dg.DagsterInstance) -> tuple[dict[str, Any], bool]:
    """The metadata of the comparison, and whether its check passed."""
    result = materialize(definitions, instance, "sentiment_evaluation/comparison")
    assert result.success
    (event,) = result.get_asset_materialization_events()
    (check,) = result.get_asset_check_evaluations()
    return {name: value.value for name, value in event.materialization.metadata.items()}, check.passed


def test_cells_are_compared_over_all_labelled_documents_that_they_share(
    emulated: dg.DagsterInstance, tmp_path: Path
) -> None:
    definitions = defs()
    for day in DAYS:
        answer_all(definitions, emulated, day)

    metadata, passed = compared(definitions, emulated)

    store = Store(tmp_path / "store")
    documents = pl.concat([store.scan(store.documents("reviews", day)) for day in DAYS]).collect()
    labelled = documents.filter(pl.col("label").fill_null("") != "").height
    assert (metadata["documents"], metadata["dagster/row_count"]) == (labelled, 3 * labelled)
    assert metadata["partitions"] == 3
    assert metadata["significant_differences"] == 2
    assert "significantly more than gpt-6-luna zero-shot" in metadata["verdict"]
    assert metadata["accuracy gpt-6-luna few-shot"] > metadata["accuracy gpt-6-luna zero-shot"] > 0
    assert "emulator" in metadata
    page = Path(metadata["page"])
    assert page.read_text().startswith("<!doctype html>")
    assert passed


def test_a_cell_that_has_become_worse_than_what_was_accepted_fails_the_check(
    emulated: dg.DagsterInstance, tmp_path: Path
) -> None:
    definitions = defs()
    answer_all(definitions, emulated, DAYS[0])
    compared(definitions, emulated)
    said = CliRunner().invoke(app, ["accept", "sentiment_evaluation"])
    assert said.exit_code == 0, said.output
    assert compared(definitions, emulated)[1]

    store = Store(tmp_path / "store")
    accepted = store.evaluation("sentiment_evaluation", "accepted.parquet")
    better = store.scan(accepted).with_columns(answer="label").collect()
    store.write(accepted, better)
    assert not compared(definitions, emulated)[1]


def test_without_anything_published_by_all_cells_it_says_what_is_missing(emulated: dg.DagsterInstance) -> None:
    result = materialize(defs(), emulated, "sentiment_evaluation/comparison")
    assert "nothing to compare yet: no partition is published by all of review_sentiment, " in failure_of(result)


def test_where_the_cells_share_no_partition_yet_what_follows_by_itself_does_not_fail(
    emulated: dg.DagsterInstance,
) -> None:
    definitions = defs()
    for cell, day in zip(CELLS, DAYS, strict=True):
        answer_all(definitions, emulated, day, cells=[cell])
    followed = {"dagster/from_automation_condition": "true"}
    result = materialize(definitions, emulated, "sentiment_evaluation/comparison", tags=followed)
    assert result.success
    assert not result.get_asset_materialization_events()


def test_accepting_what_was_never_compared_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_ASSETS_ROOT", str(tmp_path / "store"))
    said = CliRunner().invoke(app, ["accept", "sentiment_evaluation"])
    assert said.exit_code != 0
    assert "no comparison of 'sentiment_evaluation' is in the store" in " ".join(said.output.split())


def test_the_comparison_follows_its_cells_once_there_is_something_of_each(emulated: dg.DagsterInstance) -> None:
    definitions = defs()

    def requested(cursor: Any = None) -> tuple[int, Any]:
        found = dg.evaluate_automation_conditions(definitions, emulated, asset_selection=LOOKED_AT, cursor=cursor)
        return found.total_requested, found.cursor

    _, cursor = requested()
    for cell in CELLS:
        count, cursor = requested(cursor)
        assert count == 0, cell
        answer_all(definitions, emulated, DAYS[0], cells=[cell])
    count, cursor = requested(cursor)
    assert count == 1
    count, _ = requested(cursor)
    assert count == 0
