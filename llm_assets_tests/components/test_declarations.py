"""Declarations in YAML: what is wrong is said when definitions load, with the file that says it."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from llm_assets_tests.components import projects
from llm_assets_tests.components.projects import causes

DOCUMENTS: dict[str, Any] = {
    "name": "reviews",
    "path": "data/{partition}.csv",
    "id_column": "id",
    "text_column": "body",
    "columns": {"product": "string"},
    "start_date": "2026-11-01",
}
ENRICHMENT: dict[str, Any] = {
    "name": "topic",
    "documents": "reviews",
    "provider": "anthropic",
    "model_name": "claude-haiku-5-5",
    "prompt": "prompt.md",
    "output": {"topic": {"type": "string", "enum": ["a", "b"]}},
    "keep": ["product"],
}
PROMPT = "system:\nName the topic.\n\nuser:\n{{ product }}: {{ text }}\n"


def load(enrichment: dict[str, Any], documents: dict[str, Any], prompt: str | None) -> dg.Definitions:
    """The definitions of a project with one table of documents and one enrichment."""
    declared = {
        "reviews": ("Documents", documents),
        "topic": ("Enrichment", enrichment),
        "completion": ("BatchCompletion", {"every_seconds": 30}),
    }
    return projects.load(declared, {} if prompt is None else {"topic": prompt})


def test_a_good_declaration_gives_the_assets_the_checks_and_the_sensor(tmp_path: Path) -> None:
    definitions = load(ENRICHMENT | {"nightly": "02:30"}, DOCUMENTS, PROMPT)
    graph = definitions.resolve_asset_graph()
    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == {
        "documents/reviews",
        "topic/batches",
        "topic/enriched",
        "topic/failed",
    }
    enriched = graph.get(dg.AssetKey(["topic", "enriched"]))
    assert enriched.parent_keys == {dg.AssetKey(["topic", "batches"])}
    assert enriched.group_name == "topic"
    columns = {column.name: column.type for column in enriched.metadata["dagster/column_schema"].columns}
    assert columns["topic"] == columns["product"] == "String"
    assert definitions.resolve_sensor_def("batch_completion").minimum_interval_seconds == 30
    assert definitions.resolve_schedule_def("topic_nightly_schedule").cron_schedule == "30 2 * * *"


def test_assets_are_found_by_owner_kind_and_tag_and_say_what_they_are() -> None:
    about = {"owners": ["team:reviews"], "tags": {"domain": "shop", "llm_assets/enrichment": "stolen"}}
    definitions = load(ENRICHMENT | about, DOCUMENTS | about | {"description": "What people wrote."}, PROMPT)
    graph = definitions.resolve_asset_graph()
    documents = graph.get(dg.AssetKey(["documents", "reviews"]))
    assert str(documents.description).startswith("What people wrote.\n\nA row for each document in the files `data/")
    assert documents.owners == ["team:reviews"]
    assert (documents.tags["domain"], documents.tags["llm_assets/documents"]) == ("shop", "reviews")
    for table, kinds in (("batches", {"anthropic", "batch"}), ("enriched", {"anthropic", "parquet", "polars"})):
        found = graph.get(dg.AssetKey(["topic", table]))
        assert (found.owners, found.kinds) == (["team:reviews"], kinds)
        assert {name: value for name, value in found.tags.items() if not name.startswith("dagster/kind/")} == {
            "domain": "shop",
            "llm_assets/enrichment": "topic",
            "llm_assets/documents": "reviews",
            "llm_assets/provider": "anthropic",
            "llm_assets/model": "claude-haiku-5-5",
            "llm_assets/mode": "batch",
        }
    for table, other in (("enriched", "failed"), ("failed", "enriched")):
        assert f"`topic/{other}`" in str(graph.get(dg.AssetKey(["topic", table])).description)


CASES = [
    pytest.param(ENRICHMENT | {"documents": "revews"}, DOCUMENTS, PROMPT, "there are: reviews", id="unknown-documents"),
    pytest.param(ENRICHMENT | {"provider": "antropic"}, DOCUMENTS, PROMPT, "anthropic", id="misspelt-provider"),
    pytest.param(ENRICHMENT, DOCUMENTS, None, "prompt.md does not exist", id="no-prompt-file"),
    pytest.param(ENRICHMENT, DOCUMENTS, "{{ prodct }}", "prodct", id="variable-that-no-column-has"),
    pytest.param(ENRICHMENT, DOCUMENTS, "{{ text ", "prompt.md", id="prompt-that-does-not-parse"),
    pytest.param(ENRICHMENT, DOCUMENTS | {"columns": {}}, PROMPT, "product", id="undeclared-column"),
    pytest.param(ENRICHMENT | {"output": None}, DOCUMENTS, PROMPT, "found none of", id="no-output"),
    pytest.param(
        ENRICHMENT | {"output_class": "a:B"}, DOCUMENTS, PROMPT, "found output and output_class of", id="two-outputs"
    ),
    pytest.param(ENRICHMENT | {"prompt": None}, DOCUMENTS, PROMPT, "no `prompt` is declared", id="no-prompt"),
    pytest.param(ENRICHMENT | {"output": {"t": "strng"}}, DOCUMENTS, PROMPT, "strng", id="unknown-type"),
    pytest.param(ENRICHMENT | {"keep": ["price"]}, DOCUMENTS, PROMPT, "price", id="kept-column-that-is-not-there"),
    pytest.param(ENRICHMENT | {"max_tokens": 0}, DOCUMENTS, PROMPT, "max_tokens", id="no-room"),
    pytest.param(ENRICHMENT | {"nightly": "half two"}, DOCUMENTS, PROMPT, "'02:30'", id="no-time-of-day"),
    pytest.param(ENRICHMENT | {"nightly": "25:00"}, DOCUMENTS, PROMPT, "'02:30'", id="no-such-hour"),
    pytest.param(ENRICHMENT | {"params": {"model": "x"}}, DOCUMENTS, PROMPT, "model", id="params-replace-the-model"),
    pytest.param(ENRICHMENT | {"params": {"temperature": 0}}, DOCUMENTS, PROMPT, "temperature", id="temperature"),
    pytest.param(ENRICHMENT | {"endpoint": "/v1/edits"}, DOCUMENTS, PROMPT, "/v1/edits", id="unknown-endpoint"),
    pytest.param(ENRICHMENT | {"limits": {"requests": 0}}, DOCUMENTS, PROMPT, "limits", id="empty-shards"),
    pytest.param(ENRICHMENT, DOCUMENTS | {"path": "data/all.csv"}, PROMPT, "{partition}", id="no-partition-in-path"),
    pytest.param(ENRICHMENT, DOCUMENTS | {"start_date": "1.11.26"}, PROMPT, "start_date is '1.11.26'", id="no-day"),
    pytest.param(ENRICHMENT, DOCUMENTS | {"text_column": "id"}, PROMPT, "id", id="text-is-the-id"),
    pytest.param(ENRICHMENT, DOCUMENTS | {"path": "{partition}.xlsx"}, PROMPT, "xlsx", id="unknown-format"),
]


@pytest.mark.parametrize(("enrichment", "documents", "prompt", "says"), CASES)
def test_a_bad_declaration_is_said_with_its_file(
    tmp_path: Path, enrichment: dict[str, Any], documents: dict[str, Any], prompt: str | None, says: str
) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - Dagster wraps what components raise
        load(enrichment, documents, prompt)
    told = [message for message in causes(caught.value) if "defs.yaml:" in message or "prompt.md" in message]
    assert any(says in message for message in told), list(causes(caught.value))
