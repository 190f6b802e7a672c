"""What is late, short, gone or hopeless: how long it is waited for, and what is left for a person to decide."""

import json
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest

from llm_assets.collection import collect_partition, expected_results
from llm_assets.enrichment import Enrichment
from llm_assets.errors import IllegalTransition, LLMAssetsError
from llm_assets.planning import plan_partition
from llm_assets.platform import Platform
from llm_assets.polling import is_overdue, poll
from llm_assets.prompt import Prompt
from llm_assets.records import BatchCounts, Reason, Shard, ShardLimits, ShardState
from llm_assets.submission import send_planned
from llm_assets.waves import Step
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
    reasons,
    submit,
    write_documents,
)
from llm_assets_tests.samples import NOW, SHARD

TEXTS: list[str | None] = [f"Review {number}: this is a good thing." for number in range(40)]
HALF = ShardLimits(requests=20, bytes=1_000_000)


@pytest.fixture
def platform(empty: Platform) -> Platform:
    write_documents(empty, TEXTS)
    return empty


@pytest.fixture(params=["anthropic", "openai"])
def enrichment(request: pytest.FixtureRequest) -> Enrichment:
    return labels(str(request.param))


def shards(platform: Platform, enrichment: Enrichment) -> list[Shard]:
    return platform.ledger.shards(enrichment.name, P)


def keep_going(platform: Platform, enrichment: Enrichment, time: Time, minutes: int) -> None:
    """What a sensor would do in so many minutes."""
    for _ in range(minutes):
        with suppress(AssertionError):
            finish(platform, enrichment, steps_max=6)
        time.passes(minutes=1)


def assert_all_answered_and_billed_once(platform: Platform, enrichment: Enrichment, emulator: Emulator) -> None:
    assert (enriched(platform, enrichment).height, failed(platform, enrichment).height) == (len(TEXTS), 0)
    assert {content["billed"] for content in emulator.contents()} == {1}


# -- short and missing results


def test_results_that_stay_short_for_minutes_are_not_asked_again(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, time: Time
) -> None:
    emulator.faults([{"fault": "silent_short_read", "until_s": 600}])
    submit(platform, enrichment)
    keep_going(platform, enrichment, time, 12)
    assert_all_answered_and_billed_once(platform, enrichment, emulator)


def test_results_that_stay_short_for_long_are_asked_again(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, time: Time
) -> None:
    emulator.faults([{"fault": "missing_row", "match": "Review 7:", "times": 1}])
    submit(platform, enrichment)
    keep_going(platform, enrichment, time, 14)
    assert [shard.state for shard in shards(platform, enrichment)] == [ShardState.ENDED]
    keep_going(platform, enrichment, time, 4)
    assert_all_answered_and_billed_once(platform, enrichment, emulator)
    assert enriched(platform, enrichment)["wave"].to_list().count(2) == 1


def test_results_that_nobody_asked_for_do_not_stand_in_for_those_that_are_missing(
    platform: Platform, emulator: Emulator, time: Time
) -> None:
    enrichment = labels("anthropic")
    submit(platform, enrichment)
    poll(platform, platform.ledger.active_shards(), calls_max=25)
    (batch,) = emulator.batches()
    results = emulator.state_dir / "batches" / batch["id"] / "results.jsonl"
    whole = results.read_text()
    first, rest = whole.split("\n", 1)
    results.write_text(json.dumps(json.loads(first) | {"custom_id": "nobodys"}) + "\n" + rest)
    keep_going(platform, enrichment, time, 5)
    results.write_text(whole)
    keep_going(platform, enrichment, time, 5)
    assert_all_answered_and_billed_once(platform, enrichment, emulator)


def test_downloads_that_break_off_are_never_taken_for_all(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, time: Time
) -> None:
    emulator.faults([{"fault": "cut_mid_line", "until_s": 3600}])
    submit(platform, enrichment)
    keep_going(platform, enrichment, time, 65)
    assert_all_answered_and_billed_once(platform, enrichment, emulator)


def test_results_that_are_not_there_yet_are_waited_for_without_a_failed_run(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, time: Time
) -> None:
    emulator.faults([{"fault": "results_404_after_ended", "until_s": 600}])
    submit(platform, enrichment)
    keep_going(platform, enrichment, time, 12)
    assert_all_answered_and_billed_once(platform, enrichment, emulator)


