"""What becomes of a batch, and when.

A batch moves only when somebody asks about it, or when the worker of a slow model does: there is no timer. `settle`
takes a batch as far as the clock allows. Status here is the same for both vendors:

    validating → in_progress → (canceling | finalizing) → ended
    validating → failed
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Protocol

import orjson

from llm_assets.emulator.clock import Clock
from llm_assets.emulator.faults import Faults, Hit
from llm_assets.emulator.intake import RowIndex, content_digest, mapped
from llm_assets.emulator.models import Model, Question, Reply
from llm_assets.emulator.rows import (
    OUTCOME_BYTES,
    Answer,
    Kind,
    Place,
    Problem,
    Result,
    RowDialect,
    RowFaults,
    answered,
    errored,
    fault_instead,
    unreached,
)
from llm_assets.emulator.storage import Row, Storage

WINDOW_S = 24 * 3600.0
_LOG = logging.getLogger(__name__)
OPEN = ("validating", "in_progress", "canceling", "finalizing")
_LIST_BUDGET_S = 10.0


class Vendor(Protocol):
    """What the engine has to know about a vendor."""

    @property
    def name(self) -> str:
        """Such as "anthropic"."""

    def rows(self, batch: Row) -> RowDialect:
        """How this batch's requests and results are written."""

    def validated(self, batch: Row) -> dict[str, Any]:
        """What changes in a `validating` batch: it is then in_progress or failed."""

    def is_error_line(self, kind: Kind) -> bool:
        """Whether such a line goes into a file of its own."""

    def ended(self, batch: Row, ending: Ending) -> dict[str, Any]:
        """Facts to add when the results are on disk."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a batch ended, with its results on disk."""

    how: str  # completed | expired | canceled
    at: float
    counts: dict[str, int]
    input_tokens: int
    output_tokens: int
    billed: int
    results: Path
    errors: Path


@dataclass
class Settings:
    """How the emulator behaves; the control endpoints change it."""

    latency_s: float = 0.0
    held: bool = False


def hit_of(batch: Row, fault: str) -> Hit | None:
    """A fault that was decided on when the batch was created."""
    for name, options in batch["facts"].get("faults", ()):
        if name == fault:
            return Hit(name, options)
    return None


def said_counts(batch: Row) -> dict[str, int]:
    """Rows by outcome as an ended batch tells them, which a fault can make wrong."""
    counts: dict[str, int] = batch["facts"]["counts"]
    wrong = hit_of(batch, "counts_disagree")
    return counts | {"succeeded": max(0, counts["succeeded"] + int(wrong.number("by", 1)))} if wrong else counts


def ending_of(batch: Row, *, now: float, held: bool, answers_complete: bool) -> str | None:
    """How a batch ends at this time: completed, expired, canceled, or None when it does not yet."""
    facts = batch["facts"]
    if batch["status"] == "canceling":
        slow = hit_of(batch, "slow_cancelling")
        until = facts["cancel_at"] + (slow.number("for_s", 600) if slow else 0)
        return "canceled" if now >= until else None
    stalled = hit_of(batch, "stalled")
    due_at = facts["due_at"] + (stalled.number("for_s", 600) if stalled else 0)
    expires_at = batch["created_at"] + WINDOW_S
    if not held and answers_complete and due_at <= min(now, expires_at):
        return "expired" if hit_of(batch, "expired_partial") else "completed"
    return "expired" if now >= expires_at else None


def asked_hit(engine: Engine, provider: str, content: Mapping[str, Any]) -> Hit | None:
    """The fault that meets a request outside of batches, if it is one that rows have."""
    faults = RowFaults(engine.faults, provider, engine.clock.now())
    return faults.hit("", orjson.dumps(content), content_digest(content))


def progress(batch: Row, at: float) -> float:
    """The share of an instant model's rows that are done at a time, 0 to 1."""
    facts = batch["facts"]
    latency = float(facts["due_at"] - batch["created_at"])
    if latency <= 0:
        return 0.0
    return max(0.0, min(1.0, (at - float(batch["created_at"])) / latency))


