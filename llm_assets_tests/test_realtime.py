"""The real-time path: the same tables without a batch, and nothing asked twice but what was being waited for."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm_assets.collection import collect_partition
from llm_assets.enrichment import Enrichment
from llm_assets.errors import DeclarationError, SystemicError
from llm_assets.other_accounts import other_accounts
from llm_assets.planning import plan_partition
from llm_assets.platform import Platform, utc_now
from llm_assets.providers.realtime import JOURNAL, RealtimeClient, Room
from llm_assets.reconciliation import reconcile_partition
from llm_assets.records import Mode, Quota, ShardState
from llm_assets.submission import send_planned
from llm_assets_tests.crashes import PROCESSES, ended, kill
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.platforms import (
    P,
    Time,
    enriched,
    failed,
    finish,
    labels,
    local,
    open_platform,
    reasons,
    run,
    submit,
    write_documents,
)

TEXTS: list[str | None] = [f"Review {number}: this is a good thing." for number in range(40)]


@pytest.fixture(params=["anthropic", "openai"])
def now(request: pytest.FixtureRequest) -> Enrichment:
    return replace(labels(request.param), mode=Mode.REALTIME)


def asked(emulator: Emulator) -> int:
    return int(emulator.accounting()["asked"].get("requests", 0))


def billed(emulator: Emulator) -> list[int]:
    return sorted(content["billed"] for content in emulator.contents())


def test_the_same_tables_without_a_batch_at_the_standard_price(empty: Platform, time: Time, now: Enrichment) -> None:
    run(empty, now, [*TEXTS, TEXTS[0], ""])
    table = enriched(empty, now)
    assert table.height == 41
    assert failed(empty, now)["reason"].to_list() == ["empty_document"]
    books = time.emulator.accounting()
    assert (books["batches"], asked(time.emulator)) == (0, 40)
    assert billed(time.emulator) == [1] * 40
    price = now.price_at(utc_now())
    standard = books["asked"]["input_tokens"] * price.standard[0].input
    standard += books["asked"]["output_tokens"] * price.standard[0].output
    assert table["cost_usd"].sum() == pytest.approx(standard / 1_000_000)
    (shard,) = empty.ledger.shards(now.name, P)
    assert shard.at_most_usd >= table["cost_usd"].sum()
    assert "emulator" in (shard.batch_id or "")


def test_what_has_an_answer_is_not_asked_again_whichever_way_it_came(
    empty: Platform, time: Time, now: Enrichment
) -> None:
    batch = replace(now, mode=Mode.BATCH)
    run(empty, batch, TEXTS)
    run(empty, now, [*TEXTS, "One more good thing."])
    assert asked(time.emulator) == 1
    run(empty, batch, [*TEXTS, "One more good thing.", "And another."])
    assert billed(time.emulator) == [1] * 42


def test_rows_that_fail_have_the_outcomes_that_they_have_in_a_batch(
    empty: Platform, time: Time, now: Enrichment
) -> None:
    time.emulator.faults(
        [
            {"fault": "refusal", "match": "Review 1:", "times": 1},
            {"fault": "invalid_json", "match": "Review 2:", "times": 1},
            {"fault": "invalid_json", "match": "Review 3:", "times": 9},
            {"fault": "invalid", "match": "Review 4:", "times": 9},
            {"fault": "truncated", "match": "Review 5:", "times": 1},
        ]
    )
    run(empty, now, TEXTS)
    assert reasons(empty, now) == {"d1": "refusal", "d3": "invalid_answer", "d4": "invalid_request"}
    assert enriched(empty, now).height == 37
    assert asked(time.emulator) == 39 + 3  # one was refused unasked, three were asked again in other words


def test_a_storm_of_429_and_5xx_is_waited_out_and_nothing_is_asked_twice(
    empty: Platform, time: Time, now: Enrichment
) -> None:
    rules: list[dict[str, object]] = [
        {"fault": fault, "route": "ask", "times": 12, **more}
        for fault, more in (("http_429", {"retry_after_s": 0.05}), ("http_500", {}), ("http_503", {}))
    ]
    time.emulator.faults([*rules, {"fault": "dropped_before_store", "route": "ask", "times": 5}])
    run(empty, now, TEXTS)
    assert enriched(empty, now).height == 40
    assert billed(time.emulator) == [1] * 40


LOST = [
    pytest.param("dropped_after_store", id="dropped"),
    pytest.param("html_200", id="a gateway's page"),
    pytest.param("error_500_after_store", id="an error instead"),
]


@pytest.mark.parametrize("fault", LOST)
def test_a_lost_reply_was_perhaps_billed_and_so_is_not_asked_again_at_once_and_counts_as_the_most(
    empty: Platform, time: Time, now: Enrichment, fault: str
) -> None:
    time.emulator.faults([{"fault": fault, "route": "ask", "times": 7}])
    write_documents(empty, TEXTS)
    submit(empty, now)
    assert asked(time.emulator) == 40
    collect_partition(empty, now, P)
    (shard,) = empty.ledger.shards(now.name, P)
    assert (shard.state, shard.charge_usd) == (ShardState.COLLECTED, shard.at_most_usd)
    finish(empty, now)
    assert enriched(empty, now)["wave"].value_counts().sort("wave").rows() == [(1, 33), (2, 7)]
    assert asked(time.emulator) == 47


@pytest.mark.parametrize("fault", LOST)
def test_no_budget_is_overspent_when_every_reply_is_lost(
    empty: Platform, time: Time, now: Enrichment, fault: str
) -> None:
    write_documents(empty, TEXTS[:12])
    plan_partition(empty, replace(now, name="probe"), P)
    most = sum(shard.at_most_usd for shard in empty.ledger.shards("probe", P))
    budgeted = replace(now, partition_budget_usd=most * 1.01)
    time.emulator.faults([{"fault": fault, "route": "ask"}])
    for _ in range(4):
        submit(empty, budgeted)
        collect_partition(empty, budgeted, P)
        time.passes(hours=2)
    assert asked(time.emulator) == 12
    plan = empty.ledger.plan(now.name, P)
    assert plan is not None
    assert "partition_usd" in plan.held


def test_lost_replies_use_up_attempts_and_what_was_not_asked_uses_up_none(
    empty: Platform, time: Time, now: Enrichment
) -> None:
    empty.realtime_requests = 1
    time.emulator.faults([{"fault": "html_200", "route": "ask"}])
    write_documents(empty, TEXTS)
    submit(empty, now)
    assert asked(time.emulator) == 20
    time.emulator.faults([])
    collect_partition(empty, now, P)
    time.passes(hours=2)
    finish(empty, now)
    assert enriched(empty, now)["wave"].to_list() == [2] * 40
    time.emulator.faults([{"fault": "html_200", "route": "ask"}])
    run_once = replace(now, name="another", attempts=2)
    write_documents(empty, TEXTS[:5])
    submit(empty, run_once)
    finish(empty, run_once)
    assert set(reasons(empty, run_once).values()) == {"missing_result"}
    assert asked(time.emulator) == 20 + 40 + 2 * 5


def test_a_provider_that_is_out_of_order_costs_no_attempts(empty: Platform, time: Time, now: Enrichment) -> None:
    empty.realtime_requests, empty.realtime_retries = 40, 0
    time.emulator.faults([{"fault": "http_503", "route": "ask"}])
    write_documents(empty, TEXTS)
    submit(empty, now)
    (shard,) = empty.ledger.shards(now.name, P)
    assert shard.state is ShardState.PLANNED
    assert "503" in shard.message
    time.emulator.faults([])
    time.passes(minutes=5)
    submit(empty, now)
    finish(empty, now)
    assert enriched(empty, now)["wave"].to_list() == [1] * 40
    assert billed(time.emulator) == [1] * 40


@pytest.mark.parametrize(
    ("fault", "held"),
    [
        pytest.param({"fault": "http_401"}, "authentication", id="a refused key"),
        pytest.param({"fault": "retrieve_5xx", "status": 404}, "", id="no such model"),
    ],
)
def test_a_refused_account_holds_the_partition_and_keeps_what_was_answered(
    empty: Platform, time: Time, now: Enrichment, fault: dict[str, Any], held: str
) -> None:
    empty.realtime_requests = 1
    time.emulator.faults([fault | {"route": "ask", "rate": 0.3, "seed": 3}])
    write_documents(empty, TEXTS)
    submit(empty, now)
    finish(empty, now)
    plan = empty.ledger.plan(now.name, P)
    assert plan is not None
    assert plan.held.startswith("refused by the provider: ")
    assert held in plan.held
    before = asked(time.emulator)
    assert 0 < before < 40
    time.emulator.faults([])
    submit(empty, now)
    finish(empty, now)
    assert enriched(empty, now).height == 40
    assert billed(time.emulator) == [1] * 40


def test_a_refused_key_before_any_answer_is_told_at_once(empty: Platform, time: Time, now: Enrichment) -> None:
    time.emulator.faults([{"fault": "http_401", "route": "ask"}])
    write_documents(empty, TEXTS)
    with pytest.raises(SystemicError):
        submit(empty, now)


def _live(root: Path, url: str, enrichment_provider: str) -> None:
    platform = open_platform(root, url)
    platform.realtime_requests = 4
    submit(platform, replace(labels(enrichment_provider), mode=Mode.REALTIME))


def test_who_goes_on_after_a_kill_asks_again_only_for_what_was_being_waited_for(
    tmp_path: Path, time: Time, now: Enrichment
) -> None:
    root, now = tmp_path / "store", replace(now, attempts=1)
    platform = open_platform(root, time.emulator.url, time)
    write_documents(platform, TEXTS)
    platform.close()
    time.emulator.faults([{"fault": "slow", "route": "ask", "delay_s": 0.05}])
    process = PROCESSES.Process(target=_live, args=(root, time.emulator.url, now.provider))
    process.start()
    while asked(time.emulator) < 15:
        assert ended(process, 0.02) is None
    kill(process)

    time.emulator.faults([])
    platform = open_platform(root, time.emulator.url, time)
    reconcile_partition(platform, now.name, P)
    (shard,) = platform.ledger.shards(now.name, P)
    assert shard.state is ShardState.SUBMITTED
    finish(platform, now)
    assert enriched(platform, now).height == 40
    assert failed(platform, now).is_empty()  # whose turn had not come has lost no attempt
    twice = [count for count in billed(time.emulator) if count > 1]
    assert sum(billed(time.emulator)) <= 40 + 4
    assert set(twice) <= {2}
    platform.close()


def test_answers_that_lie_in_the_store_are_collected_with_another_key_and_prove_no_account(
    empty: Platform, time: Time, now: Enrichment
) -> None:
    write_documents(empty, TEXTS)
    submit(empty, now)
    keys = {name: replace(found, api_key="another") for name, found in empty.credentials.items()}
    later = Platform(empty.store, empty.ledger, keys, clock=time)
    assert other_accounts(later) == []
    finish(later, now)
    assert enriched(later, now).height == 40
    assert billed(time.emulator) == [1] * 40


def test_what_is_asked_in_real_time_takes_no_room_in_the_queue_of_batches(
    empty: Platform, time: Time, now: Enrichment
) -> None:
    write_documents(empty, TEXTS)
    submit(empty, now)
    (shard,) = empty.ledger.shards(now.name, P)
    assert shard.state is ShardState.SUBMITTED
    assert empty.ledger.queue(now.provider, None) == []


def test_a_batch_that_is_late_is_rescued_and_nothing_is_paid_twice(
    empty: Platform, time: Time, now: Enrichment
) -> None:
    late = replace(now, mode=Mode.BATCH, rescue_after_hours=4)
    time.emulator.hold(True)
    write_documents(empty, TEXTS)
    submit(empty, late)
    time.passes(hours=3)
    with pytest.raises(AssertionError):
        finish(empty, late, steps_max=3)
    assert asked(time.emulator) == 0
    time.passes(hours=2)
    finish(empty, late)
    assert enriched(empty, late).height == 40
    assert asked(time.emulator) == 40
    assert billed(time.emulator) == [1] * 40
    modes = {shard.wave: shard.mode for shard in empty.ledger.shards(late.name, P)}
    assert modes == {1: Mode.BATCH, 2: Mode.REALTIME}


def calls(emulator: Emulator, enrichment: Enrichment) -> int:
    return emulator.calls()[f"{enrichment.provider}.ask"]


def test_nothing_more_is_asked_when_the_money_is_gone(empty: Platform, time: Time, now: Enrichment) -> None:
    empty.realtime_requests, empty.realtime_retries = 1, 0
    time.emulator.faults([{"fault": "billing", "match": "Review 7:"}])
    write_documents(empty, TEXTS)
    submit(empty, now)
    finish(empty, now)
    plan = empty.ledger.plan(now.name, P)
    assert plan is not None
    assert "billing" in plan.held
    assert calls(time.emulator, now) == asked(time.emulator) + 1 == 8


@pytest.mark.parametrize(
    ("is_bad", "asked_of_60"),
    [
        pytest.param(lambda number: number % 2 == 1, 60, id="every other one fails"),
        pytest.param(lambda number: True, 20, id="all fail"),
    ],
)
def test_a_provider_is_left_alone_when_many_fail_in_a_row(
    empty: Platform, time: Time, now: Enrichment, is_bad: Callable[[int], bool], asked_of_60: int
) -> None:
    empty.realtime_requests, empty.realtime_retries = 1, 0
    time.emulator.faults([{"fault": "overloaded", "match": "bad"}])
    write_documents(empty, [f"{'bad' if is_bad(number) else 'fine'} {number}" for number in range(60)])
    submit(empty, now)
    assert calls(time.emulator, now) == asked_of_60


def test_an_answer_that_was_cut_in_the_journal_is_asked_for_again_and_the_others_count(
    empty: Platform, time: Time, now: Enrichment
) -> None:
    write_documents(empty, TEXTS)
    submit(empty, now)
    (journal,) = local(empty.store).rglob(f"*{JOURNAL}")
    journal.write_bytes(journal.read_bytes()[:-10])
    finish(empty, now, steps_max=6)
    assert enriched(empty, now).height == 40
    assert asked(time.emulator) == 41


def test_a_claim_without_an_answer_is_asked_again_at_once(tmp_path: Path, time: Time, now: Enrichment) -> None:
    root = tmp_path / "store"
    platform = open_platform(root, time.emulator.url, time)
    write_documents(platform, TEXTS)
    time.emulator.faults([{"fault": "slow", "route": "ask", "delay_s": 30}])
    process = PROCESSES.Process(target=_live, args=(root, time.emulator.url, now.provider))
    process.start()
    while not time.emulator.calls().get(f"{now.provider}.ask"):
        assert ended(process, 0.02) is None
    kill(process)
    reconcile_partition(platform, now.name, P)
    assert [shard.state for shard in platform.ledger.shards(now.name, P)] == [ShardState.PLANNED]
    platform.close()


def test_a_quota_is_for_batches(empty: Platform, time: Time, now: Enrichment) -> None:
    write_documents(empty, TEXTS)
    plan = plan_partition(empty, now, P)
    assert send_planned(empty, plan, [Quota(requests=1)]).requests == 40


def test_a_budget_counts_the_standard_price(empty: Platform, time: Time, now: Enrichment) -> None:
    write_documents(empty, TEXTS)
    batch, realtime = (submit(empty, replace(now, name=f"e_{mode}", mode=mode)) for mode in Mode)
    charged = {
        plan.enrichment: sum(shard.at_most_usd for shard in empty.ledger.shards(plan.enrichment, P))
        for plan in (batch, realtime)
    }
    assert charged["e_realtime"] == pytest.approx(2 * charged["e_batch"], rel=0.01)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        pytest.param({"rescue_after_hours": 30.0}, "must be above 0 and below deadline_hours", id="after the deadline"),
        pytest.param({"rescue_after_hours": 0.0}, "must be above 0 and below deadline_hours", id="at once"),
    ],
)
def test_what_cannot_be_declared(now: Enrichment, changes: dict[str, float], told: str) -> None:
    with pytest.raises(DeclarationError, match=told):
        replace(now, **changes).check(["document_id", "text"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("came_back", "at_once"),
    [
        pytest.param("." * 100, 16, id="never more than declared"),
        pytest.param("x", 8, id="half as many"),
        pytest.param("x" * 16, 8, id="a crowd counts once"),
        pytest.param("x" * 17, 4, id="the next crowd as well"),
        pytest.param("x" * 200, 1, id="never none"),
        pytest.param("x" + "." * 9, 9, id="one more after as many answers"),
        pytest.param("x" + "." * 400, 16, id="all in the end"),
    ],
)
def test_as_many_are_asked_as_the_provider_has_room_for(came_back: str, at_once: int) -> None:
    room = Room(16)
    for each in came_back:
        room.answered(again=each == "x")
    assert room.at_once == at_once


def test_a_provider_without_room_is_asked_less_at_once(empty: Platform, time: Time, now: Enrichment) -> None:
    time.emulator.faults([{"fault": "http_429", "route": "ask", "times": 6, "retry_after_s": 0.05}])
    write_documents(empty, TEXTS[:10])
    plan_partition(empty, now, P)
    (shard,) = empty.ledger.shards(now.name, P)
    client = empty.sender(shard, 8)
    assert isinstance(client, RealtimeClient)
    with empty.store.files.reading(empty.request_file(shard)) as file:
        client.create(file, staged=None, stamp=shard.key)
    assert client.room.at_once < 8
    assert billed(time.emulator) == [1] * 10


def test_who_is_told_to_wait_for_an_hour_does_not_do_so_in_a_run(empty: Platform, time: Time, now: Enrichment) -> None:
    time.emulator.faults([{"fault": "http_429", "route": "ask", "times": 1, "retry_after_s": 3600}])
    write_documents(empty, TEXTS[:5])
    submit(empty, now)  # at once, or this test would take an hour
    finish(empty, now)
    assert enriched(empty, now).height == 5
    assert billed(time.emulator) == [1] * 5


def test_flex_is_asked_for_and_costs_what_a_batch_costs(empty: Platform, time: Time) -> None:
    batch = labels("openai")
    run(empty, batch, TEXTS[:2])
    flex = replace(batch, mode=Mode.REALTIME, service_tier="flex")
    run(empty, flex, TEXTS[:5])
    assert asked(time.emulator) == 3  # two have their answers
    books, rates = time.emulator.accounting()["asked"], flex.price_at(utc_now()).batch[0]
    costs = (books["input_tokens"] * rates.input + books["output_tokens"] * rates.output) / 1_000_000
    shard = empty.ledger.shards(flex.name, P)[-1]
    assert shard.charge_usd == pytest.approx(costs)
    assert b'"service_tier":"flex"' in local(empty.store, empty.request_file(shard)).read_bytes()
    (journal,) = local(empty.store).rglob(f"*{JOURNAL}")
    answered = [json.loads(line)["response"]["body"]["service_tier"] for line in journal.read_text().splitlines()]
    assert answered == ["flex"] * 3


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        pytest.param({"provider": "anthropic"}, "service_tier is 'flex'; anthropic has none at", id="not Anthropic's"),
        pytest.param({"service_tier": "slow"}, "service_tier is 'slow'; openai has flex at", id="no such tier"),
        pytest.param({"mode": Mode.BATCH}, "service_tier is for real time", id="a batch"),
        pytest.param(
            {"params": {"service_tier": "flex"}}, "declare `service_tier: flex` beside `params`", id="as a parameter"
        ),
        pytest.param({"realtime_requests": 0}, "realtime_requests is 0; it must be between 1 and 500", id="none"),
    ],
)
def test_what_cannot_be_asked_so_is_told(changes: dict[str, Any], told: str) -> None:
    provider = changes.get("provider", "openai")
    flex = replace(labels(provider), mode=Mode.REALTIME, service_tier="flex")
    with pytest.raises(DeclarationError, match=told):
        replace(flex, **changes).check(["document_id", "text"])