@pytest.mark.parametrize(("provider", "fault"), [("anthropic", "results_gone"), ("openai", "expired_file")])
def test_results_that_are_gone_for_good_are_paid_for_again_only_when_a_person_says_so(
    platform: Platform, emulator: Emulator, time: Time, provider: str, fault: str
) -> None:
    enrichment = replace(labels(provider), limits=HALF)
    emulator.faults([{"fault": fault, "times": 1}])
    submit(platform, enrichment)
    keep_going(platform, enrichment, time, 20)
    assert finish(platform, enrichment) == [Step.HELD]
    plan = platform.ledger.plan(enrichment.name, P)
    assert plan is not None
    assert "20 requests are gone" in plan.held
    # Nobody knows what they cost: budgets go on counting the most that it may be.
    assert sum(shard.charge_usd == shard.at_most_usd > 0 for shard in shards(platform, enrichment)) == 1
    assert emulator.accounting()["requests"] == len(TEXTS)
    submit(platform, enrichment)
    finish(platform, enrichment)
    assert enriched(platform, enrichment).height == len(TEXTS)
    assert emulator.accounting()["requests"] == len(TEXTS) + 20


# -- claims


@pytest.mark.parametrize("lost_first", [True, False], ids=["lost-reply-first", "never-came-first"])
def test_an_adopted_batch_is_proven_while_another_claim_of_its_wave_is_open(
    platform: Platform, emulator: Emulator, time: Time, lost_first: bool
) -> None:
    enrichment = replace(labels("anthropic"), limits=HALF)
    order = ["dropped_after_store", "dropped_before_store"]
    plan = plan_partition(platform, enrichment, P)
    for fault in order if lost_first else reversed(order):
        emulator.faults([{"fault": fault, "times": 1}])
        send_one(platform, enrichment)
    assert {shard.state for shard in shards(platform, enrichment)} == {ShardState.SUBMITTING}
    assert plan.requests == len(TEXTS)
    keep_going(platform, enrichment, time, 20)
    assert_all_answered_and_billed_once(platform, enrichment, emulator)


def send_one(platform: Platform, enrichment: Enrichment) -> None:
    """Send the first planned shard, and no other."""
    plan = platform.ledger.plan(enrichment.name, P)
    assert plan is not None
    waiting = [shard for shard in shards(platform, enrichment) if shard.state is ShardState.PLANNED][1:]
    files = [file for shard in waiting for file in local(platform.store, shard.path).parent.glob(f"{shard.key}.json*")]
    for file in files:
        file.rename(file.with_suffix(".away"))
    send_planned(platform, plan)
    for file in files:
        file.with_suffix(".away").rename(file)


