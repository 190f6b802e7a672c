"""One phase of one contender, measured in a process of its own.

    python -m bench.phase platform_run submit anthropic ROOT URL

prints a line of JSON. Wall and CPU time begin when everything is imported and end before the process waits for the
provider: neither starting Python nor the emulator's answering counts. CPU time includes child processes. Memory is the
peak of the process as a whole, Python and all, without children: the contenders have none that work.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

CONTENDERS = ("platform_run", "plain_script")
_SECONDS_MAX = 600


@dataclass(frozen=True, slots=True)
class Measured:
    """What a phase took; `cpu_s` is user and system time of the process and its children, `peak_mib` its own."""

    documents: int
    wall_s: float
    cpu_s: float
    peak_mib: float


class PhaseFailed(Exception):
    """The process of a phase ended badly; its words follow."""


def run_phase(contender: str, phase: str, provider: str, root: Path, url: str) -> Measured:
    """Run a phase in a new process, and wait for the provider after `submit`. Raises PhaseFailed."""
    command = [sys.executable, "-m", "bench.phase", contender, phase, provider, str(root), url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS_MAX, check=False)  # noqa: S603
    if done.returncode != 0:
        raise PhaseFailed(f"{contender} {phase} {provider}: exit code {done.returncode}\n{done.stderr[-3000:]}")
    return Measured(**json.loads(done.stdout))


def measured(work: Callable[[], int]) -> Measured:
    """Do the work and say what it took."""
    wall, cpu = time.perf_counter(), _cpu_seconds()
    documents = work()
    return Measured(documents, time.perf_counter() - wall, _cpu_seconds() - cpu, _peak_mib())


def _cpu_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _peak_mib() -> float:
    """The peak of this process. What it starts is left out: a fork's `ru_maxrss` begins with the memory it shares."""
    bytes_a_unit = 1 if sys.platform == "darwin" else 1024
    return (_high_water_kib() or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * bytes_a_unit / 2**20


def _high_water_kib() -> int | None:
    """Linux's own mark of this program: `ru_maxrss` there begins with the memory of whoever started it."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)


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
