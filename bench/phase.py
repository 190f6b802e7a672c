"""One phase of one contender, measured in a process of its own.

    python -m bench.phase platform_run submit anthropic ROOT URL

prints a line of JSON. Wall and processor time begin when everything is imported and end before the process waits for
the provider: neither starting Python nor the emulator's answering counts. Processor time and memory are those of the
whole process tree, whether its processes have ended or not.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path

from bench.process_tree import PeakMemory, cpu_s

CONTENDERS = ("platform_run", "plain_script")
_SECONDS_MAX = 3600


@dataclass(frozen=True, slots=True)
class Measured:
    """What a phase took.

    `cpu_s` is user and system time of the process tree from the phase's begin to its end, `cpu_started_s` that and
    what starting took; `peak_mib` is the tree's peak.
    """

    documents: int
    wall_s: float
    cpu_s: float
    peak_mib: float
    cpu_started_s: float = 0.0


class PhaseFailed(Exception):
    """The process of a phase ended badly; its words follow."""


def run_phase(contender: str, phase: str, provider: str, root: Path, url: str) -> Measured:
    """Run a phase in a new process, and wait for the provider after `submit`. Raises PhaseFailed."""
    command = [sys.executable, "-m", "bench.phase", contender, phase, provider, str(root), url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603
        with PeakMemory(process.pid) as memory:
            try:
                output, errors = process.communicate(timeout=_SECONDS_MAX)
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            raise PhaseFailed(f"{contender} {phase} {provider}: exit code {process.returncode}\n{errors[-3000:]}")
    found = Measured(**json.loads(output))
    return replace(found, peak_mib=memory.peak_mib or found.peak_mib)


def measured(work: Callable[[], int]) -> Measured:
    """Do the work and say what it took."""
    wall, cpu = time.perf_counter(), _cpu_s()
    documents = work()
    wall, started = time.perf_counter() - wall, _cpu_s()
    return Measured(documents, wall, started - cpu, _peak_mib(), started)


def _cpu_s() -> float:
    """Of this process and its descendants so far; exact for those that have ended, to a tick for the others."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    ended = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    return ended + sum(map(cpu_s, _children()))


def _children() -> list[int]:
    files = Path("/proc/self/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text().split()]


def _peak_mib() -> float:
    """The peak of this process alone: a stand-in where nobody can watch the tree."""
    bytes_a_unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * bytes_a_unit / 2**20


def main(contender: str, phase: str, provider: str, root: str, url: str) -> None:
    """Measure one phase, print it, and leave the partition ready for the next."""
    if contender not in CONTENDERS:
        raise ValueError(f"found the contender {contender!r}; expected one of {', '.join(CONTENDERS)}")
    module = import_module(f"bench.{contender}")
    module.prepare(provider)
    found = measured(lambda: getattr(module, phase)(provider, Path(root), url))
    if phase == "submit":
        module.wait(provider, Path(root), url)
    sys.stdout.write(json.dumps(asdict(found)) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