def test_a_shard_whose_file_is_lost_is_written_anew(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    plan = plan_partition(platform, enrichment, P)
    for file in local(platform.store, shards(platform, enrichment)[0].path).parent.glob("*.json*"):
        file.unlink()
    assert send_planned(platform, plan).later == 1
    submit(platform, enrichment)
    finish(platform, enrichment)
    assert_all_answered_and_billed_once(platform, enrichment, emulator)


def test_a_reply_that_comes_after_its_claim_was_given_up_is_recorded(platform: Platform, emulator: Emulator) -> None:
    enrichment = labels("openai")
    plan_partition(platform, enrichment, P)
    shard = shards(platform, enrichment)[0]
    client = platform.client("openai", None)
    platform.ledger.claim(shard.key, owner="slow", account=client.account)
    file = local(platform.store, shard.path + ".jsonl")
    batch = client.create(file, staged=client.stage(file), stamp=shard.key)
    platform.ledger.released(shard.key)
    platform.ledger.submitted(shard.key, batch)
    finish(platform, enrichment)
    assert_all_answered_and_billed_once(platform, enrichment, emulator)


# -- deadlines


def test_a_batch_past_its_deadline_is_cancelled_and_what_is_finished_is_kept(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, time: Time
) -> None:
    enrichment = replace(enrichment, deadline_hours=2)
    emulator.faults([{"fault": "stalled", "for_s": 1_000_000, "times": 1}])
    submit(platform, enrichment)
    time.passes(hours=1, minutes=59)
    assert poll(platform, platform.ledger.active_shards(), calls_max=25).cancelled == 0
    time.passes(minutes=2)
    assert poll(platform, platform.ledger.active_shards(), calls_max=25).cancelled == 1
    keep_going(platform, enrichment, time, 30)
    assert_all_answered_and_billed_once(platform, enrichment, emulator)


@pytest.mark.parametrize(
    ("change", "overdue"),
    [
        pytest.param({}, True, id="past-its-deadline"),
        pytest.param({"submitted_at": NOW}, False, id="in-time"),
        pytest.param({"deadline_s": None}, False, id="without-a-deadline"),
        pytest.param({"adopted": True}, False, id="perhaps-somebody-elses"),
        pytest.param({"cancelled_at": NOW - timedelta(minutes=5)}, False, id="just-cancelled"),
        pytest.param({"cancelled_at": NOW - timedelta(hours=2)}, True, id="cancelled-without-effect"),
    ],
)
def test_is_overdue(change: dict[str, object], overdue: bool) -> None:
    late = replace(SHARD, state=ShardState.SUBMITTED, deadline_s=3600, submitted_at=NOW - timedelta(hours=3))
    assert is_overdue(replace(late, **change), NOW) is overdue  # type: ignore[arg-type]


# -- capacity


def test_a_batch_that_never_finds_room_is_sent_in_halves(platform: Platform, emulator: Emulator, time: Time) -> None:
    enrichment = labels("openai")
    emulator.faults([{"fault": "token_limit_exceeded", "times": 5}])
    submit(platform, enrichment)
    keep_going(platform, enrichment, time, 120)
    assert [shard.requests for shard in shards(platform, enrichment)] == [40, 20, 20]
    assert_all_answered_and_billed_once(platform, enrichment, emulator)


def test_what_is_too_large_for_the_provider_is_sent_in_halves_down_to_single_documents(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, time: Time
) -> None:
    emulator.faults([{"fault": "html_413"}])
    submit(platform, enrichment)
    keep_going(platform, enrichment, time, 600)
    assert [shard.requests for shard in shards(platform, enrichment)][:3] == [40, 20, 20]
    assert set(reasons(platform, enrichment).values()) == {Reason.DOCUMENT_TOO_LARGE}
    assert len(failed(platform, enrichment)) == 40


def test_each_refusal_for_lack_of_room_is_waited_out_twice_as_long(
    platform: Platform, emulator: Emulator, time: Time
) -> None:
    enrichment = labels("openai")
    emulator.faults([{"fault": "token_limit_exceeded", "times": 3}])
    waits = []
    for _ in range(3):
        submit(platform, enrichment)
        poll(platform, platform.ledger.active_shards(), calls_max=25)
        before = time()
        collect_partition(platform, enrichment, P)
        (shard,) = shards(platform, enrichment)
        assert shard.not_before is not None
        waits.append(round((shard.not_before - before) / timedelta(minutes=1)))
        time.passes(hours=1)
    assert waits == [1, 2, 4]


def test_no_refusal_for_lack_of_room_is_waited_out_longer_than_an_hour(
    platform: Platform, emulator: Emulator, time: Time
) -> None:
    write_documents(platform, ["one alone"])  # which cannot go into smaller batches, however often it is refused
    enrichment = labels("openai")
    emulator.faults([{"fault": "token_limit_exceeded", "times": 8}])
    for _ in range(8):
        submit(platform, enrichment)
        poll(platform, platform.ledger.active_shards(), calls_max=25)
        before = time()
        collect_partition(platform, enrichment, P)
        time.passes(hours=2)
    (shard,) = shards(platform, enrichment)
    assert shard.not_before is not None
    assert shard.not_before - before <= timedelta(hours=1, minutes=1)


def test_requests_that_nobody_had_room_for_are_due_an_hour_later(
    platform: Platform, emulator: Emulator, time: Time
) -> None:
    enrichment = labels("anthropic")
    emulator.faults([{"fault": "html_413", "times": 1}])
    submit(platform, enrichment)
    collect_partition(platform, enrichment, P)
    plan = platform.ledger.plan(enrichment.name, P)
    assert plan is not None
    assert plan.not_before is not None
    assert plan.pending == len(TEXTS)
    assert plan.not_before - time() == pytest.approx(timedelta(hours=1), abs=timedelta(seconds=30))


# -- hopeless


def test_what_a_former_prompt_did_does_not_hold_the_next(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    emulator.faults([{"fault": "schema_violation"}])
    submit(platform, enrichment)
    poll(platform, platform.ledger.active_shards(), calls_max=25)
    emulator.faults([])
    other = replace(enrichment, limits=HALF, prompt=Prompt.parse("user:\nAnother question: {{ text }}", "prompt.md"))
    emulator.hold(True)
    plan_partition(platform, other, P)
    send_one(platform, other)
    assert collect_partition(platform, other, P).held == ""  # the former prompt's failures are all that came
    emulator.hold(False)
    assert finish(platform, other)[-1] is Step.NOTHING


def test_when_most_of_the_first_batch_fails_the_rest_waits_for_a_person(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, time: Time
) -> None:
    emulator.faults([{"fault": "schema_violation", "times": 30}])
    submit(platform, enrichment)
    assert finish(platform, enrichment)[-1] is Step.HELD
    plan = platform.ledger.plan(enrichment.name, P)
    assert plan is not None
    assert plan.held == "30 of the first 40 requests failed (invalid_answer 30): look at prompt and schema"
    assert emulator.accounting()["requests"] == len(TEXTS)
    submit(platform, enrichment)  # somebody has looked
    assert finish(platform, enrichment)[-1] is Step.NOTHING
    assert enriched(platform, enrichment).height == len(TEXTS)


def test_what_somebody_has_looked_at_does_not_hold_the_rest_again(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    enrichment = replace(enrichment, limits=HALF)
    plan_partition(platform, enrichment, P)
    emulator.faults([{"fault": "schema_violation"}])
    send_one(platform, enrichment)
    poll(platform, platform.ledger.active_shards(), calls_max=25)
    assert "20 of the first 20 requests failed" in collect_partition(platform, enrichment, P).held
    assert plan_partition(platform, enrichment, P).held == ""
    assert collect_partition(platform, enrichment, P).held == ""


def test_a_few_failures_hold_nothing(platform: Platform, enrichment: Enrichment, emulator: Emulator) -> None:
    emulator.faults([{"fault": "schema_violation", "times": 20}])
    submit(platform, enrichment)
    assert finish(platform, enrichment)[-1] is Step.NOTHING


def test_a_providers_bad_day_holds_nothing(platform: Platform, enrichment: Enrichment, emulator: Emulator) -> None:
    emulator.faults([{"fault": "overloaded", "times": 40}])
    submit(platform, enrichment)
    assert finish(platform, enrichment)[-1] is Step.NOTHING


# -- tables


def test_an_older_plans_tables_never_take_the_places_of_a_newer_ones(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    submit(platform, enrichment)
    finish(platform, enrichment)
    before = enriched(platform, enrichment)
    older = platform.ledger.plan(enrichment.name, P)
    assert older is not None
    write_documents(platform, [*TEXTS, "One more good thing."])
    plan_partition(platform, enrichment, P)
    assert not collect_partition(platform, enrichment, P).published
    assert enriched(platform, enrichment).equals(before)
    finish(platform, enrichment)
    assert enriched(platform, enrichment).height == len(TEXTS) + 1


def test_a_collector_that_comes_late_does_not_change_the_results(platform: Platform, emulator: Emulator) -> None:
    enrichment = labels("openai")
    submit(platform, enrichment)
    poll(platform, platform.ledger.active_shards(), calls_max=25)
    ended = shards(platform, enrichment)[0]
    collect_partition(platform, enrichment, P)
    collected = shards(platform, enrichment)[0]
    with pytest.raises(IllegalTransition):
        platform.ledger.collected(ended, "late")
    assert shards(platform, enrichment)[0].results == collected.results


def test_a_column_that_is_kept_only_since_the_plan_was_made_is_named(
    platform: Platform, enrichment: Enrichment
) -> None:
    submit(platform, enrichment)
    keeping = replace(enrichment, keep=("author",))
    with pytest.raises(LLMAssetsError, match=r"keeps author now.*materialize labels/batches for it again"):
        finish(platform, keeping)


def test_missing_is_a_reason_of_its_own(platform: Platform, enrichment: Enrichment, emulator: Emulator) -> None:
    platform.missing_tolerance = timedelta()
    emulator.faults([{"fault": "missing_row", "match": "Review 7:"}])
    submit(platform, enrichment)
    finish(platform, enrichment)
    assert failed(platform, enrichment)["reason"].to_list() == [Reason.MISSING_RESULT]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        pytest.param(BatchCounts(total=10, succeeded=8, failed=2), 10, id="all"),
        pytest.param(BatchCounts(total=10, succeeded=4), 4, id="cancelled-or-expired-on-the-way"),
        pytest.param(BatchCounts(total=12, succeeded=12), 10, id="more-than-was-sent"),
        pytest.param(BatchCounts(total=0), 10, id="no-counts-at-all"),
        pytest.param(BatchCounts(total=7, succeeded=7), 10, id="counts-of-something-else"),
    ],
)
def test_how_many_results_there_should_be(counts: BatchCounts, expected: int) -> None:
    assert expected_results(counts, 10) == expected


@pytest.mark.parametrize("minutes", [5, 16, 60, 24 * 60])
def test_what_is_missing_is_given_up_however_seldom_anybody_looks(
    empty: Platform, emulator: Emulator, time: Time, minutes: int
) -> None:
    enrichment = labels("openai")
    emulator.faults([{"fault": "missing_row", "times": 1}])
    write_documents(empty, TEXTS)
    submit(empty, enrichment)
    for _ in range(30):
        if go_on(empty, enrichment) is Step.NOTHING:
            break
        time.passes(minutes=minutes)
    assert enriched(empty, enrichment).height == len(TEXTS)
