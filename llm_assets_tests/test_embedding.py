"""Vectors: what is asked for, which answers count, what the table holds and what it costs."""

import struct
from base64 import b64encode
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import orjson
import polars as pl
import pytest

from llm_assets.embedding import Embedding
from llm_assets.enrichment import Enrichment
from llm_assets.errors import DeclarationError
from llm_assets.output_schema import OutputSchema
from llm_assets.platform import Platform
from llm_assets.preview import ask_some
from llm_assets.prompt import Prompt
from llm_assets.providers import get_provider
from llm_assets.records import Message, Reason, Result, Task, Usage
from llm_assets_tests.platforms import P, Time, enriched, failed, labels, local, run, submit, write_documents

ENDPOINT = "/v1/embeddings"
DIALECT = get_provider("openai", ENDPOINT).dialect
TEXTS: list[str | None] = [f"Review {number}: a good thing, number {number}." for number in range(20)]


def vectors(**changes: Any) -> Enrichment:
    declared: dict[str, Any] = {
        "endpoint": ENDPOINT,
        "model_name": "text-embedding-3-small",
        "output": Embedding(16),
        "prompt": Prompt.parse("user:\n{{ text }}", "prompt.md"),
        "max_tokens": 1,
    }
    return replace(labels("openai"), **declared | changes)


def base64(*numbers: float) -> str:
    return b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def line(data: Any, **body: Any) -> bytes:
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    found = {"object": "list", "data": data, "model": "m", "usage": usage} | body
    return orjson.dumps({"custom_id": "a", "response": {"status_code": 200, "body": found}, "error": None})


def test_a_request_is_the_text_and_how_its_vector_shall_be() -> None:
    task = Task("text-embedding-3-small", 1, {}, "embedding", {"user": "u"}, dimensions=16)
    assert DIALECT.body(task, [Message("user", "hello")]) == {
        "model": "text-embedding-3-small",
        "dimensions": 16,
        "encoding_format": "base64",
        "user": "u",
        "input": "hello",
    }


@pytest.mark.parametrize(
    ("found", "text", "reason"),
    [
        pytest.param(line([{"embedding": base64(1, 2)}]), base64(1, 2), None, id="base64"),
        pytest.param(line([{"embedding": [1, 2.0]}]), base64(1, 2), None, id="numbers"),
        pytest.param(line([{"embedding": ["x"]}]), None, Reason.UNREADABLE_RESULT, id="no numbers"),
        pytest.param(line([{"embedding": [1e300]}]), base64(float("inf")), None, id="beyond 32 bits"),
        pytest.param(line([]), None, Reason.UNREADABLE_RESULT, id="none"),
        pytest.param(line([{"embedding": "AA"}, {"embedding": "AA"}]), None, Reason.UNREADABLE_RESULT, id="two"),
    ],
)
def test_a_result_is_its_vector(found: bytes, text: str | None, reason: Reason | None) -> None:
    result = DIALECT.result(found)
    assert (result.text, result.reason, result.usage) == (text, reason, Usage(3, 0))
    assert isinstance(result, Result)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param(base64(0.6, 0.8), None, id="a vector"),
        pytest.param("not base64!", "the vector is not encoded as base64", id="no base64"),
        pytest.param(
            f"{base64(0.6, 0.8)[:4]}!{base64(0.6, 0.8)[4:]}", "the vector is not encoded as base64", id="a mark"
        ),
        pytest.param("ü", "the vector is not encoded as base64", id="no ASCII"),
        pytest.param("", "the vector has 0 dimensions, not 2", id="nothing"),
        pytest.param(base64(1), "the vector has 1 dimensions, not 2", id="too short"),
        pytest.param(base64(1, 2)[:-4] + "AA==", "the vector has 1.75 dimensions, not 2", id="cut"),
        pytest.param(base64(1, float("nan")), "the vector has numbers that are not finite", id="NaN"),
        pytest.param(base64(1, float("inf")), "the vector has numbers that are not finite", id="infinite"),
        pytest.param(base64(0, 0), "all numbers of the vector are zero", id="zeros"),
    ],
)
def test_only_a_vector_of_that_size_that_says_something_is_an_answer(text: str, problem: str | None) -> None:
    assert Embedding(2).validate(text) == problem


