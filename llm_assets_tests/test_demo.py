"""The demo: the one test that tells the whole story, with a real daemon, and what could make a demo cost money."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import polars as pl
import psutil  # type: ignore[import-untyped]
import pytest
from rich.console import Console

from llm_assets import console
from llm_assets.demo import (
    HOST,
    LABELS,
    Demo,
    Options,
    Service,
    accuracy,
    examples,
    extra_bills,
    loopback,
)
from llm_assets.demo.folder import Folder
from llm_assets.demo.services import end_group
from llm_assets.demo.story import Patience
from llm_assets.errors import LLMAssetsError
from llm_assets.platform import process_name
from llm_assets.published import Outcome
from llm_assets.status import PartitionStatus
from llm_assets.waves import Step
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.ports import free_port

LLM_ASSETS = Path(sys.executable).parent / "llm-assets"


def processes_of(group: int) -> list[int]:
    """The living processes of a group, zombies left out."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue  # it ended meanwhile
        if int(of_group) == group and state != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """A whole demo, with real-looking keys in the environment that must not be used."""
    folder = tmp_path_factory.mktemp("demo")
    environment = {
        **os.environ,
        "ANTHROPIC_API_KEY": "sk-ant-not-for-the-demo",
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:9",
        "OPENAI_API_KEY": "sk-not-for-the-demo",
        "OPENAI_BASE_URL": "http://127.0.0.1:9",
        "LLM_ASSETS_ROOT": str(folder / "elsewhere"),
        "LLM_ASSETS_LEDGER_URL": f"sqlite:///{folder / 'elsewhere.db'}",
        "DAGSTER_HOME": str(folder / "home"),
    }
    port = str(free_port())
    command = [str(LLM_ASSETS), "demo", "--json", "--model", "scripted", "--port", port]
    command += ["--folder", str(folder / "demo")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    return done, folder


def test_the_demo_publishes_everything_and_exits_0(
    shown: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    done, _ = shown
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)

    assert report["answers_from"] == "the emulator (scripted)"
    assert set(report["enrichments"]) == set(LABELS.enrichments)
    assert report["accounting"]["requests"] == 252 + 7  # what went wrong was asked again, and nothing else
    assert (report["asked_again"], report["paid_twice"]) == (3, 0)
    for found in report["enrichments"].values():
        assert found["documents"] == found["enriched"] + found["failed"] == 129
        assert found["failures"]["empty_document"] == 2
        assert found["waves"] == 2
        assert found["input_tokens"] > 0
        assert 0 <= found["accuracy"] <= 1
    assert {example["label"] for example in report["examples"]} == {"positive", "negative", "neutral"}
    assert "failed; look for it" not in done.stderr  # no run did


def test_the_live_table_ends_with_its_line_where_there_is_no_terminal(
    shown: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    done, _ = shown
    (totals,) = [line for line in done.stderr.splitlines() if line.startswith("total ")]
    assert totals.endswith("6 of 6          ")


def test_80_columns_hold_every_cell_of_the_tables() -> None:
    names = ("documents", "requests", "requests_done", "wave", "batches_in_flight", "requests_in_flight")
    counts: dict[str, Any] = dict.fromkeys((*names, "requests_finished", "requests_due"), 43)
    found = [
        PartitionStatus(enrichment=name, partition=day, step=Step.COLLECT, held="", published_at=None, **counts)
        for name in LABELS.enrichments
        for day in LABELS.partitions
    ]
    done = Outcome(
        documents=129,
        enriched=127,
        failed=2,
        waves=2,
        input_tokens=57575,
        output_tokens=896,
        cost_usd=0.0031,
        failures={},
        tables=(),
    )
    out = Console(width=80, file=StringIO(), record=True)

    out.print(console.status_table(found, out.width))
    out.print(console.outcomes_table(dict.fromkeys(LABELS.enrichments, done), dict.fromkeys(LABELS.enrichments, 0.528)))

    printed = out.export_text()
    assert "…" not in printed
    assert all(f"{name:<25}{day}" in printed for name in LABELS.enrichments for day in LABELS.partitions)
    assert "258/258 in 258" in printed
    assert "57,575" in printed


def test_the_demo_uses_nothing_of_the_users(shown: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    _, folder = shown
    assert sorted(path.name for path in folder.iterdir()) == ["demo"]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Demo, list[str]]]:
    """A demo whose batches never end, and what it says."""
    folder, said = tmp_path_factory.mktemp("running"), list[str]()
    with Demo(Options(folder, free_port(), "scripted"), said.append) as demo:
        controls = Emulator(folder / "emulator")
        controls.url = f"http://{HOST}:{demo.emulator_port}"
        controls.hold(True)
        yield demo, said


def test_a_failed_run_is_named_with_its_log_and_ends_the_demo(running: tuple[Demo, list[str]]) -> None:
    demo, said = running
    obstacle = demo.options.folder / "store" / "documents"
    obstacle.write_text("a file where a folder belongs")
    runs = demo.launch()

    with pytest.raises(LLMAssetsError, match="nobody repeats run") as raised:
        list(demo.watch(runs))

    obstacle.unlink()
    (failed, *_) = [line for line in said if " failed; look for it in " in line]
    run = failed.split()[1]
    assert run in runs
    assert run in Path(failed.rpartition(" ")[2]).read_text()
    assert str(raised.value).partition(",")[0].split()[-1] in runs


@pytest.mark.parametrize(
    ("patience", "expected"),
    [
        pytest.param(
            Patience(0.5, 3, 600), r"nothing has moved for \d+ s \(runs: .*\); the logs may say why: ", id="still"
        ),
        pytest.param(Patience(600, 600, 2), r"not everything was published within \d+ s; ", id="in all"),
    ],
)
def test_a_demo_does_not_wait_for_ever(running: tuple[Demo, list[str]], patience: Patience, expected: str) -> None:
    demo, said = running
    said.clear()

    with pytest.raises(LLMAssetsError, match=expected):
        list(demo.watch([], patience))

    assert any("nothing has moved" in line for line in said) == (patience.still_seconds_said < 1)


# Stands for a demo: it takes the folder, starts a service with a child, says so, and stays.
HOLDER = """
import os, sys, time
from io import StringIO
from pathlib import Path
from llm_assets.demo.folder import Folder
from llm_assets.demo.services import Service

path = Path(sys.argv[1])
folder = Folder(path)
folder.take(print)
service = Service.start("stubborn", [sys.executable, *sys.argv[2:]], os.environ, path / "log")
folder.record(service)
while (path / "log").read_text().count("ready") < 2: service.check()
print(service.process.pid, flush=True)
time.sleep(600)
"""


@dataclass(frozen=True, slots=True)
class Holder:
    process: subprocess.Popen[str]
    group: int
    folder: Path

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def holder(tmp_path: Path, stubborn_script: Path) -> Iterator[Holder]:
    """A demo's folder in use by another process, which has a service of two processes."""
    folder = tmp_path / "demo"
    command = [sys.executable, "-c", HOLDER, str(folder), str(stubborn_script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        group = int(process.stdout.readline())
        try:
            yield Holder(process, group, folder)
        finally:
            process.kill()
            end_group(group, signal.SIGKILL, patience_s=10)


def test_a_demo_in_use_is_left_alone(holder: Holder) -> None:
    with pytest.raises(
        LLMAssetsError, match=f"a demo runs in {holder.folder} already, as process {holder.process.pid}"
    ):
        Folder(holder.folder).take(print)

    assert len(processes_of(holder.group)) == 3  # the guard, the service and its child


def test_what_a_killed_demo_started_ends_with_it(holder: Holder) -> None:
    holder.kill()

    assert end_group(holder.group, 0, patience_s=10)


def test_what_outlives_a_killed_demo_and_its_guards_watch_is_ended_by_the_next(holder: Holder) -> None:
    os.kill(holder.group, signal.SIGSTOP)
    guard, deadline = psutil.Process(holder.group), time.monotonic() + 10
    while guard.status() != psutil.STATUS_STOPPED:  # before, it may still see the holder end
        assert time.monotonic() < deadline
        time.sleep(0.01)  # a process that stops tells only its parent
    holder.kill()
    assert len(processes_of(holder.group)) == 3
    said: list[str] = []
    folder = Folder(holder.folder)

    folder.take(said.append)

    assert processes_of(holder.group) == []
    assert said == [f"Ended stubborn (process {holder.group}), which a killed demo had left behind."]
    folder.release()
    assert (holder.folder / "lock").read_bytes() == b""


def test_what_may_be_of_a_killed_demo_and_may_not_is_named_and_nothing_is_started(holder: Holder) -> None:
    os.kill(holder.group, signal.SIGKILL)
    holder.kill()
    deadline = time.monotonic() + 10
    while not process_name(holder.group).endswith("/"):  # until somebody waited for it, it is still known by its start
        assert time.monotonic() < deadline
        time.sleep(0.01)  # the system tells only its parent

    for _ in range(2):  # the refusal forgets nothing
        with pytest.raises(LLMAssetsError, match=f": {holder.group}. Look .*`kill -9 -- -{holder.group}`"):
            Folder(holder.folder).take(print)

    assert len(processes_of(holder.group)) == 2


@pytest.mark.parametrize(
    "leader",
    [
        pytest.param("{host}/{pid}/1", id="its process id was given again"),
        pytest.param("elsewhere/{pid}/{started}", id="of another container"),
    ],
)
def test_what_is_not_of_the_killed_demo_is_left_alone(holder: Holder, tmp_path: Path, leader: str) -> None:
    host, pid, started = process_name(holder.group).rsplit("/", 2)
    process = leader.format(host=host, pid=pid, started=started)
    (tmp_path / "lock").write_text(json.dumps({"demo": "/1/", "services": {"stubborn": process}}))
    folder = Folder(tmp_path)

    folder.take(pytest.fail)

    assert len(processes_of(holder.group)) == 3
    folder.release()


@pytest.fixture
def stubborn_script(tmp_path: Path) -> Path:
    """A process that ignores SIGTERM, with a child that does so, too."""
    script = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if len(sys.argv) < 2: subprocess.Popen([sys.executable, __file__, 'child'])\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    file = tmp_path / "stubborn.py"
    file.write_text(script)
    return file


@pytest.fixture
def stubborn(stubborn_script: Path, tmp_path: Path) -> Iterator[Service]:
    service = Service.start("stubborn", [sys.executable, str(stubborn_script)], os.environ, tmp_path / "log")
    yield service
    service.stop()


def test_a_service_is_ended_with_its_children(stubborn: Service) -> None:
    while stubborn.log.read_text().count("ready") < 2:
        stubborn.check()

    stubborn.stop(patience_s=0.5)

    assert processes_of(stubborn.process.pid) == []
    assert stubborn.process.returncode == -signal.SIGKILL


def test_a_taken_port_is_replaced() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert loopback.free_port(port) not in (0, port)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param([("positive", "positive"), ("negative", "positive")], 0.5, id="half"),
        pytest.param([("positive", "positive"), (None, "positive"), ("", "neutral")], 1.0, id="unlabelled left out"),
        pytest.param([("positive", None)], 0.0, id="no answer is no agreement"),
        pytest.param([(None, "positive")], None, id="nothing labelled"),
        pytest.param([], None, id="nothing"),
    ],
)
def test_accuracy(rows: list[tuple[str | None, str | None]], expected: float | None) -> None:
    answers = pl.DataFrame(rows, schema={"label": pl.String, "answer": pl.String}, orient="row")
    assert accuracy(answers) == expected


@pytest.mark.parametrize(
    ("bills", "expected"),
    [
        pytest.param(["k1-a", "k1-b"], (0, 0), id="each once"),
        pytest.param(["k1-a", "k1-b", "k2-a"], (1, 0), id="asked again after an answer of no use"),
        pytest.param(["k1-b", "k2-b"], (0, 1), id="an answer that was there"),
        pytest.param(["k1-a", "k9-a"], (0, 1), id="sent by nobody here"),
        pytest.param(["k1-b", "k3-b"], (0, 0), id="the same on another day"),
    ],
)
def test_extra_bills(bills: list[str], expected: tuple[int, int]) -> None:
    collected = pl.DataFrame(
        [
            ("k1-a", "e", "day 1", "a", "invalid_answer"),
            ("k2-a", "e", "day 1", "a", None),
            ("k1-b", "e", "day 1", "b", None),
            ("k2-b", "e", "day 1", "b", None),
            ("k3-b", "e", "day 2", "b", None),
        ],
        schema=["custom_id", "enrichment", "partition", "fingerprint", "reason"],
        orient="row",
    )
    rows = [{"custom_id": custom_id, "billed": True} for custom_id in bills] + [{"custom_id": "k1-a", "billed": False}]
    assert extra_bills(pl.DataFrame(rows), collected) == expected


def test_examples_are_a_few_of_each_label_with_all_answers() -> None:
    rows: list[dict[str, Any]] = [
        {"document_id": f"d{number}", "text": f"text {number}", "label": ("negative", "positive", None)[number % 3]}
        for number in range(30)
    ]
    documents = pl.DataFrame(rows, schema={"document_id": pl.String, "text": pl.String, "label": pl.String})
    answers = pl.DataFrame({"document_id": ["d0"], "answer": ["negative"]})

    found = examples({"a": answers, "b": answers.clear()}, documents)

    assert [example["document_id"] for example in found] == ["d0", "d3", "d6", "d1", "d4", "d7"]
    assert found[0] == {"document_id": "d0", "text": "text 0", "label": "negative", "a": "negative", "b": None}
