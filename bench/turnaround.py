"""From the moment in which batches end until their answers are tables: a real Dagster with its daemon, sensor and runs.

1,000 documents are asked over each protocol. The emulator holds all batches until every request is with it, so that all
end at the moment in which it lets go.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.loading import write_project
from bench.platform_run import credentials
from bench.task import DOCUMENTS, PARTITION, PROVIDERS, made_up
from llm_assets.demo.loopback import HOST, free_port
from llm_assets.demo.services import ROOT, Service
from llm_assets.demo.story import NOT_INHERITED
from llm_assets.demo.webserver import Webserver
from llm_assets.ledger import Ledger
from llm_assets.platform import utc_now
from llm_assets.records import Plan, ShardState
from llm_assets_tests.emulator_process import Emulator

POLL_SECONDS = 10
_DOCUMENTS = 1_000
_SECONDS_MAX = 300
_LOOK_SECONDS = 0.2
_WORKSPACE = """
load_from:
  - python_module: {module_name: bench_project.definitions, working_directory: PROJECT, location_name: llm_assets}
"""


def measure_turnaround(folder: Path, tell: Callable[[str], None], *, documents: int = _DOCUMENTS) -> dict[str, float]:
    """Seconds from the end of the batches until `enriched` is published, by provider, and how often the sensor asks."""
    found: dict[str, float] = {"poll_s": POLL_SECONDS}
    with TemporaryDirectory(prefix="scratch-", dir=folder) as name, Emulator(Path(name, "emulator")) as emulator:
        base = Path(name).absolute()
        write_project(base, len(PROVIDERS), every_seconds=POLL_SECONDS)
        _write_documents(base, documents)
        emulator.hold()
        tell("starting Dagster")
        with _dagster(base, emulator.url) as webserver:
            ledger = Ledger(f"sqlite:///{base / 'store' / 'ledger.db'}", utc_now)
            tell(f"{documents:,} documents over each protocol")
            names = [f"task_{number:03}" for number in range(len(PROVIDERS))]
            webserver.launch(PARTITION, [["documents", DOCUMENTS], *([each, "batches"] for each in names)])
            _until(lambda: _all_sent(ledger, len(PROVIDERS)))
            ended = datetime.now(UTC)
            emulator.hold(held=False)
            tell("waiting for the sensor")
            _until(lambda: all(map(_published_at, _plans(ledger, names))))
            plans = dict(zip(PROVIDERS, _plans(ledger, names), strict=True))
            ledger.close()
    for provider, plan in plans.items():
        published = _published_at(plan)
        assert published is not None
        found[f"turnaround_s_{provider}"] = (published - ended).total_seconds()
        found[f"turnaround_over_poll_s_{provider}"] = found[f"turnaround_s_{provider}"] - POLL_SECONDS
    return found


def _write_documents(base: Path, documents: int) -> None:
    data = base / "bench_project" / "defs" / DOCUMENTS / "data"
    data.mkdir()
    made_up(0, documents).rename({"document_id": "id"}).write_csv(data / f"{PARTITION}.csv")


@contextmanager
def _dagster(base: Path, url: str) -> Iterator[Webserver]:
    """Dagster's webserver and daemon over a project, with an instance and a store of their own."""
    home, port = base / "dagster_home", free_port(0)
    home.mkdir()
    (base / "store").mkdir()
    shutil.copy(ROOT / "dagster.yaml", home)
    (base / "workspace.yaml").write_text(_WORKSPACE.replace("PROJECT", str(base)))
    command = [sys.executable, "-m", "dagster", "dev", "--workspace", str(base / "workspace.yaml")]
    command += ["--host", HOST, "--port", str(port)]
    service = Service.start("dagster", command, _environment(base, home, url), base / "dagster.log")
    try:
        service.wait_for(port, "/server_info")
        yield Webserver(port)
    finally:
        service.stop()


def _environment(base: Path, home: Path, url: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
    accounts = {
        f"{name.upper()}_{key}": value
        for name, account in credentials(url).items()
        for key, value in (("API_KEY", account.api_key), ("BASE_URL", account.base_url or ""))
    }
    return inherited | accounts | {"LLM_ASSETS_ROOT": str(base / "store"), "DAGSTER_HOME": str(home)}


def _all_sent(ledger: Ledger, providers: int) -> bool:
    return sum(shard.state is ShardState.SUBMITTED for shard in ledger.active_shards()) == providers


def _plans(ledger: Ledger, names: Sequence[str]) -> list[Plan | None]:
    return [ledger.plan(name, PARTITION) for name in names]


def _published_at(plan: Plan | None) -> datetime | None:
    return plan.published_at if plan else None


def _until(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _SECONDS_MAX
    while not happens():
        if time.monotonic() > deadline:
            raise RuntimeError(f"Dagster was not done after {_SECONDS_MAX} seconds")
        time.sleep(_LOOK_SECONDS)  # the ledger tells nobody that it has changed
