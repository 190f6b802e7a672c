"""The failure table, and where each request of a plan stands."""

import polars as pl
import pytest

from llm_assets.records import RESULTS_SCHEMA, Amendment, FailureKind, Reason
from llm_assets.retries import (
    CAPACITY_REFUSALS_MAX,
    KIND_OF,
    REFUSED_CHARS_MAX,
    Standing,
    amendments,
    standings,
    truncations_max,
)


def results(*rows: tuple[str, int, Reason | None]) -> pl.LazyFrame:
    blank = {"provider_type": "", "message": "", "answer": None, "model": ""}
    tokens = {name: 0 for name in RESULTS_SCHEMA if name.endswith("_tokens")}
    found = [
        {"fingerprint": fingerprint, "wave": wave, "reason": reason} | blank | tokens
        for fingerprint, wave, reason in rows
    ]
    return pl.LazyFrame(found, schema=RESULTS_SCHEMA)


def standing_of(
    *rows: tuple[int, Reason | None],
    in_flight: bool = False,
    attempts_max: int = 3,
    truncations: int = 2,
    rounds: int = 1,
) -> str:
    frame = standings(
        pl.Series(["f"]),
        results(*(("f", wave, reason) for wave, reason in rows)),
        pl.Series(["f"] if in_flight else [], dtype=pl.String),
        attempts_max=attempts_max,
        truncations_max=truncations,
        rounds=rounds,
    )
    assert frame.height == 1
    return str(frame["standing"].item())


def test_every_reason_is_in_the_failure_table() -> None:
    assert set(KIND_OF) == set(Reason)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param([], Standing.DUE, id="never-sent"),
        pytest.param([(1, None)], Standing.ANSWERED, id="answered"),
        pytest.param([(1, Reason.OVERLOADED)], Standing.DUE, id="transient"),
        pytest.param([(1, Reason.OVERLOADED), (2, None)], Standing.ANSWERED, id="answered-at-last"),
        pytest.param([(1, None), (2, Reason.EXPIRED)], Standing.ANSWERED, id="an-answer-is-never-lost-again"),
        pytest.param([(1, Reason.EXPIRED)] * 2, Standing.DUE, id="one-attempt-left"),
        pytest.param([(1, Reason.EXPIRED)] * 3, Standing.FAILED, id="attempts-used-up"),
        pytest.param([(1, Reason.CAPACITY)] * 9, Standing.DUE, id="capacity-is-waited-for"),
        pytest.param(
            [*[(1, Reason.CAPACITY)] * 9, (2, Reason.OVERLOADED)], Standing.DUE, id="capacity-counts-no-attempt"
        ),
        pytest.param([(1, Reason.CAPACITY)] * (CAPACITY_REFUSALS_MAX - 1), Standing.DUE, id="capacity-once-more"),
        pytest.param([(1, Reason.CAPACITY)] * CAPACITY_REFUSALS_MAX, Standing.FAILED, id="capacity-never"),
        pytest.param([(1, Reason.INVALID_REQUEST)], Standing.FAILED, id="permanent"),
        pytest.param([(1, Reason.REFUSAL)], Standing.FAILED, id="refusal"),
        pytest.param([(1, Reason.AUTHENTICATION)] * 9, Standing.HELD, id="systemic-waits-for-somebody"),
        pytest.param([(1, Reason.TRUNCATED)], Standing.DUE, id="truncated-gets-more-room"),
        pytest.param([(1, Reason.INVALID_ANSWER)], Standing.DUE, id="invalid-answer-is-to-be-repaired"),
        pytest.param([(1, Reason.INVALID_ANSWER)] * 2, Standing.FAILED, id="invalid-though-repaired"),
        pytest.param(
            [(1, Reason.INVALID_ANSWER), (2, Reason.OVERLOADED)], Standing.DUE, id="repair-did-not-reach-the-model"
        ),
        pytest.param([(1, Reason.TRUNCATED), (2, Reason.INVALID_ANSWER)], Standing.DUE, id="cut-then-invalid"),
        pytest.param([(1, Reason.INVALID_ANSWER), (2, Reason.TRUNCATED)], Standing.DUE, id="invalid-then-cut"),
    ],
)
def test_standing(rows: list[tuple[int, Reason | None]], expected: Standing) -> None:
    assert standing_of(*rows) == expected


