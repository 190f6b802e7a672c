"""What is left behind: uploads that nobody knows of, request files, and what the providers keep."""

from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest
from openai import OpenAI

from llm_assets.enrichment import Enrichment
from llm_assets.ledger import Ledger
from llm_assets.planning import plan_partition
from llm_assets.platform import Platform
from llm_assets.records import ShardState
from llm_assets.retention import sweep
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.platforms import (
    LABELS,
    P,
    Time,
    enriched,
    finish,
    labels,
    local,
    open_platform,
    run,
    submit,
    write_documents,
)
from llm_assets_tests.samples import NOW, PLAN, SHARD

TEXTS: list[str | None] = [f"Review {number}: this is a good thing." for number in range(4)]


@pytest.fixture
def platform(empty: Platform) -> Platform:
    write_documents(empty, TEXTS)
    return empty


@pytest.fixture(params=["anthropic", "openai"])
def enrichment(request: pytest.FixtureRequest) -> Enrichment:
    return labels(str(request.param))


def request_files(platform: Platform, partition: str = P) -> set[str]:
    """The keys of the shards whose request files are there."""
    return {key for key, _ in platform.store.request_files("labels", partition)}


def keys(platform: Platform) -> set[str]:
    return {shard.key for shard in platform.ledger.shards("labels", P)}


# -- uploads


def test_an_upload_whose_reply_never_came_is_not_made_again(platform: Platform, emulator: Emulator, time: Time) -> None:
    enrichment = labels("openai")
    emulator.faults([{"fault": "dropped_after_store", "route": "upload", "times": 1}])
    submit(platform, enrichment)
    time.passes(minutes=2)
    submit(platform, enrichment)
    finish(platform, enrichment)
    calls = emulator.calls()
    assert (calls["openai.upload"], calls["openai.list_files"], calls["openai.create"]) == (1, 1, 1)


def test_the_upload_of_a_run_that_died_before_it_wrote_it_down_is_used(
    platform: Platform, emulator: Emulator, time: Time
) -> None:
    enrichment = labels("openai")
    died = open_platform(local(platform.store), emulator.url, time)
    plan_partition(died, enrichment, P)
    (shard,) = died.ledger.shards(enrichment.name, P)
    client = died.client("openai", shard.endpoint)
    died.ledger.claim(shard.key, owner=died.owner, account=client.account)
    uploaded = client.stage(local(died.store, f"{shard.path}.jsonl"))
    died.close()
    submit(platform, enrichment)  # takes the claim over
    time.passes(minutes=3)
    submit(platform, enrichment)  # releases it, as the provider has no batch, and sends it
    finish(platform, enrichment)
    assert platform.ledger.shard(shard.key).staged_id == uploaded
    assert emulator.calls()["openai.upload"] == 1


def test_an_upload_that_the_provider_does_not_find_is_made_again(
    platform: Platform, emulator: Emulator, time: Time
) -> None:
    enrichment = labels("openai")
    emulator.faults([{"fault": "file_not_found", "times": 1}])
    submit(platform, enrichment)
    with pytest.raises(AssertionError, match="no end after"):
        finish(platform, enrichment, steps_max=8)
    time.passes(hours=1)
    finish(platform, enrichment)
    assert (emulator.calls()["openai.upload"], emulator.calls()["openai.create"]) == (2, 2)
    assert "openai.list_files" not in emulator.calls()


def test_a_server_that_lists_no_files_is_sent_the_upload_again(
    platform: Platform, emulator: Emulator, time: Time
) -> None:
    enrichment = labels("openai")
    emulator.faults(
        [{"fault": "http_500", "route": "upload", "times": 1}, {"fault": "http_400", "route": "list_files"}]
    )
    submit(platform, enrichment)
    time.passes(minutes=2)
    submit(platform, enrichment)
    assert emulator.calls()["openai.create"] == 1


# -- request files


def test_request_files_are_deleted_once_they_are_old_enough_and_nothing_else_is(
    platform: Platform, enrichment: Enrichment, time: Time
) -> None:
    run(platform, enrichment, TEXTS)
    time.passes(days=29)
    assert sweep(platform, enrichment, P) == []
    assert request_files(platform) == keys(platform)
    tables = sorted(local(platform.store).rglob("*.parquet"))
    time.passes(days=2)
    assert sweep(platform, enrichment, P) == []
    assert request_files(platform) == set()
    assert sorted(local(platform.store).rglob("*.parquet")) == tables
    (shard,) = platform.ledger.shards(enrichment.name, P)
    assert shard.swept_at is not None
    assert platform.ledger.unswept(enrichment.name, until=platform.clock(), limit=9) == []


