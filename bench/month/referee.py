"""What a contender is charged: the emulator's rows, each priced by itself by genai-prices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any

from genai_prices import Usage, calc_price

from llm_assets_tests.emulator_process import Emulator

# What a row says of its tokens, in the words of the price list. Tokens of a cache are part of those that went in, and
# what is kept for an hour is part of what is written. An emulator without a prompt cache does not speak of them.
_TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens")
_CACHED = slice(2, 4)


@dataclass(slots=True)
class Bill:
    """What was sent, what of it was billed, and for how much.

    `copies_usd` is for contents that were billed before on the same day, `again_usd` for those of an earlier day.
    """

    requests: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    usd: Decimal = Decimal(0)
    copies_usd: Decimal = Decimal(0)
    again_usd: Decimal = Decimal(0)

    @property
    def once_usd(self) -> Decimal:
        """For each content, once."""
        return self.usd - self.copies_usd - self.again_usd


def bill_of(emulator: Emulator, provider: str, model: str) -> Bill:
    """The bill for everything that this emulator was sent."""
    days = {batch["id"]: batch["created_at"][:10] for batch in emulator.batches()}
    return bill(((days[row["batch_id"]], row) for row in emulator.rows()), provider, model)


def bill(rows: Iterable[tuple[str, Mapping[str, Any]]], provider: str, model: str) -> Bill:
    """The bill for these rows (with the day of each), in the order in which they were sent."""
    found, paid = Bill(), dict[str, str]()
    for day, row in rows:
        found.requests += 1
        if not row["billed"]:
            found.failed += 1
            continue
        tokens = tuple(row.get(name, 0) for name in _TOKENS)
        price = _price(provider, model, tokens)
        found.usd += price
        found.input_tokens += tokens[0]
        found.output_tokens += tokens[1]
        found.cached_tokens += sum(tokens[_CACHED])
        last = paid.get(row["digest"])
        if last == day:
            found.copies_usd += price
        elif last is not None:
            found.again_usd += price
        paid[row["digest"]] = day
    return found


@lru_cache(maxsize=200_000)
def _price(provider: str, model: str, tokens: tuple[int, ...]) -> Decimal:
    usage = Usage(**{name: count for name, count in zip(_TOKENS, tokens, strict=True) if count})
    return calc_price(usage, model_ref=model, provider_id=provider, price_context={"processing": "batch"}).total_price
