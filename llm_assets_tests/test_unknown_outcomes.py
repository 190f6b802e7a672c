"""Calls that break, and replies that never come: nothing is sent on a guess, nothing is lost, nothing is paid twice."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from llm_assets.collection import collect_partition
from llm_assets.enrichment import Enrichment
from llm_assets.errors import IllegalTransition, OutcomeUnknown, SystemicError, TransientError
from llm_assets.planning import plan_partition
from llm_assets.platform import Platform
from llm_assets.polling import poll
from llm_assets.providers.openai import OpenAIDialect
from llm_assets.reconciliation import Adopt, Release, Wait, reconcile_partition
from llm_assets.records import Reason, ShardLimits, ShardState
from llm_assets.submission import send_planned
from llm_assets.waves import Step
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
    submit,
    write_documents,
)
from llm_assets_tests.providers.http_server import json_reply, serving

TEXTS: list[str | None] = [f"Review {number}: this is a good thing." for number in range(20)]


@pytest.fixture
def platform(empty: Platform) -> Platform:
    write_documents(empty, TEXTS)
    return empty


@pytest.fixture(params=["anthropic", "openai"])
def enrichment(request: pytest.FixtureRequest) -> Enrichment:
    return labels(str(request.param))


def states(platform: Platform, enrichment: Enrichment) -> list[ShardState]:
    return [shard.state for shard in platform.ledger.shards(enrichment.name, P)]


def creates(emulator: Emulator, enrichment: Enrichment) -> int:
    return emulator.calls().get(f"{enrichment.provider}.create", 0)


def assert_all_answered_and_billed_once(platform: Platform, enrichment: Enrichment, emulator: Emulator) -> None:
    assert enriched(platform, enrichment).height == len(TEXTS)
    assert failed(platform, enrichment).height == 0
    contents = list(emulator.contents())
    assert len(contents) == len(TEXTS)
    assert {content["billed"] for content in contents} == {1}


@pytest.mark.parametrize("fault", ["dropped_after_store", "error_500_after_store", "html_200"])
def test_a_batch_whose_reply_never_came_is_found_and_not_sent_again(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, fault: str
) -> None:
    emulator.faults([{"fault": fault, "times": 1}])
    submit(platform, enrichment)
    assert states(platform, enrichment) == [ShardState.SUBMITTING]
    finish(platform, enrichment)
    assert creates(emulator, enrichment) == 1
    assert_all_answered_and_billed_once(platform, enrichment, emulator)


@pytest.mark.parametrize("fault", ["dropped_before_store", "http_500", "http_503"])
def test_a_batch_that_was_never_created_is_sent_again_after_the_visibility_delay(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, time: Time, fault: str
) -> None:
    emulator.faults([{"fault": fault, "times": 1}])
    for _ in range(3):
        submit(platform, enrichment)
    assert states(platform, enrichment) == [ShardState.SUBMITTING]
    assert creates(emulator, enrichment) == 1
    time.passes(minutes=3)
    finish(platform, enrichment)
    assert creates(emulator, enrichment) == 2
    assert_all_answered_and_billed_once(platform, enrichment, emulator)


def test_a_lost_batch_whose_counts_are_wrong_is_known_by_its_results(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, time: Time
) -> None:
    emulator.faults([{"fault": "dropped_after_store", "times": 1}, {"fault": "counts_disagree", "by": -2}])
    submit(platform, enrichment)
    time.passes(minutes=60)  # when somebody looks, the batch has ended
    finish(platform, enrichment)
    assert_all_answered_and_billed_once(platform, enrichment, emulator)


def test_a_batch_that_becomes_visible_late_is_waited_for(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, time: Time
) -> None:
    emulator.faults([{"fault": "dropped_after_store", "times": 1}, {"fault": "list_lag", "for_s": 90}])
    submit(platform, enrichment)
    time.passes(seconds=60)
    submit(platform, enrichment)
    assert states(platform, enrichment) == [ShardState.SUBMITTING]
    time.passes(seconds=60)
    finish(platform, enrichment)
    assert_all_answered_and_billed_once(platform, enrichment, emulator)


def test_a_call_that_took_minutes_may_show_its_batch_as_long_after_its_end(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, time: Time
) -> None:
    plan = plan_partition(platform, enrichment, P)
    emulator.faults([{"fault": "slow", "delay_s": 1}, {"fault": "http_500", "times": 1}])
    with ThreadPoolExecutor() as pool:
        sending = pool.submit(send_planned, platform, plan)
        while creates(emulator, enrichment) == 0:
            assert not sending.done()
        time.passes(minutes=10)
        assert sending.result().unknown == 1
    assert reconcile_partition(platform, enrichment.name, P) == [Wait()]
    time.passes(minutes=3)
    assert reconcile_partition(platform, enrichment.name, P) == [Release()]


def test_a_list_that_fails_is_no_proof_that_nothing_was_created(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, time: Time
) -> None:
    emulator.faults([{"fault": "dropped_after_store", "times": 1}, {"fault": "retrieve_5xx", "route": "list"}])
    submit(platform, enrichment)
    time.passes(minutes=10)
    with pytest.raises(Exception, match="500"):
        submit(platform, enrichment)
    assert states(platform, enrichment) == [ShardState.SUBMITTING]
    emulator.faults([])
    finish(platform, enrichment)
    assert_all_answered_and_billed_once(platform, enrichment, emulator)


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param({"fault": "http_429", "retry_after_s": 30}, id="retry-after"),
        pytest.param({"fault": "http_429"}, id="no-retry-after"),
    ],
)
def test_a_rate_limit_is_waited_out_without_counting_an_attempt(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, time: Time, rule: dict[str, object]
) -> None:
    emulator.faults([rule | {"times": 5}])
    for _ in range(5):
        submit(platform, enrichment)
        assert submit(platform, enrichment).held == ""
        time.passes(minutes=2)
    finish(platform, enrichment)
    assert creates(emulator, enrichment) == 6
    assert_all_answered_and_billed_once(platform, enrichment, emulator)


@pytest.mark.parametrize(
    ("rule", "seconds"),
    [
        pytest.param({"fault": "http_429", "retry_after_s": 300}, 300, id="retry-after"),
        pytest.param({"fault": "http_429"}, 60, id="no-retry-after"),
    ],
)
def test_what_was_refused_for_now_is_not_sent_before_its_time(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, time: Time, rule: dict[str, object], seconds: int
) -> None:
    emulator.faults([rule | {"times": 1}])
    submit(platform, enrichment)
    time.passes(seconds=seconds - 20)
    submit(platform, enrichment)
    assert creates(emulator, enrichment) == 1
    time.passes(seconds=25)
    submit(platform, enrichment)
    assert creates(emulator, enrichment) == 2


@pytest.mark.parametrize("code", ["token_limit_exceeded", "file_not_found"])
def test_a_batch_refused_for_lack_of_room_is_sent_again_later(
    platform: Platform, emulator: Emulator, time: Time, code: str
) -> None:
    enrichment = labels("openai")
    emulator.faults([{"fault": code, "times": 4}])
    submit(platform, enrichment)
    for _ in range(4):
        finish_until_waiting(platform, enrichment)
        assert states(platform, enrichment) == [ShardState.PLANNED]
        time.passes(hours=1)
    finish(platform, enrichment)
    assert_all_answered_and_billed_once(platform, enrichment, emulator)


def finish_until_waiting(platform: Platform, enrichment: Enrichment) -> None:
    with pytest.raises(AssertionError, match="no end after"):
        finish(platform, enrichment, steps_max=8)


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param({"fault": "cut_mid_line", "times": 1}, id="cut-mid-line"),
        pytest.param({"fault": "silent_short_read", "times": 2}, id="silent-short-read"),
        pytest.param({"fault": "retrieve_404_at_first", "for_s": 1}, id="404-at-first"),
        pytest.param({"fault": "retrieve_404_blip", "times": 2}, id="404-blip"),
        pytest.param({"fault": "retrieve_5xx", "times": 1}, id="5xx"),
    ],
)
def test_a_reading_that_fails_is_read_again_and_nothing_is_sent_again(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, time: Time, rule: dict[str, object]
) -> None:
    emulator.faults([rule])
    submit(platform, enrichment)
    time.passes(seconds=2)
    finish(platform, enrichment)
    assert creates(emulator, enrichment) == 1
    assert_all_answered_and_billed_once(platform, enrichment, emulator)


def test_a_vanished_batch_is_an_outcome_and_its_requests_go_to_the_next_wave(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, time: Time
) -> None:
    emulator.faults([{"fault": "vanished", "times": 1}])
    submit(platform, enrichment)
    finish_until_waiting(platform, enrichment)
    for _ in range(2):
        time.passes(minutes=10)
        with suppress(AssertionError):
            finish(platform, enrichment, steps_max=8)
    steps = finish(platform, enrichment)
    assert steps[-1] is Step.NOTHING
    assert enriched(platform, enrichment)["wave"].unique().to_list() == [2]


def test_a_batch_with_only_an_error_file_is_read(platform: Platform, emulator: Emulator) -> None:
    enrichment = labels("openai")
    emulator.faults([{"fault": "only_error_file", "times": 1}])
    submit(platform, enrichment)
    finish(platform, enrichment)
    assert enriched(platform, enrichment).height + failed(platform, enrichment).height == len(TEXTS)


def test_lines_that_are_refused_fail_their_requests_with_the_reason(platform: Platform, emulator: Emulator) -> None:
    enrichment = labels("openai")
    emulator.faults([{"fault": "line_errors"}])
    submit(platform, enrichment)
    finish(platform, enrichment)
    assert set(reasons(platform, enrichment).values()) == {Reason.INVALID_REQUEST}
    assert emulator.accounting()["billed"] == 0


def test_another_accounts_batch_of_the_same_size_is_not_taken_for_ours(
    platform: Platform, emulator: Emulator, tmp_path: Path, time: Time
) -> None:
    enrichment = labels("anthropic")
    other = open_platform(tmp_path / "other", emulator.url, time)
    write_documents(other, [f"Somebody else's {number}" for number in range(len(TEXTS))])
    emulator.faults([{"fault": "dropped_before_store", "times": 1}])
    submit(platform, enrichment)
    submit(other, enrichment)
    finish(other, enrichment)
    finish_until_waiting(platform, enrichment)  # the stranger's batch is adopted, and disproved by its results
    time.passes(minutes=3)
    finish(platform, enrichment)
    other.close()
    assert set(enriched(platform, enrichment)["wave"]) == {1}
    assert enriched(platform, enrichment).height == len(TEXTS)
    assert {content["billed"] for content in emulator.contents()} == {1}


SMALL = ShardLimits(requests=10, bytes=1_000_000)
# Two rules that meet the same call are both used up by it: the first call never came, the second lost its reply.
NEVER_CAME_THEN_LOST_ITS_REPLY = [("dropped_before_store", 1), ("dropped_after_store", 2)]


@pytest.mark.parametrize(
    "lost",
    [
        pytest.param(NEVER_CAME_THEN_LOST_ITS_REPLY, id="one-never-came-one-lost-its-reply"),
        pytest.param([("dropped_after_store", 2)], id="both-lost-their-replies"),
    ],
)
def test_two_shards_of_one_size_do_not_take_each_others_batches_for_good(
    platform: Platform, emulator: Emulator, time: Time, lost: list[tuple[str, int]]
) -> None:
    enrichment = replace(labels("anthropic"), limits=SMALL)
    write_documents(platform, TEXTS)
    emulator.faults([{"fault": fault, "times": times} for fault, times in lost])
    submit(platform, enrichment)
    assert states(platform, enrichment) == [ShardState.SUBMITTING] * 2
    for _ in range(6):
        time.passes(minutes=3)
        with suppress(AssertionError):
            finish(platform, enrichment, steps_max=8)
    finish(platform, enrichment)
    assert_all_answered_and_billed_once(platform, enrichment, emulator)


def test_a_claim_is_not_sent_again_while_another_may_hold_its_batch(
    platform: Platform, emulator: Emulator, time: Time
) -> None:
    enrichment = replace(labels("anthropic"), limits=SMALL)
    emulator.hold(True)
    emulator.faults([{"fault": fault, "times": times} for fault, times in NEVER_CAME_THEN_LOST_ITS_REPLY])
    for _ in range(3):
        submit(platform, enrichment)
        time.passes(minutes=10)
    # One batch for two claims: the first has adopted it, and cannot be proven wrong before it has results.
    assert states(platform, enrichment) == [ShardState.SUBMITTED, ShardState.SUBMITTING]
    emulator.hold(False)
    for _ in range(3):
        time.passes(minutes=3)
        with suppress(AssertionError):
            finish(platform, enrichment, steps_max=8)
    finish(platform, enrichment)
    assert_all_answered_and_billed_once(platform, enrichment, emulator)


def test_what_a_dead_run_may_have_sent_a_moment_ago_is_waited_for(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, tmp_path: Path, time: Time
) -> None:
    plan_partition(platform, enrichment, P)
    (shard,) = platform.ledger.shards(enrichment.name, P)
    dead = open_platform(tmp_path / "store", emulator.url, time)
    assert dead.ledger.claim(shard.key, owner=dead.owner, account=dead.client(shard.provider, None).account)
    dead.close()
    time.passes(hours=1)
    assert reconcile_partition(platform, enrichment.name, P) == [Wait()]
    time.passes(minutes=3)
    assert reconcile_partition(platform, enrichment.name, P) == [Release()]
    assert creates(emulator, enrichment) == 0


def test_a_lost_batch_is_found_beyond_the_first_page_of_the_list(platform: Platform, emulator: Emulator) -> None:
    enrichment = labels("openai")
    emulator.faults([{"fault": "dropped_after_store", "times": 1}])
    submit(platform, enrichment)
    (shard,) = platform.ledger.shards(enrichment.name, P)
    client, file = platform.client("openai", None), local(platform.store, platform.request_file(shard))
    for number in range(OpenAIDialect.list_page_size):
        client.create(file, staged=shard.staged_id, stamp=f"another {number}")
    submit(platform, enrichment)
    assert states(platform, enrichment) == [ShardState.SUBMITTED]


@pytest.mark.parametrize("listed", [False, True], ids=["ours-may-be-the-strange-one", "ours-stands-beside-it"])
def test_a_strange_batch_in_the_list_is_no_proof_that_ours_is_not_there(
    tmp_path: Path, time: Time, listed: bool
) -> None:
    enrichment = labels("openai")
    with serving() as server:
        opened = open_platform(tmp_path / "strange", server.url, time)
        write_documents(opened, TEXTS)
        plan_partition(opened, enrichment, P)
        (shard,) = opened.ledger.shards(enrichment.name, P)
        batch = {"id": "b", "object": "batch", "status": "in_progress", "created_at": int(time().timestamp())}
        batch |= {"output_file_id": None, "error_file_id": None, "errors": None, "request_counts": None}
        found = [batch | {"created_at": 1e20}]
        found += [batch | {"id": "ours", "metadata": {"llm_assets_submission": shard.key}}] if listed else []
        server.will(json_reply({"object": "list", "data": found, "has_more": False}))
        opened.ledger.claim(shard.key, owner=opened.owner, account=opened.client("openai", None).account)
        time.passes(hours=1)
        with suppress(TransientError):  # a list of nothing that can be read
            reconcile_partition(opened, enrichment.name, P)
        assert states(opened, enrichment) == [ShardState.SUBMITTED if listed else ShardState.SUBMITTING]
        opened.close()


def test_a_list_without_an_end_proves_nothing(platform: Platform, tmp_path: Path, time: Time) -> None:
    enrichment = labels("anthropic")
    counts = {"processing": 7, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
    batch = {"id": "another", "type": "message_batch", "processing_status": "in_progress", "request_counts": counts}
    with serving() as server:
        server.will(json_reply({"data": [batch | {"created_at": f"{time():%FT%TZ}"}], "has_more": True}))
        endless = open_platform(tmp_path / "endless", server.url, time)
        write_documents(endless, TEXTS)
        plan_partition(endless, enrichment, P)
        (shard,) = endless.ledger.shards(enrichment.name, P)
        endless.ledger.claim(shard.key, owner=endless.owner, account=endless.client("anthropic", None).account)
        time.passes(hours=1)
        with pytest.raises(OutcomeUnknown, match="must be settled by hand"):
            reconcile_partition(endless, enrichment.name, P)
        assert states(endless, enrichment) == [ShardState.SUBMITTING]
        endless.close()


def test_another_account_is_not_asked_what_became_of_a_claim(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, time: Time
) -> None:
    emulator.faults([{"fault": "dropped_after_store", "times": 1}])
    submit(platform, enrichment)
    switched = with_other_keys(platform, time)
    time.passes(hours=1)
    assert reconcile_partition(switched, enrichment.name, P) == [Wait()]
    assert f"{enrichment.provider}.list" not in emulator.calls()
    assert "sent with another key or base URL" in platform.ledger.shards(enrichment.name, P)[0].message
    finish(platform, enrichment)
    assert_all_answered_and_billed_once(platform, enrichment, emulator)


def with_other_keys(platform: Platform, time: Time) -> Platform:
    others = {name: replace(found, api_key="another") for name, found in platform.credentials.items()}
    return Platform(platform.store, platform.ledger, others, clock=time, owner=platform.owner)


@pytest.mark.parametrize("sent_again", [False, True], ids=["the-heir-found-the-batch", "the-heir-sent-it-again"])
def test_a_reply_that_comes_to_who_lost_the_claim(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, tmp_path: Path, time: Time, sent_again: bool
) -> None:
    plan = plan_partition(platform, enrichment, P)
    slow = open_platform(tmp_path / "store", emulator.url, time)
    emulator.hold(True)
    emulator.faults([{"fault": "slow", "delay_s": 1, "times": 1}])
    with ThreadPoolExecutor() as pool:
        sending = pool.submit(send_planned, slow, plan)
        while not emulator.batches():
            assert not sending.done()
        (shard,) = platform.ledger.shards(enrichment.name, P)
        assert platform.ledger.take_over(shard, platform.owner, not_before=time())
        if sent_again:
            platform.ledger.released(shard.key)
            send_planned(platform, plan)
            with pytest.raises(IllegalTransition):
                sending.result()
            assert emulator.calls()[f"{enrichment.provider}.cancel"] == 1
        else:
            (found,) = reconcile_partition(platform, enrichment.name, P)
            assert isinstance(found, Adopt)
            assert sending.result().unknown == 0
    slow.close()
    emulator.hold(False)
    finish(platform, enrichment)
    assert_all_answered_and_billed_once(platform, enrichment, emulator)


def test_an_old_batch_that_is_missing_for_a_moment_is_not_given_up(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, time: Time
) -> None:
    emulator.hold(True)
    submit(platform, enrichment)
    time.passes(minutes=20)
    emulator.faults([{"fault": "retrieve_404_blip", "times": 1}])
    finish_until_waiting(platform, enrichment)
    emulator.hold(False)
    finish(platform, enrichment)
    assert_all_answered_and_billed_once(platform, enrichment, emulator)


@pytest.mark.parametrize(
    ("minutes", "looks_between"), [pytest.param(40, 0, id="long-apart"), pytest.param(8, 1, id="seen-in-between")]
)
def test_looks_that_miss_a_batch_now_and_then_do_not_make_it_vanish(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, time: Time, minutes: int, looks_between: int
) -> None:
    emulator.hold(True)
    submit(platform, enrichment)
    for _ in range(3):
        emulator.faults([{"fault": "retrieve_404_blip", "times": 1}])
        for _ in range(1 + looks_between):
            poll(platform, platform.ledger.active_shards(), calls_max=25)
            assert states(platform, enrichment) == [ShardState.SUBMITTED]
        time.passes(minutes=minutes)
    emulator.hold(False)
    finish(platform, enrichment)
    assert_all_answered_and_billed_once(platform, enrichment, emulator)


def test_a_batch_that_vanishes_before_it_is_proven_leaves_its_claim_as_open_as_before(
    platform: Platform, emulator: Emulator, time: Time
) -> None:
    enrichment = labels("anthropic")
    emulator.hold(True)
    emulator.faults([{"fault": "dropped_after_store", "times": 1}, {"fault": "vanished", "times": 1}])
    submit(platform, enrichment)
    submit(platform, enrichment)
    assert states(platform, enrichment) == [ShardState.SUBMITTED]
    emulator.hold(False)
    for _ in range(3):
        with suppress(AssertionError):
            finish(platform, enrichment, steps_max=8)
        time.passes(minutes=8)
    finish(platform, enrichment)
    assert set(enriched(platform, enrichment)["wave"]) == {1}


def test_a_batch_in_flight_is_not_asked_about_with_another_account(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, time: Time
) -> None:
    emulator.hold(True)
    submit(platform, enrichment)
    report = poll(with_other_keys(platform, time), platform.ledger.active_shards(), calls_max=25)
    assert "1 in flight: sent with another key" in report.problems[0]
    assert (report.calls, creates(emulator, enrichment)) == (0, 1)


def test_an_ended_batch_is_not_asked_for_with_another_account(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, tmp_path: Path, time: Time
) -> None:
    submit(platform, enrichment)
    poll(platform, platform.ledger.active_shards(), calls_max=25)
    assert states(platform, enrichment) == [ShardState.ENDED]
    switched = with_other_keys(platform, time)
    time.passes(hours=1)
    with pytest.raises(SystemicError, match="another key or base URL"):
        collect_partition(switched, enrichment, P)
    finish(platform, enrichment)
    assert_all_answered_and_billed_once(platform, enrichment, emulator)


def test_clocks_that_disagree_do_not_hide_a_batch(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, time: Time
) -> None:
    time.offset += timedelta(minutes=40)
    emulator.faults([{"fault": "dropped_after_store", "times": 1}])
    submit(platform, enrichment)
    time.offset += timedelta(minutes=10)
    finish(platform, enrichment)
    assert creates(emulator, enrichment) == 1
    assert_all_answered_and_billed_once(platform, enrichment, emulator)
