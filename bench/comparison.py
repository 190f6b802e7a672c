"""Both contenders in turns against one emulator, several times, and the medians of what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench.limit import limit_s
from bench.phase import Measured, run_phase
from bench.platform_run import sent_bytes
from bench.process_tree import cpu_s
from bench.task import PROVIDERS, change_one, share_documents, write_documents
from llm_assets_tests.emulator_process import Emulator

PHASES = {"platform_run": ("submit", "collect", "again", "changed"), "plain_script": ("submit", "collect", "read")}
# What counts as the work itself; `again` and `changed` are what it costs when there is none, or one document's,
# `read` is what the SDK alone takes to hand over results.
_WORK = ("submit", "collect")
# Far enough from their goals to be measured in the first run alone.
_ONCE = ("again", "changed")


@dataclass(slots=True)
class Comparison:
    """Everything that was measured, by provider, contender and phase: a list with one entry a run."""

    documents: int
    text_bytes: int
    runs: int
    found: dict[tuple[str, str, str], list[Measured]] = field(default_factory=dict)
    server_cpu_s: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    limits_s: dict[str, list[float]] = field(default_factory=dict)

    def add(self, provider: str, contender: str, phase: str, measured: Measured) -> None:
        """Keep what one phase took. Raises RuntimeError when it did not handle every document."""
        expected = 1 if phase == "changed" else self.documents
        if measured.documents != expected:
            raise RuntimeError(f"{contender} {phase} {provider}: {measured.documents} of {expected} documents")
        self.found.setdefault((provider, contender, phase), []).append(measured)

    def wall_s(self, provider: str, contender: str, *phases: str) -> float:
        """The median over the runs of the time that these phases took together; submit and collect by default."""
        return self._median(provider, contender, phases, lambda one: one.wall_s)

    def cpu_s(self, provider: str, contender: str, *phases: str) -> float:
        """As `wall_s`, of the processor's time."""
        return self._median(provider, contender, phases, lambda one: one.cpu_s)

    def cpu_started_s(self, provider: str, contender: str, *phases: str) -> float:
        """As `cpu_s`, and what starting the processes took."""
        return self._median(provider, contender, phases, lambda one: one.cpu_started_s)

    def server_s(self, provider: str, contender: str) -> float:
        """The median of the processor's time that the emulator took for all of a contender's phases."""
        return median(self.server_cpu_s[provider, contender])

    def limit_s(self, provider: str) -> float:
        """The median of the time that the bytes that were sent take when nothing else is done."""
        return median(self.limits_s[provider])

    def peak_mib(self, provider: str, contender: str, *phases: str) -> float:
        """The largest of the phases' peaks, by medians over the runs."""
        found = (self.found[provider, contender, phase] for phase in phases or _WORK)
        return max(median(one.peak_mib for one in runs) for runs in found)

    def _median(
        self, provider: str, contender: str, phases: tuple[str, ...], value: Callable[[Measured], float]
    ) -> float:
        by_run = zip(*(self.found[provider, contender, phase] for phase in phases or _WORK), strict=True)
        return median(sum(map(value, run)) for run in by_run)


def compare(documents: int, runs: int, scratch: Path, tell: Callable[[str], None]) -> Comparison:
    """Measure everything, `runs` times; files are under `scratch` until it ends. `tell` hears how far it is."""
    scratch.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="scratch-", dir=scratch) as folder, Emulator(Path(folder, "emulator")) as emulator:
        source = Path(folder, "source")
        tell(f"writing {documents:,} documents")
        comparison = Comparison(documents, write_documents(source, documents), runs)
        for run in range(1, runs + 1):
            for provider in PROVIDERS:
                for contender in _turns(run):
                    tell(f"run {run} of {runs}: {provider}, {contender.replace('_', ' ')}")
                    phases = [phase for phase in PHASES[contender] if run == 1 or phase not in _ONCE]
                    with _fresh_root(Path(folder), source) as root:
                        _run(comparison, contender, provider, root, emulator, phases)
                    emulator.reset()
    return comparison


def _run(
    comparison: Comparison, contender: str, provider: str, root: Path, emulator: Emulator, phases: Sequence[str]
) -> None:
    """These phases of a contender. Raises RuntimeError where `again` reaches for the network."""
    begun = cpu_s(emulator.pid)
    for phase in phases:
        if phase == "changed":
            change_one(root)
        calls = emulator.calls() if phase == "again" else {}
        comparison.add(provider, contender, phase, run_phase(contender, phase, provider, root, emulator.url))
        if contender == "platform_run" and phase == "submit":
            comparison.limits_s.setdefault(provider, []).append(limit_s(sent_bytes(provider, root, emulator.url), root))
        if phase == "again" and calls != emulator.calls():
            raise RuntimeError(f"{contender} {phase} {provider}: network calls, {calls} and then {emulator.calls()}")
    comparison.server_cpu_s.setdefault((provider, contender), []).append(cpu_s(emulator.pid) - begun)


def _turns(run: int) -> list[str]:
    """Who is first changes with each run."""
    return list(PHASES) if run % 2 else list(reversed(PHASES))


@contextmanager
def _fresh_root(folder: Path, source: Path) -> Iterator[Path]:
    with TemporaryDirectory(dir=folder) as name:
        share_documents(source, Path(name))
        yield Path(name)
