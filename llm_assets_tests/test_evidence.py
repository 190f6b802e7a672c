"""Evidence: what of an answer stands in the text, and what the published table says of the rest."""

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest

from llm_assets.collection import collect_partition
from llm_assets.evidence import path_problem, unsupported
from llm_assets.output_schema import OutputSchema
from llm_assets.platform import Platform
from llm_assets_tests.platforms import P, Time, enriched, finish, labels, run, submit, write_documents

TEXT = "Sold by HALLOWAY\n Timber on 3 November 2026: EUR 1,204.50 (also 1.204,75), 12,5 m, 1'000'000 nails."


@pytest.mark.parametrize(
    ("value", "is_there"),
    [
        pytest.param("Halloway Timber", True, id="case and blanks"),
        pytest.param("Halloway Timbers", False, id="a letter more"),
        pytest.param(1204.5, True, id="thousands with a comma"),
        pytest.param(1204.75, True, id="thousands with a point"),
        pytest.param(12.5, True, id="a decimal comma"),
        pytest.param(1_000_000, True, id="thousands with an apostrophe"),
        pytest.param(-3, True, id="a sign is no evidence"),
        pytest.param(4, False, id="a number that is not there"),
        pytest.param(20, False, id="part of a number"),
        pytest.param(date(2026, 11, 3), True, id="a date in words"),
        pytest.param(date(2026, 11, 4), False, id="another date"),
        pytest.param(datetime(2026, 11, 3, 9, tzinfo=UTC), True, id="a moment by its date"),
        pytest.param(True, True, id="truth needs none"),
        pytest.param(None, True, id="null says nothing"),
        pytest.param([], True, id="an empty list"),
        pytest.param([12.5, 3], True, id="all of a list"),
        pytest.param([12.5, 4], False, id="not all of a list"),
    ],
)
def test_a_value_is_looked_for_as_it_may_be_written(value: Any, is_there: bool) -> None:
    answers = pl.DataFrame({"value": [value]}, strict=False)
    assert unsupported(answers, ["value"], pl.Series([TEXT])).to_list() == [[] if is_there else ["value"]]


def test_paths_lead_into_objects_and_lists_and_no_text_is_no_verdict() -> None:
    lines = [{"item": "nails", "price": 12.5}, {"item": "glue", "price": 1204.5}]
    answers = pl.DataFrame({"lines": [lines, lines]})
    found = unsupported(answers, ["lines.price", "lines.item"], pl.Series([TEXT, None]))
    assert found.to_list() == [["lines.item"], None]


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        pytest.param("lines.price", None, id="in a list of objects"),
        pytest.param("tags", None, id="a list"),
        pytest.param("lines", "it is an object: name one of its fields", id="objects"),
        pytest.param("lines.prize", "'prize' is none of price", id="no such field of an object"),
        pytest.param("total", "'total' is none of lines, tags", id="no such field"),
        pytest.param("tags.a", "'a' is none of its fields: it has none", id="beyond a value"),
    ],
)
def test_paths_are_checked_against_the_columns(path: str, problem: str | None) -> None:
    schema = {"lines": pl.List(pl.Struct({"price": pl.Float64()})), "tags": pl.List(pl.String())}
    assert path_problem(schema, path) == problem


FIELDS = {"vendor": "string", "total": "number"}
TEXTS: list[str | None] = ["Vendor: Ash & Sons\nTotal: 12.50", "Vendor: Birch Ltd", "no labels at all", ""]


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_what_the_text_does_not_hold_is_named_beside_the_answer(empty: Platform, provider: str) -> None:
    output = OutputSchema.from_fields("invoice", FIELDS, "")
    looked = replace(labels(provider), output=output, evidence=("vendor", "total"))
    run(empty, looked, TEXTS)
    table = enriched(empty, looked)
    assert table["unsupported"].to_list() == [[], ["total"], ["vendor", "total"]]
    assert table["vendor"].to_list()[:2] == ["Ash & Sons", "Birch Ltd"]


@pytest.mark.parametrize(
    "again",
    [pytest.param(TEXTS[::-1], id="in-another-order"), pytest.param(["Vendor: Cedar", *TEXTS[1:]], id="one-corrected")],
)
def test_of_documents_that_were_replaced_nothing_is_said(empty: Platform, again: list[str | None]) -> None:
    output = OutputSchema.from_fields("invoice", FIELDS, "")
    looked = replace(labels("anthropic"), output=output, evidence=("vendor",))
    write_documents(empty, TEXTS)
    submit(empty, looked)
    write_documents(empty, again)
    finish(empty, looked)
    collect_partition(empty, looked, P)
    assert enriched(empty, looked)["unsupported"].to_list() == [None, None, None]


def test_declaring_evidence_later_asks_nothing_again(empty: Platform, time: Time) -> None:
    output = OutputSchema.from_fields("invoice", FIELDS, "")
    plain = replace(labels("anthropic"), output=output)
    run(empty, plain, TEXTS)
    assert "unsupported" not in enriched(empty, plain).columns
    before = time.emulator.accounting()["requests"]
    looked = replace(plain, evidence=("total",))
    assert submit(empty, looked).published_at is None  # the sensor sees that there is something to publish
    run(empty, looked, TEXTS)
    assert enriched(empty, looked)["unsupported"].to_list() == [[], ["total"], ["total"]]
    assert time.emulator.accounting()["requests"] == before
