"""A key was replaced while batches were in flight: said, and after a proof the new key goes on with them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from llm_assets.decisions import Decision, decide
from llm_assets.enrichment import Enrichment
from llm_assets.ledger import Ledger
from llm_assets.other_accounts import other_accounts, take_over
from llm_assets.platform import Platform
from llm_assets.providers import Credentials
from llm_assets.records import Reason, ShardState
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.platforms import P, Time, enriched, failed, finish, labels, submit, write_documents

LATER = "2026-11-02"
TEXTS: list[str | None] = [f"Review {number}: a good thing." for number in range(10)]


@pytest.fixture(params=["anthropic", "openai"])
def enrichment(request: pytest.FixtureRequest) -> Enrichment:
    return labels(str(request.param))


@pytest.fixture
def rotated(empty: Platform, time: Time) -> Iterator[Platform]:
    """The same store and ledger with new keys."""
    keys = {name: replace(each, api_key="new") for name, each in empty.credentials.items()}
    opened = Platform(empty.store, Ledger(empty.ledger.url, time), keys, clock=time)
    yield opened
    opened.close()


@pytest.fixture
def in_flight(empty: Platform, emulator: Emulator, enrichment: Enrichment) -> Platform:
    emulator.hold(True)
    write_documents(empty, TEXTS)
    submit(empty, enrichment)
    return empty


def test_the_new_key_goes_on_when_it_sees_a_batch_of_the_old_one(
    in_flight: Platform, rotated: Platform, emulator: Emulator, enrichment: Enrichment
) -> None:
    (found,) = other_accounts(rotated)
    assert (found.provider, len(found.shards), found.proof) == (enrichment.provider, 1, None)
    assert other_accounts(in_flight) == []
    (taken,) = take_over(rotated, "somebody@host")
    (shard,) = rotated.ledger.shards(enrichment.name, P)
    assert taken.proof == shard.batch_id
    assert other_accounts(rotated) == []
    emulator.hold(False)
    finish(rotated, enrichment)
    assert enriched(rotated, enrichment).height == len(TEXTS)
    assert emulator.accounting()["contents"]["billed_most"] == 1
    ((_, decision, batch_id, who),) = rotated.ledger.decisions(found.account)
    assert (decision, batch_id, who) == ("take-over", shard.batch_id, "somebody@host")


def test_what_it_is_unknown_of_moves_along(
    in_flight: Platform, rotated: Platform, emulator: Emulator, enrichment: Enrichment, time: Time
) -> None:
    emulator.faults([{"fault": "dropped_after_store", "times": 1}])
    write_documents(in_flight, [f"{text} Indeed." for text in TEXTS[:-1]], LATER)
    submit(in_flight, enrichment, LATER)
    assert [shard.state for shard in in_flight.ledger.shards(enrichment.name, LATER)] == [ShardState.SUBMITTING]
    in_flight.close()  # the process that held the claim has ended
    (taken,) = take_over(rotated, "somebody@host")
    assert taken.proof
    emulator.hold(False)
    for name in (P, LATER):
        time.passes(minutes=30)
        finish(rotated, enrichment, name)
    assert enriched(rotated, enrichment, LATER).height == len(TEXTS) - 1
    assert emulator.accounting()["contents"]["billed_most"] == 1


def test_another_account_takes_nothing(in_flight: Platform, tmp_path: Path, enrichment: Enrichment, time: Time) -> None:
    before = in_flight.ledger.active_shards()
    with Emulator(tmp_path / "elsewhere") as elsewhere:
        keys = {"anthropic": Credentials("k", elsewhere.url), "openai": Credentials("k", elsewhere.openai_url)}
        stranger = Platform(in_flight.store, Ledger(in_flight.ledger.url, time), keys, clock=time)
        (found,) = take_over(stranger, "somebody@host")
        assert (found.proof, len(found.shards)) == (None, 1)
        assert stranger.ledger.active_shards() == before
        stranger.close()


def test_without_a_batch_there_is_no_proof(
    empty: Platform, rotated: Platform, emulator: Emulator, enrichment: Enrichment
) -> None:
    emulator.faults([{"fault": "dropped_after_store", "times": 1}])
    write_documents(empty, TEXTS)
    submit(empty, enrichment)
    (found,) = take_over(rotated, "somebody@host")
    assert found.proof is None
    assert len(other_accounts(rotated)) == 1


@pytest.mark.parametrize("known", [True, False], ids=["in-flight", "outcome-unknown"])
def test_what_nobody_can_ask_about_can_be_given_up(
    empty: Platform, rotated: Platform, emulator: Emulator, enrichment: Enrichment, known: bool
) -> None:
    emulator.hold(True)
    emulator.faults([] if known else [{"fault": "dropped_after_store", "times": 1}])
    write_documents(empty, TEXTS)
    submit(empty, enrichment)
    empty.close()
    (shard,) = rotated.ledger.shards(enrichment.name, P)
    decide(rotated, shard.key, Decision.ABANDON, batch_id=None, operator="somebody@host")
    finish(rotated, enrichment)
    assert set(failed(rotated, enrichment)["reason"]) == {Reason.ABANDONED}
    assert rotated.ledger.shard(shard.key).charge_usd == shard.at_most_usd  # it may have been paid for
