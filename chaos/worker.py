"""The process that is let run, doubled and killed. It does what Dagster's runs and the sensor would do.

It runs on a clock that others move on (`VirtualTime`), so that two minutes or a day take no time at all.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import llm_assets
from llm_assets.collection import collect_partition
from llm_assets.enrichment import Enrichment
from llm_assets.ledger import Ledger
from llm_assets.planning import plan_partition
from llm_assets.platform import Platform, utc_now
from llm_assets.polling import poll
from llm_assets.prompt import Prompt
from llm_assets.providers import Credentials, get_provider
from llm_assets.reconciliation import reconcile_partition
from llm_assets.records import ACTIVE, Shard, ShardLimits
from llm_assets.store import Store
from llm_assets.submission import send_planned
from llm_assets.waves import Step, next_step
from llm_assets_tests.platforms import labels

# Whoever preloads this module has the SDKs too: a child that is forked then starts in milliseconds.
for _name in ("anthropic", "openai"):
    get_provider(_name)

_PACKAGE = f"{Path(llm_assets.__file__).parent}{os.sep}"
_OFFSET = struct.Struct("=d")
_EDGES = (
    *("collection", "history", "ledger", "platform", "polling"),
    *("providers", "reconciliation", "store", "submission"),
)
_IDLE_MAX = 3
_IDLE_S = 0.02
_SECONDS_MAX = 5.0
_HOPS_MAX = 60
_HOP_S, _HOP_S_MAX = 60.0, 4 * 3600.0
_LOOK_S = 300.0
# The exit code of a last process for which something is due for ever.
UNFINISHED = 3
_NEW = Step.SUBMIT  # a partition without a plan


class VirtualTime:
    """Real time plus an offset that all processes of a schedule share, and the emulator with them."""

    def __init__(self, path: Path, url: str) -> None:
        self._url = url
        if not path.exists():
            path.write_bytes(_OFFSET.pack(0.0))
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _OFFSET.size)

    def __call__(self) -> datetime:
        """Now."""
        return utc_now() + timedelta(seconds=_OFFSET.unpack_from(self._shared)[0])

    def passes(self, seconds: float) -> None:
        """Let time go by, for the emulator first: its batches are never younger than they seem here."""
        connection = HTTPConnection(urlsplit(self._url).netloc, timeout=30)
        connection.request("POST", "/_emulator/clock", json.dumps({"advance_s": seconds}))
        connection.getresponse().read()
        connection.close()
        _OFFSET.pack_into(self._shared, 0, _OFFSET.unpack_from(self._shared)[0] + seconds)

    def close(self) -> None:
        """Give the file back."""
        self._shared.close()


@dataclass(frozen=True, slots=True)
class Job:
    """What one process is to do. `finishing`: alone and without faults, to the end, moving the time on itself."""

    root: Path
    url: str
    ledger_url: str
    provider: str
    partitions: tuple[str, ...]
    shard_requests: int
    prompt: int
    by_person: bool = True
    retry_failed: bool = False
    kill_at_event: int | None = None
    finishing: bool = False

    @property
    def enrichment(self) -> Enrichment:
        """The task, with this version of the prompt."""
        prompt = Prompt.parse(f"system:\nHow does the writer feel? v{self.prompt}\n\nuser:\n{{{{ text }}}}", "chaos")
        limits = ShardLimits(requests=self.shard_requests, bytes=1_000_000)
        return replace(labels(self.provider), prompt=prompt, limits=limits)

    @property
    def time_file(self) -> Path:
        """Where the offset of the time is shared."""
        return self.root.with_suffix(".time")

    @property
    def notes_file(self) -> Path:
        """Where errors are noted, a line each."""
        return self.root.with_suffix(".notes")


def work(job: Job) -> None:
    """The whole life of one process."""
    clock = VirtualTime(job.time_file, job.url)
    if job.kill_at_event:
        _die_at(job.kill_at_event, job.notes_file)
    try:
        platform = _platform(job, clock)
    except Exception as error:
        note(job, error)
        sys.exit(1)
    try:
        came_to_rest = _Worker(platform, job, clock).run()
    finally:
        platform.close()
    if job.finishing and not came_to_rest:
        sys.exit(UNFINISHED)


def _platform(job: Job, clock: VirtualTime) -> Platform:
    credentials = {"anthropic": Credentials("k", job.url), "openai": Credentials("k", f"{job.url}/v1")}
    return Platform(Store(job.root), Ledger(job.ledger_url, clock), credentials, clock=clock)


class _Worker:
    def __init__(self, platform: Platform, job: Job, clock: VirtualTime) -> None:
        self._platform, self._job, self._clock = platform, job, clock
        self._enrichment = job.enrichment

    def run(self) -> bool:
        """Materialize if a person wants it, then do what is due until nothing moves. Says whether nothing is due."""
        if self._job.by_person:
            for partition in self._job.partitions:
                self._noting(partial(self._submit, partition, by_person=True))
        idle, hop_s, deadline = 0, _HOP_S, time.monotonic() + _SECONDS_MAX
        while idle < (_HOPS_MAX if self._job.finishing else _IDLE_MAX):
            before = self._state()
            self._noting(self._poll)
            steps = [self._noting(partial(self._go_on, partition)) for partition in self._job.partitions]
            if all(step is Step.NOTHING for step in steps):
                return True
            if self._state() != before:
                idle, hop_s = 0, _HOP_S
            elif self._job.finishing:
                self._clock.passes(_LOOK_S if self._is_missing_something() else hop_s)
                idle, hop_s = idle + 1, min(2 * hop_s, _HOP_S_MAX)
            elif time.monotonic() > deadline:
                return False
            else:
                idle += 1
                time.sleep(_IDLE_S)  # for the other process of a double run, which may move things
        return False

    def _state(self) -> list[Any]:
        """What moves; not what each look writes down, which only time makes something of."""
        plans: list[Any] = list(self._platform.ledger.plans(self._enrichment.name))
        each_look: dict[str, Any] = {
            "missing_at": None,
            "missing_looks": 0,
            "message": "",
            "not_before": None,
            "asked_at": None,
        }
        return plans + [replace(shard, **each_look) for shard in self._shards()]

    def _is_missing_something(self) -> bool:
        """Whether a provider does not have what it should, which counts as gone after looks in a row only."""
        return any(shard.missing_since and shard.state in ACTIVE for shard in self._shards())

    def _shards(self) -> list[Shard]:
        ledger, name = self._platform.ledger, self._enrichment.name
        return [shard for partition in self._job.partitions for shard in ledger.shards(name, partition)]

    def _go_on(self, partition: str) -> Step:
        platform, enrichment = self._platform, self._enrichment
        plan = platform.ledger.plan(enrichment.name, partition)
        shards = platform.ledger.shards(enrichment.name, partition)
        step = next_step(plan, shards, platform.clock()) if plan else _NEW
        if step is Step.SUBMIT:
            self._submit(partition, by_person=False)
        elif step is Step.HELD and self._job.finishing:
            self._submit(partition, by_person=True)
        elif step is Step.COLLECT:
            collect_partition(platform, enrichment, partition)
        return step

    def _poll(self) -> Step:
        """What the sensor does at every tick, whatever is due."""
        poll(self._platform, self._platform.ledger.active_shards(), calls_max=25)
        return Step.WAIT

    def _submit(self, partition: str, *, by_person: bool) -> Step:
        """What materializing `batches` does."""
        platform, enrichment = self._platform, self._enrichment
        reconcile_partition(platform, enrichment.name, partition)
        retry = by_person and self._job.retry_failed
        plan = plan_partition(platform, enrichment, partition, retry_failed=retry, release_hold=by_person)
        send_planned(platform, plan)
        return Step.SUBMIT

    def _noting(self, act: Callable[[], Step]) -> Step | None:
        """A run that fails is noted and done with; the next is a new one."""
        try:
            return act()
        except Exception as error:
            note(self._job, error)
            return None


def note(job: Job, error: Exception) -> None:
    """Write an error down where the stage finds it, with the function of the platform that it came from."""
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(_PACKAGE)]
    where = f"{Path(ours[-1].filename).stem}.{ours[-1].name}" if ours else "elsewhere"
    line = {"error": type(error).__name__, "where": where, "message": str(error)[:300]}
    _append(job.notes_file, line | {"finishing": job.finishing})


def _append(path: Path, line: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def _die_at(events: int, notes: Path) -> None:
    """SIGKILL to this process at its so-many-th call or return of a function at an edge: ledger, store, network."""
    edges = tuple(f"{_PACKAGE}{name}{end}" for name in _EDGES for end in (".py", os.sep))
    left = events

    def count(frame: FrameType, event: str, _: Any) -> None:
        nonlocal left
        if event in ("call", "return") and frame.f_code.co_filename.startswith(edges):
            left -= 1
            if left == 0:
                place = f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_qualname}"
                _append(notes, {"killed_at": place, "event": event})
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
