"""Declarations in YAML: what is wrong is said when definitions load, with the file, line and key."""

import re
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
FILE, PLACED = re.compile(r"\S+defs\.yaml"), re.compile(r"(?:defs\.yaml:|line )(\d+) \((\S+)\): (.*)")
PROMPT = "system:\nName the topic.\n\nuser:\n{{ product }}: {{ text }}\n"


COMPARED: dict[str, Any] = {
    "name": "compared",
    "documents": "reviews",
    "label": "product",
    "answer": "topic",
    "cells": [{"enrichment": "topic"}, {"enrichment": "other"}],
}
# Folder -> component, and attributes that are right.
PROJECT: dict[str, tuple[str, dict[str, Any]]] = {
    "reviews": ("Documents", DOCUMENTS),
    "topic": ("Enrichment", ENRICHMENT),
    "other": ("Enrichment", ENRICHMENT | {"name": "other", "prompt": "../topic/prompt.md"}),
    "made": ("DerivedDocuments", {"name": "made", "enrichment": "topic", "columns": ["product"]}),
    "compared": ("Evaluation", COMPARED),
    "spending": ("Spending", {"day_usd": 5}),
    "completion": ("BatchCompletion", {"every_seconds": 30}),
}
SPENT = {"provider": "openai", "model_name": "m"}

NEEDED = {"reviews": (), "topic": ("reviews",), "made": ("reviews", "topic"), "spending": ()}

# What is wrong, in which folder, at which key, and what is said.
BAD: list[tuple[str, str, dict[str, Any], str, str]] = [
    ("files that are nowhere", "reviews", {"path": "data/all.csv"}, "path", "{partition}"),
    ("a format that nobody reads", "reviews", {"path": "{partition}.xlsx"}, "path", "xlsx"),
    ("a text that is the id", "reviews", {"text_column": "id"}, "text_column", "'id'"),
    ("a type that is none", "reviews", {"columns": {"product": "text"}}, "columns.product", "'text'"),
    ("days without a first", "reviews", {"start_date": None}, "start_date", "write `day` with one, or `file`"),
    ("a day that is none", "reviews", {"start_date": "1.11.26"}, "start_date", "write a day, such as"),
    ("documents that are not there", "topic", {"documents": "revews"}, "documents", "'revews' are not declared"),
    ("a misspelt provider", "topic", {"provider": "antropic"}, "provider", "did you mean anthropic?"),
    ("a model without a price", "topic", {"model_name": "claude-99"}, "model_name", "the price list has no model"),
    ("no model", "topic", {"model_name": " "}, "model_name", "model_name is empty"),
    ("no prompt", "topic", {"prompt": None}, "prompt", "no `prompt` is declared"),
    ("a prompt that is not there", "topic", {"prompt": "p.md"}, "prompt", "p.md does not exist"),
    ("a name that is none", "topic", {"name": "Topic 1"}, "name", "must begin with a lower-case letter"),
    ("no output", "topic", {"output": None}, "output", "found none of `output`"),
    ("two outputs", "topic", {"output_class": "a:B"}, "output", "found output and output_class of"),
    ("a field of no type", "topic", {"output": {"topic": "strng"}}, "output.topic", "strng"),
    ("a column that is kept twice", "topic", {"keep": ["product"] * 2}, "keep", "more than once"),
    ("a column that is not there", "topic", {"keep": ["product", "price"]}, "keep", "keep names the column 'price'"),
    ("no room for an answer", "topic", {"max_tokens": 0}, "max_tokens", "it must be at least 1"),
    ("a ceiling below", "topic", {"max_tokens_ceiling": 9}, "max_tokens_ceiling", "is below max_tokens"),
    ("a share above one", "topic", {"hold_above": 7}, "hold_above", "a share between 0 and 1"),
    ("too many attempts", "topic", {"attempts": 99}, "attempts", "between 1 and 20"),
    ("a budget of nothing", "topic", {"budget": {"day_usd": 0}}, "budget.day_usd", "it must be above 0"),
    ("an empty batch", "topic", {"limits": {"requests": 0}}, "limits.requests", "takes between 1 and"),
    ("an endpoint that is none", "topic", {"endpoint": "/v1/edits"}, "endpoint", "'/v1/edits' cannot be used"),
    ("a parameter of ours", "topic", {"params": {"model": "x"}}, "params.model", "set, or excluded, for every"),
    ("a parameter that is gone", "topic", {"params": {"temperature": 0}}, "params.temperature", "temperature"),
    ("evidence of nothing", "topic", {"evidence": ["price"]}, "evidence", "which the output does not have"),
    ("a way that is none", "topic", {"mode": "now"}, "mode", "there are batch, realtime"),
    ("a rescue after the end", "topic", {"rescue_after_hours": 30}, "rescue_after_hours", "below deadline_hours"),
    ("a text too short to cut", "topic", {"max_chars": 9}, "max_chars", "it must be at least 100"),
    ("no time of day", "topic", {"nightly": "half two"}, "nightly", "'02:30'"),
    ("no number of an hour", "topic", {"nightly": "²:00"}, "nightly", "'02:30'"),
    ("no hour of a day", "topic", {"nightly": "24:00"}, "nightly", "'02:30'"),
    ("no time to be there by", "topic", {"fresh_by": "9 am"}, "fresh_by", "fresh_by is '9 am'"),
    ("documents of nothing", "made", {"enrichment": None}, "enrichment", "found neither of"),
    ("documents of what is not there", "made", {"enrichment": "topics"}, "enrichment", "'topics' is not declared"),
    ("a column that nothing has", "made", {"columns": ["price"]}, "columns", "columns names 'price'"),
    ("parts that are too small", "made", {"split_chars": 5}, "split_chars", "at least 100 characters"),
    ("a condition that is none", "made", {"where": "stars < 3"}, "where", "which is no condition on"),
    ("two shapes", "made", {"explode": "topic", "group_by": "topic"}, "explode", "take one of them"),
    ("nothing to compare", "compared", {"cells": []}, "cells", "no cells are declared"),
    ("a cell of nothing", "compared", {"cells": [{"enrichment": "x"}]}, "cells.enrichment", "'x' is not declared"),
    ("no such label", "compared", {"label": "labels"}, "label", "label names the column 'labels'"),
    ("no such answer", "compared", {"answer": "topics"}, "answer", "answer names 'topics'"),
    ("a quota of nothing", "spending", {"quotas": [{"provider": "openai"}]}, "quotas", "neither `requests` nor"),
    ("a price that is none", "spending", {"prices": [SPENT]}, "prices", "a price is `free: true`"),
]


