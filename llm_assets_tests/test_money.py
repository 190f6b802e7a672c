"""What is paid: once, within the budgets, and never again for an answer that is there. The emulator is referee."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from genai_prices import Usage, calc_price

from llm_assets.collection import collect_partition
from llm_assets.draft import estimate_requests
from llm_assets.enrichment import Enrichment
from llm_assets.ledger import Ledger
from llm_assets.planning import plan_partition
from llm_assets.platform import Platform
from llm_assets.polling import poll
from llm_assets.preview import ask_some, outlook
from llm_assets.prices import batch_usd, declared_price
from llm_assets.prompt import Prompt
from llm_assets.records import Mode, Reason, ShardState
from llm_assets.reuse import ANSWERS_MAX, Answers
from llm_assets.status import statuses
from llm_assets.store import Store
from llm_assets.submission import send_planned
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.platforms import (
    P,
    Time,
    enriched,
    failed,
    finish,
    go_on,
    labels,
    local,
    run,
    submit,
    write_documents,
)

LATER = "2026-11-02"
NOW = datetime(2026, 11, 20, tzinfo=UTC)
TEXTS: list[str | None] = [f"Review {number}: {'a good thing, ' * (number % 7)}really." for number in range(60)]


@pytest.fixture(params=["anthropic", "openai"])
def enrichment(request: pytest.FixtureRequest) -> Enrichment:
    return labels(str(request.param))


def referee_usd(emulator: Emulator, enrichment: Enrichment) -> float:
    """What the provider would charge, row by row, for all that it says it billed."""
    return sum(
        float(
            calc_price(
                Usage(
                    input_tokens=row["input_tokens"],
                    output_tokens=row["output_tokens"],
                    cache_read_tokens=row["cache_read_tokens"],
                    cache_write_tokens=row["cache_write_tokens"],
                    **({"cache_write_1h_tokens": kept} if (kept := row["cache_write_1h_tokens"]) else {}),
                ),
                model_ref=enrichment.model_name,
                provider_id=enrichment.provider,
                price_context={"processing": "batch"},
            ).total_price
        )
        for row in emulator.rows()
        if row["billed"]
    )


def billed(emulator: Emulator) -> int:
    return sum(row["billed"] for row in emulator.rows())


# -- actual cost


def test_what_was_paid_is_the_providers_bill(empty: Platform, emulator: Emulator, enrichment: Enrichment) -> None:
    emulator.faults([{"fault": "truncated", "rate": 0.2}, {"fault": "overloaded", "rate": 0.2, "attempts": 1}])
    progress = run(empty, enrichment, TEXTS)
    bill = referee_usd(emulator, enrichment)
    assert bill > 0
    assert progress.spent.cost_usd == pytest.approx(bill, abs=1e-12)
    assert empty.ledger.money.spent().cost_usd == pytest.approx(bill, abs=1e-12)
    tables = [
        table.select(pl.col("cost_usd").sum()).item()
        for table in (enriched(empty, enrichment), failed(empty, enrichment))
    ]
    assert sum(tables) == pytest.approx(bill, abs=1e-12)
    assert progress.spent.standard_usd == pytest.approx(2 * bill)


def test_collecting_again_costs_nothing_more(empty: Platform, enrichment: Enrichment) -> None:
    first = run(empty, enrichment, TEXTS)
    again = run(empty, enrichment, TEXTS)
    assert again.spent == first.spent


def test_a_refused_answer_was_paid_and_an_expired_one_was_not(
    empty: Platform, emulator: Emulator, enrichment: Enrichment
) -> None:
    emulator.faults([{"fault": "refusal", "rate": 0.3}])
    run(empty, enrichment, TEXTS)
    refused = failed(empty, enrichment).filter(pl.col("reason") == Reason.REFUSAL)
    assert refused.height > 0
    assert (refused["cost_usd"] > 0).all()
    assert empty.ledger.money.spent().cost_usd == pytest.approx(referee_usd(emulator, enrichment), abs=1e-12)


def test_documents_that_share_a_request_pay_once(empty: Platform, emulator: Emulator, enrichment: Enrichment) -> None:
    progress = run(empty, enrichment, ["the same"] * 10)
    assert billed(emulator) == 1
    assert (enriched(empty, enrichment)["cost_usd"] > 0).sum() == 1
    assert progress.saved_usd == pytest.approx(9 * progress.spent.cost_usd)


# -- never pay again


def partition(platform: Platform, enrichment: Enrichment, name: str, texts: list[str | None]) -> None:
    write_documents(platform, texts, name)
    submit(platform, enrichment, name)
    finish(platform, enrichment, name)


def test_an_unchanged_document_of_another_day_is_not_asked_again(
    empty: Platform, emulator: Emulator, enrichment: Enrichment
) -> None:
    partition(empty, enrichment, P, TEXTS)
    partition(empty, enrichment, LATER, [*TEXTS[:-1], "a new one"])
    assert billed(emulator) == len(TEXTS) + 1
    before, after = enriched(empty, enrichment, P), enriched(empty, enrichment, LATER)
    assert after["sentiment"][:-1].equals(before["sentiment"][:-1])
    assert after["wave"].to_list() == [0] * (len(TEXTS) - 1) + [1]
    assert after["cost_usd"][:-1].sum() == 0
    assert empty.ledger.money.spent().cost_usd == pytest.approx(referee_usd(emulator, enrichment), abs=1e-12)


def test_a_day_on_which_nothing_changed_sends_nothing(
    empty: Platform, emulator: Emulator, enrichment: Enrichment
) -> None:
    partition(empty, enrichment, P, TEXTS)
    calls = emulator.calls()
    for name in (LATER, "2026-11-03"):
        partition(empty, enrichment, name, TEXTS)
        assert enriched(empty, enrichment, name).height == len(TEXTS)
    assert emulator.calls() == calls


def test_answers_age_from_the_day_they_were_given(
    empty: Platform, emulator: Emulator, time: Time, enrichment: Enrichment
) -> None:
    weekly = replace(enrichment, reuse_days=7)
    for day, name in enumerate(("2026-11-01", "2026-11-05", "2026-11-09")):
        partition(empty, weekly, name, TEXTS)
        assert billed(emulator) == len(TEXTS) * (2 if day == 2 else 1)
        time.passes(days=4)


def test_of_two_answers_the_newer_is_taken(
    empty: Platform, emulator: Emulator, time: Time, enrichment: Enrichment
) -> None:
    partition(empty, enrichment, P, ["the same"])
    time.passes(days=4)
    partition(empty, replace(enrichment, reuse_days=0), LATER, ["the same"])
    since = time() - timedelta(days=1)
    partition(empty, enrichment, "2026-11-03", ["the same"])
    assert billed(emulator) == 2
    (taken,) = empty.ledger.shards(enrichment.name, "2026-11-03")
    assert empty.store.scan(empty.store.results(taken)).collect()["answered_at"].item() > since


def test_no_more_answers_are_looked_at_than_fit_into_memory(empty: Platform, enrichment: Enrichment) -> None:
    partition(empty, enrichment, P, ["good"])
    partition(empty, enrichment, LATER, ["bad"])
    newer, older = empty.ledger.collected_since(enrichment.name, NOW - timedelta(days=365))
    asked = [empty.store.scan(empty.store.results(shard)).collect()["fingerprint"] for shard in (newer, older)]
    for requests, known in ((1, [True, True]), (ANSWERS_MAX, [True, False])):
        answers = Answers(empty.store, [replace(newer, requests=requests), older], NOW - timedelta(days=365))
        assert [answers.known(fingerprints).item() for fingerprints in asked] == known


def test_answers_are_found_in_any_of_many_partitions(
    empty: Platform, emulator: Emulator, enrichment: Enrichment
) -> None:
    days = [f"2026-10-{day:02}" for day in range(1, 6)]
    for day in days:
        partition(empty, enrichment, day, [f"Report {day} {number}" for number in range(3)])
    assert billed(emulator) == 15
    # What an earlier release wrote has not all columns.
    (oldest,) = (file for file in local(empty.store).rglob("*.results.parquet") if days[0] in file.as_posix())
    pl.read_parquet(oldest).drop("judged", "answered_at").write_parquet(oldest)
    again = [f"Report {day} {number}" for number in range(3) for day in reversed(days)]
    partition(empty, enrichment, P, [*again, "a new one"])
    assert billed(emulator) == 16
    assert enriched(empty, enrichment)["wave"].to_list() == [0] * 15 + [1]


def test_reuse_can_be_switched_off(empty: Platform, emulator: Emulator, enrichment: Enrichment) -> None:
    always = replace(enrichment, reuse_days=0)
    partition(empty, always, P, TEXTS)
    partition(empty, always, LATER, TEXTS)
    assert billed(emulator) == 2 * len(TEXTS)


def test_failures_are_not_reused(empty: Platform, emulator: Emulator, enrichment: Enrichment) -> None:
    emulator.faults([{"fault": "refusal", "rate": 0.5}])
    partition(empty, enrichment, P, TEXTS)
    refused = failed(empty, enrichment, P).height
    emulator.faults([])
    partition(empty, enrichment, LATER, TEXTS)
    assert refused > 0
    assert failed(empty, enrichment, LATER).height == 0
    assert billed(emulator) == len(TEXTS) + refused


def test_another_prompt_is_another_request(empty: Platform, emulator: Emulator, enrichment: Enrichment) -> None:
    partition(empty, enrichment, P, TEXTS)
    other = replace(enrichment, prompt=Prompt.parse("user:\nHow? {{ text }}", "prompt.md"))
    partition(empty, other, LATER, TEXTS)
    assert billed(emulator) == 2 * len(TEXTS)


def test_deleted_partitions_are_no_reason_to_stop(empty: Platform, emulator: Emulator, enrichment: Enrichment) -> None:
    partition(empty, enrichment, P, TEXTS)
    for shard in empty.ledger.shards(enrichment.name, P):
        local(empty.store, empty.store.results(shard)).unlink()
    partition(empty, enrichment, LATER, TEXTS)
    assert billed(emulator) == 2 * len(TEXTS)


# -- budgets


def test_nothing_is_sent_over_budget_until_it_is_raised(
    empty: Platform, emulator: Emulator, enrichment: Enrichment
) -> None:
    poor = replace(enrichment, partition_budget_usd=0.000_001)
    write_documents(empty, TEXTS)
    plan = submit(empty, poor)
    assert "over budget: 60 requests would cost about $" in plan.held
    assert "budget.partition_usd is $0.0000010, of which $0.0000 are spent or reserved" in plan.held
    assert emulator.accounting()["requests"] == 0
    assert submit(empty, poor).held == plan.held
    submit(empty, replace(enrichment, partition_budget_usd=10))
    finish(empty, enrichment)
    assert enriched(empty, enrichment).height == len(TEXTS)
    assert billed(emulator) == len(TEXTS)


def test_a_settled_partition_makes_room(empty: Platform, enrichment: Enrichment) -> None:
    write_documents(empty, TEXTS)
    plan_partition(empty, enrichment, P)
    (shard,) = empty.ledger.shards(enrichment.name, P)
    assert shard.charge_usd == shard.at_most_usd > shard.expected_usd > 0
    send_planned(empty, plan_partition(empty, enrichment, P))
    finish(empty, enrichment)
    (shard,) = empty.ledger.shards(enrichment.name, P)
    assert shard.charge_usd == empty.ledger.money.spent().cost_usd < shard.at_most_usd


def test_the_budget_of_a_partition_is_no_other_partitions_and_no_other_enrichments(
    empty: Platform, enrichment: Enrichment
) -> None:
    for name in (P, LATER):
        write_documents(empty, TEXTS, name)
    just_enough = replace(enrichment, partition_budget_usd=plan_most(empty, enrichment) * 1.05)
    for name in (P, LATER):
        assert not submit(empty, just_enough, name).held


def test_a_new_day_has_a_new_budget(empty: Platform, time: Time, enrichment: Enrichment) -> None:
    write_documents(empty, TEXTS)
    most = plan_most(empty, enrichment)
    daily = replace(enrichment, day_budget_usd=most * 1.05)
    partition(empty, daily, P, TEXTS)
    other: list[str | None] = [f"{text} Indeed." for text in TEXTS]
    write_documents(empty, other, LATER)
    tight = replace(enrichment, day_budget_usd=most * 0.2)
    assert "or wait until tomorrow" in submit(empty, tight, LATER).held
    time.passes(days=1)
    assert not submit(empty, replace(daily, day_budget_usd=most * 1.5), LATER).held


def test_what_is_sent_a_day_later_counts_in_that_days_budget(
    empty: Platform, time: Time, enrichment: Enrichment
) -> None:
    for name in (P, LATER):
        write_documents(empty, [f"{name}: {text}" for text in TEXTS], name)
    daily = replace(enrichment, day_budget_usd=plan_most(empty, enrichment) * 1.5)
    assert not plan_partition(empty, daily, P).held  # and its run ends before it sends
    time.passes(days=1)
    assert not submit(empty, daily, P).held
    assert "or wait until tomorrow" in submit(empty, daily, LATER).held
    finish(empty, daily, P)
    assert enriched(empty, daily, P).height == len(TEXTS)


def plan_most(platform: Platform, enrichment: Enrichment) -> float:
    """The most that a partition may cost, without a trace of the question."""
    plan_partition(platform, replace(enrichment, name="other"), P)
    return sum(shard.at_most_usd for shard in platform.ledger.shards("other", P))


def test_partitions_do_not_overspend_together(tmp_path: Path, ledger_url: str) -> None:
    """Twenty at once against a budget that admits seven; when it is raised, the rest goes on."""
    enrichment = labels("anthropic")
    now = datetime(2026, 11, 20, 12, tzinfo=UTC)

    def platform() -> Platform:
        return Platform(Store(tmp_path / "store"), Ledger(ledger_url, lambda: now), {}, clock=lambda: now)

    opened = platform()
    names = [f"2026-10-{day:02}" for day in range(1, 21)]
    for name in names:
        write_documents(opened, [f"{name}: {text}" for text in TEXTS], name)
    most = 0.0
    plan_partition(opened, replace(enrichment, name="other"), names[0])
    most = sum(shard.at_most_usd for shard in opened.ledger.shards("other", names[0]))

    def plan(name: str, usd: float) -> bool:
        mine = platform()
        try:
            return not plan_partition(mine, replace(enrichment, day_budget_usd=usd), name).held
        finally:
            mine.close()

    with ThreadPoolExecutor(8) as threads:
        admitted = list(threads.map(lambda name: plan(name, most * 7.5), names))
    assert sum(admitted) == 7
    charged = [shard for name in names for shard in opened.ledger.shards("labels", name) if shard.charged_at]
    assert sum(shard.charge_usd for shard in charged) <= most * 7.5
    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(lambda name: plan(name, most * 21), names))
    opened.close()


def test_the_projects_day_is_shared_by_all_enrichments(empty: Platform, time: Time, enrichment: Enrichment) -> None:
    write_documents(empty, TEXTS)
    most = plan_most(empty, enrichment)
    first, second = (replace(enrichment, name=name, project_day_budget_usd=most * 2.5) for name in ("first", "second"))
    assert not submit(empty, first).held
    held = submit(empty, second).held  # `other`, whose plan told the most, is charged as well
    assert "the project's day_usd" in held
    assert submit(empty, second).held == held
    time.passes(days=1)
    assert not submit(empty, second).held


def test_what_was_paid_and_lost_goes_on_counting_as_the_most_that_it_may_have_cost(
    empty: Platform, time: Time, enrichment: Enrichment
) -> None:
    time.emulator.faults([{"fault": "vanished", "times": 1}])
    write_documents(empty, TEXTS)
    submit(empty, enrichment)
    for _ in range(8):
        time.passes(minutes=10)
        go_on(empty, enrichment)
    lost, *_ = empty.ledger.shards(enrichment.name, P)
    assert lost.state is ShardState.COLLECTED
    assert lost.charge_usd == lost.at_most_usd > 0


OTHERS = {"anthropic": "claude-opus-4-5", "openai": "gpt-5"}


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(lambda one: replace(one, model_name=OTHERS[one.provider]), id="another model"),
        pytest.param(
            lambda one: replace(one, price=declared_price({"batch": {"input": 9, "output": 9}})), id="a price"
        ),
        pytest.param(lambda one: replace(one, mode=Mode.REALTIME), id="real time"),
    ],
)
def test_what_is_declared_after_a_batch_was_sent_does_not_change_what_it_cost(
    empty: Platform, enrichment: Enrichment, changed: Callable[[Enrichment], Enrichment]
) -> None:
    write_documents(empty, TEXTS)
    submit(empty, enrichment)
    collect_partition(empty, changed(enrichment), P)
    (shard,) = empty.ledger.shards(enrichment.name, P)
    assert shard.state is ShardState.COLLECTED
    results = empty.store.scan(empty.store.results(shard)).collect()
    right = results.select(batch_usd(enrichment.price_at(NOW))).to_series().sum()
    assert shard.charge_usd == pytest.approx(right)
    assert empty.ledger.money.spent(enrichment.name).cost_usd == pytest.approx(right)


@pytest.mark.parametrize("usd", [pytest.param(500, id="declared too dear"), pytest.param(0.0001, id="too cheap")])
def test_a_price_that_is_mended_before_a_batch_is_sent_is_what_it_costs(
    empty: Platform, emulator: Emulator, enrichment: Enrichment, usd: float
) -> None:
    wrong = declared_price({"batch": {"input": usd, "output": usd}})
    write_documents(empty, TEXTS)
    plan_partition(empty, replace(enrichment, price=wrong, partition_budget_usd=1), P)
    assert not submit(empty, replace(enrichment, partition_budget_usd=1)).held
    finish(empty, enrichment)
    assert billed(emulator) == len(TEXTS)
    assert empty.ledger.money.spent().cost_usd == pytest.approx(referee_usd(emulator, enrichment), abs=1e-12)


def test_what_another_day_had_the_answer_to_is_told_as_saved(
    empty: Platform, emulator: Emulator, enrichment: Enrichment
) -> None:
    partition(empty, enrichment, P, TEXTS)
    paid = empty.ledger.money.spent(enrichment.name, P).cost_usd
    partition(empty, enrichment, LATER, [*TEXTS, "One more."])
    reused = collect_partition(empty, enrichment, LATER)
    assert reused.spent.billed == 1
    assert reused.saved_usd == pytest.approx(paid, rel=0.05)


def test_a_refused_batch_gives_its_budget_back(empty: Platform, emulator: Emulator, enrichment: Enrichment) -> None:
    emulator.faults([{"fault": "http_400", "times": 1}])
    write_documents(empty, TEXTS)
    submit(empty, enrichment)
    (shard,) = empty.ledger.shards(enrichment.name, P)
    assert shard.state is ShardState.REJECTED
    assert shard.charge_usd == 0


# -- forecast


def test_the_forecast_is_near_after_one_partition(empty: Platform, enrichment: Enrichment) -> None:
    first: list[str | None] = ["x" * length for length in range(50, 50_000, 500)]
    partition(empty, enrichment, P, first)
    after = empty.ledger.money.spent(enrichment.name, P).cost_usd
    other: list[str | None] = ["y" * length for length in range(70, 30_000, 200)]
    partition(empty, enrichment, LATER, other)
    (shard,) = empty.ledger.shards(enrichment.name, LATER)
    actual = empty.ledger.money.spent(enrichment.name, LATER).cost_usd
    assert after > 0
    assert shard.expected_usd == pytest.approx(actual, rel=0.05)


def test_a_forecast_is_judged_by_what_this_model_used_lately(
    empty: Platform, time: Time, enrichment: Enrichment
) -> None:
    partition(empty, enrichment, P, TEXTS)
    assert estimate_requests(empty, enrichment).evidence == len(TEXTS)
    assert estimate_requests(empty, replace(enrichment, model_name=OTHERS[enrichment.provider])).evidence == 0
    time.passes(days=91)
    assert estimate_requests(empty, enrichment).evidence == 0


def test_a_preview_foretells_what_is_planned(
    empty: Platform, emulator: Emulator, time: Time, long_prompt: Enrichment
) -> None:
    emulator.faults([{"fault": "overloaded", "rate": 0.3, "attempts": 1}])
    partition(empty, long_prompt, P, TEXTS)
    sent = sum(shard.requests for shard in empty.ledger.shards(long_prompt.name, P))
    write_documents(empty, [*TEXTS[:20], *(f"{text} Indeed." for text in TEXTS)], LATER)
    ahead = outlook(empty, long_prompt, LATER)
    plan_partition(empty, long_prompt, LATER)
    planned = [shard for shard in empty.ledger.shards(long_prompt.name, LATER) if shard.wave]
    assert sent > len(TEXTS)
    assert (ahead.retries, ahead.evidence, ahead.reused) == (sent / len(TEXTS), len(TEXTS), 20)
    assert ahead.forecast.requests == sum(shard.requests for shard in planned) == len(TEXTS)
    assert ahead.forecast.usd == pytest.approx(sum(shard.expected_usd for shard in planned), rel=0.02)
    assert ahead.forecast.at_most_usd == pytest.approx(sum(shard.at_most_usd for shard in planned), rel=0.02)


@pytest.mark.parametrize("fault", ["overloaded", "truncated", "invalid_json"])
def test_at_most_is_the_same_in_a_preview_and_a_reservation_whatever_is_asked_again(
    empty: Platform, emulator: Emulator, enrichment: Enrichment, fault: str
) -> None:
    """Beside requests of the second wave that are asked for the first time, in a shard with those."""
    enrichment = replace(enrichment, reuse_days=0, hold_above=1.0, max_tokens=64, max_tokens_ceiling=4_096)
    emulator.faults([{"fault": fault, "match": "bad"}])
    write_documents(empty, ["A bad thing.", "A good thing."])
    submit(empty, enrichment)
    poll(empty, empty.ledger.active_shards(), calls_max=25)
    collect_partition(empty, enrichment, P)
    write_documents(empty, ["A bad thing.", "A good thing.", "A late thing."])
    ahead = outlook(empty, enrichment, P)
    emulator.faults([])
    submit(empty, enrichment)
    *_, second = empty.ledger.shards(enrichment.name, P)
    assert (ahead.forecast.requests, second.requests) == (2, 2)
    assert second.charge_usd == pytest.approx(ahead.forecast.at_most_usd, rel=0.005)
    (rates, *_) = enrichment.price_at(NOW).batch
    room = 64 + (128 if fault == "truncated" else 64)
    assert second.charge_usd == pytest.approx((second.bytes * rates.input + room * rates.output) / 1e6, rel=0.03)
    finish(empty, enrichment)
    assert enriched(empty, enrichment).height == 3


def test_late_documents_are_no_retries(empty: Platform, emulator: Emulator, enrichment: Enrichment) -> None:
    partition(empty, enrichment, P, TEXTS)
    late = [f"{text} Indeed." for text in TEXTS]
    partition(empty, enrichment, P, [*TEXTS, *late])
    assert outlook(empty, enrichment, P).retries == 1.0
    emulator.faults([{"fault": "overloaded", "match": "Last", "rate": 1.0, "attempts": 1}])
    partition(empty, enrichment, P, [*TEXTS, *late, "Last one."])
    sent, requests = sum(shard.requests for shard in empty.ledger.shards(enrichment.name, P)), 2 * len(TEXTS) + 1
    assert outlook(empty, enrichment, P).retries == sent / requests > 1


def test_what_a_preview_asks_is_paid_at_the_standard_price(empty: Platform, enrichment: Enrichment) -> None:
    write_documents(empty, TEXTS)
    (rates, *_) = enrichment.price_at(NOW).standard
    for one in ask_some(empty, enrichment, P, 2):
        million = one.usage.input_tokens * rates.input + one.usage.output_tokens * rates.output
        assert one.standard_usd == pytest.approx(million / 1_000_000)


# -- prompt caching


def with_system(enrichment: Enrichment, characters: int) -> Enrichment:
    text = ("How does the writer feel? " * characters)[:characters].strip()
    return replace(enrichment, prompt=Prompt.parse(f"system:\n{text}\n\nuser:\n{{{{ text }}}}", "prompt.md"))


@pytest.fixture(params=["anthropic", "openai", "openai-chat"])
def long_prompt(request: pytest.FixtureRequest) -> Enrichment:
    provider, _, chat = str(request.param).partition("-")
    return with_system(replace(labels(provider), endpoint="/v1/chat/completions" if chat else None), 6_000)


def test_a_long_prompt_is_paid_for_once_and_read_from_the_cache(
    empty: Platform, emulator: Emulator, long_prompt: Enrichment
) -> None:
    progress = run(empty, long_prompt, TEXTS)
    spent = progress.spent
    assert spent.cost_usd == pytest.approx(referee_usd(emulator, long_prompt), abs=1e-12)
    assert spent.cache_read_tokens > 0.6 * spent.input_tokens
    assert spent.cost_usd < 0.6 * spent.uncached_usd
    without = replace(long_prompt, name="without", prompt_cache=False, reuse_days=0)
    write_documents(empty, TEXTS, LATER)
    submit(empty, without, LATER)
    finish(empty, without, LATER)
    assert empty.ledger.money.spent("without").cost_usd > spent.cost_usd
    columns = ("document_id", "sentiment")
    assert enriched(empty, without, LATER).select(columns).equals(enriched(empty, long_prompt).select(columns))


def test_a_short_prompt_is_not_marked(empty: Platform, enrichment: Enrichment) -> None:
    spent = run(empty, with_system(enrichment, 1_000), TEXTS).spent
    assert (spent.cache_read_tokens, spent.cache_write_tokens) == (0, 0)


def test_what_costs_more_with_a_cache_than_without_is_asked_without_for_a_week(
    empty: Platform, emulator: Emulator, time: Time
) -> None:
    """An hour's cache is written at twice the price: a batch of one request never finds it again."""
    enrichment = replace(with_system(labels("anthropic"), 6_000), reuse_days=0)
    one_by_one = [f"2026-10-{day:02}" for day in range(1, 24)]
    for name in one_by_one:
        partition(empty, enrichment, name, [f"good {name}"])
        time.passes(hours=2)
    costs = [empty.ledger.money.spent(enrichment.name, name) for name in one_by_one]
    assert [each.cost_usd > each.uncached_usd for each in costs] == [True] * 20 + [False] * 3
    time.passes(days=7)
    partition(empty, enrichment, LATER, TEXTS)
    assert empty.ledger.money.spent(enrichment.name, LATER).cache_read_tokens > 0


