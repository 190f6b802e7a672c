"""A plan, where its requests stand, and what came back → the rows of `enriched` and `failed`."""

from typing import Any

import polars as pl

from llm_assets.outcome_tables import tables
from llm_assets.records import PLAN_SCHEMA, RESULTS_SCHEMA, FailureKind, Reason
from llm_assets.retries import Standing
from llm_assets_tests.platforms import labels

ENRICHMENT = labels("anthropic")
GOOD, BAD = '{"sentiment":"positive"}', '{"sentiment":"negative"}'


def wants(*rows: tuple[str, str | None]) -> pl.DataFrame:
    """A plan: documents and their fingerprints; one without failed before it was sent."""
    found = [
        {
            "document_id": document_id,
            "fingerprint": fingerprint,
            "reason": None if fingerprint else Reason.EMPTY_DOCUMENT.value,
            "message": None if fingerprint else "no text",
        }
        for document_id, fingerprint in rows
    ]
    return pl.DataFrame(found, schema=PLAN_SCHEMA).with_row_index("position")


def standings(**found: tuple[Standing, int, Reason | None]) -> pl.DataFrame:
    rows = [(fingerprint, *told) for fingerprint, told in found.items()]
    schema = {"fingerprint": pl.String, "standing": pl.String, "attempts": pl.Int32, "reason": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def came(fingerprint: str, wave: int, **said: Any) -> dict[str, Any]:
    used = {"input_tokens": 10, "output_tokens": 1, "cost_usd": 0.5, "cache_read_tokens": 0, "cache_write_tokens": 0}
    return {"fingerprint": fingerprint, "wave": wave, "model": "m", "provider_type": "", "message": ""} | used | said


def made(
    planned: pl.DataFrame, stand: pl.DataFrame, *results: dict[str, Any]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    found = pl.DataFrame(list(results), schema=RESULTS_SCHEMA).lazy()
    enriched, failed = tables(ENRICHMENT, planned, stand, found.drop("answer"), found)
    return enriched.to_dicts(), failed.to_dicts()


def test_each_document_is_in_one_table_in_the_order_of_the_plan() -> None:
    enriched, failed = made(
        wants(("d0", "a"), ("d1", None), ("d2", "b"), ("d3", "c")),
        standings(
            a=(Standing.ANSWERED, 1, None), b=(Standing.FAILED, 1, Reason.REFUSAL), c=(Standing.ANSWERED, 1, None)
        ),
        came("c", 1, answer=BAD),
        came("b", 1, reason=Reason.REFUSAL, message="no", provider_type="refusal"),
        came("a", 1, answer=GOOD),
    )
    assert [(row["document_id"], row["sentiment"]) for row in enriched] == [("d0", "positive"), ("d3", "negative")]
    assert [(row["document_id"], row["reason"], row["kind"], row["attempts"]) for row in failed] == [
        ("d1", Reason.EMPTY_DOCUMENT, FailureKind.PERMANENT, 0),
        ("d2", Reason.REFUSAL, FailureKind.PERMANENT, 1),
    ]
    assert [row["message"] for row in failed] == ["no text", "no"]


def test_a_request_that_two_documents_share_is_counted_at_the_first() -> None:
    enriched, _ = made(
        wants(("d0", "a"), ("d1", "a")), standings(a=(Standing.ANSWERED, 1, None)), came("a", 1, answer=GOOD)
    )
    assert [(row["input_tokens"], row["cost_usd"]) for row in enriched] == [(10, 0.5), (0, 0.0)]


def test_tokens_are_those_of_all_attempts_and_the_message_that_of_the_last() -> None:
    _, failed = made(
        wants(("d0", "a")),
        standings(a=(Standing.FAILED, 2, Reason.OVERLOADED)),
        came("a", 2, reason=Reason.OVERLOADED, message="second", model="later"),
        came("a", 1, reason=Reason.TIMEOUT, message="first"),
    )
    (row,) = failed
    assert (row["reason"], row["message"], row["model"]) == (Reason.OVERLOADED, "second", "later")
    assert (row["attempts"], row["input_tokens"], row["cost_usd"]) == (2, 20, 1.0)


def test_of_two_answers_to_one_request_the_first_counts() -> None:
    enriched, _ = made(
        wants(("d0", "a")),
        standings(a=(Standing.ANSWERED, 1, None)),
        came("a", 1, answer=GOOD, model="first"),
        came("a", 2, answer=BAD, model="second"),
    )
    assert [(row["sentiment"], row["model"], row["wave"]) for row in enriched] == [("positive", "first", 1)]


def test_what_failed_and_was_answered_later_is_an_answer_with_the_tokens_of_both() -> None:
    enriched, failed = made(
        wants(("d0", "a")),
        standings(a=(Standing.ANSWERED, 2, Reason.TRUNCATED)),
        came("a", 1, reason=Reason.TRUNCATED, answer='{"senti'),
        came("a", 2, answer=GOOD),
    )
    assert failed == []
    assert [(row["sentiment"], row["wave"], row["input_tokens"]) for row in enriched] == [("positive", 2, 20)]


def test_a_partition_without_documents_has_both_tables_with_their_columns() -> None:
    found = pl.DataFrame(schema=RESULTS_SCHEMA).lazy()
    enriched, failed = tables(ENRICHMENT, wants(), standings(), found, found)
    assert (enriched.height, failed.height) == (0, 0)
    assert {"document_id", "sentiment", "fingerprint"} <= set(enriched.columns)
    assert {"document_id", "reason", "attempts"} <= set(failed.columns)
