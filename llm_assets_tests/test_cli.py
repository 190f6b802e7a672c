"""The commands as processes, against the emulator: what they print, what they leave behind, how they end."""

import csv
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import orjson
import polars as pl
import pytest

from llm_assets.cli.decisions import lines_of
from llm_assets.demo import HOST, ROOT, Service, get
from llm_assets_tests.ports import free_port

LLM_ASSETS = Path(sys.executable).parent / "llm-assets"
PARTITION = "2026-11-01"
SAMPLES = ROOT / "llm_assets" / "defs" / "reviews" / "data" / f"{PARTITION}.csv"
ACCOUNTING = "/_emulator/accounting"
FAULTS: list[dict[str, Any]] = [
    {"fault": "overloaded", "match": "Boils in two minutes", "times": 1},
    {"fault": "refusal", "match": "Forty minutes for two sandwiches"},
]


@dataclass(frozen=True, slots=True)
class Shell:
    """A folder to work in and an environment in which both providers are an emulator."""

    folder: Path
    environment: Mapping[str, str]

    def __call__(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [LLM_ASSETS, *arguments],
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        """What a command prints with --json; it must have ended well."""
        done = self(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def shell(folder: Path, port: int) -> Shell:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("ANTHROPIC_", "OPENAI_", "DAGSTER_"))
    }
    environment = {
        "ANTHROPIC_API_KEY": "k",
        "ANTHROPIC_BASE_URL": f"http://{HOST}:{port}",
        "OPENAI_API_KEY": "k",
        "OPENAI_BASE_URL": f"http://{HOST}:{port}/v1",
        "LLM_ASSETS_ROOT": str(folder / "store"),
        "COLUMNS": "100",
    }
    return Shell(folder, clean | environment)


def serve(folder: Path, faults: list[dict[str, Any]]) -> tuple[Service, int]:
    """`llm-assets emulator` with these faults, once it answers."""
    port = free_port()
    menu = folder / "faults.yaml"
    menu.write_text(json.dumps(faults))  # JSON is YAML
    command = [str(LLM_ASSETS), "emulator", "--port", str(port), "--faults", str(menu)]
    service = Service.start("emulator", [*command, "--state-dir", str(folder / "emulator")], os.environ, folder / "log")
    try:
        service.wait_for(port, ACCOUNTING)
    except BaseException:
        service.stop()
        raise
    return service, port


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an emulator that everything in this module shares."""
    service, port = serve(tmp_path_factory.mktemp("emulator"), FAULTS)
    yield port
    service.stop()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, emulator: int) -> Shell:
    """A folder in which one partition was run, on the instance of its DAGSTER_HOME."""
    found = shell(tmp_path_factory.mktemp("run"), emulator)
    home = found.folder / "home"
    home.mkdir()
    shutil.copy(ROOT / "dagster.yaml", home)
    return Shell(found.folder, {**found.environment, "DAGSTER_HOME": str(home)})


@pytest.fixture(scope="module")
def ran(here: Shell) -> subprocess.CompletedProcess[str]:
    """`run` of one sample partition through Anthropic's protocol."""
    arguments = ["review_sentiment", "--partition", PARTITION, "--poll-seconds", "0.2", "--json"]
    return here("run", *arguments)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """The sample documents' texts, those that are long enough not to occur by chance."""
    with SAMPLES.open(encoding="utf-8", newline="") as file:
        return [row["review"] for row in csv.DictReader(file) if len(row["review"]) > 20]


def test_run_does_a_partition_to_the_end(ran: subprocess.CompletedProcess[str]) -> None:
    assert ran.returncode == 0, ran.stderr
    done = json.loads(ran.stdout)

    assert (done["enrichment"], done["partition"]) == ("review_sentiment", PARTITION)
    assert done["documents"] == 43 == done["enriched"] + done["failed"]
    assert done["failures"] == {"empty_document": 1, "refusal": 1}
    assert (done["waves"], done["sent"]) == (2, 42 + 1)  # one was asked again
    assert done["input_tokens"] > 0 < done["output_tokens"]
    assert done["seconds"] > 0
    enriched, failed = (pl.read_parquet(path) for path in done["tables"])
    assert (enriched.height, failed.height) == (done["enriched"], done["failed"])


def test_run_prints_no_document_and_no_log(ran: subprocess.CompletedProcess[str], texts: list[str]) -> None:
    assert ran.stderr == ""
    assert not [text for text in texts if text in ran.stdout]


