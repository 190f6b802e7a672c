"""The six ways in which tools for batch APIs lose answers or pay twice, each with 200 documents on both protocols.

What came of them is judged as in the chaos: by the emulator's accounting and by the tables.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import polars as pl
import pytest

from chaos.referee import Verdict, judge
from chaos.worker import Job, work
from llm_assets.store import Store
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.platforms import P, local

DOCUMENTS = 200
# Four in 200 that nothing helps, and twenty that another attempt does.
UNLUCKY = {"invalid": 4, "overloaded": 5, "api_error": 5, "expired": 5, "invalid_json": 5}
SECONDS_MAX = 30


@pytest.fixture(params=["anthropic", "openai"])
def provider(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def job(provider: str, emulator: Emulator, tmp_path: Path) -> Job:
    """All documents of a partition in one batch."""
    ledger = f"sqlite:///{tmp_path / 'ledger.db'}"
    return Job(tmp_path / "store", emulator.url, ledger, provider, (P,), shard_requests=1000, prompt=0)


def texts() -> dict[str, str]:
    """The documents; the unlucky ones say what is to happen to them."""
    marks = [f"mark-{fault} " for fault, count in UNLUCKY.items() for _ in range(count)]
    marks += [""] * (DOCUMENTS - len(marks))
    return {f"d{number}": f"Review {number}: {mark}this is good." for number, mark in enumerate(marks)}


def outcome(job: Job, emulator: Emulator, before: Callable[[], None] = lambda: None) -> Verdict:
    """Documents in, whatever happens `before`, one process to the end, and what the referee says."""
    store, documents = Store(job.root), texts()
    frame = pl.DataFrame({"document_id": list(documents), "text": list(documents.values())})
    store.write(store.documents("texts", P), frame)
    before()
    work(replace(job, finishing=True))
    name = job.enrichment.name
    tables = {P: [local(store, store.enriched(name, P)), local(store, store.failed(name, P))]}
    return judge(emulator, job.provider, tables, {P: documents})


def answered_failed_missing_twice(verdict: Verdict) -> tuple[int, int, int, int]:
    """Our row of the table: the documents that were answered, failed, lost, and those that were billed twice."""
    assert set(verdict.faulty) <= {"documents_lost", "requests_billed_twice"}, verdict.details
    missing, twice = verdict.documents_lost, verdict.requests_billed_twice
    return verdict.documents_enriched, verdict.documents_failed, missing, twice


def test_the_reply_to_create_is_dropped(job: Job, emulator: Emulator) -> None:
    emulator.faults([{"fault": "dropped_after_store", "times": 1}])
    verdict = outcome(job, emulator)
    assert answered_failed_missing_twice(verdict) == (DOCUMENTS, 0, 0, 0)
    assert verdict.requests_accepted == verdict.requests_billed == DOCUMENTS


def test_the_process_is_killed_before_the_reply(job: Job, emulator: Emulator) -> None:
    emulator.faults([{"fault": "slow", "times": 1, "delay_s": SECONDS_MAX}])

    def killed_while_it_waits() -> None:
        process = get_context("forkserver").Process(target=work, args=(job,))
        process.start()
        until(lambda: len(emulator.batches()) == 1)
        process.kill()
        process.join()

    verdict = outcome(job, emulator, killed_while_it_waits)
    assert emulator.calls()[f"{job.provider}.create"] == 1
    assert answered_failed_missing_twice(verdict) == (DOCUMENTS, 0, 0, 0)
    assert verdict.requests_accepted == verdict.requests_billed == DOCUMENTS


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    deadline = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)  # the emulator's doing, in real time


def test_rows_fail_in_different_ways(job: Job, emulator: Emulator) -> None:
    # Once a document and not once a content: a repaired request is another content.
    emulator.faults(
        [
            {"fault": fault, "match": f"mark-{fault} "} | ({} if fault == "invalid" else {"times": count})
            for fault, count in UNLUCKY.items()
        ]
    )
    verdict = outcome(job, emulator)
    assert answered_failed_missing_twice(verdict) == (DOCUMENTS - UNLUCKY["invalid"], UNLUCKY["invalid"], 0, 0)
    assert verdict.requests_paid_again_after_useless_answer <= UNLUCKY["invalid_json"]
    again = DOCUMENTS + sum(count for fault, count in UNLUCKY.items() if fault != "invalid")
    assert verdict.requests_accepted == again, "an invalid request is sent once"


def test_a_download_is_short_and_does_not_say_so(job: Job, emulator: Emulator) -> None:
    emulator.faults([{"fault": "silent_short_read", "times": 1, "share": 0.5}])
    verdict = outcome(job, emulator)
    assert answered_failed_missing_twice(verdict) == (DOCUMENTS, 0, 0, 0)
    assert verdict.requests_accepted == verdict.requests_billed == DOCUMENTS


def test_a_batch_expires_with_a_part_of_its_answers(job: Job, emulator: Emulator) -> None:
    emulator.faults([{"fault": "expired_partial", "times": 1, "share": 0.6}])
    verdict = outcome(job, emulator)
    assert answered_failed_missing_twice(verdict) == (DOCUMENTS, 0, 0, 0)
    assert verdict.requests_billed == DOCUMENTS
    assert verdict.requests_accepted == DOCUMENTS + 80


def test_a_batch_completes_with_errors_only(job: Job, emulator: Emulator) -> None:
    """OpenAI's batch names an error file and no output file; Anthropic has one kind of file."""
    fault = "only_error_file" if job.provider == "openai" else "all_errored"
    emulator.faults([{"fault": fault, "times": 1}])
    verdict = outcome(job, emulator)
    assert answered_failed_missing_twice(verdict) == (DOCUMENTS, 0, 0, 0)
    assert verdict.requests_billed == DOCUMENTS
