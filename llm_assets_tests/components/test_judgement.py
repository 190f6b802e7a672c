"""A judge in Dagster: pairs of answers that follow both enrichments, verdicts that fail, what is refused."""

from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from llm_assets.components.resources import PlatformResource
from llm_assets.definitions import defs
from llm_assets.erasure import erase
from llm_assets.foreground import declared_lineage
from llm_assets.store import Store
from llm_assets_tests.components import projects
from llm_assets_tests.components.projects import causes, failure_of, materialize
from llm_assets_tests.components.test_declarations import DOCUMENTS, ENRICHMENT, PROMPT
from llm_assets_tests.components.test_derived import tables_of
from llm_assets_tests.emulator_process import Emulator

DAY = "2026-11-01"
BETTER = {"better": {"type": "string", "enum": ["first", "second", "tie"]}}
TOPIC = ENRICHMENT | {"keep": []}
PAIRS: dict[str, Any] = {"name": "pairs", "documents": "reviews", "enrichments": ["topic", "other"], "answer": "topic"}
JUDGE: dict[str, Any] = TOPIC | {"name": "judge", "documents": "pairs", "output": BETTER}
JUDGEMENT: dict[str, Any] = {"name": "judged", "judges": [{"enrichment": "judge"}], "verdict": "better"}
PAIRED = dg.AssetSelection.assets("documents/summary_pairs")
LATER = {"name": "later", "start_date": "2026-12-01"}


def load(
    pairs: dict[str, Any] | None = None, judge: dict[str, Any] | None = None, judgement: dict[str, Any] | None = None
) -> dg.Definitions:
    declared = {
        "reviews": ("Documents", DOCUMENTS),
        "later": ("Documents", DOCUMENTS | LATER),
        "topic": ("Enrichment", TOPIC),
        "other": ("Enrichment", TOPIC | {"name": "other", "prompt": "../topic/prompt.md"}),
        "another": ("Enrichment", TOPIC | {"name": "another", "documents": "later", "prompt": "../topic/prompt.md"}),
        "pairs": ("PairedAnswers", PAIRS | (pairs or {})),
        "judge": ("Enrichment", JUDGE | (judge or {})),
        "judged": ("Judgement", JUDGEMENT | (judgement or {})),
        "completion": ("BatchCompletion", {"every_seconds": 30}),
    }
    text = PROMPT.replace("{{ product }}: ", "")
    return projects.load(declared, {"topic": text, "judge": "user:\n{{ text }} {{ first }} {{ second }}"})


def verdicts_of(store: Store) -> str:
    return store.evaluation("summary_judgement", "verdicts.parquet")


def test_pairs_load_with_their_lineage() -> None:
    definitions = load({"columns": ["product"]}, judgement={"label": "product"})
    pairs = definitions.resolve_asset_graph().get(dg.AssetKey(["documents", "pairs"]))
    assert pairs.parent_keys == {dg.AssetKey([name, "enriched"]) for name in ("topic", "other")}
    origins = {
        name: [(origin.asset_key.to_user_string(), origin.column_name) for origin in found]
        for name, found in pairs.metadata["dagster/column_lineage"].deps_by_column.items()
    }
    assert set(origins["first"]) == set(origins["second"]) == {("topic/enriched", "topic"), ("other/enriched", "topic")}
    assert origins["product"] == [("documents/reviews", "product")]


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        pytest.param({"pairs": {"enrichments": ["topic"]}}, "enrichments names topic; name two different", id="one"),
        pytest.param({"pairs": {"enrichments": ["topic"] * 2}}, "topic, topic; name two different", id="the same"),
        pytest.param({"pairs": {"enrichments": ["topic", "x"]}}, "'x' is not declared; there are: ", id="unknown"),
        pytest.param({"pairs": {"enrichments": ["topic", "another"]}}, "has other partitions than reviews", id="days"),
        pytest.param({"pairs": {"enrichments": ["topic", "judge"]}}, "are made of themselves: pairs →", id="a circle"),
        pytest.param({"pairs": {"answer": "topics"}}, "answer names 'topics', but topic answers with", id="no answer"),
        pytest.param({"pairs": {"columns": ["stars"]}}, "columns names 'stars', but reviews has", id="no column"),
        pytest.param({"pairs": {"columns": ["text"]}}, "which pairs have already; leave it out", id="a column of ours"),
        pytest.param({"judgement": {"judges": []}}, "no judges are declared", id="no judge"),
        pytest.param(
            {"judgement": {"judges": [{"enrichment": "topic"}]}}, "is no table of PairedAnswers", id="no pairs"
        ),
        pytest.param({"judgement": {"judges": JUDGEMENT["judges"] * 2}}, "two judges are called 'judge'", id="twice"),
        pytest.param(
            {"judgement": {"verdict": "worse"}}, "verdict names 'worse', which is no text among", id="no field"
        ),
        pytest.param({"judgement": {"label": "best"}}, "label names the column 'best', but reviews has", id="no label"),
        pytest.param(
            {"judge": {"output": {"better": {"type": "string", "enum": ["a", "second"]}}}},
            "judge cannot answer first; declare `better: {type: string, enum: [first, second, tie]}`",
            id="no such verdicts",
        ),
    ],
)
def test_what_cannot_be_judged_is_told_with_the_file(declared: dict[str, dict[str, Any]], told: str) -> None:
    with pytest.raises(Exception, match=r".") as raised:
        load(**declared)
    assert any("defs.yaml" in cause and told in cause for cause in causes(raised.value)), list(causes(raised.value))