def test_dagster_knows_of_the_run(here: Shell, ran: subprocess.CompletedProcess[str]) -> None:
    assert ran.returncode == 0
    with dg.DagsterInstance.local_temp(str(here.folder / "home")) as instance:
        for key in (["documents", "reviews"], ["review_sentiment", "batches"], ["review_sentiment", "enriched"]):
            assert PARTITION in instance.get_materialized_partitions(dg.AssetKey(key))


def test_run_again_sends_nothing_and_says_the_same(
    here: Shell, ran: subprocess.CompletedProcess[str], emulator: int
) -> None:
    before = orjson.loads(get(emulator, ACCOUNTING))

    again = here("run", "review_sentiment", "--partition", PARTITION)

    assert again.returncode == 0, again.stderr
    assert orjson.loads(get(emulator, ACCOUNTING)) == before
    shown = again.stdout
    assert all(word in shown for word in ("documents", "43", "waves", "tokens in", "refusal", "empty_document"))
    for path in json.loads(ran.stdout)["tables"]:
        assert path in shown.splitlines()
    assert "requests sent now 0" in " ".join(again.stdout.split())


def test_a_terminal_gets_a_progress_bar(here: Shell, ran: subprocess.CompletedProcess[str]) -> None:
    assert ran.returncode == 0
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (30, 100))
    command = [str(LLM_ASSETS), "run", "review_sentiment", "--partition", PARTITION]
    with subprocess.Popen(command, env={**here.environment, "TERM": "xterm"}, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        screen = read_to_end(ours)

    assert process.returncode == 0, screen
    assert "42/42 requests wave 2" in screen
    assert "Traceback" not in screen


def read_to_end(terminal: int) -> str:
    """All that was written to a terminal, without colours and cursor movements."""
    found = bytearray()
    with os.fdopen(terminal, "rb", buffering=0) as stream:
        while True:
            try:
                found += stream.read(65536)
            except OSError:  # how a terminal says that nobody writes to it any more
                return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", found.decode(errors="replace"))


def test_status_shows_what_the_ledger_says(here: Shell, ran: subprocess.CompletedProcess[str]) -> None:
    assert ran.returncode == 0
    found = here.json("status")

    (partition,) = found["partitions"]
    assert partition["published_at"] is not None
    assert {name: partition[name] for name in ("enrichment", "partition", "documents", "wave", "step")} == {
        "enrichment": "review_sentiment",
        "partition": PARTITION,
        "documents": 43,
        "wave": 2,
        "step": "nothing",
    }
    assert found["totals"]["documents"] == 43
    assert found["totals"]["published"] == 1
    assert here.json("status", "review_sentiment")["partitions"] == found["partitions"]


def test_the_status_table_fits_a_terminal(here: Shell, ran: subprocess.CompletedProcess[str]) -> None:
    assert ran.returncode == 0
    lines = here("status").stdout.splitlines()

    assert any("review_sentiment" in line and PARTITION in line and "43" in line for line in lines)
    assert max(map(len, lines)) <= 100


def test_status_of_nothing_makes_nothing(tmp_path: Path, emulator: int) -> None:
    empty = shell(tmp_path, emulator)

    assert "Nothing was sent yet" in empty("status").stderr
    assert empty.json("status")["totals"]["partitions"] == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        pytest.param(
            ["reviw_sentiment", "--partition", PARTITION],
            {},
            "no enrichment is called 'reviw_sentiment'; did you mean 'review_sentiment'?",
            id="unknown-name",
        ),
        pytest.param(
            ["review_sentiment", "--partition", "2026-10-31"],
            {},
            "review_sentiment has no partition '2026-10-31'; there are 2026-11-01 to ",
            id="unknown-partition",
        ),
        pytest.param(
            ["review_sentiment_openai", "--partition", PARTITION],
            {"OPENAI_API_KEY": ""},
            "no API key for openai: set the environment variable OPENAI_API_KEY",
            id="no-key",
        ),
    ],
)
def test_what_cannot_be_run(
    arguments: list[str], environment: dict[str, str], says: str, tmp_path: Path, emulator: int
) -> None:
    done = shell(tmp_path, emulator)("run", *arguments, "--json", **environment)

    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert says in line