def test_without_request_files_a_partition_is_planned_again_and_published_as_before(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    enrichment = replace(enrichment, request_files_days=0)
    run(platform, enrichment, TEXTS)
    sweep(platform, enrichment, P)
    assert request_files(platform) == set()
    before = emulator.accounting()["requests"]
    run(platform, enrichment, [*TEXTS, "One more, and it is bad."])
    assert emulator.accounting()["requests"] == before + 1
    assert enriched(platform, enrichment).height == len(TEXTS) + 1


def test_the_files_of_what_is_still_to_be_sent_or_answered_stay(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, time: Time
) -> None:
    enrichment = replace(enrichment, request_files_days=0)
    emulator.hold(True)
    submit(platform, enrichment)
    write_documents(platform, TEXTS, "2026-11-02")
    plan_partition(platform, enrichment, "2026-11-02")
    time.passes(days=40)
    assert sweep(platform, enrichment, P) == []
    assert request_files(platform) == keys(platform)
    assert len(request_files(platform, "2026-11-02")) == 1


def test_a_shard_that_is_withdrawn_leaves_no_request_file(platform: Platform, enrichment: Enrichment) -> None:
    plan_partition(platform, enrichment, P)
    withdrawn = request_files(platform)
    write_documents(platform, ["Another text."])
    plan_partition(platform, enrichment, P)
    assert request_files(platform) == keys(platform)
    assert not request_files(platform) & withdrawn


def test_files_of_a_plan_that_was_never_recorded_are_deleted_after_a_day(
    platform: Platform, enrichment: Enrichment, time: Time
) -> None:
    enrichment = replace(enrichment, request_files_days=0)
    run(platform, enrichment, TEXTS)
    (shard,) = platform.ledger.shards(enrichment.name, P)
    stranger = local(platform.store, platform.request_file(replace(shard, path=shard.path.replace(shard.key, "abc"))))
    stranger.write_text("{}")
    time.passes(hours=23)
    sweep(platform, enrichment, P)
    assert stranger.exists()
    time.passes(hours=2)
    sweep(platform, enrichment, P)
    assert not stranger.exists()


def test_what_killed_processes_left_is_deleted_after_a_day(
    platform: Platform, enrichment: Enrichment, time: Time
) -> None:
    run(platform, enrichment, TEXTS)
    root = local(platform.store)
    scratch = root / ".scratch-abc"
    scratch.mkdir()
    (scratch / "download.jsonl").write_text("an answer")
    left = [root / "enrichments" / "labels" / "enriched" / f".{P}.parquet.abc", root / "documents" / "texts" / ".x.tmp"]
    for path in left:
        path.write_text("half a table")
    assert sweep(platform, enrichment, P) == []
    assert all(path.exists() for path in (scratch, *left))
    time.passes(days=2)
    assert sweep(platform, enrichment, P) == []
    assert not any(path.exists() for path in (scratch, *left))
    assert enriched(platform, enrichment).height == len(TEXTS)


def test_a_file_that_cannot_be_deleted_is_told_and_tried_again(platform: Platform, enrichment: Enrichment) -> None:
    enrichment = replace(enrichment, request_files_days=0)
    run(platform, enrichment, TEXTS)
    ((_, entry),) = platform.store.request_files(enrichment.name, P)
    file = local(platform.store, entry.path)
    file.rename(aside := file.with_suffix(".aside"))
    file.mkdir()  # which not even root can unlink
    (problem,) = sweep(platform, enrichment, P)
    assert "cannot be deleted" in problem
    file.rmdir()
    aside.rename(file)
    assert sweep(platform, enrichment, P) == []
    assert not file.exists()


def test_one_sweep_takes_on_a_bounded_number_of_the_oldest(ledger_url: str) -> None:
    with closing(Ledger(ledger_url, lambda: NOW)) as ledger:
        done = [
            replace(SHARD, key=f"k{number}", path=f"k{number}", state=state, collected_at=NOW - timedelta(days=number))
            for number, state in enumerate([*ShardState] * 2)
        ]
        ledger.record_plan(PLAN, done, replaces=None)
        finished = [shard for shard in done if shard.state in (ShardState.COLLECTED, ShardState.REJECTED)]
        oldest_first = [shard.key for shard in reversed(finished)]
        found = ledger.unswept("e", until=NOW, limit=3)
        assert [shard.key for shard in found] == oldest_first[:3]
        ledger.swept(oldest_first[0])
        assert [shard.key for shard in ledger.unswept("e", until=NOW, limit=9)] == oldest_first[1:]
        assert ledger.unswept("another", until=NOW, limit=9) == []
        assert [shard.key for shard in ledger.unforgotten("e", since=NOW - timedelta(days=6), limit=9)] == [
            shard.key for shard in reversed(finished) if shard.collected_at and shard.collected_at >= NOW - timedelta(6)
        ]


@pytest.mark.parametrize(("shards", "swept"), [(20, 50), (80, 160)])
def test_of_a_large_partition_more_is_swept_than_it_brought(empty: Platform, shards: int, swept: int) -> None:
    now, name = empty.clock(), LABELS.name
    done = replace(SHARD, enrichment=name, provider="openai", endpoint="/v1/responses", state=ShardState.COLLECTED)
    done = replace(done, collected_at=now - timedelta(days=40))
    old = [
        replace(done, key=f"k{day}-{number}", path=f"k{day}-{number}", partition=f"{day}")
        for day in range(1, 6)
        for number in range(shards)
    ]
    empty.ledger.record_plan(replace(PLAN, enrichment=name), old, replaces=None)
    assert sweep(empty, LABELS, "1") == []
    assert len(empty.ledger.unswept(name, until=now, limit=9_999)) == len(old) - swept


# -- what the providers keep


def kept_files(emulator: Emulator) -> list[str]:
    with OpenAI(base_url=emulator.openai_url, api_key="k") as client:
        return [file.id for file in client.files.list()]


def left_at(provider: str, emulator: Emulator) -> list[str]:
    if provider == "openai":
        return kept_files(emulator)
    return [batch["id"] for batch in emulator.batches() if not batch["deleted"]]


def test_what_the_provider_keeps_is_left_to_it_unless_declared(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    run(platform, enrichment, TEXTS)
    sweep(platform, enrichment, P)
    assert left_at(enrichment.provider, emulator) != []


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([], id="answered"),
        pytest.param([{"fault": "overloaded", "rate": 0.5, "seed": 1}], id="half-failed"),
        pytest.param([{"fault": "line_errors", "provider": "openai"}], id="refused-as-a-whole"),
        pytest.param([{"fault": "http_400", "route": "create"}], id="rejected"),
    ],
)
def test_once_collected_nothing_is_left_at_the_provider_if_so_declared(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, faults: list[dict[str, object]]
) -> None:
    enrichment = replace(enrichment, delete_at_provider=True)
    emulator.faults(faults)
    run(platform, enrichment, TEXTS)
    assert sweep(platform, enrichment, P) == []
    assert left_at(enrichment.provider, emulator) == []
    assert request_files(platform) == keys(platform)
    before = emulator.calls()
    assert sweep(platform, enrichment, P) == []
    assert emulator.calls() == before


