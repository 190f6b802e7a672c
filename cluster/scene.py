"""What happens: a backfill over two hosts, whose plugs are pulled, and one of which loses its database for a while."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import dagster as dg
import polars as pl
import yaml

from chaos.referee import Verdict, judge
from chaos.schedule import MOODS
from cluster.definitions import DAYS, ENRICHMENTS, JOB, PROVIDERS
from cluster.hosts import Host, address, make_switch
from cluster.services import Vendor, postgres, query
from cluster.watch import Pools, is_under_way, materialized, running_on, runs_by_host, write_down_limits
from llm_assets.ledger import Ledger
from llm_assets.platform import utc_now
from llm_assets.store import Store
from llm_assets_tests.s3_server import BUCKET, S3Server

ROOT = Path(__file__).parents[1]
_POSTGRES, _S3, _VENDOR = 2, 3, 4
WORKERS = {"a": 11, "b": 12}
_PORTS = {"anthropic": 8091, "openai": 8092}
_DOWN_SECONDS = 10
_CUT_SECONDS = 25
_LOOK_SECONDS = 0.5


class Unfinished(Exception):
    """Something did not happen in time."""


@dataclass(slots=True)
class Outcome:
    """What was done to the hosts, and what came of the backfill."""

    partitions: int
    plugs_pulled: Counter[str] = field(default_factory=Counter)
    runs_cut_short: int = 0
    cut_seconds: float = 0
    sessions_ended: int = 0
    launched_again: int = 0
    materialized: int = 0
    runs: Counter[tuple[str, str]] = field(default_factory=Counter)
    pool_looks: int = 0
    pool_limits: dict[str, int] = field(default_factory=dict)
    pool_most: Counter[str] = field(default_factory=Counter)
    pool_over_both: Counter[str] = field(default_factory=Counter)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    unfinished: str = ""

    def broken(self) -> Iterator[str]:
        """The promises that did not hold, in words."""
        if self.unfinished:
            yield self.unfinished
        for provider, verdict in self.verdicts.items():
            yield from (f"{provider}: {name} {count}" for name, count in verdict.faulty.items())
            yield from (f"{provider}: {detail}" for detail in verdict.details[:4])
        for provider, most in self.pool_most.items():
            if most > self.pool_limits[provider]:
                yield f"{most} runs were in the pool of {provider} at once"
        for host in WORKERS.values():
            if not self.runs[address(host), "SUCCESS"]:
                yield f"no run has ended well on {address(host)}"


class Scene:
    """Hosts with all that stands on them, in a folder."""

    def __init__(self, folder: Path, partitions: int, documents: int, say: Callable[[str], None]) -> None:
        self._folder, self._say = folder, say
        self._keys = list(DAYS.get_partition_keys()[:partitions])
        self._texts = _texts(self._keys, documents)
        self.outcome = Outcome(partitions)

    def play(self, seconds_max: float) -> Outcome:
        """From an empty network to the verdict."""
        self._deadline = time.monotonic() + seconds_max
        with ExitStack() as standing:
            self._build(standing)
            pools = standing.enter_context(Pools(self._instance))
            try:
                self._happen()
            except Unfinished as error:
                self.outcome.unfinished = str(error)
            self._judge(pools)
        return self.outcome

    # -- the hosts

    def _build(self, standing: ExitStack) -> None:
        make_switch()
        self._data = self._host("data", [_POSTGRES, _S3], ["sleep", "infinity"])
        gateway = [sys.executable, "-m", "cluster.gateway", address(_VENDOR), *map(str, _PORTS.values())]
        vendor = self._host("vendor", [_VENDOR], gateway)
        standing.enter_context(
            postgres(self._data.network, address(_POSTGRES), f"{address(0)}/24", self._folder / "postgres.log")
        )
        (self._folder / "s3").mkdir()
        self._s3 = standing.enter_context(S3Server(self._folder / "s3", address(_S3), self._data.network))
        self._vendors = {
            provider: standing.enter_context(
                Vendor(self._folder / provider, vendor.network, address(_VENDOR), _PORTS[provider])
            )
            for provider in PROVIDERS
        }
        self._environment = self._environment_of_hosts()
        os.environ.update(self._environment)
        for key, texts in self._texts.items():
            table = pl.DataFrame({"id": list(texts), "text": list(texts.values())})
            self._s3.objects().put(f"arrived/{key}.csv", table.write_csv().encode())
        self._instance = standing.enter_context(dg.DagsterInstance.from_config(str(self._home("watch"))))
        write_down_limits(self._instance)
        self._ledger = Ledger(self._environment["LLM_ASSETS_LEDGER_URL"], utc_now)
        standing.callback(self._ledger.close)
        self._workers = {name: self._worker(name) for name in WORKERS}
        self._say("hosts are up: data (Postgres, S3), vendor (both emulators), a (daemon, runs), b (runs)")

    def _environment_of_hosts(self) -> dict[str, str]:
        database = f"postgresql+psycopg://postgres@{address(_POSTGRES)}/ledger"
        urls = {provider: vendor.url for provider, vendor in self._vendors.items()}
        return self._s3.environment | {
            "LLM_ASSETS_ROOT": f"s3://{BUCKET}/tables",
            "LLM_ASSETS_LEDGER_URL": database,
            "ANTHROPIC_API_KEY": "k",
            "ANTHROPIC_BASE_URL": urls["anthropic"],
            "OPENAI_API_KEY": "k",
            "OPENAI_BASE_URL": f"{urls['openai']}/v1",
            "PYTHONPATH": str(ROOT),
        }

    def _host(self, name: str, numbers: list[int], program: list[str], **environment: str) -> Host:
        return Host(name, numbers, program, self._folder / f"{name}.log", environment)

    def _worker(self, name: str) -> Host:
        home = self._home(name)
        scratch = home / "tmp"
        scratch.mkdir(exist_ok=True)
        program = [sys.executable, "-m", "cluster.agent", name, address(WORKERS[name])]
        role = ["daemon"] if name == "a" else []
        places = {"DAGSTER_HOME": str(home), "TMPDIR": str(scratch)}
        return self._host(name, [WORKERS[name]], [*program, *role], **self._environment, **places)

    def _home(self, name: str) -> Path:
        """A folder with what is shipped as dagster.yaml, on Postgres, and with the launcher of these hosts."""
        home = self._folder / name
        home.mkdir(exist_ok=True)
        config: dict[str, Any] = yaml.safe_load((ROOT / "dagster.yaml").read_text())
        database = {"hostname": address(_POSTGRES), "username": "postgres", "password": "", "db_name": "dagster"}
        # SQLAlchemy would take another driver by itself, which Dagster's notifications do not know.
        database["scheme"] = "postgresql+psycopg2"
        config["storage"] = {"postgres": {"postgres_db": database}}
        hosts = [address(number) for number in WORKERS.values()]
        config["run_launcher"] = {"module": "cluster.launcher", "class": "HostsLauncher", "config": {"hosts": hosts}}
        config["run_monitoring"] |= {"poll_interval_seconds": 5}
        (home / "dagster.yaml").write_text(yaml.safe_dump(config))
        return home

    # -- what happens

    def _happen(self) -> None:
        self._backfill(self._keys)
        self._until_planned(0.2, "b")
        self._pull_the_plug("b")
        self._until_planned(0.4, "a")
        self._cut_off_from_postgres("a")
        self._until_planned(0.6, "a")
        self._pull_the_plug("a")
        self._until(self._is_done_or_goes_on, "the backfill's end")

    def _is_done_or_goes_on(self) -> bool:
        """Whether all is there. Where nothing runs any more and something is missing, a person launches that again: a
        run whose asset failed, as that of one that met no database may, is for a person to look at.
        """
        wanted = len(self._keys) * len(PROVIDERS)
        if self._published() == materialized(self._instance) == wanted:
            return True
        planned = Counter(plan.partition for plan in self._ledger.plans())
        missing = [key for key in self._keys if planned[key] < len(PROVIDERS)]
        if missing and not is_under_way(self._instance, JOB):
            self.outcome.launched_again += len(missing)
            self._backfill(missing)
        return False

    def _backfill(self, keys: list[str]) -> None:
        command = [
            str(Path(sys.executable).with_name("dagster")),
            "job",
            "backfill",
            "--module-name",
            "cluster.definitions",
        ]
        command += ["--job", JOB, "--partitions", ",".join(keys), "--noprompt"]
        home = str(self._folder / "watch")
        with (self._folder / "backfill.log").open("ab") as log:
            subprocess.run(command, check=True, stdout=log, stderr=log, env={**os.environ, "DAGSTER_HOME": home})
        self._say(f"a backfill of {len(keys)} partitions is launched")

    def _pull_the_plug(self, name: str) -> None:
        self.outcome.runs_cut_short += running_on(self._instance, address(WORKERS[name]))
        self._workers[name].pull_the_plug()
        self.outcome.plugs_pulled[name] += 1
        self._say(f"the plug of {name} was pulled, {self._standing()}")
        time.sleep(_DOWN_SECONDS)  # a real host takes its time to come back
        self._workers[name] = self._worker(name)
        self._say(f"{name} is back")

    def _cut_off_from_postgres(self, name: str) -> None:
        """Nothing goes through, and the server gives up the sessions, as it would after its keepalives."""
        started = time.monotonic()
        host = address(WORKERS[name])
        self._workers[name].cut_off(_POSTGRES)
        found = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE client_addr = '{host}'"  # noqa: S608 (ours)
        self.outcome.sessions_ended += len(query(address(_POSTGRES), found))
        self._say(f"{name} is cut off from Postgres, {self._standing()}")
        time.sleep(_CUT_SECONDS)  # real networks take their time to come back
        self._workers[name].mend(_POSTGRES)
        self.outcome.cut_seconds += time.monotonic() - started
        self._say(f"{name} sees Postgres again")

    def _until_planned(self, share: float, host: str) -> None:
        """Until so much is planned, and something runs on the host."""
        wanted = share * len(self._keys) * len(PROVIDERS)
        self._until(
            lambda: len(self._ledger.plans()) >= wanted and running_on(self._instance, address(WORKERS[host])) > 0,
            f"{share:.0%} planned and a run on {host}",
        )

    def _until(self, happens: Callable[[], bool], what: str) -> None:
        said = time.monotonic()
        while not happens():
            if time.monotonic() > self._deadline:
                raise Unfinished(f"{what} did not come in time: {self._standing()}")
            if time.monotonic() > said + 30:
                said = time.monotonic()
                self._say(self._standing())
            time.sleep(_LOOK_SECONDS)  # other processes are at work, and have no way to tell us

    def _published(self) -> int:
        return sum(plan.published_at is not None for plan in self._ledger.plans())

    def _standing(self) -> str:
        planned, wanted = len(self._ledger.plans()), len(self._keys) * len(PROVIDERS)
        return f"{planned} of {wanted} planned, {self._published()} published"

    # -- the verdict

    def _judge(self, pools: Pools) -> None:
        outcome = self.outcome
        outcome.materialized = materialized(self._instance)
        outcome.runs = runs_by_host(self._instance)
        outcome.pool_looks, outcome.pool_limits = pools.looks, pools.limits
        outcome.pool_most, outcome.pool_over_both = pools.most, pools.over_both
        store = Store(self._environment["LLM_ASSETS_ROOT"])
        for provider, enrichment in ENRICHMENTS.items():
            with _copies(store, self._folder / "tables" / provider, enrichment.name, self._keys) as tables:
                outcome.verdicts[provider] = judge(self._vendors[provider], provider, tables, self._texts)


@contextmanager
def _copies(store: Store, folder: Path, name: str, keys: list[str]) -> Iterator[Mapping[str, list[Path]]]:
    """The tables of an enrichment out of the bucket, where the referee reads them."""
    tables: dict[str, list[Path]] = {}
    for key in keys:
        tables[key] = []
        for path in (store.enriched(name, key), store.failed(name, key)):
            copy = folder / path
            copy.parent.mkdir(parents=True, exist_ok=True)
            if store.files.exists(path):
                copy.write_bytes(b"".join(store.files.chunks(path)))
            tables[key].append(copy)
    yield tables


def _texts(keys: list[str], documents: int) -> dict[str, dict[str, str]]:
    """Texts by id, by partition; no two are alike."""
    random = Random("cluster")  # noqa: S311 (texts, not secrets)
    return {
        key: {f"d{number}": f"{key} report {number} is {random.choice(list(MOODS))}" for number in range(documents)}
        for key in keys
    }