@pytest.mark.parametrize("arguments", [["run"], ["run", "review_sentiment"], ["emulator", "--faults", "nowhere.yaml"]])
def test_what_is_not_a_command_line(arguments: list[str], tmp_path: Path, emulator: int) -> None:
    done = shell(tmp_path, emulator)(*arguments)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_refused_account_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    service, port = serve(tmp_path, [{"fault": "http_401"}])
    try:
        refused = shell(tmp_path, port)
        done = refused("run", "review_sentiment_openai", "--partition", PARTITION, "--poll-seconds", "0.2")
        assert done.returncode == 1, done.stderr
        (line,) = done.stderr.splitlines()
        assert "Nothing more is sent until somebody acts" in line
        (partition,) = refused.json("status")["partitions"]
        assert (partition["step"], partition["published_at"]) == ("held", None)
        assert partition["held"] in " ".join(refused("status").stdout.split())
    finally:
        service.stop()


def test_a_preview_asks_a_few_and_says_what_all_would_cost(here: Shell, emulator: int) -> None:
    before = orjson.loads(get(emulator, ACCOUNTING))

    found = here.json("preview", "review_sentiment_openai", "--partition", "2026-11-02", "-n", "3")

    assert orjson.loads(get(emulator, ACCOUNTING))["batches"] == before["batches"]
    assert [set(answer["answer"]) for answer in found["answers"]] == [{"sentiment"}] * 3
    assert all(answer["standard_usd"] > 0 for answer in found["answers"])
    ahead = found["outlook"]
    assert ahead["documents"] == ahead["forecast"]["requests"] == 43
    assert 0 < ahead["forecast"]["usd"] < ahead["forecast"]["standard_usd"]
    assert ahead["forecast"]["usd"] < ahead["forecast"]["at_most_usd"]


def test_a_preview_of_all_partitions_asks_nothing(
    here: Shell, ran: subprocess.CompletedProcess[str], emulator: int
) -> None:
    assert ran.returncode == 0
    before = orjson.loads(get(emulator, ACCOUNTING))

    found = here.json("preview", "review_sentiment")["overview"]

    assert orjson.loads(get(emulator, ACCOUNTING)) == before
    files = len(list(SAMPLES.parent.glob("*.csv")))
    assert (found["finished"], found["unplanned"]["partitions"]) == (1, files - 1)
    assert found["unplanned"]["to_send"] > 0
    assert 0 < found["unplanned"]["usd"] < found["unplanned"]["standard_usd"]
    assert found["without_documents"] > 0  # days without a file
    lines = here("preview", "review_sentiment").stdout.splitlines()
    (total,) = [line.split() for line in lines if line.startswith("total")]
    assert total[1] == str(files - 1)
    assert max(map(len, lines)) <= 120


def test_a_preview_with_nothing_left_says_so(here: Shell) -> None:
    shown = here("preview", "summary_judge")  # its documents are made of answers that nobody has asked for
    assert "summary_judge: nothing is left to send" in shown.stdout


def test_a_preview_of_a_corpus_that_nobody_has_read_yet(here: Shell) -> None:
    found = here.json("preview", "letter_topics")["overview"]

    slices = len(list((ROOT / "llm_assets" / "defs" / "letters" / "data").glob("*.jsonl")))
    assert (found["unplanned"]["partitions"], found["without_documents"]) == (slices, 0)
    assert found["evidence"] == 0
    assert found["hours"] is None


def test_status_says_how_far_all_partitions_are(here: Shell, ran: subprocess.CompletedProcess[str]) -> None:
    assert ran.returncode == 0
    progress = here.json("status", "review_sentiment")["progress"]

    assert (progress["requests"], progress["done"], progress["in_flight"], progress["waiting"]) == (42, 42, 0, 0)
    assert progress["about"] is None
    shown = " ".join(here("status", "review_sentiment").stdout.split())
    assert "review_sentiment: 42 of 42 requests done (100%); 0 in flight; 0 waiting; $" in shown
    assert "1 of 1 planned partitions published" in shown


def test_a_preview_leaves_out_what_is_answered(here: Shell, ran: subprocess.CompletedProcess[str]) -> None:
    assert ran.returncode == 0
    done = here("preview", "review_sentiment", "--partition", PARTITION, "-n", "0")

    assert done.returncode == 0, done.stderr
    shown = " ".join(done.stdout.split())
    assert "requests to send 0 answered or waiting already 42" in shown
    assert "cannot be asked 1" in shown
    assert "at most, without retries $0.00" in shown
    assert "judged by 4" in shown  # earlier requests: those that were billed


