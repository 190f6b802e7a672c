"""What survives: restarts, crashes, time; and what the referee says about it."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import anthropic as anthropic_sdk
import pytest
from anthropic import Anthropic
from openai import OpenAI

from llm_assets.emulator.jobs import Engine
from llm_assets.emulator.models import Question, Reply
from llm_assets.emulator.server import Emulator as Assembled
from llm_assets.emulator.server import build
from llm_assets_tests.emulator.clients import anthropic_batch, anthropic_lines, file_lines, openai_batch, params
from llm_assets_tests.emulator_process import Emulator


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Emulator]:
    """An emulator that a test may kill."""
    with Emulator(tmp_path) as emulator:
        yield emulator


def test_a_crash_loses_no_batch_that_was_acknowledged(own: Emulator) -> None:
    with (
        Anthropic(base_url=own.url, api_key="x", max_retries=0) as anthropic,
        OpenAI(base_url=own.openai_url, api_key="x", max_retries=0) as openai,
    ):
        own.hold()
        ours, theirs = anthropic_batch(anthropic, 5), openai_batch(openai, 5, metadata={"stamp": "s"})
        done = anthropic_batch(anthropic, 2)
        url = own.url
        own.restart()
        assert own.url == url
        assert anthropic.messages.batches.retrieve(ours.id).processing_status == "in_progress", "held over the restart"
        own.hold(False)
        assert anthropic.messages.batches.retrieve(ours.id).request_counts.succeeded == 5
        before = sorted(json.dumps(line) for line in anthropic_lines(anthropic, done.id))
        own.restart()
        assert sorted(json.dumps(line) for line in anthropic_lines(anthropic, done.id)) == before
        batch = openai.batches.retrieve(theirs.id)
        assert (batch.status, batch.metadata) == ("completed", {"stamp": "s"})
        assert len(file_lines(openai, batch.output_file_id)) == 5
        assert len(list(anthropic.messages.batches.list())) == 2
        totals = own.accounting()
        assert (totals["batches"], totals["billed"], totals["contents"]["billed_most"]) == (3, 12, 2)


def test_clock_and_faults_survive(own: Emulator) -> None:
    own.faults([{"fault": "overloaded", "times": 1}])
    own.advance_clock(10_000)
    with Anthropic(base_url=own.url, api_key="x", max_retries=0) as anthropic:
        first = anthropic.messages.batches.retrieve(anthropic_batch(anthropic, 2).id)
        own.restart()
        second = anthropic.messages.batches.retrieve(anthropic_batch(anthropic, 2).id)
    assert (first.request_counts.errored, second.request_counts.errored) == (1, 0)
    assert second.created_at > first.created_at


def test_faults_from_a_file(tmp_path: Path) -> None:
    rules = tmp_path / "faults.yaml"
    rules.write_text("faults:\n  - fault: overloaded\n    custom_id: r1\n")
    with (
        Emulator(tmp_path / "state", faults_file=rules) as emulator,
        Anthropic(base_url=emulator.url, api_key="x", max_retries=0) as anthropic,
    ):
        batch = anthropic.messages.batches.retrieve(anthropic_batch(anthropic, 3).id)
        assert batch.request_counts.errored == 1


def test_the_clock(emulator: Emulator, anthropic: Anthropic) -> None:
    emulator.freeze_clock()
    frozen = [anthropic_batch(anthropic, 1).created_at for _ in range(2)]
    assert frozen[0] == frozen[1]
    emulator.advance_clock(3600)
    assert (anthropic_batch(anthropic, 1).created_at - frozen[0]).total_seconds() == 3600
    emulator.freeze_clock(False)
    assert emulator.call("GET", "/_emulator/clock")["frozen"] is False


def test_the_referee(emulator: Emulator, anthropic: Anthropic) -> None:
    emulator.faults([{"fault": "overloaded", "custom_id": "r1"}])
    same = params("the same")
    reordered = dict(reversed(same.items()))
    batches = [anthropic_batch(anthropic, [same, params("another")]), anthropic_batch(anthropic, [reordered])]
    before = emulator.accounting()
    assert (before["requests"], before["billed"], before["contents"]["accepted_most"]) == (3, 0, 2)
    for batch in batches:
        anthropic.messages.batches.retrieve(batch.id)
    totals = emulator.accounting()
    assert (totals["batches"], totals["requests"], totals["billed"]) == (2, 3, 2)
    assert totals["contents"] == {
        "contents": 2,
        "accepted_more_than_once": 1,
        "billed_more_than_once": 1,
        "accepted_most": 2,
        "billed_most": 2,
    }
    assert totals["calls"] == {"anthropic.create": 2, "anthropic.retrieve": 2}
    assert totals == emulator.accounting(), "asking changes nothing"
    rows = list(emulator.rows())
    assert [(row["custom_id"], row["outcome"], row["billed"]) for row in rows] == [
        ("r0", "succeeded", True),
        ("r1", "errored", False),
        ("r0", "succeeded", True),
    ]
    assert rows[0]["digest"] == rows[2]["digest"] != rows[1]["digest"]
    assert totals["output_tokens"] == sum(row["output_tokens"] for row in rows)
    (twice,) = emulator.contents(billed_min=2)
    assert (twice["digest"], twice["billed"]) == (rows[0]["digest"], 2)
    assert [(each["requests"], each["billed"]) for each in emulator.batches()] == [(2, 1), (1, 1)]


def test_reset(emulator: Emulator, anthropic: Anthropic) -> None:
    emulator.faults(["overloaded"])
    batch = anthropic_batch(anthropic)
    emulator.reset()
    assert emulator.accounting()["batches"] == 0
    assert emulator.calls() == {}
    with pytest.raises(anthropic_sdk.NotFoundError):
        anthropic.messages.batches.retrieve(batch.id)
    assert anthropic.messages.batches.retrieve(anthropic_batch(anthropic).id).request_counts.succeeded == 3


# -- slow models


class Slow:
    """A model that gives so many answers, and the rest when it is let."""

    name = "slow"
    instant = False

    def __init__(self, answers_max: int) -> None:
        self.asked: list[str] = []
        self.enough, self.answered = threading.Event(), threading.Event()
        self._left = threading.Semaphore(answers_max)

    def answer(self, question: Question) -> Reply:
        if not self._left.acquire(blocking=False):
            self.enough.set()
            self._left.acquire()
        self.asked.append(question.messages[-1][1])
        self.answered.set()
        return Reply("slow answer", 3, 2, False)

    def let(self, answers: int) -> None:
        self._left.release(answers)


def slow_batch(state_dir: Path, rows: int) -> str:
    """A batch that an emulator with an instant model took in and was not asked about."""
    with Emulator(state_dir) as emulator, Anthropic(base_url=emulator.url, api_key="x", max_retries=0) as anthropic:
        return anthropic_batch(anthropic, [params(f"row {number}") for number in range(rows)]).id


def status(engine: Engine, batch_id: str) -> tuple[str, int]:
    batch = engine.storage.row("batches", batch_id)
    assert batch is not None
    return engine.settle(batch)["status"], engine.live_done(batch)


class Broken(Slow):
    """A model that fails at one row."""

    def answer(self, question: Question) -> Reply:
        if question.messages[-1][1] == "row 1":
            raise RuntimeError("broken")
        return super().answer(question)


def test_a_model_that_fails_costs_its_row_only(tmp_path: Path) -> None:
    batch_id = slow_batch(tmp_path, 3)
    model = Broken(answers_max=10)
    assembled = build(model, tmp_path)
    while len(model.asked) < 2:
        assert model.answered.wait(10)
        model.answered.clear()
    assembled.close()
    last = build(Slow(answers_max=0), tmp_path)
    assert status(last.engine, batch_id) == ("ended", 3)
    lines = (tmp_path / "batches" / batch_id / "results.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["result"]["type"] for line in lines) == ["errored", "succeeded", "succeeded"]
    last.close()


def closed(assembled: Assembled, model: Slow) -> None:
    model.let(1)  # the row that the worker is at
    assembled.close()


def test_a_slow_model_goes_on_after_a_restart(tmp_path: Path) -> None:
    batch_id = slow_batch(tmp_path, 6)
    first = Slow(answers_max=2)
    assembled = build(first, tmp_path)
    assert first.enough.wait(10)
    assert status(assembled.engine, batch_id) == ("in_progress", 2)
    closed(assembled, first)
    second = Slow(answers_max=6)
    assembled = build(second, tmp_path)
    while len(second.asked) < 3:
        assert second.answered.wait(10)
        second.answered.clear()
    assembled.close()
    assert sorted(first.asked + second.asked) == [f"row {number}" for number in range(6)]
    last = build(Slow(answers_max=0), tmp_path)
    assert status(last.engine, batch_id) == ("ended", 6)
    lines = (tmp_path / "batches" / batch_id / "results.jsonl").read_text().splitlines()
    assert {json.loads(line)["result"]["message"]["content"][0]["text"] for line in lines} == {"slow answer"}
    last.close()
