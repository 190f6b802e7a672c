"""Tables made of tables: which rows become documents, under which ids, and what cannot be declared."""

from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_assets.derived import Derivation, with_texts
from llm_assets.errors import DeclarationError, DocumentsError

LINES = pl.List(pl.Struct({"description": pl.String(), "price": pl.Float64()}))
SCHEMA: dict[str, pl.DataType] = {
    "document_id": pl.String(),
    "text": pl.String(),
    "stars": pl.Int64(),
    "tags": pl.List(pl.String()),
    "lines": LINES,
}
ROWS = pl.DataFrame(
    [
        ("a", "The first text.", 1, ["x", "y"], [{"description": "bolt", "price": 0.5}]),
        ("b", "The second text.", 5, [], None),
        ("c", None, 2, None, [{"description": "nut", "price": 0.1}, {"description": None, "price": 9.0}]),
    ],
    schema=SCHEMA,
    orient="row",
)


def documents(rows: pl.DataFrame = ROWS, **declared: Any) -> pl.DataFrame:
    derivation = Derivation("made", dict(rows.schema), **declared)
    derivation.check()
    found = derivation.documents(rows.lazy()).collect()
    assert dict(found.schema) == derivation.schema
    return found


def test_rows_are_chosen_by_a_condition_and_keep_their_order() -> None:
    found = documents(where="stars < 3", columns=("stars",))
    assert found.to_dicts() == [
        {"document_id": "a", "text": "The first text.", "stars": 1},
        {"document_id": "c", "text": None, "stars": 2},
    ]


def test_items_that_are_objects_become_rows_with_their_fields() -> None:
    found = documents(explode="lines", text_column="description", columns=("stars",))
    assert found.rows() == [
        ("a#1", "bolt", "a", 1, 1, "bolt", 0.5),
        ("c#1", "nut", "c", 1, 2, "nut", 0.1),
        ("c#2", None, "c", 2, 2, None, 9.0),
    ]
    assert found.columns == ["document_id", "text", "parent_id", "item", "stars", "description", "price"]


def test_items_that_are_texts_become_rows() -> None:
    found = documents(explode="tags", text_column="tags")
    assert found.rows() == [("a#1", "x", "a", 1, "x"), ("a#2", "y", "a", 2, "y")]


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=2000) | st.none(), max_size=5))
def test_parts_hold_the_whole_text_within_the_limit(texts: list[str | None]) -> None:
    rows = pl.DataFrame(
        {"document_id": [f"d{n}" for n in range(len(texts))], "text": pl.Series(texts, dtype=pl.String)}
    )
    parts = documents(rows, split_chars=100)
    assert parts["document_id"].is_unique().all()
    assert (parts["text"].str.len_chars().fill_null(0) <= 100).all()
    for number, text in enumerate(texts):
        mine = parts.filter(pl.col("parent_id") == f"d{number}")
        assert mine["part"].to_list() == list(range(1, mine.height + 1))
        assert (mine["parts"] == mine.height).all()
        joined = "".join(part or "" for part in mine["text"])
        assert "".join(joined.split()) == "".join((text or "").split())


def test_answers_about_parts_are_put_together_in_order_and_a_missing_one_is_told() -> None:
    answers = pl.DataFrame(
        [
            ("a#2", "then", "a", 2, 2, "en"),
            ("b#1", "only", "b", 1, 3, "de"),
            ("a#1", "first", "a", 1, 2, "en"),
        ],
        schema=["document_id", "summary", "parent_id", "part", "parts", "language"],
        orient="row",
    )
    found = documents(answers, group_by="parent_id", text_column="summary", columns=("language",))
    assert found.rows() == [
        ("a", "first\n\nthen", 2, 0, "en"),
        ("b", "only\n\n[2 of 3 parts are missing]", 3, 2, "de"),
    ]


def test_rows_without_parts_are_grouped_as_they_come() -> None:
    rows = pl.DataFrame({"document_id": ["x", "y", "z"], "text": ["1", "2", "3"], "topic": ["t", None, "t"]})
    assert documents(rows, group_by="topic").rows() == [("t", "1\n\n3", 2, 0)]


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        pytest.param({"where": "stars <"}, "where is 'stars <', which is no condition", id="no SQL"),
        pytest.param({"where": "starz < 3"}, 'unable to find column "starz"', id="no such column"),
        pytest.param({"where": "stars + 1"}, "neither true nor false", id="no condition"),
        pytest.param({"explode": "stars"}, "no list but Int64", id="no list"),
        pytest.param({"explode": "items"}, "explode names the column 'items', but there are", id="no such list"),
        pytest.param({"group_by": "topic"}, "group_by names the column 'topic', but there are", id="no such group"),
        pytest.param({"split_chars": 10}, "at least 100 characters", id="parts too small"),
        pytest.param({"explode": "lines", "group_by": "stars"}, "take one of them", id="two shapes"),
        pytest.param({"text_column": "lines"}, "holds no text but List", id="nested text"),
        pytest.param({"text_column": "body"}, "text_column names 'body', but there are", id="no such text"),
        pytest.param({"columns": ("price",)}, "columns names 'price', but there are", id="no such column carried"),
        pytest.param({"columns": ("text",)}, "every table makes itself", id="a column that is there anyway"),
        pytest.param({"columns": ("stars", "stars")}, "'stars' more than once", id="a column twice"),
    ],
)
def test_what_cannot_be_made_is_told_when_definitions_load(declared: dict[str, Any], told: str) -> None:
    derivation = Derivation("made", SCHEMA, source="defs.yaml", **declared)
    with pytest.raises(DeclarationError, match=r"^defs\.yaml: ") as raised:
        derivation.check()
    assert told in str(raised.value)


def test_items_whose_fields_are_called_like_what_is_made_are_refused() -> None:
    schema = SCHEMA | {"lines": pl.List(pl.Struct({"item": pl.String()}))}
    with pytest.raises(DeclarationError, match="have a field 'item', which explode makes itself; rename it"):
        Derivation("made", schema, explode="lines", text_column="item").check()


def slices(rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
    return rows.iter_slices(2)


def test_rows_get_the_texts_of_their_documents() -> None:
    texts = pl.DataFrame({"document_id": list("abcdef"), "text": [f"text {name}" for name in "abcdef"]})
    answers = pl.DataFrame({"document_id": ["a", "d", "e"], "answer": [1, 2, 3]})
    found = pl.concat(with_texts(answers.lazy(), slices(texts)))
    assert found.rows() == [("a", 1, "text a"), ("d", 2, "text d"), ("e", 3, "text e")]


def test_rows_whose_documents_are_gone_are_an_error() -> None:
    texts = pl.DataFrame({"document_id": ["a", "b"], "text": ["x", "y"]})
    answers = pl.DataFrame({"document_id": ["a", "gone", "b"]})
    with pytest.raises(DocumentsError, match="2 of 3 rows are of documents that are not there any more"):
        list(with_texts(answers.lazy(), slices(texts)))
