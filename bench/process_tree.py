"""What a process and all that it started take: processor time and memory, as Linux counts them in /proc.

Memory is the proportional set size: a page that several processes share counts once, in parts. On systems without
/proc there is none of this, and `peak_mib` stays zero.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Self

SAMPLES_A_SECOND = 20
# Looking halts what is looked at, and takes long where there is much: it may take this share of the time at most.
_SHARE_MAX = 0.05
_GONE = (FileNotFoundError, ProcessLookupError, PermissionError)  # it ended while it was read


class PeakMemory:
    """Watches a process tree from another process, in a thread: `peak_mib` is the largest sum that was seen."""

    def __init__(self, pid: int) -> None:
        self.peak_mib = 0.0
        self._pid = pid
        self._stop = Event()
        self._thread = Thread(target=self._watch, name="peak-memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        took = 0.0
        while not self._stop.wait(max(1 / SAMPLES_A_SECOND, took / _SHARE_MAX)):
            begun = time.perf_counter()
            self.peak_mib = max(self.peak_mib, memory_mib(self._pid))
            took = time.perf_counter() - begun


def memory_mib(pid: int) -> float:
    """The memory of a process and its descendants, shared pages once."""
    return sum(map(_proportional_kib, tree(pid))) / 1024


def cpu_s(pid: int) -> float:
    """User and system time of a process and its descendants, those that ended included."""
    return sum(map(_cpu_ticks, tree(pid))) / os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> Iterator[int]:
    """The process and its living descendants."""
    yield pid
    for thread in Path(f"/proc/{pid}/task").glob("*"):
        with suppress(*_GONE):
            for child in (thread / "children").read_text().split():
                yield from tree(int(child))


def _proportional_kib(pid: int) -> int:
    with suppress(*_GONE):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def _cpu_ticks(pid: int) -> int:
    with suppress(*_GONE):
        # The command's name may hold spaces and parentheses; what follows its last parenthesis does not. Then come, at
        # 11 to 14: user and system time, of itself and of the children that it waited for.
        return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
    return 0
