"""Plays one schedule: real processes, a store and a ledger, an emulator with faults, a clock that is moved on."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from random import Random

import polars as pl

from chaos.databases import Databases
from chaos.referee import Verdict, judge
from chaos.schedule import Act, Run, Schedule
from chaos.worker import UNFINISHED, Job, VirtualTime, work
from llm_assets.store import Store
from llm_assets_tests.emulator_process import Emulator

_FORKS = get_context("forkserver")
_FORKS.set_forkserver_preload(["chaos.worker"])
_ACT_SECONDS_MAX = 20.0
_END_SECONDS_MAX = 60.0
_TICK_S = 0.02
_WORDS = ("good", "bad", "plain")


@dataclass(slots=True)
class Played:
    """What happened in a schedule, and what the referee says of it."""

    schedule: Schedule
    verdict: Verdict
    seconds: float
    kills: int = 0
    crashes: int = 0
    double_runs: int = 0
    runs: int = 0
    injected: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    kill_places: frozenset[str] = frozenset()
    unfinished: bool = False
    last_words: str = ""


class Stage:
    """An emulator and a folder, used for one schedule after another."""

    def __init__(self, folder: Path, databases: Databases) -> None:
        self._folder, self._databases = folder, databases
        self.emulator = Emulator(folder / "emulator")

    def play(self, schedule: Schedule, *, keep: bool = False) -> Played:
        """Play a schedule to its end and have it judged."""
        started = time.monotonic()
        self.emulator.reset()
        self.emulator.settings(latency_s=schedule.latency_s)
        root = self._folder / f"schedule-{schedule.number}"
        play = _Play(schedule, self.emulator, root, self._databases.url_for(schedule.ledger, root))
        try:
            play.run()
            return play.judged(time.monotonic() - started)
        finally:
            play.close(keep=keep)


class _Play:
    def __init__(self, schedule: Schedule, emulator: Emulator, root: Path, ledger_url: str) -> None:
        self._schedule, self._emulator, self._root = schedule, emulator, root
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        self._store = Store(root)
        self._job = Job(
            root=root,
            url=emulator.url,
            ledger_url=ledger_url,
            provider=schedule.provider,
            partitions=schedule.partitions,
            shard_requests=schedule.shard_requests,
            prompt=schedule.prompt,
            finishing=True,
        )
        self._clock = VirtualTime(self._job.time_file, emulator.url)
        self._random = Random(f"{schedule.seed}/{schedule.number}/documents")  # noqa: S311 (texts, not secrets)
        self._documents: dict[str, dict[str, str]] = {partition: {} for partition in schedule.partitions}
        self._kills = self._crashes = self._double_runs = self._runs = 0
        self._unfinished = False

    def run(self) -> None:
        """All acts, and then to the end: one process, no faults."""
        self._write(adds=self._schedule.documents, changes=0)
        for act in self._schedule.acts:
            self._act(act)
        self._emulator.faults([])
        last = self._start(self._job)
        last.join(_END_SECONDS_MAX)
        self._end(last)

    def judged(self, seconds: float) -> Played:
        """What the referee says."""
        name = self._job.enrichment.name
        tables = {
            partition: [
                Path(self._store.files.where(path(name, partition)))
                for path in (self._store.enriched, self._store.failed)
            ]
            for partition in self._schedule.partitions
        }
        injected = Counter(self._emulator.injected())
        notes = [json.loads(line) for line in _lines(self._job.notes_file)]
        return Played(
            schedule=self._schedule,
            verdict=judge(self._emulator, self._schedule.provider, tables, self._documents),
            seconds=seconds,
            kills=self._kills,
            double_runs=self._double_runs,
            runs=self._runs,
            crashes=self._crashes,
            unfinished=self._unfinished,
            injected=injected,
            errors=Counter(f"{note['error']} in {note['where']}" for note in notes if "error" in note),
            kill_places=frozenset(f"{note['killed_at']} {note['event']}" for note in notes if "killed_at" in note),
            last_words=next(
                (f"{note['error']}: {note['message']}" for note in notes[::-1] if note.get("finishing")), ""
            ),
        )

    def close(self, *, keep: bool) -> None:
        """Remove what the schedule left, unless somebody wants to look at it."""
        self._clock.close()
        if not keep:
            shutil.rmtree(self._root, ignore_errors=True)
            for file in (self._job.time_file, self._job.notes_file):
                file.unlink(missing_ok=True)

    # -- one act

    def _act(self, act: Act) -> None:
        self._emulator.faults(act.rules)
        if not act.amid:
            self._write(act.adds, act.changes)
        living = [(self._start(self._job_of(run)), run, time.monotonic()) for run in act.runs]
        self._double_runs += len(act.runs) > 1
        if act.amid:
            self._write(act.adds, act.changes)
        if act.jumps_s:
            self._clock.passes(act.jumps_s)
        deadline = time.monotonic() + _ACT_SECONDS_MAX
        while living:
            living = [one for one in living if not self._is_over(*one, deadline)]
            time.sleep(_TICK_S)  # real processes take real time
        if act.passes_s:
            self._clock.passes(act.passes_s)

    def _is_over(self, process: ForkServerProcess, run: Run, started: float, deadline: float) -> bool:
        """Whether a process has ended; kills it when its time has come."""
        now = time.monotonic()
        is_due = run.kill_after_s is not None and now >= started + run.kill_after_s
        if process.is_alive() and not is_due and now < deadline:
            return False
        self._end(process)
        return True

    def _end(self, process: ForkServerProcess) -> None:
        process.kill()
        process.join()
        self._kills += process.exitcode == -signal.SIGKILL
        self._unfinished = process.exitcode == UNFINISHED
        self._crashes += process.exitcode not in (0, -signal.SIGKILL, UNFINISHED)
        process.close()

    def _start(self, job: Job) -> ForkServerProcess:
        process = _FORKS.Process(target=work, args=(job,), daemon=True)
        process.start()
        self._runs += 1
        return process

    def _job_of(self, run: Run) -> Job:
        return Job(
            root=self._root,
            url=self._job.url,
            ledger_url=self._job.ledger_url,
            provider=self._job.provider,
            partitions=self._job.partitions,
            shard_requests=self._job.shard_requests,
            prompt=run.prompt,
            by_person=run.by_person,
            retry_failed=run.retry_failed,
            kill_at_event=run.kill_at_event,
        )

    # -- the documents

    def _write(self, adds: int, changes: int) -> None:
        """New documents and changed ones, in every partition; nearly every text is only there once."""
        if not adds and not changes:
            return
        for partition, documents in self._documents.items():
            for name in self._random.sample(sorted(documents), min(changes, len(documents))):
                documents[name] = self._text(partition, len(documents))
            for _ in range(adds):
                number = len(documents)
                alike = number and self._random.random() < 0.05
                documents[f"d{number}"] = documents["d0"] if alike else self._text(partition, number)
            frame = pl.DataFrame({"document_id": list(documents), "text": list(documents.values())})
            self._store.write(self._store.documents("texts", partition), frame)

    def _text(self, partition: str, number: int) -> str:
        word = self._random.choice(_WORDS)
        return f"{partition} report {number}-{self._random.randrange(10**9)} is {word}"


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
