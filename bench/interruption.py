"""A process that is killed in the middle of sending: what the next one sends again, and what is lost.

The emulator's account says what was sent and paid; the tables say what became of each document.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.phase import run_phase
from bench.task import PROVIDERS, share_documents, write_documents
from llm_assets.providers import get_provider
from llm_assets_tests.emulator_process import Emulator

_LOOK_SECONDS = 0.05
_HOUR_S = 3600


def measure_interruption(documents: int, folder: Path, tell: Callable[[str], None]) -> dict[str, float]:
    """By protocol: how many batches were there when the process was killed, how many requests were billed twice, and
    how many documents have no outcome in the end.
    """
    found: dict[str, float] = {}
    with TemporaryDirectory(prefix="scratch-", dir=folder) as name, Emulator(Path(name, "emulator")) as emulator:
        write_documents(Path(name, "source"), documents)
        for provider in PROVIDERS:
            tell(f"{provider}: {documents:,} documents, killed in the middle")
            with TemporaryDirectory(dir=name) as root:
                share_documents(Path(name, "source"), Path(root))
                found[f"killed_at_batches_{provider}"] = _kill_in_the_middle(provider, root, documents, emulator)
                emulator.advance_clock(_HOUR_S)
                run_phase("platform_run", "resume", provider, Path(root), emulator.url)
                published = run_phase("platform_run", "resume_collect", provider, Path(root), emulator.url)
            found[f"killed_lost_{provider}"] = documents - published.documents
            found[f"killed_billed_twice_{provider}"] = sum(1 for _ in emulator.contents(billed_min=2))
            emulator.reset()
    return found


def _kill_in_the_middle(provider: str, root: str, documents: int, emulator: Emulator) -> int:
    """Send, and kill the process when half of the batches are there. Returns how many were."""
    half = max(1, documents // get_provider(provider).dialect.limits.requests // 2)
    command = [sys.executable, "-m", "bench.phase", "platform_run", "submit", provider, root, emulator.url]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:  # noqa: S603
        while emulator.accounting()["batches"] < half:
            if process.poll() is not None:
                raise RuntimeError(f"{provider}: ended with {process.returncode} before {half} batches were there")
            time.sleep(_LOOK_SECONDS)  # the account is all that tells
        process.send_signal(signal.SIGKILL)
    batches: int = emulator.accounting()["batches"]
    return batches
