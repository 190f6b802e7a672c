"""A provider's queue holds so much: what does not fit waits its turn, and nobody overtakes."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from llm_assets.collection import collect_partition
from llm_assets.enrichment import Enrichment
from llm_assets.planning import plan_partition
from llm_assets.platform import Platform
from llm_assets.quota import no_room
from llm_assets.records import Quota, Shard, ShardLimits, ShardState
from llm_assets.submission import send_planned
from llm_assets.waves import Step
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.platforms import P, Time, enriched, finish, go_on, labels, submit, write_documents

NOW = datetime(2026, 11, 20, tzinfo=UTC)
MINE = Shard(
    key="mine",
    enrichment="labels",
    partition=P,
    wave=1,
    provider="openai",
    endpoint="/v1/responses",
    requests=10,
    bytes=1000,
    tokens=250,
    path="mine",
    charged_at=NOW,
)
QUEUED = replace(MINE, key="queued", state=ShardState.SUBMITTED, requests=90, tokens=9_750)
OLDER = replace(MINE, key="older", charged_at=NOW - timedelta(minutes=1))


@pytest.mark.parametrize(
    ("others", "quota", "refused", "reason"),
    [
        pytest.param([], Quota(requests=5), [], "", id="an-empty-queue-takes-anything"),
        pytest.param([QUEUED], Quota(requests=100), [], "", id="it-just-fits"),
        pytest.param(
            [QUEUED],
            Quota(requests=99),
            [],
            "the quota is 99 queued requests, 90 are queued and this has 10",
            id="too-many-requests",
        ),
        pytest.param([QUEUED], Quota(tokens=10_000), [], "", id="tokens-fit"),
        pytest.param(
            [QUEUED],
            Quota(tokens=9_999),
            [],
            "the quota is 9,999 queued tokens, 9,750 are queued and this has 250",
            id="too-many-tokens",
        ),
        pytest.param(
            [replace(OLDER, not_before=NOW)],
            Quota(requests=100),
            [],
            "others wait longer for room in the provider's queue",
            id="no-overtaking",
        ),
        pytest.param(
            [replace(OLDER, not_before=NOW, charged_at=NOW, path="less")],
            Quota(requests=100),
            [],
            "others wait longer for room in the provider's queue",
            id="at-the-same-time-in-the-order-of-paths",
        ),
        pytest.param(
            [replace(OLDER, not_before=NOW, charged_at=NOW, path="more")],
            Quota(requests=100),
            [],
            "",
            id="at-the-same-time-but-a-later-path",
        ),
        pytest.param([OLDER], Quota(requests=100), [], "", id="who-never-asked-does-not-wait"),
        pytest.param(
            [replace(OLDER, not_before=NOW - timedelta(hours=1))], Quota(requests=100), [], "", id="who-asks-no-more"
        ),
        pytest.param(
            [replace(OLDER, not_before=NOW, charged_at=NOW + timedelta(minutes=1))],
            Quota(requests=100),
            [],
            "",
            id="who-came-later",
        ),
        pytest.param(
            [replace(OLDER, not_before=NOW + timedelta(minutes=1), charged_at=NOW + timedelta(minutes=1))],
            Quota(requests=100),
            ["older"],
            "the provider's queue is full: it refused another batch for lack of room",
            id="a-refused-batch-closes-the-queue",
        ),
        pytest.param(
            [replace(OLDER, key="younger", not_before=NOW, charged_at=NOW + timedelta(minutes=1))],
            Quota(requests=100),
            ["mine", "younger"],
            "",
            id="the-oldest-of-those-refused-tries-again",
        ),
        pytest.param(
            [replace(OLDER, not_before=NOW)],
            Quota(requests=100),
            ["mine", "older"],
            "the provider's queue is full: it refused another batch for lack of room",
            id="the-others-wait-for-it",
        ),
    ],
)
def test_room_in_the_queue(others: list[Shard], quota: Quota, refused: list[str], reason: str) -> None:
    assert no_room(MINE, others, quota, frozenset(refused), NOW) == reason


@pytest.mark.parametrize(
    ("provider", "quotas"),
    [
        pytest.param("anthropic", (Quota(requests=30),), id="anthropic"),
        pytest.param("openai", (Quota(requests=30),), id="openai"),
        pytest.param("openai", (Quota("gpt-6-luna", tokens=10**9), Quota(requests=30)), id="its model's is roomier"),
        pytest.param("openai", (Quota(tokens=10**9), Quota("gpt-6-luna", requests=30)), id="its model's is tighter"),
    ],
)
def test_what_does_not_fit_is_sent_when_there_is_room(
    empty: Platform, emulator: Emulator, time: Time, provider: str, quotas: tuple[Quota, ...]
) -> None:
    enrichment = replace(labels(provider), limits=ShardLimits(10, 1_000_000), quotas=quotas)
    names = (P, "2026-11-02")
    for name in names:
        write_documents(empty, [f"{name} {number}" for number in range(40)], name)
    emulator.hold(True)
    for name in names:
        send(empty, enrichment, name)
    # Shards differ a little in size where that tells them apart.
    assert in_the_queue(empty, enrichment) in (3, 4)
    assert not any(shard.submitted_at for shard in empty.ledger.shards(enrichment.name, names[1]))
    emulator.hold(False)
    for _ in range(20):
        for name in names:
            send(empty, enrichment, name)
            assert sum(s.requests for s in empty.ledger.queue(provider, None) if s.state is ShardState.SUBMITTED) <= 30
            finish_sent(empty, enrichment, name)
        time.passes(minutes=10)
    for name in names:
        finish(empty, enrichment, name)
        assert enriched(empty, enrichment, name).height == 40
    assert emulator.accounting()["billed"] == 80


@pytest.mark.parametrize(
    ("provider", "limits"),
    [("anthropic", {"anthropic_queued_requests": 25}), ("openai", {"openai_enqueued_tokens": 2_500})],
    ids=["anthropic", "openai"],
)
def test_a_queue_that_nobody_declared_is_waited_for(
    empty: Platform, emulator: Emulator, time: Time, provider: str, limits: dict[str, int]
) -> None:
    enrichment = replace(labels(provider), limits=ShardLimits(10, 1_000_000))
    write_documents(empty, [f"Document {number}." for number in range(40)])
    emulator.settings(limits=limits)
    emulator.hold(True)
    submit(empty, enrichment)
    collect_partition(empty, enrichment, P)
    assert 0 < in_the_queue(empty, enrichment) < 4
    emulator.hold(False)
    while go_on(empty, enrichment) is not Step.NOTHING:
        time.passes(minutes=10)
    assert enriched(empty, enrichment).height == 40
    assert emulator.accounting()["billed"] == 40


def test_partitions_that_were_refused_together_do_not_wait_for_each_other(
    empty: Platform, emulator: Emulator, time: Time
) -> None:
    enrichment = replace(labels("openai"), quotas=(Quota(requests=1_000),))
    names = (P, "2026-11-02")
    for name in names:
        write_documents(empty, [f"{name} {number}" for number in range(5)], name)
    emulator.faults([{"fault": "token_limit_exceeded", "times": 2}])
    for _ in range(6):
        for name in names:
            send(empty, enrichment, name)
        for name in names:
            finish_sent(empty, enrichment, name)
        time.passes(minutes=10)
    assert [enriched(empty, enrichment, name).height for name in names] == [5, 5]
    assert emulator.accounting()["billed"] == 10


def send(platform: Platform, enrichment: Enrichment, partition: str) -> None:
    send_planned(platform, plan_partition(platform, enrichment, partition), enrichment.quotas)


def in_the_queue(platform: Platform, enrichment: Enrichment) -> int:
    return sum(s.state is ShardState.SUBMITTED for s in platform.ledger.queue(enrichment.provider, None))


def finish_sent(platform: Platform, enrichment: Enrichment, partition: str) -> None:
    collect_partition(platform, enrichment, partition)
