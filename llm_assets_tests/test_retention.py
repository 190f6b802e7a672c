"""What is left behind: uploads that nobody knows of, request files, and what the providers keep."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_assets.platform import Platform
from llm_assets.submission import plan_partition
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.platforms import P, Time, finish, labels, open_platform, submit, write_documents

TEXTS: list[str | None] = [f"Review {number}: this is a good thing." for number in range(4)]


@pytest.fixture
def time(emulator: Emulator) -> Time:
    return Time(emulator)


@pytest.fixture
def platform(tmp_path: Path, emulator: Emulator, time: Time) -> Iterator[Platform]:
    opened = open_platform(tmp_path / "store", emulator.url, time)
    write_documents(opened, TEXTS)
    yield opened
    opened.close()


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
    died = open_platform(platform.store.root, emulator.url, time)
    plan_partition(died, enrichment, P)
    (shard,) = died.ledger.shards(enrichment.name, P)
    client = died.client("openai", shard.endpoint)
    died.ledger.claim(shard.key, owner=died.owner, account=client.account)
    uploaded = client.stage(died.store.local(f"{shard.path}.jsonl"))
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
