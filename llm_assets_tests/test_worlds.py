"""One partition's life in every world that it may be lived in: {folder, S3} × {SQLite, Postgres}."""

import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from llm_assets.enrichment import Enrichment
from llm_assets.ledger import Ledger
from llm_assets.planning import plan_partition
from llm_assets.platform import Platform
from llm_assets.providers import Credentials
from llm_assets.records import Reason, ShardLimits, ShardState
from llm_assets.store import Store
from llm_assets.submission import send_planned
from llm_assets_tests.crashes import Life, ended, live
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.platforms import (
    P,
    Time,
    enriched,
    failed,
    finish,
    labels,
    reasons,
    run,
    submit,
    write_documents,
)
from llm_assets_tests.s3_server import S3Server

TEXTS: list[str | None] = [f"Review {number}: this is a good thing." for number in range(9)]
SECONDS_MAX = 60


@pytest.fixture(params=["anthropic", "openai"])
def enrichment(request: pytest.FixtureRequest) -> Enrichment:
    """Two shards for nine documents."""
    return replace(labels(request.param), limits=ShardLimits(requests=5, bytes=1_000_000))


@pytest.fixture
def platform(root: str, ledger_url: str, emulator: Emulator, time: Time) -> Iterator[Platform]:
    opened = a_platform(root, ledger_url, emulator, time)
    yield opened
    opened.close()


def a_platform(root: str, ledger_url: str, emulator: Emulator, time: Time) -> Platform:
    """What a process of this world would open."""
    store = Store(root)
    store.files.prepare()
    credentials = {"anthropic": Credentials("k", emulator.url), "openai": Credentials("k", emulator.openai_url)}
    return Platform(store, Ledger(ledger_url, time), credentials, clock=time)


def assert_all_answered_and_billed_once(platform: Platform, enrichment: Enrichment, emulator: Emulator) -> None:
    assert enriched(platform, enrichment)["document_id"].to_list() == [f"d{n}" for n in range(len(TEXTS))]
    assert failed(platform, enrichment).height == 0
    assert [content["billed"] for content in emulator.contents()] == [1] * len(TEXTS)


def test_whatever_rows_go_wrong_every_document_ends_once(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    emulator.faults(
        [
            {"fault": "refusal", "match": "Review 3:"},
            {"fault": "overloaded", "rate": 0.5, "attempts": 1},
            {"fault": "missing_row", "match": "Review 7:", "times": 1},
        ]
    )
    platform.missing_tolerance = timedelta()
    progress = run(platform, enrichment, [*TEXTS, None, TEXTS[0]])
    assert (progress.enriched, progress.failed, progress.published) == (9, 2, True)
    assert reasons(platform, enrichment) == {"d3": Reason.REFUSAL, "d9": Reason.EMPTY_DOCUMENT}
    assert emulator.accounting()["contents"]["contents"] == len(TEXTS)
    platform.store.check(enrichment.name, P)


def test_a_reply_that_never_came_is_asked_about_and_nothing_is_sent_again(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    emulator.faults([{"fault": "dropped_after_store", "times": 1}])
    write_documents(platform, TEXTS)
    submit(platform, enrichment)
    states = Counter(shard.state for shard in platform.ledger.shards(enrichment.name, P))
    assert states[ShardState.SUBMITTING] == 1
    finish(platform, enrichment)
    assert emulator.calls()[f"{enrichment.provider}.create"] == 2
    assert_all_answered_and_billed_once(platform, enrichment, emulator)


def test_two_that_send_one_partition_at_once_send_each_shard_once(
    platform: Platform, root: str, ledger_url: str, time: Time, enrichment: Enrichment, emulator: Emulator
) -> None:
    write_documents(platform, TEXTS)
    plan = plan_partition(platform, enrichment, P)
    others = [a_platform(root, ledger_url, emulator, time) for _ in range(3)]
    with ThreadPoolExecutor(len(others)) as pool:
        list(pool.map(lambda other: send_planned(other, plan), others))
    for other in others:
        other.close()
    finish(platform, enrichment)
    assert emulator.accounting()["requests"] == len(TEXTS)
    assert_all_answered_and_billed_once(platform, enrichment, emulator)


def test_another_day_asks_only_what_no_day_has_an_answer_to(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    run(platform, enrichment, TEXTS)
    write_documents(platform, [*TEXTS, "Something bad."], "2026-11-02")
    submit(platform, enrichment, "2026-11-02")
    finish(platform, enrichment, "2026-11-02")
    assert enriched(platform, enrichment, "2026-11-02").height == len(TEXTS) + 1
    assert [content["billed"] for content in emulator.contents()] == [1] * (len(TEXTS) + 1)


# Each next process comes further than the one before.
PLACES = ("store.plan: in place", "client.create: answered", "store.results: written", "store.enriched: in place")


def test_killed_again_and_again_another_goes_on(
    platform: Platform,
    root: str,
    ledger_url: str,
    enrichment: Enrichment,
    emulator: Emulator,
    time: Time,
    tmp_path: Path,
    s3_server: S3Server,
) -> None:
    write_documents(platform, TEXTS)
    life = Life(
        root, emulator.url, ledger_url, enrichment.provider, tmp_path / "passed", environment=s3_server.environment
    )
    for place in PLACES:
        assert ended(live(replace(life, die_at=place, later=time.offset)), SECONDS_MAX) == -signal.SIGKILL, place
        time.passes(minutes=10)
    assert ended(live(replace(life, later=time.offset)), SECONDS_MAX) == 0
    assert_all_answered_and_billed_once(platform, enrichment, emulator)
