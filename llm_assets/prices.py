"""Tokens → US dollars. Rates are those of the price list that genai-prices carries, or what a deployment declares.

Every request is priced by itself, never a sum of them: some models cost more for all tokens of a long request.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec
import polars as pl
from genai_prices import Usage, calc_price
from genai_prices.types import ModelPrice, TieredPrices

_MILLION = 1_000_000
# Our names for rates, and the price list's.
_LISTED = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
}


# What the list knows in real time only: developers.openai.com/api/docs/pricing, "Embeddings", as of 2026-11.
_NOT_LISTED = {("openai", "text-embedding-3-small"): 0.01, ("openai", "text-embedding-3-large"): 0.065}


class PriceUnknown(ValueError):
    """No batch price is known for a model, or what was declared is none."""


@dataclass(frozen=True, slots=True)
class Rates:
    """US dollars a million tokens, for requests whose whole input is longer than `above` tokens."""

    input: float
    output: float
    cache_read: float
    cache_write: float
    cache_write_1h: float
    above: int = 0


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs through the batch API, and what the same costs in real time.

    Both are rates by rising `above`; the first are those above 0.
    """

    batch: tuple[Rates, ...]
    standard: tuple[Rates, ...]


FREE = Price((Rates(0, 0, 0, 0, 0),), (Rates(0, 0, 0, 0, 0),))


def listed_price(provider: str, model: str, at: datetime) -> Price:
    """What the price list says of a model at a time. Raises PriceUnknown where it has no batch price."""
    batch, standard = (_listed(provider, model, at, processing) for processing in ("batch", "standard"))
    if batch is None or standard is None:
        raise PriceUnknown(f"the price list has no model {model!r} of {provider}")
    if batch == standard:  # so the list answers for what it does not know
        if (provider, model) in _NOT_LISTED:
            return Price((_rates({"input": _NOT_LISTED[provider, model]}),), _tiers(standard))
        raise PriceUnknown(f"the price list has no batch price for {model!r} of {provider}")
    return Price(_tiers(batch), _tiers(standard))


def listed_standard(provider: str, model: str, at: datetime) -> tuple[Rates, ...]:
    """What the price list says that a model costs in real time; nothing where it does not know the model."""
    found = _listed(provider, model, at, "standard")
    return () if found is None else _tiers(found)


def declared_price(declared: Mapping[str, Any], listed: tuple[Rates, ...] = ()) -> Price:
    """The price that somebody declared: `free: true`, or `batch` (and `standard`) with `input`, `output` and, where
    they differ from `input`, `cache_read`, `cache_write`, `cache_write_1h`, each US dollars a million tokens.

    Without `standard` real time costs what is `listed`, or, where nothing is, the same. Raises PriceUnknown, saying
    what is wrong.
    """
    if declared.get("free"):
        if rates := [name for name in ("batch", "standard") if declared.get(name) is not None]:
            raise PriceUnknown(f"a price is `free: true` or has rates; found both, {' and '.join(rates)}")
        return FREE
    if not isinstance(declared.get("batch"), Mapping):
        raise PriceUnknown(
            "a price is `free: true`, or has `batch: {input: …, output: …}` in US dollars a million tokens"
        )
    batch = _declared_rates("batch", declared["batch"])
    if declared.get("standard") is None:
        return Price((batch,), listed or (batch,))
    standard = _declared_rates("standard", declared["standard"])
    for name in _LISTED:
        if (rate := getattr(batch, name)) > (other := getattr(standard, name)):
            raise PriceUnknown(f"`batch.{name}` is {rate}, above `standard.{name}` {other}: is it the other way round?")
    return Price((batch,), (standard,))


def discounted(listed: Price, discount: float) -> Price:
    """A price list's price less a share, with all its tiers. Raises PriceUnknown unless 0 <= share < 1."""
    if not 0 <= discount < 1:
        raise PriceUnknown(f"`discount` is {discount}; write the share off the price list's price, such as 0.1")

    def less(tiers: tuple[Rates, ...]) -> tuple[Rates, ...]:
        return tuple(
            replace(rates, **{name: getattr(rates, name) * (1 - discount) for name in _LISTED}) for rates in tiers
        )

    return Price(less(listed.batch), less(listed.standard))


def encoded(price: Price) -> str:
    """A price as a text, to be kept with what is sent at it."""
    return msgspec.json.encode(price).decode()


def decoded(text: str) -> Price:
    """The price that `encoded` made a text of."""
    return msgspec.json.decode(text, type=Price)