class Engine:
    """Takes batches to their ends. Thread-safe; one batch is settled at a time."""

    def __init__(self, storage: Storage, clock: Clock, faults: Faults, model: Model, settings: Settings) -> None:
        self.storage = storage
        self.clock = clock
        self.faults = faults
        self.model = model
        self.settings = settings
        self.settling = threading.RLock()
        self._vendors: dict[str, Vendor] = {}
        self._model_lock = threading.Lock()
        self._stop = False
        self._something = threading.Condition()
        self._worker: threading.Thread | None = None

    def register(self, vendor: Vendor) -> None:
        """Make a vendor known."""
        self._vendors[vendor.name] = vendor

    def ask(self, question: Question) -> Reply:
        """The model's answer; one question at a time."""
        with self._model_lock:
            return self.model.answer(question)

    def settle(self, batch: Row) -> Row:
        """Take a batch as far as the clock allows, and return it as it then is."""
        if batch["status"] not in OPEN:
            return batch
        with self.settling:
            batch = self._current(batch)
            while batch["status"] in OPEN and self._step(batch):
                batch = self._current(batch)
        return batch

    def settle_all(self, batches: list[Row]) -> list[Row]:
        """Settle the batches of a list; when that takes too long for one reply, the rest stay as they are."""
        deadline = time.monotonic() + _LIST_BUDGET_S
        return [self.settle(batch) if time.monotonic() < deadline else batch for batch in batches]

    def cancel(self, batch: Row) -> Row:
        """Begin to cancel; who asks has made sure that the batch is in progress."""
        now = self.clock.now()
        facts = batch["facts"] | {"cancel_at": now}
        self.storage.update("batches", batch["id"], {"status": "canceling", "facts": facts})
        return batch | {"status": "canceling", "facts": facts}

    def live_done(self, batch: Row) -> int:
        """How many rows are done while the batch is in progress."""
        if not self.model.instant:
            return len(self._answers(batch["id"]))
        rows = int(batch["rows"])
        return min(int(progress(batch, self.clock.now()) * rows), max(0, rows - 1))

    def _current(self, batch: Row) -> Row:
        """The batch as it is stored; as it was when it is gone."""
        return self.storage.row("batches", batch["id"]) or batch | {"status": "gone"}

    def _step(self, batch: Row) -> bool:
        """One change of status; False when there is none to make."""
        if batch["status"] == "validating":
            self.storage.update("batches", batch["id"], self._vendors[batch["provider"]].validated(batch))
            return True
        if batch["status"] == "finalizing":
            return self._finalize(batch)
        how = ending_of(
            batch, now=self.clock.now(), held=self.settings.held, answers_complete=self._answers_complete(batch)
        )
        if how is None:
            return False
        if how == "completed" and hit_of(batch, "stalled_finalizing"):
            facts = batch["facts"] | {"finalizing_at": self.clock.now()}
            self.storage.update("batches", batch["id"], {"status": "finalizing", "facts": facts})
            return True
        self._end(batch, how)
        return True

    def _finalize(self, batch: Row) -> bool:
        stalled = hit_of(batch, "stalled_finalizing")
        if stalled and self.clock.now() < batch["facts"]["finalizing_at"] + stalled.number("for_s", 600):
            return False
        self._end(batch, "completed")
        return True

    def _end(self, batch: Row, how: str) -> None:
        vendor = self._vendors[batch["provider"]]
        ending = _Production(self, vendor, batch, how).run()
        with self.storage.transaction():
            facts = batch["facts"] | {"ending": how, "ended_at": ending.at, "counts": ending.counts}
            facts |= vendor.ended(batch, ending)
            totals = {"billed": ending.billed, "input_tokens": ending.input_tokens}
            totals["output_tokens"] = ending.output_tokens
            self.storage.update("batches", batch["id"], {"status": "ended", "facts": facts, **totals})
            self.storage.execute_many("INSERT OR REPLACE INTO fired VALUES (?, ?, ?)", self.faults.fresh())

    # -- slow models

    def start_worker(self) -> None:
        """Begin to answer in the background, when the model needs it."""
        if not self.model.instant:
            self._worker = threading.Thread(target=self._work, name="emulator-worker", daemon=True)
            self._worker.start()

    def stop_worker(self) -> None:
        """End the worker after the row that it is at."""
        self._stop = True
        self.wake()
        if self._worker is not None:
            self._worker.join()

    def wake(self) -> None:
        """Tell the worker that something changed."""
        with self._something:
            self._something.notify_all()

    def _work(self) -> None:
        while not self._stop:
            try:
                did_something = self._work_once()
            except Exception:
                # A batch that was reset away under the worker, most likely; it must outlive that.
                _LOG.exception("the worker goes on after a failure")
                did_something = False
            if not did_something:
                with self._something:
                    self._something.wait(timeout=0.5)

    def _work_once(self) -> bool:
        """Answer one row of the oldest batch that has one left; False when there is nothing to do."""
        if self.settings.held:
            return False
        for batch in self.storage.query(
            "SELECT * FROM batches WHERE deleted = 0 AND status IN ('validating', 'in_progress') ORDER BY seq"
        ):
            with self.settling:
                batch = self.settle(batch)
                if batch["status"] != "in_progress" or self._answers_complete(batch):
                    continue
            for row, reply in self._unanswered(batch):
                self._keep_answer(batch["id"], row, reply)
                if self._stop or self.settings.held:
                    return True
            return True
        return False

    def _unanswered(self, batch: Row) -> Iterator[tuple[int, Reply | None]]:
        known = self._answers(batch["id"])
        dialect = self._vendors[batch["provider"]].rows(batch)
        index = RowIndex.load(self.storage.batch_folder(batch["id"]) / "rows")
        with mapped(Path(batch["body"])) as view:
            for row in range(len(index)):
                current = self.storage.row("batches", batch["id"])
                if current is None or current["status"] != "in_progress":
                    return
                if row not in known:
                    offset, length, _ = index.entry(row)
                    content = orjson.loads(view[offset : offset + length])[dialect.content_key]
                    question = dialect.question(content)
                    if isinstance(question, Problem) or dialect.embedding(content):
                        yield row, None
                    else:
                        yield row, self._asked(row, question)

    def _asked(self, row: int, question: Question) -> Reply | None:
        """An answer; None when the model fails, which becomes an error of this row."""
        try:
            return self.ask(question)
        except Exception:
            _LOG.exception("the model failed at row %d", row)
            return None

    def _keep_answer(self, batch_id: str, row: int, reply: Reply | None) -> None:
        entry = [row, *(reply.text, reply.input_tokens, reply.output_tokens, reply.truncated)] if reply else [row]
        with self.settling:
            if self.storage.row("batches", batch_id) is None:
                return
            with (self.storage.batch_folder(batch_id) / "answers.jsonl").open("ab") as file:
                file.write(orjson.dumps(entry) + b"\n")

    def _answers(self, batch_id: str) -> dict[int, Reply | None]:
        """The answers on disk; a line that was torn by a crash is none."""
        path = self.storage.batch_folder(batch_id) / "answers.jsonl"
        found: dict[int, Reply | None] = {}
        for line in path.read_bytes().split(b"\n") if path.exists() else ():
            try:
                row, *reply = orjson.loads(line)
            except ValueError:
                continue
            found[row] = Reply(*reply) if reply else None
        return found

    def _answers_complete(self, batch: Row) -> bool:
        return self.model.instant or len(self._answers(batch["id"])) >= batch["rows"]


