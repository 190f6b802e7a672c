"""Both contenders in turns against one emulator, several times, and the medians of what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench.phase import Measured, run_phase
from bench.task import PROVIDERS, share_documents, write_documents
from llm_assets_tests.emulator_process import Emulator

PHASES = {"platform_run": ("submit", "collect", "again"), "plain_script": ("submit", "collect")}
# What counts as the work itself; `again` is what it costs when there is none.
_WORK = ("submit", "collect")


@dataclass(slots=True)
class Comparison:
    """Everything that was measured, by provider, contender and phase: a list with one entry a run."""

    documents: int
    text_bytes: int
    runs: int
    found: dict[tuple[str, str, str], list[Measured]] = field(default_factory=dict)

    def add(self, provider: str, contender: str, phase: str, measured: Measured) -> None:
        """Keep what one phase took. Raises RuntimeError when it did not handle every document."""
        if phase != "again" and measured.documents != self.documents:
            raise RuntimeError(f"{contender} {phase} {provider}: {measured.documents} of {self.documents} documents")
        self.found.setdefault((provider, contender, phase), []).append(measured)

    def wall_s(self, provider: str, contender: str, *phases: str) -> float:
        """The median over the runs of the time that these phases took together; submit and collect by default."""
        return self._median(provider, contender, phases, lambda one: one.wall_s)

    def cpu_s(self, provider: str, contender: str, *phases: str) -> float:
        """As `wall_s`, of the processor's time."""
        return self._median(provider, contender, phases, lambda one: one.cpu_s)

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
                    with _fresh_root(Path(folder), source) as root:
                        for phase in PHASES[contender]:
                            found = run_phase(contender, phase, provider, root, emulator.url)
                            comparison.add(provider, contender, phase, found)
                    emulator.reset()
    return comparison


def _turns(run: int) -> list[str]:
    """Who is first changes with each run."""
    return list(PHASES) if run % 2 else list(reversed(PHASES))


@contextmanager
def _fresh_root(folder: Path, source: Path) -> Iterator[Path]:
    with TemporaryDirectory(dir=folder) as name:
        share_documents(source, Path(name))
        yield Path(name)