def in_dollars(usd: float, places: int = 2) -> str:
    """US dollars for people: so many places, or as many as show the first two digits that say something."""
    digits = 0 if usd >= 1 or usd <= 0 else 1 - math.floor(math.log10(usd))
    return f"${usd:,.{max(places, digits)}f}"


def batch_usd(price: Price) -> pl.Expr:
    """What each row costs: columns input_tokens (the total), output_tokens, cache_read_tokens, cache_write_tokens and
    cache_write_1h_tokens → US dollars.
    """
    return _usd(price.batch)


def standard_usd(price: Price) -> pl.Expr:
    """What each row would cost in real time."""
    return _usd(price.standard)


def uncached_usd(price: Price) -> pl.Expr:
    """What each row would cost if the provider had no prompt cache."""
    return _sum(price.batch, {"input": pl.col("input_tokens"), "output": pl.col("output_tokens")})


def _listed(provider: str, model: str, at: datetime, processing: str) -> ModelPrice | None:
    """What the price list has for a model, by how it is asked; None where it has no such model."""
    try:
        return calc_price(
            Usage(),
            model_ref=model,
            provider_id=provider,
            genai_request_timestamp=at,
            price_context={"processing": processing},
        ).model_price
    except LookupError:
        return None


def _usd(tiers: tuple[Rates, ...]) -> pl.Expr:
    read, written, kept = pl.col("cache_read_tokens"), pl.col("cache_write_tokens"), pl.col("cache_write_1h_tokens")
    tokens = {
        "input": pl.col("input_tokens") - read - written,
        "output": pl.col("output_tokens"),
        "cache_read": read,
        "cache_write": written - kept,
        "cache_write_1h": kept,
    }
    return _sum(tiers, tokens)


def _sum(tiers: tuple[Rates, ...], tokens: Mapping[str, pl.Expr]) -> pl.Expr:
    return pl.sum_horizontal(_rate(tiers, name) * count for name, count in tokens.items()) / _MILLION


def _rate(tiers: tuple[Rates, ...], name: str) -> pl.Expr:
    """The rate that a row's input reaches."""
    found = pl.lit(getattr(tiers[0], name), dtype=pl.Float64)
    for rates in tiers[1:]:
        found = pl.when(pl.col("input_tokens") > rates.above).then(pl.lit(getattr(rates, name))).otherwise(found)
    return found


def _tiers(listed: ModelPrice) -> tuple[Rates, ...]:
    prices = {name: getattr(listed, key) for name, key in _LISTED.items()}
    starts = {tier.start for price in prices.values() if isinstance(price, TieredPrices) for tier in price.tiers}
    return tuple(
        _rates({name: _at(price, start) for name, price in prices.items()}, start) for start in (0, *sorted(starts))
    )


def _at(price: object, tokens: int) -> float | None:
    """One rate where the input is just longer than this."""
    if isinstance(price, TieredPrices):
        reached = [tier.price for tier in price.tiers if tier.start <= tokens]
        return float(reached[-1] if reached else price.base)
    return None if price is None else float(price)  # type: ignore[arg-type]


def _rates(found: Mapping[str, float | None], above: int = 0) -> Rates:
    """Rates of which some are not said: tokens without a rate of their own are priced as what they are a part of."""
    read, written, kept = found.get("cache_read"), found.get("cache_write"), found.get("cache_write_1h")
    entered = found.get("input") or 0.0
    written = entered if written is None else written
    return Rates(
        input=entered,
        output=found.get("output") or 0.0,
        cache_read=entered if read is None else read,
        cache_write=written,
        cache_write_1h=written if kept is None else kept,
        above=above,
    )


def _declared_rates(context: str, declared: object) -> Rates:
    if not isinstance(declared, Mapping) or not {"input", "output"} <= declared.keys() <= _LISTED.keys():
        found = ", ".join(map(str, declared)) if isinstance(declared, Mapping) else repr(declared)[:80]
        raise PriceUnknown(f"`{context}` takes input, output and perhaps {', '.join(list(_LISTED)[2:])}; found {found}")
    for name, rate in declared.items():
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < float("inf"):
            raise PriceUnknown(f"`{context}.{name}` is {rate!r:.80}; write US dollars a million tokens, such as 0.05")
    rates = _rates(declared)
    if rates.cache_read > rates.input:
        raise PriceUnknown(
            f"`{context}.cache_read` is {rates.cache_read}, above `{context}.input` {rates.input}: a cache that "
            "costs more than it saves is none"
        )
    return rates