class _Production:
    """The results of one batch, written as a stream in an order that is not that of the requests."""

    def __init__(self, engine: Engine, vendor: Vendor, batch: Row, how: str) -> None:
        self._engine, self._vendor, self._batch, self._how = engine, vendor, batch, how
        self._folder = engine.storage.batch_folder(batch["id"])
        self._dialect = vendor.rows(batch)
        self._now = engine.clock.now()
        self._answers = {} if engine.model.instant else engine._answers(batch["id"])
        self._faults = RowFaults(engine.faults, vendor.name, self._now) if engine.faults.any_rows(vendor.name) else None
        self._every = self._error_of_all()

    def run(self) -> Ending:
        """Write everything; the batch is not changed."""
        index = RowIndex.load(self._folder / "rows")
        order = list(range(len(index)))
        Random(self._batch["id"]).shuffle(order)  # noqa: S311 - an order, not a secret
        outcomes = bytearray(OUTCOME_BYTES * len(index))
        totals = {"billed": 0, "input_tokens": 0, "output_tokens": 0}
        counts = dict.fromkeys(("succeeded", "errored", "expired", "canceled"), 0)
        results, errors = self._folder / "results.jsonl", self._folder / "errors.jsonl"
        with results.open("wb") as good, errors.open("wb") as bad, mapped(Path(self._batch["body"])) as view:
            for row, result in self._results(view, index, order):
                outcomes[OUTCOME_BYTES * row : OUTCOME_BYTES * (row + 1)] = result.packed()
                (bad if self._vendor.is_error_line(result.kind) else good).write(
                    result.line * result.copies + result.after
                )
                counts[result.kind.name.lower()] += 1
                totals["billed"] += result.billed
                totals["input_tokens"] += result.input_tokens
                totals["output_tokens"] += result.output_tokens
        (self._folder / "outcomes").write_bytes(outcomes)
        return Ending(how=self._how, at=self._now, counts=counts, results=results, errors=errors, **totals)

    def _results(self, view: Any, index: RowIndex, order: list[int]) -> Iterator[tuple[int, Result]]:
        key, marker, now = self._batch["id"].rpartition("_")[2], self._engine.model.name, self._now
        reached = self._reached(len(order))
        for position, row in enumerate(order):
            offset, length, digest = index.entry(row)
            line = view[offset : offset + length]
            request = orjson.loads(line)
            place = Place(key, row, request["custom_id"], now, marker)
            if position >= reached or (self._how != "completed" and not self._is_answered(row)):
                yield row, unreached(self._dialect, place, self._left_over())
            else:
                yield row, self._result(place, line, digest, request[self._dialect.content_key])

    def _result(self, place: Place, line: bytes, digest: bytes, content: Any) -> Result:
        dialect = self._dialect
        if self._every is not None:
            return errored(dialect, place, self._every)
        hit = self._faults.hit(place.custom_id, line, digest) if self._faults else None
        instead = fault_instead(dialect, place, hit)
        if instead is not None:
            return instead
        answer = self._answer(place.row, content)
        if isinstance(answer, Problem):
            return errored(dialect, place, answer)
        return answered(dialect, place, content, answer, hit)

    def _answer(self, row: int, content: Any) -> Answer | Problem:
        question = self._dialect.question(content)
        if isinstance(question, Problem):
            return question
        embedding = self._dialect.embedding(content)
        if embedding is not None:
            return embedding
        if self._engine.model.instant:
            return Answer(self._engine.ask(question))
        known = self._answers.get(row)
        return Answer(known) if known is not None else Problem("api_error", "The model failed", 500)

    def _error_of_all(self) -> Problem | None:
        for fault in ("all_errored", "only_error_file"):
            hit = hit_of(self._batch, fault)
            if hit is not None:
                return self._dialect.fault_problem(str(hit.options.get("error", "api_error")))
        return None

    def _reached(self, rows: int) -> int:
        """How many rows, in the order of the results, were come to."""
        if self._how == "completed":
            return rows
        partial = hit_of(self._batch, "expired_partial")
        if self._how == "expired" and partial:
            return int(rows * partial.number("share", 0.5))
        if not self._engine.model.instant:
            return rows
        if self._how == "expired" and self._batch["facts"]["due_at"] < self._batch["created_at"] + WINDOW_S:
            return 0  # it was held
        return int(rows * progress(self._batch, self._batch["facts"].get("cancel_at", self._now)))

    def _is_answered(self, row: int) -> bool:
        return self._engine.model.instant or row in self._answers

    def _left_over(self) -> Kind:
        return Kind.CANCELED if self._how == "canceled" else Kind.EXPIRED
