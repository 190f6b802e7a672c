"""`llm-assets reconcile`: what an operator sees of open claims, and what becomes of their word."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from llm_assets.collection import collect_partition
from llm_assets.decisions import Decision, decide, open_claims
from llm_assets.enrichment import Enrichment
from llm_assets.errors import LedgerError, ProviderError
from llm_assets.platform import Platform
from llm_assets.records import Reason, ShardLimits, ShardState
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.platforms import (
    P,
    enriched,
    failed,
    finish,
    labels,
    open_platform,
    reasons,
    submit,
    write_documents,
)

TEXTS: list[str | None] = [f"Review {number}: this is a good thing." for number in range(5)]
BY = "ada@laptop"


@pytest.fixture
def platform(empty: Platform) -> Platform:
    write_documents(empty, TEXTS)
    return empty


@pytest.fixture(params=["anthropic", "openai"])
def enrichment(request: pytest.FixtureRequest) -> Enrichment:
    return labels(str(request.param))


def lose(platform: Platform, enrichment: Enrichment, emulator: Emulator, fault: str) -> str:
    """Send a shard so that its outcome is unknown. Returns its key."""
    emulator.faults([{"fault": fault, "times": 1}])
    submit(platform, enrichment)
    return platform.ledger.shards(enrichment.name, P)[0].key


def test_nothing_is_open_when_all_went_well(platform: Platform, enrichment: Enrichment) -> None:
    submit(platform, enrichment)
    assert open_claims(platform) == []


@pytest.mark.parametrize(
    ("provider", "held", "evidence"),
    [
        ("openai", False, "carries the shard's stamp"),
        ("anthropic", True, "same size and time; its results will tell"),
        ("anthropic", False, "its results are this shard's"),
    ],
    ids=["stamp", "in-progress", "results"],
)
def test_a_lost_batch_is_shown_with_its_evidence(
    platform: Platform, emulator: Emulator, provider: str, held: bool, evidence: str
) -> None:
    emulator.hold(held)
    key = lose(platform, labels(provider), emulator, "dropped_after_store")
    claim = open_claims(platform)[0]
    assert (claim.shard.key, claim.problem) == (key, "")
    assert [(found.batch.batch_id, found.evidence) for found in claim.candidates] == [
        (emulator.batches()[0]["id"], evidence)
    ]


def test_a_strangers_batch_of_the_same_size_is_shown_as_such(
    platform: Platform, emulator: Emulator, tmp_path: Path
) -> None:
    other = open_platform(tmp_path / "other", emulator.url)
    write_documents(other, [f"Somebody else's {number}" for number in range(len(TEXTS))])
    lose(platform, labels("anthropic"), emulator, "dropped_before_store")
    submit(other, labels("anthropic"))
    other.close()
    assert [found.evidence for found in open_claims(platform)[0].candidates] == ["its results are others'"]


def test_a_strangers_batch_that_somebody_adopted_is_disproved_by_its_results(
    platform: Platform, emulator: Emulator, tmp_path: Path
) -> None:
    enrichment = labels("anthropic")
    key = lose(platform, enrichment, emulator, "dropped_before_store")
    other = open_platform(tmp_path / "other", emulator.url)
    write_documents(other, [f"Somebody else's {number}" for number in range(len(TEXTS))])
    submit(other, enrichment)
    other.close()
    decide(platform, key, Decision.ADOPT, batch_id=emulator.batches()[0]["id"], operator=BY)
    progress = collect_partition(platform, enrichment, P)
    assert (progress.strays, platform.ledger.shard(key).state) == (len(TEXTS), ShardState.SUBMITTING)


def test_an_adopted_batch_is_collected_and_the_word_is_kept(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    key = lose(platform, enrichment, emulator, "dropped_after_store")
    batch_id = emulator.batches()[0]["id"]
    decide(platform, key, Decision.ADOPT, batch_id=batch_id, operator=BY)
    finish(platform, enrichment)
    assert enriched(platform, enrichment).height == len(TEXTS)
    assert {content["billed"] for content in emulator.contents()} == {1}
    assert [row[1:] for row in platform.ledger.decisions(key)] == [("adopt", batch_id, BY)]


def test_what_is_sent_again_is_sent_at_once(platform: Platform, enrichment: Enrichment, emulator: Emulator) -> None:
    key = lose(platform, enrichment, emulator, "dropped_before_store")
    decide(platform, key, Decision.RESEND, batch_id=None, operator=BY)
    assert [row[1:] for row in platform.ledger.decisions(key)] == [("resend", None, BY)]
    finish(platform, enrichment)
    assert enriched(platform, enrichment).height == len(TEXTS)
    assert {content["billed"] for content in emulator.contents()} == {1}


@pytest.mark.parametrize("decision", [Decision.RESEND, Decision.ABANDON])
def test_what_the_provider_is_proven_to_have_is_not_sent_again_and_not_given_up(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, decision: Decision
) -> None:
    key = lose(platform, enrichment, emulator, "dropped_after_store")
    with pytest.raises(LedgerError, match="adopt it; nothing was changed"):
        decide(platform, key, decision, batch_id=None, operator=BY)
    assert platform.ledger.shard(key).state is ShardState.SUBMITTING
    assert platform.ledger.decisions(key) == []


def test_what_was_given_up_is_sent_when_somebody_asks_for_failures_again(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    key = lose(platform, enrichment, emulator, "dropped_before_store")
    decide(platform, key, Decision.ABANDON, batch_id=None, operator=BY)
    finish(platform, enrichment)
    assert failed(platform, enrichment).height == len(TEXTS)
    submit(platform, enrichment)
    assert emulator.accounting()["requests"] == 0
    submit(platform, enrichment, retry_failed=True)
    finish(platform, enrichment)
    assert enriched(platform, enrichment).height == len(TEXTS)
    assert {content["billed"] for content in emulator.contents()} == {1}


def test_an_abandoned_shard_fails_its_documents_and_sends_nothing(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    key = lose(platform, enrichment, emulator, "dropped_before_store")
    decide(platform, key, Decision.ABANDON, batch_id=None, operator=BY)
    assert [row[1:] for row in platform.ledger.decisions(key)] == [("abandon", None, BY)]
    shard = platform.ledger.shard(key)
    assert shard.charge_usd == shard.at_most_usd > 0  # nobody knows whether it was paid for
    finish(platform, enrichment)
    assert set(reasons(platform, enrichment).values()) == {Reason.ABANDONED}
    assert emulator.accounting()["requests"] == 0


def test_another_shards_batch_cannot_be_adopted(platform: Platform, emulator: Emulator) -> None:
    enrichment = labels("anthropic")
    emulator.faults([{"fault": "dropped_before_store", "times": 1}])
    submit(platform, replace(enrichment, limits=ShardLimits(requests=3, bytes=1_000_000)))
    lost, sent = platform.ledger.shards(enrichment.name, P)
    with pytest.raises(LedgerError, match="belongs to another shard"):
        decide(platform, lost.key, Decision.ADOPT, batch_id=sent.batch_id, operator=BY)
    assert platform.ledger.decisions(lost.key) == []


@pytest.mark.parametrize("batch_id", ["msgbatch_nobody", "batch_nobody"])
def test_a_batch_that_is_not_there_cannot_be_adopted(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, batch_id: str
) -> None:
    key = lose(platform, enrichment, emulator, "dropped_before_store")
    with pytest.raises(ProviderError, match="404"):
        decide(platform, key, Decision.ADOPT, batch_id=batch_id, operator=BY)
    assert platform.ledger.shard(key).state is ShardState.SUBMITTING


def test_a_batch_of_another_size_or_stamp_cannot_be_adopted(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, tmp_path: Path
) -> None:
    other = open_platform(tmp_path / "other", emulator.url)
    write_documents(other, ["Somebody else's"])
    submit(other, enrichment)
    other.close()
    key = lose(platform, enrichment, emulator, "dropped_before_store")
    with pytest.raises(LedgerError, match=r"has 1 requests, the shard 5|carries the stamp"):
        decide(platform, key, Decision.ADOPT, batch_id=emulator.batches()[0]["id"], operator=BY)


def test_the_claim_of_a_live_run_is_nobody_elses_business(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, tmp_path: Path
) -> None:
    key = lose(platform, enrichment, emulator, "dropped_before_store")
    operator = open_platform(tmp_path / "store", emulator.url)
    with pytest.raises(LedgerError, match="is alive"):
        decide(operator, key, Decision.RESEND, batch_id=None, operator=BY)
    operator.close()


def test_the_command_shows_and_decides(tmp_path: Path, emulator: Emulator) -> None:
    platform = open_platform(tmp_path / "store", emulator.url)
    write_documents(platform, TEXTS)
    key = lose(platform, labels("openai"), emulator, "dropped_after_store")
    platform.close()

    def reconcile(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from llm_assets.cli import app; app()", "reconcile", *arguments],
            env={
                "PATH": "",
                "LLM_ASSETS_ROOT": str(tmp_path / "store"),
                "OPENAI_API_KEY": "k",
                "OPENAI_BASE_URL": emulator.openai_url,
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    shown = reconcile()
    assert shown.returncode == 0, shown.stderr
    assert key in shown.stdout
    assert "stamp" in shown.stdout
    assert reconcile(key).returncode == 2
    batch_id = emulator.batches()[0]["id"]
    assert reconcile(key, "--adopt", batch_id).returncode == 0
    assert json.loads(reconcile("--json").stdout)["claims"] == []
    assert "No claim is open" in reconcile().stdout
