"""Which batches have ended: asked within a budget, with nobody left out for ever."""

from dataclasses import replace
from datetime import timedelta

import pytest

from llm_assets.platform import Platform
from llm_assets.polling import poll
from llm_assets.providers.openai import OpenAIDialect
from llm_assets.records import Shard, ShardLimits, ShardState
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.platforms import P, Time, labels, local, submit, write_documents

# Three batches: so few are asked about one by one.
ENRICHMENT = replace(labels("openai"), limits=ShardLimits(requests=2, bytes=1_000_000), deadline_hours=2)


@pytest.fixture
def platform(empty: Platform) -> Platform:
    write_documents(empty, [f"Review {number}" for number in range(6)])
    submit(empty, ENRICHMENT)
    return empty


def submitted(platform: Platform) -> int:
    return [shard.state for shard in platform.ledger.shards(ENRICHMENT.name, P)].count(ShardState.SUBMITTED)


def test_what_one_poll_had_no_calls_left_for_is_asked_by_the_next(platform: Platform) -> None:
    shards = platform.ledger.active_shards()
    assert poll(platform, shards, calls_max=2).calls == 2
    assert submitted(platform) == 1
    poll(platform, shards, calls_max=2, start=2)
    assert submitted(platform) == 0


def others(platform: Platform, count: int) -> None:
    """Batches of somebody else at the same provider."""
    ours = platform.ledger.active_shards()[0]
    client, file = platform.client("openai", None), local(platform.store, platform.request_file(ours))
    for number in range(count):
        client.create(file, staged=ours.staged_id, stamp=f"another {number}")


@pytest.fixture
def far_back(platform: Platform) -> Platform:
    """Five batches of ours, and two pages of others that are newer."""
    write_documents(platform, [f"Another {number}" for number in range(4)], "2026-11-02")
    submit(platform, ENRICHMENT, "2026-11-02")
    others(platform, 2 * OpenAIDialect.list_page_size)
    return platform


def in_flight(platform: Platform) -> list[Shard]:
    return [shard for shard in platform.ledger.active_shards() if shard.state is ShardState.SUBMITTED]


def test_batches_beyond_all_pages_of_the_list_are_not_left_out(far_back: Platform) -> None:
    for _ in in_flight(far_back):
        assert poll(far_back, far_back.ledger.active_shards(), calls_max=2).calls <= 2
    assert not in_flight(far_back)


def test_a_list_is_read_no_further_than_to_what_is_older_than_ours(platform: Platform, time: Time) -> None:
    poll(platform, platform.ledger.active_shards(), calls_max=25)
    others(platform, 2 * OpenAIDialect.list_page_size)
    time.passes(hours=1)
    write_documents(platform, [f"Another {number}" for number in range(10)], "2026-11-02")
    submit(platform, ENRICHMENT, "2026-11-02")
    unknown = replace(in_flight(platform)[0], batch_id="batch_of_nobody")
    told = poll(platform, [unknown, *in_flight(platform)[1:]], calls_max=25)
    assert [shard.key for shard in in_flight(platform)] == [unknown.key]
    assert told.calls == 3, "a page, and twice for the one that it did not name"


def test_a_provider_whose_clock_is_behind_has_its_list_read_all_the_same(
    platform: Platform, emulator: Emulator, time: Time
) -> None:
    poll(platform, platform.ledger.active_shards(), calls_max=25)
    time.passes(hours=1)
    emulator.advance_clock(-600)
    write_documents(platform, [f"Another {number}" for number in range(10)], "2026-11-02")
    submit(platform, ENRICHMENT, "2026-11-02")
    others(platform, OpenAIDialect.list_page_size)
    told = poll(platform, in_flight(platform), calls_max=25)
    assert not in_flight(platform)
    assert told.calls == 2, "a page of others, and ours"


def test_pages_begin_where_batches_of_ours_are(far_back: Platform) -> None:
    told = poll(far_back, far_back.ledger.active_shards(), calls_max=3)
    assert (told.calls, told.asked) == (3, 5)
    assert not in_flight(far_back)


def test_a_batch_that_the_provider_does_not_know_keeps_nobody_from_being_asked_about(far_back: Platform) -> None:
    newest, *others = sorted(in_flight(far_back), key=lambda shard: str(shard.submitted_at), reverse=True)
    shards = [replace(newest, batch_id="batch_of_nobody"), *others]
    for _ in range(6):
        assert poll(far_back, shards, calls_max=3).calls <= 3
        shards = [shards[0], *(shard for shard in in_flight(far_back) if shard.key != newest.key)]
    assert [shard.key for shard in in_flight(far_back)] == [newest.key]


def test_who_was_not_asked_about_for_the_longest_time_comes_first(platform: Platform, emulator: Emulator) -> None:
    emulator.hold()
    write_documents(platform, [f"Old {number}" for number in range(6)], "2026-11-02")
    submit(platform, ENRICHMENT, "2026-11-02")
    old = {shard.key for shard in in_flight(platform)}
    others(platform, OpenAIDialect.list_page_size + 50)
    write_documents(platform, [f"New {number}" for number in range(4)], "2026-11-03")
    submit(platform, ENRICHMENT, "2026-11-03")
    others(platform, OpenAIDialect.list_page_size + 50)
    for _ in range(3):
        assert poll(platform, platform.ledger.active_shards(), calls_max=3).calls <= 3
    assert {shard.key for shard in in_flight(platform) if shard.asked_at} >= old


def test_each_provider_has_its_turn(platform: Platform, emulator: Emulator) -> None:
    emulator.hold()
    other = replace(labels("anthropic"), name="other")
    submit(platform, other)
    for start in range(2):
        poll(platform, platform.ledger.active_shards(), calls_max=1, start=start)
    assert {shard.provider for shard in in_flight(platform) if shard.asked_at} == {"anthropic", "openai"}


def test_no_call_begins_past_the_deadline(platform: Platform, time: Time) -> None:
    assert poll(platform, platform.ledger.active_shards(), calls_max=25, deadline=time()).calls == 0
    assert submitted(platform) == 3


def test_a_late_batch_is_cancelled_once_an_hour_and_within_the_budget(
    platform: Platform, emulator: Emulator, time: Time
) -> None:
    emulator.faults([{"fault": "retrieve_5xx", "route": "cancel"}])
    emulator.hold(True)
    late = platform.ledger.active_shards()
    time.passes(hours=3)
    assert poll(platform, late, calls_max=3).calls == 3
    assert emulator.calls()["openai.cancel"] == 1
    for _ in range(2):
        poll(platform, platform.ledger.active_shards(), calls_max=25)
    assert emulator.calls()["openai.cancel"] == 3


def test_a_shard_knows_when_the_provider_last_said_anything_of_it(
    platform: Platform, emulator: Emulator, time: Time
) -> None:
    emulator.hold()
    emulator.faults([{"fault": "http_500", "route": route} for route in ("list", "retrieve")])
    poll(platform, platform.ledger.active_shards(), calls_max=9)
    assert {shard.asked_at for shard in platform.ledger.active_shards()} == {None}
    emulator.faults([])
    time.passes(minutes=5)
    poll(platform, platform.ledger.active_shards(), calls_max=2)
    told = [shard.asked_at for shard in platform.ledger.active_shards() if shard.asked_at]
    assert len(told) == 2
    assert min(told) > time() - timedelta(minutes=1)
    emulator.hold(held=False)