def test_a_tiny_first_partition_does_not_switch_the_cache_off(empty: Platform, emulator: Emulator) -> None:
    enrichment = replace(with_system(labels("anthropic"), 6_000), reuse_days=0)
    first = run(empty, enrichment, ["good"]).spent
    assert first.cost_usd > first.uncached_usd
    partition(empty, enrichment, LATER, TEXTS)
    second = empty.ledger.money.spent(enrichment.name, LATER)
    assert second.cost_usd < 0.6 * second.uncached_usd


def test_turning_the_cache_on_or_off_asks_nothing_again(
    empty: Platform, emulator: Emulator, long_prompt: Enrichment
) -> None:
    run(empty, long_prompt, TEXTS)
    run(empty, replace(long_prompt, prompt_cache=False), TEXTS)
    assert billed(emulator) == len(TEXTS)


def test_the_status_of_a_partition_says_what_it_has_cost(empty: Platform) -> None:
    enrichment = labels("anthropic")
    write_documents(empty, ["A good thing.", "A bad thing."])
    submit(empty, enrichment)
    (before,) = statuses(empty)
    finish(empty, enrichment)
    (after,) = statuses(empty)
    assert before.cost_usd == 0
    assert after.cost_usd > 0
    assert after.cost_usd == pytest.approx(enriched(empty, enrichment)["cost_usd"].sum())
