"""The component `Spending`: what models cost, what a project may spend in a day, and what it did. At most one."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import polars as pl

from llm_assets.components.declarations import Count, Dollars, InFile
from llm_assets.components.documents import days
from llm_assets.components.loaded import PRICED
from llm_assets.components.metadata import column_schema
from llm_assets.components.resources import PlatformResource, tag_process
from llm_assets.errors import DeclarationError
from llm_assets.prices import Price, PriceUnknown, declared_price, discounted, listed_price, listed_standard
from llm_assets.providers import NAMES
from llm_assets.published import SPENDING_SCHEMA, spending_table
from llm_assets.records import Quota


class ModelPrice(dg.Model, dg.Resolvable):
    """What a model costs, in US dollars a million tokens: for models that the price list does not know, and for
    negotiated prices.

    `batch` and `standard` have `input`, `output` and, where they differ from `input`, `cache_read`, `cache_write`,
    `cache_write_1h`. `free` says that it costs nothing, `discount` which share is off the price list's price.
    """

    provider: str
    model_name: str
    batch: Mapping[str, Any] | None = None
    standard: Mapping[str, Any] | None = None
    free: bool = False
    discount: Dollars | None = None

    def price(self, at: datetime) -> Price:
        """What is declared, with what the price list says at a time. Raises PriceUnknown, saying what is wrong."""
        if self.discount is None:
            return declared_price(self.model_dump(), listed_standard(self.provider, self.model_name, at))
        if self.free or self.batch is not None or self.standard is not None:
            raise PriceUnknown("a price has a `discount`, or rates, or is `free: true`; found several")
        return discounted(listed_price(self.provider, self.model_name, at), self.discount)


class ModelQuota(dg.Model, dg.Resolvable):
    """How much a provider's queue holds at once: `requests`, or `tokens` that they read; of a model, or of all."""

    provider: str
    model_name: str | None = None
    requests: Count | None = None
    tokens: Count | None = None


