"""Tokens become dollars as the price list says, request by request."""

from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from genai_prices import Usage, calc_price
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_assets.forecast import Estimate, Line, forecast
from llm_assets.prices import (
    FREE,
    PriceUnknown,
    Rates,
    batch_usd,
    declared_price,
    decoded,
    discounted,
    encoded,
    in_dollars,
    listed_price,
    listed_standard,
    standard_usd,
    uncached_usd,
)

NOW = datetime(2026, 11, 20, tzinfo=UTC)
MODELS = [
    ("anthropic", "claude-haiku-5-5"),
    ("anthropic", "claude-haiku-4-5"),
    ("anthropic", "claude-sonnet-5-5"),
    ("anthropic", "claude-opus-5-5"),
    ("openai", "gpt-6-luna"),
    ("openai", "gpt-6.1-terra"),
    ("openai", "gpt-5.4-mini"),
]
TOKENS = st.integers(0, 300_000)


def row(read: int, hit: int, written: int, kept: int, wrote: int) -> pl.DataFrame:
    names = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens", "output_tokens")
    return pl.DataFrame({name: [value] for name, value in zip(names, (read, hit, written, kept, wrote), strict=True)})


@pytest.mark.parametrize(("provider", "model"), MODELS)
@settings(max_examples=50)
@given(fresh=TOKENS, hit=TOKENS, short=TOKENS, kept=TOKENS, wrote=st.integers(0, 64_000))
def test_every_row_is_priced_as_the_list_prices_it(
    provider: str, model: str, fresh: int, hit: int, short: int, kept: int, wrote: int
) -> None:
    if provider == "openai":
        kept = 0  # OpenAI has one kind of cache write
    total = fresh + hit + short + kept
    used = Usage(
        input_tokens=total,
        cache_read_tokens=hit,
        cache_write_tokens=short + kept,
        output_tokens=wrote,
        **({"cache_write_1h_tokens": kept} if kept else {}),
    )
    price = listed_price(provider, model, NOW)
    table = row(total, hit, short + kept, kept, wrote).select(batch=batch_usd(price), standard=standard_usd(price))
    for processing, found in table.row(0, named=True).items():
        expected = calc_price(
            used,
            model_ref=model,
            provider_id=provider,
            genai_request_timestamp=NOW,
            price_context={"processing": processing},
        )
        assert found == pytest.approx(float(expected.total_price), rel=1e-12)


@pytest.mark.parametrize(("provider", "model"), MODELS)
def test_a_batch_costs_less_than_real_time(provider: str, model: str) -> None:
    price = listed_price(provider, model, NOW)
    for batch, standard in zip(price.batch, price.standard, strict=True):
        assert batch.input < standard.input
        assert batch.output < standard.output


def test_a_long_request_is_priced_by_itself() -> None:
    price = listed_price("anthropic", "claude-haiku-5-5", NOW)
    two = pl.concat([row(100_000, 0, 0, 0, 0), row(100_001, 0, 0, 0, 0)]).select(batch_usd(price)).to_series()
    assert two.to_list() == pytest.approx([0.005, 0.02500025])


def test_without_a_cache_all_input_costs_the_same() -> None:
    price = listed_price("anthropic", "claude-sonnet-5-5", NOW)
    assert row(1_000_000, 900_000, 50_000, 50_000, 0).select(uncached_usd(price)).item() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("provider", "model", "problem"),
    [
        pytest.param("openai", "nonesuch", "the price list has no model 'nonesuch' of openai", id="no-such-model"),
        pytest.param(
            "openai",
            "text-embedding-ada-002",
            "the price list has no batch price for 'text-embedding-ada-002' of openai",
            id="no-batch-price",
        ),
    ],
)
def test_a_model_without_a_batch_price_is_named(provider: str, model: str, problem: str) -> None:
    with pytest.raises(PriceUnknown) as caught:
        listed_price(provider, model, NOW)
    assert str(caught.value) == problem


def test_a_declared_price() -> None:
    price = declared_price({"batch": {"input": 0.01, "output": 0}, "standard": {"input": 0.02, "output": 0}})
    assert price.batch == (Rates(0.01, 0, 0.01, 0.01, 0.01),)
    assert price.standard == (Rates(0.02, 0, 0.02, 0.02, 0.02),)
    assert declared_price({"free": True}) == FREE
    listed = listed_standard("openai", "gpt-6-luna", NOW)
    assert declared_price({"batch": {"input": 0.01, "output": 0}}, listed).standard == listed != ()
    assert listed_standard("openai", "nonesuch", NOW) == ()
    assert decoded(encoded(price)) == price


