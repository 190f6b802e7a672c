"""What grows: the time for a document with ten times as many of them, and with 90 partitions that came before."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench.phase import run_phase
from bench.platform_run import EARLIER_PARTITIONS
from bench.task import PROVIDERS, share_documents, write_documents
from llm_assets_tests.emulator_process import Emulator

_EARLIER_DOCUMENTS = 100


def measure_growth(documents: int, runs: int, folder: Path, tell: Callable[[str], None]) -> dict[str, float]:
    """Ratios of seconds a document: all documents over a tenth of them, and after 90 partitions over after one."""
    few = max(1, documents // 10)
    found: dict[str, float] = {}
    with TemporaryDirectory(prefix="scratch-", dir=folder) as name, Emulator(Path(name, "emulator")) as emulator:
        scratch = Path(name)
        for size in {documents, few, _EARLIER_DOCUMENTS}:
            write_documents(scratch / str(size), size)
        for provider in PROVIDERS:
            tell(f"{provider}: 1 and {EARLIER_PARTITIONS} partitions to begin with")
            young, old = (_past(past, provider, scratch, emulator) for past in ("beginning", "history"))
            tell(f"{provider}: {documents:,} documents")
            many_s = _seconds(provider, scratch, documents, emulator, young)
            turns = []
            for run in range(1, runs + 1):
                tell(f"{provider}: {few:,} documents after few and after many partitions, run {run} of {runs}")
                turns.append([_seconds(provider, scratch, few, emulator, past) for past in (young, old)])
            young_s, old_s = (median(each) for each in zip(*turns, strict=True))
            found[f"growth_size_ratio_{provider}"] = (many_s / documents) / (young_s / few)
            found[f"growth_history_ratio_{provider}"] = old_s / young_s
            emulator.reset()
    return found


def _past(phase: str, provider: str, scratch: Path, emulator: Emulator) -> Path:
    """A root in which partitions were sent and collected before."""
    root = scratch / f"{provider}-{phase}"
    share_documents(scratch / str(_EARLIER_DOCUMENTS), root)
    run_phase("platform_run", phase, provider, root, emulator.url)
    return root


def _seconds(provider: str, scratch: Path, documents: int, emulator: Emulator, past: Path) -> float:
    """Wall time to send and to collect a partition, in a copy of a root."""
    with TemporaryDirectory(dir=scratch) as name:
        root = Path(name, "root")
        shutil.copytree(past, root)
        share_documents(scratch / str(documents), root)
        measured = [run_phase("platform_run", phase, provider, root, emulator.url) for phase in ("submit", "collect")]
    return sum(phase.wall_s for phase in measured)