class Spending(InFile, dg.Resolvable):
    """What may be spent on all enrichments together in a day (UTC), in US dollars, and prices of this project's own.

    With a `start_date` there is the asset `spending`: what was spent since then, a partition a day.
    """

    day_usd: Dollars | None = None
    prices: Sequence[ModelPrice] = ()
    quotas: Sequence[ModelQuota] = ()
    start_date: str | None = None

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The asset `spending`, where it is wanted; what else is declared here is read by enrichments."""
        found = context.component_tree.get_all_components(Spending)
        source = self.declared_by(str(context.path))
        if len(found) > 1:
            raise DeclarationError(
                source, f"found {len(found)} Spending components; a project has at most one: declare all of it there"
            )
        self.declared(source)
        self.check_quotas(source)
        PRICED.update((price.provider, price.model_name) for price in self.prices)
        PRICED.update((quota.provider, quota.model_name) for quota in self.quotas if quota.model_name)
        if self.start_date is None:
            return dg.Definitions()
        return spending_definitions(days(source, self.start_date), self.day_usd)

    def check_quotas(self, source: str) -> None:
        """Raise DeclarationError for a quota that is none."""
        declared = Counter((each.provider, each.model_name) for each in self.quotas)
        for each in self.quotas:
            named = f"quotas: that of {each.provider}{f' {each.model_name}' if each.model_name else ''}"
            if each.provider not in NAMES:
                raise DeclarationError(source, f"{named}: the provider is unknown; there are {', '.join(NAMES)}")
            if declared[each.provider, each.model_name] > 1:
                raise DeclarationError(source, f"{named} is declared twice")
            if each.requests is None and each.tokens is None:
                raise DeclarationError(source, f"{named} has neither `requests` nor `tokens`")
            for unit, most in (("requests", each.requests), ("tokens", each.tokens)):
                if most is not None and most < 1:
                    raise DeclarationError(source, f"{named}: {unit} is {most}; it must be at least 1")

    def quotas_of(self, provider: str, model_name: str) -> tuple[Quota, ...]:
        """What holds for a model: its own quota, and the one of all models of its provider."""
        return tuple(
            Quota(each.model_name, each.requests, each.tokens)
            for each in self.quotas
            if each.provider == provider and each.model_name in (model_name, None)
        )

    def declared(self, source: str) -> dict[tuple[str, str], Price]:
        """The prices by provider and model. Raises DeclarationError for one that is none."""
        source = self.declared_by(source)
        if self.day_usd is not None and not 0 < self.day_usd < float("inf"):
            raise DeclarationError(
                source, f"day_usd is {self.day_usd}; it must be above 0 (US dollars), or left out for no limit"
            )
        found: dict[tuple[str, str], Price] = {}
        for each in self.prices:
            named = f"prices: that of {each.provider} {each.model_name}"
            if each.provider not in NAMES:
                raise DeclarationError(source, f"{named}: the provider is unknown; there are {', '.join(NAMES)}")
            if not each.model_name.strip():
                raise DeclarationError(source, f"{named}: model_name is empty; name the model")
            if (each.provider, each.model_name) in found:
                raise DeclarationError(source, f"{named} is declared twice")
            try:
                found[each.provider, each.model_name] = each.price(datetime.now(UTC))
            except PriceUnknown as problem:
                raise DeclarationError(source, f"{named}: {problem}") from problem
        return found

    def check_standard(self, source: str, provider: str, model_name: str) -> None:
        """Raise DeclarationError where nothing says what a model with a price of its own costs in real time."""
        for each in self.prices:
            if (each.provider, each.model_name) != (provider, model_name) or each.free or each.standard is not None:
                continue
            if each.discount is None and not listed_standard(provider, model_name, datetime.now(UTC)):
                raise DeclarationError(
                    self.declared_by(source),
                    f"prices: that of {provider} {model_name} has no `standard`, and the price list has none: "
                    f"{source} asks it in real time (`mode: realtime` or `rescue_after_hours`), so declare it",
                )


def spending_of(context: dg.ComponentLoadContext) -> Spending:
    """What the project declares, or nothing in particular."""
    return next(iter(context.component_tree.get_all_components(Spending)), Spending())


def spending_definitions(partitions: dg.DailyPartitionsDefinition, day_usd: float | None = None) -> dg.Definitions:
    """The asset `spending` and the schedule that fills it, an hour after each day (UTC) has ended.

    `day_usd` is the project's budget, shown beside what was spent.
    """

    @dg.asset(
        key="spending",
        partitions_def=partitions,
        group_name="spending",
        kinds={"parquet", "polars"},
        description=(
            "What was spent on the results that came in on a day (UTC): a row for each enrichment and model. The plots "
            "show each enrichment's dollars a day. What of today's budgets is taken already stands at `batches` of the "
            "enrichments."
        ),
        metadata={"dagster/column_schema": column_schema(SPENDING_SCHEMA, _DESCRIPTIONS)},
    )
    def spending(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[PlatformResource]
    ) -> dg.MaterializeResult[None]:
        tag_process(context)
        day = datetime.fromisoformat(context.partition_key).replace(tzinfo=UTC)
        with platform.platform() as opened:
            table = spending_table(opened, since=day, until=day + timedelta(days=1))
            path = opened.store.spending(context.partition_key)
            opened.store.write(path, table)
        sums = table.select(pl.col(*_PLOTTED).sum()).row(0, named=True)
        saved = {"saved_by_batch_usd": sums["standard_usd"] - sums["cost_usd"]}
        of_each = table.group_by("enrichment", maintain_order=True).agg(pl.col("cost_usd").sum())
        plotted = {f"cost_usd {name}": usd for name, usd in of_each.iter_rows()}
        budget = {} if day_usd is None else {"day_budget_usd": day_usd}
        rows = [dg.TableRecord({name: row[name] for name in _SHOWN}) for row in table.iter_rows(named=True)]
        shown = dg.TableSchema(columns=[dg.TableColumn(name, str(SPENDING_SCHEMA[name])) for name in _SHOWN])
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": table.height,
                **sums,
                **saved,
                **budget,
                **plotted,
                "by_enrichment": dg.MetadataValue.table(rows, shown),
                "table": path,
            }
        )

    job = dg.define_asset_job("spending_daily", selection=dg.AssetSelection.assets("spending"))
    schedule = dg.build_schedule_from_partitioned_job(
        job, hour_of_day=1, default_status=dg.DefaultScheduleStatus.RUNNING
    )
    return dg.Definitions(assets=[spending], schedules=[schedule])


_PLOTTED = ("requests", "billed", "input_tokens", "output_tokens", "cost_usd", "standard_usd")
_SHOWN = ("enrichment", "model_name", "billed", "cost_usd", "standard_usd")
_DESCRIPTIONS = {
    "requests": "Requests whose results came in.",
    "billed": "Those of them that the provider charged for.",
    "cost_usd": "What they cost, in US dollars.",
    "standard_usd": "What they would have cost in real time.",
    "uncached_usd": "What they would have cost without the provider's prompt cache.",
}
