"""The failure table, and where each request of a plan stands."""

import polars as pl
import pytest

from llm_assets.records import RESULTS_SCHEMA, FailureKind, Reason
from llm_assets.retries import KIND_OF, Standing, room_for, standings, truncations_max


def results(*rows: tuple[str, int, Reason | None]) -> pl.LazyFrame:
    blank = {"provider_type": "", "message": "", "answer": None, "model": ""}
    tokens = {name: 0 for name in RESULTS_SCHEMA if name.endswith("_tokens")}
    found = [
        {"fingerprint": fingerprint, "wave": wave, "reason": reason} | blank | tokens
        for fingerprint, wave, reason in rows
    ]
    return pl.LazyFrame(found, schema=RESULTS_SCHEMA)


def standing_of(
    *rows: tuple[int, Reason | None], in_flight: bool = False, attempts_max: int = 3, truncations: int = 2
) -> str:
    frame = standings(
        pl.Series(["f"]),
        results(*(("f", wave, reason) for wave, reason in rows)),
        pl.Series(["f"] if in_flight else [], dtype=pl.String),
        attempts_max=attempts_max,
        truncations_max=truncations,
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
        pytest.param([(1, Reason.CAPACITY)] * 9, Standing.DUE, id="capacity-counts-no-attempt"),
        pytest.param([(1, Reason.INVALID_REQUEST)], Standing.FAILED, id="permanent"),
        pytest.param([(1, Reason.REFUSAL)], Standing.FAILED, id="refusal"),
        pytest.param([(1, Reason.AUTHENTICATION)] * 9, Standing.HELD, id="systemic-waits-for-somebody"),
        pytest.param([(1, Reason.TRUNCATED)], Standing.DUE, id="truncated-gets-more-room"),
        pytest.param([(1, Reason.INVALID_ANSWER)], Standing.DUE, id="invalid-answer-again"),
    ],
)
def test_standing(rows: list[tuple[int, Reason | None]], expected: Standing) -> None:
    assert standing_of(*rows) == expected


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


def test_room_doubles_with_each_truncation_up_to_the_ceiling() -> None:
    rows = results(("once", 1, Reason.TRUNCATED), *((("often"), wave, Reason.TRUNCATED) for wave in (1, 2, 3)))
    frame = standings(
        pl.Series(["once", "often", "never"]),
        rows,
        pl.Series([], dtype=pl.String),
        attempts_max=9,
        truncations_max=9,
    )
    assert room_for(frame, 100, 500) == {"once": 200, "often": 500}


def test_a_transient_kind_is_the_default_for_what_no_table_knows() -> None:
    assert KIND_OF[Reason.UNKNOWN] is FailureKind.TRANSIENT
