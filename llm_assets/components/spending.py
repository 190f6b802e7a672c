"""The component `Spending`: what models cost, and what a project may spend in a day. At most one in a project."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from llm_assets.errors import DeclarationError
from llm_assets.prices import Price, PriceUnknown, declared_price
from llm_assets.providers import NAMES


class ModelPrice(dg.Model, dg.Resolvable):
    """What a model costs, in US dollars a million tokens: for models that the price list does not know, and for
    negotiated prices.

    `batch` and `standard` have `input`, `output` and, where they differ from `input`, `cache_read`, `cache_write`,
    `cache_write_1h`. `free` says that it costs nothing.
    """

    provider: str
    model_name: str
    batch: Mapping[str, Any] | None = None
    standard: Mapping[str, Any] | None = None
    free: bool = False


class Spending(dg.Component, dg.Model, dg.Resolvable):
    """What may be spent on all enrichments together in a day (UTC), in US dollars, and prices of this project's own."""

    day_usd: float | None = None
    prices: Sequence[ModelPrice] = ()

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """No assets: enrichments read this."""
        found = context.component_tree.get_all_components(Spending)
        source = str(context.path)
        if len(found) > 1:
            raise DeclarationError(source, f"found {len(found)} Spending components; a project has at most one")
        self.declared(source)
        return dg.Definitions()

    def declared(self, source: str) -> dict[tuple[str, str], Price]:
        """The prices by provider and model. Raises DeclarationError for one that is none."""
        if self.day_usd is not None and not 0 < self.day_usd < float("inf"):
            raise DeclarationError(
                source, f"day_usd is {self.day_usd}; it must be above 0 (US dollars), or left out for no limit"
            )
        found: dict[tuple[str, str], Price] = {}
        for each in self.prices:
            named = f"the price of {each.provider} {each.model_name}"
            if each.provider not in NAMES:
                raise DeclarationError(source, f"{named}: the provider is unknown; there are {', '.join(NAMES)}")
            if (each.provider, each.model_name) in found:
                raise DeclarationError(source, f"{named} is declared twice")
            try:
                found[each.provider, each.model_name] = declared_price(each.model_dump())
            except PriceUnknown as problem:
                raise DeclarationError(source, f"{named}: {problem}") from problem
        return found


def spending_of(context: dg.ComponentLoadContext) -> Spending:
    """What the project declares, or nothing in particular."""
    return next(iter(context.component_tree.get_all_components(Spending)), Spending())