def test_summaries_are_judged_in_both_orders_and_every_document_is_accounted_for(
    emulated: dg.DagsterInstance, emulator: Emulator, tmp_path: Path
) -> None:
    emulator.faults([{"fault": "refusal", "match": "association, meeting 2", "times": 1, "provider": "openai"}])
    definitions = defs()
    steps = [
        ("documents/minutes",),
        *tables_of("minutes_summary_start"),
        ("documents/minutes_parts",),
        *tables_of("minutes_part_summary"),
        ("documents/minutes_notes",),
        *tables_of("minutes_summary"),
        ("documents/summary_pairs",),
    ]
    followed, cursor = [], None
    for step in steps:
        assert materialize(definitions, emulated, *step, day=DAY).success, step
        looked = dg.evaluate_automation_conditions(definitions, emulated, asset_selection=PAIRED, cursor=cursor)
        cursor = looked.cursor
        followed += [step] if looked.total_requested else []
    assert followed == [steps[-2]]  # once both enrichments are published, and not before
    emulator.faults([{"fault": "refusal", "match": "Second", "times": 1}])
    for step in tables_of("summary_judge"):
        assert materialize(definitions, emulated, *step, day=DAY).success

    result = materialize(definitions, emulated, "summary_judgement/comparison")

    assert result.success
    (event,) = result.get_asset_materialization_events()
    metadata = {name: value.value for name, value in event.materialization.metadata.items()}
    assert metadata["verdicts missing: refusal"] == 1
    assert "emulator" in metadata
    store = Store(tmp_path / "store")
    verdicts = store.scan(verdicts_of(store)).collect()
    (row,) = store.scan(store.evaluation("summary_judgement", "scores.parquet")).collect().iter_rows(named=True)
    assert verdicts.height == row["documents"] == 5
    assert row["unjudged_count"] == 1
    assert row["unanswered_count"] == 1  # the empty document
    starts = store.scan(store.enriched("minutes_summary_start", DAY)).collect()
    assert starts["text_was_cut"].any()
    assert row["one_count"] + row["other_count"] + row["disagreed_count"] + row["same_count"] == 3
    assert Path(str(metadata["page"])).read_text().startswith("<!doctype html>")

    (document, *_) = verdicts["document_id"]
    with PlatformResource(root=str(tmp_path / "store")).platform() as platform:
        erase(platform, [document], declared_lineage(), operator="ann@host")
    left = [store.scan(path).collect() for path in (store.documents("summary_pairs", DAY), verdicts_of(store))]
    assert left[0].filter(pl.col("parent_id") == document).is_empty()
    assert left[1]["document_id"].to_list() == verdicts["document_id"].to_list()[1:]


def test_without_anything_published_it_says_what_is_missing(emulated: dg.DagsterInstance) -> None:
    definitions = defs()
    result = materialize(definitions, emulated, "summary_judgement/comparison")
    assert "nothing to judge yet: no partition is published by all of minutes_summary, " in failure_of(result)
    result = materialize(definitions, emulated, "documents/summary_pairs", day=DAY)
    assert "summary_pairs: there is no documents/minutes/2026-11-01.parquet yet" in failure_of(result)