def test_cost_says_what_was_spent(here: Shell, ran: subprocess.CompletedProcess[str]) -> None:
    (row,) = here.json("cost")["spending"]
    assert (row["enrichment"], row["model_name"]) == ("review_sentiment", "claude-haiku-5-5")
    assert row["cost_usd"] == pytest.approx(json.loads(ran.stdout)["cost_usd"])
    assert here.json("cost", "--until", "2020-01-01")["spending"] == []
    assert here.json("cost", "--until", datetime.now(UTC).date().isoformat())["spending"] == [row]
    assert here.json("cost", "--until", "9999-12-31")["spending"] == [row]
    assert "claude-haiku-5-5" in here("cost").stdout


def test_looking_makes_nothing_and_names_the_root(tmp_path: Path, emulator: int) -> None:
    nowhere = shell(tmp_path / "nowhere", emulator)
    (tmp_path / "nowhere").mkdir()
    for command in ("status", "cost", "reconcile"):
        done = nowhere(command)
        assert done.returncode == 0, done.stderr
        assert f"Nothing was sent yet from {tmp_path / 'nowhere' / 'store'}." in done.stderr
    assert list((tmp_path / "nowhere").iterdir()) == []


def test_a_replaced_key_is_said_and_taken_over(tmp_path: Path) -> None:
    service, port = serve(tmp_path, [{"fault": "stalled", "for_s": 3600}])
    try:
        here = shell(tmp_path, port)
        new = {"ANTHROPIC_API_KEY": "new"}
        with subprocess.Popen(
            [LLM_ASSETS, "run", "review_sentiment", "--partition", PARTITION, "--poll-seconds", "0.2"],
            env=here.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as running:
            while "anthropic.retrieve" not in orjson.loads(get(port, ACCOUNTING))["calls"]:
                assert running.poll() is None  # until it waits for its batch
            running.terminate()
        assert "1 batch in flight at anthropic cannot be asked about" in here("status", **new).stdout
        taken = here("reconcile", "--take-over", **new)
        assert "1 batch in flight at anthropic taken over" in taken.stdout, taken.stderr
        assert "cannot be asked about" not in here("status", **new).stdout
    finally:
        service.stop()


def test_a_day_without_a_file_is_said(here: Shell) -> None:
    done = here("run", "review_sentiment", "--partition", "2026-11-20")
    assert done.returncode == 0, done.stderr
    assert "2026-11-20 has no documents: there is no file at " in done.stderr
    assert "llm_assets/defs/reviews/data/2026-11-20.csv" in done.stderr
    assert "review_sentiment has no documents in 2026-11-20: is the `path` right?" in here("status").stdout


def test_failed_lists_the_documents_and_their_reasons(
    here: Shell, ran: subprocess.CompletedProcess[str], texts: list[str]
) -> None:
    assert ran.returncode == 0
    shown = here("failed", "review_sentiment").stdout
    assert all(word in shown for word in ("empty_document", "refusal", "r-0004", PARTITION))
    assert not [text for text in texts if text in shown]
    assert "… and 1 more" in here("failed", "review_sentiment", "--limit", "1").stdout
    rows = here.json("failed", "review_sentiment", "--partition", PARTITION)["failed"]
    assert sorted(row["reason"] for row in rows) == ["empty_document", "refusal"]
    assert here("failed", "review_sentiment", "--partition", "2020-01-01").stdout.startswith("No document of")


def test_what_failed_for_good_is_said_when_it_is_asked_for_again(
    here: Shell, ran: subprocess.CompletedProcess[str]
) -> None:
    assert ran.returncode == 0
    done = here("run", "review_sentiment", "--partition", PARTITION, "--retry-failed")
    assert done.returncode == 0, done.stderr
    assert "2 failed for good and are not asked again" in done.stderr


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "with a mark"])
def test_ids_in_a_file_are_whole(tmp_path: Path, mark: str) -> None:
    file = tmp_path / "ids.txt"
    file.write_bytes(f"{mark}r-1\r\na\x85b\nc\u2028d\x0ce\n".encode())
    assert lines_of(file) == ["r-1", "a\x85b", "c\u2028d\x0ce", ""]


def test_status_of_what_is_not_there(here: Shell, ran: subprocess.CompletedProcess[str]) -> None:
    assert ran.returncode == 0
    for command in ("status", "failed"):
        done = here(command, "nonesuch")
        assert done.returncode == 2
        assert "nothing was ever sent for 'nonesuch'; there are: review_sentiment" in done.stderr
