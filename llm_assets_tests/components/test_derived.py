"""Tables made of tables in Dagster: what is declared, what follows by itself, where columns come from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from llm_assets.definitions import defs
from llm_assets.store import Store
from llm_assets_tests.components import projects
from llm_assets_tests.components.projects import causes, failure_of, materialize
from llm_assets_tests.components.test_declarations import DOCUMENTS, ENRICHMENT, PROMPT
from llm_assets_tests.emulator_process import Emulator

DAY = "2026-11-01"
# All but the corpus: the partitions of files are known to the daemon alone.
LOOKED_AT = dg.AssetSelection.groups("minutes_part_summary", "minutes_summary") | dg.AssetSelection.assets(
    *(dg.AssetKey(["documents", name]) for name in ("minutes_parts", "minutes_notes", "invoice_lines"))
)
NEXT: dict[str, Any] = ENRICHMENT | {"name": "next", "documents": "made", "keep": []}


def load(made: dict[str, Any], **others: tuple[str, dict[str, Any]]) -> dg.Definitions:
    """The definitions of reviews, an enrichment `topic` of them, documents `made` of it, and an enrichment of these."""
    declared = {
        "reviews": ("Documents", DOCUMENTS),
        "topic": ("Enrichment", ENRICHMENT),
        "made": ("DerivedDocuments", {"name": "made", **made}),
        "next": ("Enrichment", NEXT | {"prompt": "../topic/prompt.md"}),
        "completion": ("BatchCompletion", {"every_seconds": 30}),
        **others,
    }
    return projects.load(declared, {"topic": PROMPT.replace("{{ product }}: ", "")})


def test_an_enrichment_of_answers_of_an_enrichment_loads_with_its_lineage() -> None:
    definitions = load({"enrichment": "topic", "where": "topic = 'a'", "columns": ["product"]})
    graph = definitions.resolve_asset_graph()
    made = graph.get(dg.AssetKey(["documents", "made"]))
    assert made.parent_keys == {dg.AssetKey(["topic", "enriched"])}
    assert graph.get(dg.AssetKey(["next", "batches"])).parent_keys == {made.key}
    origins = {
        name: [(origin.asset_key.to_user_string(), origin.column_name) for origin in found]
        for name, found in made.metadata["dagster/column_lineage"].deps_by_column.items()
    }
    assert origins == {
        "document_id": [("topic/enriched", "document_id")],
        "text": [("documents/reviews", "text")],
        "product": [("topic/enriched", "product")],
    }
    answered = graph.get(dg.AssetKey(["topic", "enriched"])).metadata["dagster/column_lineage"].deps_by_column
    assert [origin.column_name for origin in answered["topic"]] == ["text"]
    assert [origin.asset_key for origin in answered["product"]] == [dg.AssetKey(["documents", "reviews"])]
    assert definitions.resolve_sensor_def("following").default_status is dg.DefaultSensorStatus.RUNNING


@pytest.mark.parametrize(
    ("made", "told"),
    [
        pytest.param({}, "found neither of `enrichment` and `documents`", id="of nothing"),
        pytest.param({"enrichment": "topic", "documents": "reviews"}, "found both of", id="of two things"),
        pytest.param({"enrichment": "topics"}, "the enrichment 'topics' is not declared; there are: ", id="no such"),
        pytest.param({"documents": "review"}, "documents 'review' are not declared; there are: ", id="no such table"),
        pytest.param({"enrichment": "topic", "table": "batches"}, "has enriched and failed", id="no such table of it"),
        pytest.param({"documents": "made"}, "documents are made of themselves: made → made", id="of itself"),
        pytest.param({"enrichment": "next"}, "documents are made of themselves: made → made", id="in a circle"),
        pytest.param({"enrichment": "topic", "where": "stars < 3"}, 'unable to find column "stars"', id="condition"),
        pytest.param(
            {"enrichment": "topic", "split_chars": 200, "group_by": "topic"}, "take one of them", id="two shapes"
        ),
    ],
)
def test_what_cannot_be_made_is_told_with_the_file(made: dict[str, Any], told: str) -> None:
    with pytest.raises(Exception, match=r".") as raised:
        load(made)
    assert any("defs.yaml" in cause and told in cause for cause in causes(raised.value)), list(causes(raised.value))


def tables_of(*enrichments: str) -> Iterator[tuple[str, ...]]:
    for name in enrichments:
        yield (f"{name}/batches",)
        yield (f"{name}/enriched", f"{name}/failed")


def test_long_documents_are_summarised_in_parts_and_the_parts_put_together(
    emulated: dg.DagsterInstance, emulator: Emulator, tmp_path: Path
) -> None:
    emulator.faults([{"fault": "refusal", "match": "association, meeting 2", "times": 1}])
    definitions = defs()
    steps = [
        ("documents/minutes",),
        ("documents/minutes_parts",),
        *tables_of("minutes_part_summary"),
        ("documents/minutes_notes",),
        *tables_of("minutes_summary"),
    ]
    for step in steps:
        assert materialize(definitions, emulated, *step, day=DAY).success

    store = Store(tmp_path / "store")
    minutes = store.scan(store.documents("minutes", DAY)).collect()
    summaries = store.scan(store.enriched("minutes_summary", DAY)).collect()
    asked = minutes.filter(pl.col("text").str.strip_chars() != "")
    assert summaries["document_id"].to_list() == asked["document_id"].to_list()
    assert summaries["missing_parts"].to_list() == [0, 1, 0, 0]
    assert (summaries["parts"] > 1).any()
    notes = store.scan(store.documents("minutes_notes", DAY)).collect()
    assert notes["text"].str.ends_with("parts are missing]").to_list() == [False, True, False, False]
    lost = store.scan(store.failed("minutes_part_summary", DAY)).collect()
    assert dict(lost["reason"].value_counts().iter_rows()) == {"refusal": 1, "empty_document": 1}


def test_items_of_answers_are_a_table_of_their_own_with_their_documents_id(
    emulated: dg.DagsterInstance, emulator: Emulator, tmp_path: Path
) -> None:
    definitions = defs()
    for step in (("documents/invoices",), *tables_of("invoice_fields"), ("documents/invoice_lines",)):
        result = materialize(definitions, emulated, *step, day=DAY)
        assert result.success

    store = Store(tmp_path / "store")
    fields = store.scan(store.enriched("invoice_fields", DAY)).collect()
    lines = store.scan(store.documents("invoice_lines", DAY)).collect()
    assert lines.height == fields["line_items"].list.len().sum() > fields.height
    assert set(lines["parent_id"]) == set(fields["document_id"])
    assert lines["quantity"].dtype == pl.Int64
    assert fields["issued_on"].dtype == pl.Date
    unsupported = fields.filter(pl.col("unsupported").list.len() > 0)
    assert unsupported["unsupported"].to_list() in ([["total"]], [])


def test_documents_of_what_is_not_published_say_what_to_materialize(emulated: dg.DagsterInstance) -> None:
    result = materialize(defs(), emulated, "documents/invoice_lines", day=DAY)
    assert not result.success
    assert "there is no enrichments/invoice_fields/enriched/2026-11-01.parquet yet; materialize" in failure_of(result)


def test_what_is_made_of_a_table_follows_it_and_nothing_else_does(emulated: dg.DagsterInstance) -> None:
    definitions = defs()
    before = dg.evaluate_automation_conditions(definitions, emulated, asset_selection=LOOKED_AT)
    materialize(definitions, emulated, "documents/minutes", "documents/invoices", day=DAY)
    after = dg.evaluate_automation_conditions(definitions, emulated, asset_selection=LOOKED_AT, cursor=before.cursor)
    requested = {
        result.key.to_user_string(): set(result.true_subset.expensively_compute_partition_keys())
        for result in after.results
        if result.true_subset.size
    }
    assert requested == {"documents/minutes_parts": {DAY}, "minutes_part_summary/batches": {DAY}}
    assert before.total_requested == 0
    again = dg.evaluate_automation_conditions(definitions, emulated, asset_selection=LOOKED_AT, cursor=after.cursor)
    assert again.total_requested == 0