def test_what_cannot_be_deleted_now_is_told_and_deleted_by_the_next_sweep(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    enrichment = replace(enrichment, delete_at_provider=True)
    run(platform, enrichment, TEXTS)
    route = "delete_file" if enrichment.provider == "openai" else "delete"
    emulator.faults([{"fault": "http_503", "route": route, "times": 1}])
    (problem,) = sweep(platform, enrichment, P)
    assert "stays at the provider for now" in problem
    assert sweep(platform, enrichment, P) == []
    assert left_at(enrichment.provider, emulator) == []


def test_a_delete_that_is_refused_is_told_and_not_tried_again(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    enrichment = replace(enrichment, delete_at_provider=True)
    run(platform, enrichment, TEXTS)
    route = "delete_file" if enrichment.provider == "openai" else "delete"
    emulator.faults([{"fault": "http_400", "route": route}])
    (problem,) = sweep(platform, enrichment, P)
    assert "until it expires" in problem
    assert sweep(platform, enrichment, P) == []


def test_another_account_is_not_asked_to_delete(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, time: Time
) -> None:
    enrichment = replace(enrichment, delete_at_provider=True)
    run(platform, enrichment, TEXTS)
    others = {name: replace(found, api_key="another") for name, found in platform.credentials.items()}
    switched = Platform(platform.store, platform.ledger, others, clock=time)
    before = emulator.calls()
    (problem,) = sweep(switched, enrichment, P)
    assert "another key" in problem
    assert emulator.calls() == before


@pytest.mark.parametrize("reason", ["abandoned", "results_gone", "missing_result"])
def test_a_batch_that_nothing_proves_to_be_ours_is_not_deleted(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, reason: str
) -> None:
    enrichment = replace(enrichment, delete_at_provider=True)
    run(platform, enrichment, TEXTS)
    (shard,) = platform.ledger.shards(enrichment.name, P)
    unproven = platform.store.scan(shard.results).collect().with_columns(pl.lit(reason).alias("reason"))
    platform.store.write(shard.results, unproven)
    before = emulator.calls()
    assert sweep(platform, enrichment, P) == []
    assert emulator.calls() == before