@pytest.mark.parametrize("tokens", [1_000, 150_000, 900_000])
@pytest.mark.parametrize(("provider", "model"), [("anthropic", "claude-haiku-5-5"), ("openai", "gpt-6-luna")])
def test_a_discount_keeps_the_tiers_and_cache_rates_of_the_price_list(provider: str, model: str, tokens: int) -> None:
    price = discounted(listed_price(provider, model, NOW), 0.1)
    used = {"input_tokens": tokens, "output_tokens": 100, "cache_read_tokens": 300, "cache_write_tokens": 200}
    row = pl.DataFrame({name: [count] for name, count in (used | {"cache_write_1h_tokens": 0}).items()})
    for processing, usd in (("batch", batch_usd), ("standard", standard_usd)):
        context = {"processing": processing}
        listed = calc_price(
            Usage(**used), model, provider_id=provider, genai_request_timestamp=NOW, price_context=context
        )
        assert row.select(usd(price)).item() == pytest.approx(0.9 * float(listed.total_price))


@pytest.mark.parametrize("share", [-0.1, 1, float("nan")])
def test_a_discount_is_a_share(share: float) -> None:
    with pytest.raises(PriceUnknown, match="`discount` is"):
        discounted(FREE, share)


@pytest.mark.parametrize("written", [0.0, 1.0, 3.0], ids=["a free cache", "at the price of reading", "a dear cache"])
def test_at_most_is_never_less_with_a_cache_than_without(written: float) -> None:
    rates = {"input": 1, "output": 1, "cache_write": written, "cache_write_1h": written}
    price, estimate = declared_price({"batch": rates}), Estimate(Line(0, 0.25), Line(10, 0))
    lengths = pl.Series([1000] * 10)
    plain, cached = (forecast(lengths, estimate, price, 64, cached=cached).at_most_usd for cached in (False, True))
    assert plain == pytest.approx((10_000 + 640) / 1_000_000)
    assert cached == pytest.approx((10_000 * max(written, 1) + 640) / 1_000_000)


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        pytest.param({}, "a price is `free: true`, or has `batch:", id="nothing"),
        pytest.param({"batch": 0.5}, "a price is `free: true`, or has `batch:", id="a-number"),
        pytest.param({"batch": {"input": 1}}, "`batch` takes input, output and perhaps", id="half"),
        pytest.param(
            {"batch": {"input": 1, "output": 1, "thoughts": 2}}, "`batch` takes input, output", id="unknown-rate"
        ),
        pytest.param({"batch": {"input": -1, "output": 1}}, "`batch.input` is -1; write US dollars", id="negative"),
        pytest.param({"batch": {"input": "1 EUR", "output": 1}}, "`batch.input` is '1 EUR'; write US", id="currency"),
        pytest.param({"batch": {"input": True, "output": 1}}, "`batch.input` is True; write US", id="a-truth"),
        pytest.param({"batch": {"input": float("nan"), "output": 1}}, "`batch.input` is nan; write", id="no-number"),
        pytest.param(
            {"batch": {"input": 1, "output": 1}, "standard": []}, "`standard` takes input, output", id="standard"
        ),
        pytest.param(
            {"batch": {"input": 1, "output": 2}, "standard": {"input": 2, "output": 1}},
            "`batch.output` is 2, above `standard.output` 1",
            id="the-other-way-round",
        ),
        pytest.param(
            {"free": True, "batch": {"input": 1, "output": 1}}, "a price is `free: true` or has rates; found", id="both"
        ),
        pytest.param(
            {"batch": {"input": 1, "output": 1, "cache_read": 2}}, "`batch.cache_read` is 2, above", id="dear-cache"
        ),
    ],
)
def test_what_is_no_price(declared: dict[str, Any], problem: str) -> None:
    with pytest.raises(PriceUnknown) as caught:
        declared_price(declared)
    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize("model", ["text-embedding-3-small", "text-embedding-3-large"])
def test_vectors_cost_half_in_a_batch_which_the_price_list_does_not_know(model: str) -> None:
    price = listed_price("openai", model, NOW)
    assert price.batch[0].input == pytest.approx(price.standard[0].input / 2)
    assert price.batch[0].output == 0


@pytest.mark.parametrize(
    ("usd", "places", "shown"),
    [
        pytest.param(0, 2, "$0.00", id="nothing"),
        pytest.param(1234.567, 2, "$1,234.57", id="to-the-cent"),
        pytest.param(0.5, 2, "$0.50", id="half-a-dollar"),
        pytest.param(0.000_123, 2, "$0.00012", id="two-digits-that-say-something"),
        pytest.param(0.5004, 4, "$0.5004", id="finer"),
        pytest.param(0.000_001, 4, "$0.0000010", id="finer-still"),
    ],
)
def test_dollars_are_shown_as_fine_as_they_are(usd: float, places: int, shown: str) -> None:
    assert in_dollars(usd, places) == shown