@pytest.mark.parametrize(
    ("reason", "failures"),
    [
        pytest.param(Reason.EXPIRED, 3, id="attempts"),
        pytest.param(Reason.INVALID_ANSWER, 2, id="repairs"),
        pytest.param(Reason.CAPACITY, CAPACITY_REFUSALS_MAX, id="capacity"),
    ],
)
def test_a_round_that_somebody_grants_gives_as_much_again(reason: Reason, failures: int) -> None:
    assert standing_of(*[(1, reason)] * failures) == Standing.FAILED
    assert standing_of(*[(1, reason)] * failures, rounds=2) == Standing.DUE
    assert standing_of(*[(1, reason)] * 2 * failures, rounds=2) == Standing.FAILED


def test_one_attempt_leaves_none_for_a_repair() -> None:
    assert standing_of((1, Reason.INVALID_ANSWER), attempts_max=1) == Standing.FAILED


def test_a_request_in_flight_waits_whatever_it_was_before() -> None:
    assert standing_of((1, Reason.OVERLOADED), in_flight=True) == Standing.WAITING


def test_a_truncated_answer_at_the_ceiling_has_failed() -> None:
    assert standing_of((1, Reason.TRUNCATED), attempts_max=9, truncations=0) == Standing.FAILED


def test_the_last_failure_counts_in_the_order_of_waves() -> None:
    assert standing_of((2, Reason.INVALID_REQUEST), (1, Reason.OVERLOADED)) == Standing.FAILED


@pytest.mark.parametrize(
    ("max_tokens", "ceiling", "expected"),
    [
        pytest.param(100, 100, 0, id="no-room"),
        pytest.param(100, 101, 1, id="a-little"),
        pytest.param(100, 200, 1, id="twice"),
        pytest.param(100, 400, 2, id="four-times"),
        pytest.param(100, 500, 3, id="up-to-the-ceiling"),
    ],
)
def test_how_often_there_is_more_room(max_tokens: int, ceiling: int, expected: int) -> None:
    assert truncations_max(max_tokens, ceiling) == expected


def amended(*rows: tuple[str, int, Reason | None]) -> dict[str, Amendment]:
    """How the requests named here are asked next; their answers say in which wave they were refused."""
    found = results(*rows).with_columns(
        answer=pl.format("answer {}", "wave") + "x" * REFUSED_CHARS_MAX, message=pl.format("error {}", "wave")
    )
    frame = standings(
        pl.Series(sorted({row[0] for row in rows})),
        found,
        pl.Series([], dtype=pl.String),
        attempts_max=9,
        truncations_max=9,
        rounds=9,
    )
    return {str(name): one for name, one in amendments(frame, found, max_tokens=100, ceiling=500).items()}


def test_room_doubles_with_each_truncation_up_to_the_ceiling() -> None:
    often = [("often", wave, Reason.TRUNCATED) for wave in (1, 2, 3)]
    found = amended(("once", 1, Reason.TRUNCATED), *often, ("never", 1, Reason.OVERLOADED))
    assert found == {"once": Amendment(200), "often": Amendment(500)}


def test_the_last_refused_answer_is_shown_up_to_a_length_whatever_came_after_it() -> None:
    invalid = [("f", wave, Reason.INVALID_ANSWER) for wave in (2, 1)]
    found = amended(*invalid, ("f", 3, Reason.OVERLOADED), ("cut", 1, Reason.TRUNCATED), ("g", 1, None))
    assert set(found) == {"f", "cut"}
    assert (found["f"].max_tokens, found["f"].error) == (100, "error 2")
    assert found["f"].refused_answer.startswith("answer 2x")
    assert len(found["f"].refused_answer) == REFUSED_CHARS_MAX
    assert found["cut"] == Amendment(200)


def test_what_was_cut_and_refused_gets_both() -> None:
    found = amended(("f", 1, Reason.TRUNCATED), ("f", 2, Reason.INVALID_ANSWER))
    assert (found["f"].max_tokens, found["f"].error) == (200, "error 2")


def test_what_is_answered_finally_failed_or_in_flight_is_not_read() -> None:
    assert amended(("a", 1, Reason.INVALID_ANSWER), ("a", 2, None), ("b", 1, Reason.REFUSAL)) == {}


def test_a_held_request_keeps_what_it_was_amended_by() -> None:
    found = amended(("f", 1, Reason.TRUNCATED), ("f", 2, Reason.BILLING))
    assert found == {"f": Amendment(200)}


def test_a_transient_kind_is_the_default_for_what_no_table_knows() -> None:
    assert KIND_OF[Reason.UNKNOWN] is FailureKind.TRANSIENT