def test_a_good_declaration_gives_the_assets_the_checks_and_the_sensor() -> None:
    declared = {
        "reviews": PROJECT["reviews"],
        "topic": ("Enrichment", ENRICHMENT | {"nightly": "02:30"}),
        "completion": PROJECT["completion"],
    }
    definitions = projects.load(declared, {"topic": PROMPT})
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
    declared = {
        "reviews": ("Documents", DOCUMENTS | about | {"description": "What people wrote."}),
        "topic": ("Enrichment", ENRICHMENT | about),
    }
    definitions = projects.load(declared, {"topic": PROMPT})
    graph = definitions.resolve_asset_graph()
    documents = graph.get(dg.AssetKey(["documents", "reviews"]))
    assert str(documents.description).startswith("What people wrote.\n\nA row for each document in the files `data/")
    assert documents.owners == ["team:reviews"]
    assert (documents.tags["domain"], documents.tags["llm_assets/documents"]) == ("shop", "reviews")
    for table, kinds in (("batches", {"anthropic", "batch"}), ("enriched", {"parquet", "polars"})):
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


@pytest.mark.parametrize(("folder", "changes", "key", "says"), [pytest.param(*case, id=name) for name, *case in BAD])
def test_a_bad_declaration_is_said_with_its_file_line_and_key(
    folder: str, changes: dict[str, Any], key: str, says: str
) -> None:
    kind, attributes = PROJECT[folder]
    bad = attributes | changes
    lines = projects.text(kind, bad).splitlines()
    project = {name: PROJECT[name] for name in (*NEEDED.get(folder, PROJECT), folder, "completion")}
    with pytest.raises(Exception) as caught:  # noqa: PT011 - Dagster wraps what components raise
        projects.load(project | {folder: (kind, bad)}, {"topic": PROMPT} if "topic" in project else {})
    file, line, named = placed(caught.value, says)
    assert (file, named) == (folder, key)
    assert re.match(rf"[ -]*{key.rpartition('.')[2]}:|  - ", lines[int(line) - 1])


def placed(error: BaseException, says: str) -> tuple[str, str, str]:
    """The folder, line and key that an error tells of a problem."""
    for message in causes(error):
        for line, key, problem in PLACED.findall(message):
            if says in problem and (file := FILE.search(message)):
                return Path(file[0]).parent.name, line, key
    raise AssertionError(list(causes(error)))


def test_answers_that_are_not_of_days_are_late_at_no_time_of_day() -> None:
    documents = DOCUMENTS | {"partitioned_by": "file", "start_date": None}
    project = {"reviews": ("Documents", documents), "topic": ("Enrichment", ENRICHMENT | {"fresh_by": "09:00"})}
    with pytest.raises(Exception) as caught:  # noqa: PT011 - Dagster wraps what components raise
        projects.load(project, {"topic": PROMPT})
    assert placed(caught.value, "fresh_by is for days")[::2] == ("topic", "fresh_by")


def test_what_is_found_on_the_way_is_said_of_the_file_that_is_wrong() -> None:
    bad = ENRICHMENT | {"output": {"topic": "strng"}}
    with pytest.raises(Exception) as caught:  # noqa: PT011 - Dagster wraps what components raise
        projects.load(PROJECT | {"topic": ("Enrichment", bad)}, {"topic": PROMPT})  # `compared` comes first
    assert placed(caught.value, "strng")[::2] == ("topic", "output.topic")


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        pytest.param("{{ prodct }}", "uses 'prodct', but reviews has", id="variable-that-no-column-has"),
        pytest.param("{{ text ", "prompt.md", id="prompt-that-does-not-parse"),
    ],
)
def test_a_bad_prompt_is_said_with_its_file(prompt: str, says: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - Dagster wraps what components raise
        projects.load(PROJECT, {"topic": prompt})
    assert any(says in message for message in causes(caught.value)), list(causes(caught.value))


def test_all_that_is_wrong_is_said_at_once() -> None:
    bad = ENRICHMENT | {"attempts": 0, "keep": ["price"], "budget": {"day_usd": -1}}
    with pytest.raises(Exception) as caught:  # noqa: PT011 - Dagster wraps what components raise
        projects.load({"reviews": PROJECT["reviews"], "topic": ("Enrichment", bad)}, {"topic": PROMPT})
    (told,) = [message for message in causes(caught.value) if message.partition(": ")[2].startswith("3 problems")]
    places = re.findall(r"^  - line (\d+) \((\S+)\): ", told, flags=re.MULTILINE)
    lines = projects.text("Enrichment", bad).splitlines()
    assert [lines[int(line) - 1].strip() for line, _ in places] == ["attempts: 0", "day_usd: -1", "- price"]
    assert [key for _, key in places] == ["attempts", "budget.day_usd", "keep"]
