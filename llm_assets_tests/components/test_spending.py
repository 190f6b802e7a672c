"""The component Spending: prices of one's own, the project's budget, quotas, and the asset of what was spent."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from llm_assets.components.loaded import DECLARED
from llm_assets.components.resources import PlatformResource
from llm_assets.components.spending import ModelPrice, ModelQuota, Spending
from llm_assets.platform import Platform, utc_now
from llm_assets.prices import declared_price, listed_price
from llm_assets.records import Quota
from llm_assets_tests.components import projects
from llm_assets_tests.components.projects import causes
from llm_assets_tests.components.test_declarations import DOCUMENTS, ENRICHMENT, PROMPT
from llm_assets_tests.platforms import Time, labels, run

FREE = {"provider": "openai", "model_name": "mine", "free": True}
OWN = {"provider": "openai", "model_name": "mine", "batch": {"input": 0.1, "output": 0.2}}
NO_STANDARD = "prices: that of openai mine has no `standard`, and the price list has none"


def load(spending: dict[str, Any], enrichment: dict[str, Any]) -> dg.Definitions:
    declared = {
        "reviews": ("Documents", DOCUMENTS),
        "topic": ("Enrichment", ENRICHMENT | enrichment),
        "spending": ("Spending", spending),
    }
    return projects.load(declared, {"topic": PROMPT})


@pytest.mark.parametrize(
    ("spending", "enrichment", "problem"),
    [
        pytest.param({"day_usd": -1}, {}, "day_usd is -1.0; it must be above 0", id="negative-project-budget"),
        pytest.param({"day_usd": True}, {}, "found true; write a number", id="a-truth"),
        pytest.param({"quotas": [{"provider": "openai", "tokens": True}]}, {}, "found true; write", id="true-quota"),
        pytest.param({}, {"budget": {"partition_usd": True}}, "found true; write a number", id="true-budget"),
        pytest.param({"day_usd": "20 EUR"}, {}, "valid number", id="currency"),
        pytest.param({}, {"budget": {"partition_usd": -5}}, "budget.partition_usd is -5.0; it must", id="negative"),
        pytest.param({}, {"budget": {"day_usd": 0}}, "budget.day_usd is 0.0; it must be above 0", id="zero"),
        pytest.param({}, {"budget": {"week_usd": 1}}, "week_usd", id="unknown-period"),
        pytest.param({}, {"model_name": "claude-99"}, "the price list has no model 'claude-99'", id="vanished-model"),
        pytest.param(
            {"prices": [{"provider": "openai", "model_name": "m", "batch": {"input": "cheap", "output": 1}}]},
            {},
            "prices: that of openai m: `batch.input` is 'cheap'; write US dollars",
            id="price-that-is-none",
        ),
        pytest.param(
            {"prices": [{"provider": "openai", "model_name": "m"}]}, {}, "a price is `free: true`", id="empty-price"
        ),
        pytest.param(
            {"prices": [OWN]}, {"provider": "openai", "model_name": "mine", "mode": "realtime"}, NO_STANDARD, id="now"
        ),
        pytest.param(
            {"prices": [OWN]},
            {"provider": "openai", "model_name": "mine", "rescue_after_hours": 4},
            NO_STANDARD,
            id="rescued",
        ),
        pytest.param({"prices": [FREE | {"model_name": ""}]}, {}, "model_name is empty; name the model", id="no-name"),
        pytest.param({"prices": [OWN | {"discount": 0.1}]}, {}, "found several", id="discount-and-rates"),
        pytest.param(
            {"prices": [FREE | {"free": False, "discount": 0.1}]}, {}, "has no model 'mine'", id="discount-of-nothing"
        ),
        pytest.param({"prices": [FREE, FREE]}, {}, "prices: that of openai mine is declared twice", id="price-twice"),
        pytest.param(
            {"prices": [FREE | {"provider": "opnai"}]}, {}, "the provider is unknown; there are", id="unknown-provider"
        ),
        pytest.param({"start_date": "2026-13-01"}, {}, "start_date is '2026-13-01'; write a day", id="no-day"),
        pytest.param(
            {"quotas": [{"provider": "openai", "tokens": 5}, {"provider": "openai", "requests": 9}]},
            {},
            "quotas: that of openai is declared twice",
            id="quota-twice",
        ),
        pytest.param({"quotas": [{"provider": "openai"}]}, {}, "neither `requests` nor `tokens`", id="empty-quota"),
        pytest.param(
            {"quotas": [{"provider": "openai", "tokens": 0}]}, {}, "tokens is 0; it must be at least 1", id="zero-quota"
        ),
    ],
)
def test_bad_declarations(spending: dict[str, Any], enrichment: dict[str, Any], problem: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 (Dagster wraps it)
        load(spending, enrichment)
    assert any(problem in message for message in causes(caught.value)), list(causes(caught.value))


def test_a_second_one_is_refused_with_its_file() -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 (Dagster wraps it)
        projects.load({"one": ("Spending", {"day_usd": 5}), "two": ("Spending", {"prices": [FREE]})}, {})
    problem = "defs.yaml: found 2 Spending components; a project has at most one"
    assert any(problem in message for message in causes(caught.value)), list(causes(caught.value))


def test_a_model_of_ones_own_is_declared_free() -> None:
    definitions = load({"prices": [FREE]}, {"provider": "openai", "model_name": "mine"})
    assert definitions.get_assets_def(dg.AssetKey(["topic", "batches"]))


def test_real_time_without_a_standard_of_its_own_costs_what_is_listed() -> None:
    own = OWN | {"model_name": "gpt-6-luna"}
    (price,) = Spending(prices=[ModelPrice.model_validate(own)]).declared("defs.yaml").values()
    assert price.standard == listed_price("openai", "gpt-6-luna", datetime.now(UTC)).standard
    assert price.batch[0].input == 0.1


def test_a_tier_at_the_batch_price_needs_no_standard() -> None:
    flex = {"provider": "openai", "model_name": "mine", "mode": "realtime", "service_tier": "flex"}
    assert load({"prices": [OWN]}, flex).get_assets_def(dg.AssetKey(["topic", "batches"]))


def test_a_models_own_quota_holds_beside_its_providers() -> None:
    of_all, of_one = (
        ModelQuota(provider="openai", requests=5),
        ModelQuota(provider="openai", model_name="m", tokens=9),
    )
    spending = Spending(quotas=[of_all, of_one])
    assert spending.quotas_of("openai", "m") == (Quota(None, 5, None), Quota("m", None, 9))
    assert spending.quotas_of("openai", "other") == (Quota(None, 5, None),)
    assert spending.quotas_of("anthropic", "m") == ()


def test_an_experimental_provider_has_its_price_and_says_what_it_is() -> None:
    price = {"provider": "mistral", "model_name": "mine", "batch": {"input": 1, "output": 2}}
    definitions = load({"prices": [price]}, {"provider": "mistral", "model_name": "mine"})
    key = dg.AssetKey(["topic", "batches"])
    assert "never run against Mistral" in (definitions.get_assets_def(key).specs_by_key[key].description or "")
    assert DECLARED["topic"].price_at(utc_now()) == declared_price(price)


def test_the_asset_says_what_a_day_cost(empty: Platform, time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    for days, name in ((-2, "before"), (-1, "labels"), (0, "after")):
        time.offset = timedelta(days=days)
        run(empty, replace(labels("openai"), name=name), ["good", "bad", "so-so"])
    spent = empty.ledger.money.spent("labels")
    day = (empty.clock() - timedelta(days=1)).date().isoformat()  # there are partitions for days that are over
    monkeypatch.setenv("LLM_ASSETS_ROOT", empty.store.files.where())
    definitions = load({"start_date": day, "day_usd": 7}, {})
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [definitions.get_assets_def("spending")],
            partition_key=day,
            instance=instance,
            resources={"platform": PlatformResource()},
        )
    (event,) = result.get_asset_materialization_events()
    metadata = event.materialization.metadata
    assert metadata["cost_usd"].value == pytest.approx(spent.cost_usd)
    assert metadata["saved_by_batch_usd"].value == pytest.approx(spent.standard_usd - spent.cost_usd)
    assert metadata["cost_usd labels"].value == metadata["cost_usd"].value
    assert (metadata["billed"].value, metadata["day_budget_usd"].value) == (3, 7)
    table = empty.store.scan(empty.store.spending(day)).collect()
    assert table.select("enrichment", "provider", "billed").rows() == [("labels", "openai", 3)]