def test_answers_become_an_array_of_32_bit_floats() -> None:
    table = Embedding(2).typed(pl.Series([base64(0.6, 0.8), None], dtype=pl.String))
    assert table.schema == {"embedding": pl.Array(pl.Float32, 2)}
    assert table["embedding"].to_list() == [pytest.approx([0.6, 0.8]), None]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        pytest.param({"endpoint": None}, "openai has no vectors at /v1/responses", id="another endpoint"),
        pytest.param({"provider": "anthropic", "endpoint": None}, "anthropic has no vectors at", id="another provider"),
        pytest.param({"output": labels("openai").output}, "answers with vectors; declare `embedding", id="a schema"),
        pytest.param({"output": Embedding(0)}, "dimensions is 0; it must be between 1 and", id="no dimensions"),
        pytest.param(
            {"prompt": Prompt.parse("system:\nBe brief.\n\nuser:\n{{ text }}", "p")}, "made of one text", id="a system"
        ),
        pytest.param({"params": {"dimensions": 3}}, "params.dimensions", id="dimensions as a parameter"),
        pytest.param({"model_name": "text-embedding-9"}, "no model 'text-embedding-9'", id="a model without a price"),
    ],
)
def test_what_cannot_be_a_vector_is_told_when_definitions_load(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(DeclarationError) as raised:
        vectors(**changes).check(["document_id", "text"])
    assert told in str(raised.value)


def test_the_table_is_read_by_polars_and_duckdb_without_conversion(empty: Platform) -> None:
    enrichment = vectors()
    run(empty, enrichment, [*TEXTS, TEXTS[0], ""])
    table = enriched(empty, enrichment)
    assert table.schema["embedding"] == pl.Array(pl.Float32, 16)
    assert table["embedding"][0].to_list() == table["embedding"][20].to_list() != table["embedding"][1].to_list()
    assert failed(empty, enrichment)["reason"].to_list() == ["empty_document"]
    path = local(empty.store, empty.store.enriched(enrichment.name, P))
    sql = "SELECT document_id, array_cosine_similarity(embedding::FLOAT[16], embedding::FLOAT[16]) FROM read_parquet(?)"
    rows = duckdb.execute(sql, [str(path)]).fetchall()
    assert [row[0] for row in rows] == table["document_id"].to_list()
    assert [row[1] for row in rows] == pytest.approx([1.0] * 21)


def test_vectors_that_are_none_are_asked_for_once_more_as_they_were_and_then_failed(
    empty: Platform, time: Time
) -> None:
    rules = [
        {"fault": "schema_violation", "match": "Review 3:", "times": 1},
        {"fault": "invalid_json", "match": "Review 4:", "times": 9},
        {"fault": "overloaded", "match": "Review 5:", "times": 1},
        {"fault": "expired", "match": "Review 6:", "times": 1},
        {"fault": "invalid", "match": "Review 7:", "times": 1},
    ]
    time.emulator.faults(rules)
    enrichment = vectors(attempts=3)
    run(empty, enrichment, TEXTS)
    assert enriched(empty, enrichment).height == 18
    rows = failed(empty, enrichment).select("document_id", "reason", "message").rows()
    assert [row[:2] for row in rows] == [("d4", "invalid_answer"), ("d7", "invalid_request")]
    assert rows[0][2] == "all numbers of the vector are zero"
    contents = list(time.emulator.contents())
    assert len(contents) == 20  # whatever was asked again was asked in the same words
    assert time.emulator.accounting()["requests"] == 24


def test_a_vector_costs_what_its_text_does_at_half_the_price(empty: Platform, time: Time) -> None:
    enrichment = vectors()
    run(empty, enrichment, TEXTS)
    read = time.emulator.accounting()["input_tokens"]
    table = enriched(empty, enrichment)
    assert table["cost_usd"].sum() == pytest.approx(read * 0.01 / 1_000_000)
    assert empty.ledger.money.spent(enrichment.name).standard_usd == pytest.approx(read * 0.02 / 1_000_000)
    assert table["output_tokens"].sum() == 0
    (charged,) = empty.ledger.shards(enrichment.name, P)
    assert charged.at_most_usd == pytest.approx(charged.bytes * 0.01 / 1_000_000, rel=0.02)


def test_another_size_is_another_request_and_a_batch_holds_fewer_of_long_vectors(empty: Platform) -> None:
    write_documents(empty, TEXTS)
    first = submit(empty, vectors())
    assert first.requests == 20
    other = submit(empty, vectors(output=Embedding(32)))
    assert other.digest != first.digest
    small, large = vectors().shard_limits(), vectors(output=Embedding(3072)).shard_limits()
    assert small is not None
    assert large is not None
    assert large.requests < small.requests
    assert vectors(output=labels("openai").output).shard_limits() is None


def test_a_preview_shows_the_size_of_vectors(empty: Platform) -> None:
    write_documents(empty, TEXTS)
    (shown, *_) = ask_some(empty, vectors(), P, 2)
    assert shown.answer == {"embedding": "16 dimensions, length 1.000"}
    assert isinstance(labels("openai").output, OutputSchema)


def test_parquet_holds_nothing_but_the_numbers(empty: Platform, tmp_path: Path) -> None:
    enrichment = vectors(output=Embedding(256))
    run(empty, enrichment, TEXTS)
    size = local(empty.store, empty.store.enriched(enrichment.name, P)).stat().st_size
    assert size < 20 * 256 * 4 * 1.5 + 10_000
