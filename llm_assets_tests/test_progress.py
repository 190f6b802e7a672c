"""How far a partition is, counted part by part."""

import polars as pl
import pytest

from llm_assets.progress import Oddities, Tally
from llm_assets.records import FailureKind, Reason
from llm_assets.retries import Standing
from llm_assets_tests.samples import PLAN

WANTS = pl.LazyFrame({"fingerprint": ["a", "b", "c", "d", "e"], "document_id": ["d0", "d1", "d2", "d3", "d4"]})


def standings(*rows: tuple[str, Standing, Reason | None, FailureKind | None]) -> pl.DataFrame:
    schema = {"fingerprint": pl.String, "standing": pl.String, "reason": pl.String, "kind": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def tables(enriched: dict[str, list[int]], failed: dict[str, list[object]]) -> tuple[pl.DataFrame, pl.DataFrame]:
    return pl.DataFrame(enriched, schema=dict.fromkeys(enriched, pl.Int64)), pl.DataFrame(failed)


RESULTS = pl.LazyFrame({"input_tokens": [5, 7], "output_tokens": [1, 2], "reason": [None, "refusal"], "wave": [1, 1]})


def test_requests_are_counted_by_where_they_stand_over_all_parts() -> None:
    tally = Tally()
    tally.count(
        standings(
            ("a", Standing.ANSWERED, None, None),
            ("b", Standing.DUE, Reason.OVERLOADED, FailureKind.TRANSIENT),
        ),
        WANTS,
    )
    tally.count(standings(("c", Standing.WAITING, None, None), ("d", Standing.HELD, Reason.BILLING, None)), WANTS)
    assert (tally.pending, tally.open) == (2, 3)
    assert tally.requests == {Standing.ANSWERED: 1, Standing.DUE: 1, Standing.WAITING: 1, Standing.HELD: 1}


def test_what_was_answered_in_the_end_is_no_failure() -> None:
    tally = Tally()
    tally.count(
        standings(
            ("a", Standing.ANSWERED, Reason.OVERLOADED, FailureKind.TRANSIENT),
            ("b", Standing.DUE, Reason.TIMEOUT, FailureKind.TRANSIENT),
        ),
        WANTS,
    )
    progress = tally.unfinished(PLAN, RESULTS, Oddities(), held="")
    assert progress.failures == {Reason.TIMEOUT: 1}
    assert progress.examples == {Reason.TIMEOUT: ["d1"]}


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        pytest.param(Reason.BILLING, "refused by the provider: billing", id="account"),
        pytest.param(Reason.RESULTS_GONE, "the results of 1 requests are gone at the provider", id="gone"),
        pytest.param(None, "", id="nothing"),
    ],
)
def test_why_nothing_more_is_sent(reason: Reason | None, told: str) -> None:
    tally = Tally()
    tally.count(standings(("a", Standing.HELD if reason else Standing.WAITING, reason, None)), WANTS)
    assert tally.held().startswith(told)
    assert bool(tally.held()) == bool(told)


@pytest.mark.parametrize(
    ("kind", "no_room"), [(FailureKind.CAPACITY, True), (FailureKind.TRANSIENT, False)], ids=["capacity", "transient"]
)
def test_whether_what_is_due_waits_for_room(kind: FailureKind, no_room: bool) -> None:
    tally = Tally()
    tally.count(standings(("a", Standing.DUE, Reason.CAPACITY, kind)), WANTS)
    tally.count(standings(("b", Standing.DUE, Reason.TIMEOUT, FailureKind.TRANSIENT)), WANTS)
    assert tally.no_room is no_room


def test_of_many_failures_three_are_examples_and_all_are_counted() -> None:
    tally = Tally()
    for part in (("d0", "d1"), ("d2", "d3"), ("d4",)):
        reasons = [Reason.REFUSAL.value] * len(part)
        failed = {"document_id": [*part], "reason": reasons, "input_tokens": [3] * len(part)}
        tally.count_tables(
            *tables(
                {"wave": [1], "input_tokens": [10], "output_tokens": [2]},
                failed | {"output_tokens": [1] * len(part)},
            )
        )
    progress = tally.finished(PLAN, Oddities(strays=4, conflicts=1))
    assert (progress.enriched, progress.failed, progress.failures) == (3, 5, {Reason.REFUSAL: 5})
    assert progress.examples == {Reason.REFUSAL: ["d0", "d1", "d2"]}
    assert (progress.input_tokens, progress.output_tokens) == (3 * 10 + 5 * 3, 3 * 2 + 5)
    assert (progress.by_wave, progress.strays, progress.conflicts) == ({1: 3}, 4, 1)


def test_before_all_is_there_tokens_and_answers_are_those_of_the_results() -> None:
    progress = Tally().unfinished(PLAN, RESULTS, Oddities(), held="over budget")
    assert (progress.input_tokens, progress.output_tokens, progress.by_wave) == (12, 3, {1: 1})
    assert (progress.published, progress.held) == (False, "over budget")
