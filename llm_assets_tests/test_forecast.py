"""What earlier requests used, and what the next ones will: sums → lines → tokens and dollars."""

from collections.abc import Sequence

import polars as pl
import pytest

from llm_assets.forecast import Estimate, Line, caching_pays, estimate_from, forecast
from llm_assets.prices import declared_price
from llm_assets.records import RESULTS_SCHEMA, Spent
from llm_assets.spending import priced, spent_on

PRICE = declared_price(
    {"batch": {"input": 1, "output": 10, "cache_read": 0.1, "cache_write": 1.25, "cache_write_1h": 2}}
)
MAX_TOKENS = 100


def spent(lengths: Sequence[int], read: Sequence[int], wrote: Sequence[int], **cached: Sequence[int]) -> Spent:
    """What requests with lines of these lengths used."""
    tokens = {"input_tokens": read, "output_tokens": wrote, **cached}
    table = pl.DataFrame({name: tokens.get(name, [0] * len(lengths)) for name in RESULTS_SCHEMA if "_tokens" in name})
    return spent_on(priced(table, PRICE), pl.Series(lengths), PRICE)


def test_what_used_nothing_was_not_billed_and_is_no_evidence() -> None:
    answered = spent([100, 300], [30, 70], [5, 5])
    found = spent([100, 9_000, 300], [30, 0, 70], [5, 0, 5])
    assert (found.requests, found.billed, found.bytes) == (3, 2, 400)
    assert found.cost_usd == pytest.approx((100 + 10 * 10) / 1_000_000)
    assert (found.bytes_bytes, found.bytes_input) == (answered.bytes_bytes, answered.bytes_input)


LENGTHS = range(400, 4_400, 200)


@pytest.mark.parametrize(
    ("lengths", "read", "line"),
    [
        pytest.param(LENGTHS, [50 + length // 4 for length in LENGTHS], Line(50, 0.25), id="a-line"),
        pytest.param(LENGTHS, [700 - length // 10 for length in LENGTHS], Line(470, 0), id="longer-is-not-cheaper"),
        pytest.param([800] * 20, [200] * 20, Line(0, 0.25), id="all-of-one-length"),
        pytest.param([800] * 20, [4] * 20, Line(4, 0), id="hardly-a-token"),
    ],
)
def test_a_line_is_learned_from_twenty_requests(lengths: Sequence[int], read: Sequence[int], line: Line) -> None:
    found = estimate_from(spent([*lengths, 9_000], [*read, 0], [*[7] * 20, 0]), MAX_TOKENS)  # the last was not billed
    assert (found.evidence, found.input.base, found.input.per_byte) == pytest.approx((20, line.base, line.per_byte))
    assert estimate_from(spent(lengths[:-1], read[:-1], [7] * 19), MAX_TOKENS) == Estimate(Line(0, 0.25), Line(50, 0))


def test_an_answer_is_never_expected_to_be_longer_than_it_may_be() -> None:
    lengths = pl.Series([1_000] * 10)
    assert forecast(lengths, Estimate(Line(0, 0.25), Line(400, 0)), PRICE, MAX_TOKENS).output_tokens == 10 * MAX_TOKENS


def test_what_the_cache_did_is_expected_of_it_again() -> None:
    """A twentieth is written, at the price of an hour, and nine tenths are read."""
    written, kept = {"cache_write_tokens": [50] * 20}, {"cache_write_1h_tokens": [50] * 20}
    history = spent([4_000] * 20, [1_000] * 20, [0] * 20, cache_read_tokens=[900] * 20, **written, **kept)
    found = forecast(pl.Series([4_000] * 10), estimate_from(history, MAX_TOKENS), PRICE, MAX_TOKENS)
    assert found.input_tokens == 10_000
    assert found.usd == pytest.approx(history.cost_usd / 2) == pytest.approx(10 * (50 + 50 * 2 + 900 * 0.1) / 1_000_000)


@pytest.mark.parametrize(
    ("prefix", "billed", "cost", "pays"),
    [
        pytest.param("x" * 400, 0, 0.0, True, id="nothing-is-known"),
        pytest.param("x" * 399, 0, 0.0, False, id="too-short"),
        pytest.param("x" * 400, 19, 2.0, True, id="too-few-say-no"),
        pytest.param("x" * 400, 20, 2.0, False, id="enough-say-no"),
        pytest.param("x" * 400, 20, 1.0, True, id="it-costs-the-same"),
    ],
)
def test_whether_a_cache_pays_is_said_by_enough_requests(prefix: str, billed: int, cost: float, pays: bool) -> None:
    assert caching_pays(prefix, 100, Spent(billed=billed, cost_usd=cost, uncached_usd=1.0)) is pays
