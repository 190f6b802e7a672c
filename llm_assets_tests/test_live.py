"""The live check, against emulators: one that is right, and one that is not; what it prints and never prints."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from live.conversation import Conversation, NoConversation, shard_of
from live.facts import Difference, Facts, differences, shape_facts
from llm_assets.providers import Credentials
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.providers.http_server import Reply, serving

KEY = "sk-secret-of-this-test"
VENDORS = ("anthropic", "openai")


def credentials(emulator: Emulator, vendor: str) -> Credentials:
    return Credentials(KEY, emulator.url if vendor == "anthropic" else emulator.openai_url)


def talk(emulator: Emulator, vendor: str) -> Facts:
    return Conversation(vendor, credentials(emulator, vendor), pause=lambda _: None).hold()


@pytest.fixture(scope="module")
def known(running: Emulator) -> dict[str, Facts]:
    """What the emulator says, by vendor."""
    running.reset()
    return {vendor: talk(running, vendor) for vendor in VENDORS}


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_conversation_learns_the_protocol_and_no_text(known: dict[str, Facts], vendor: str) -> None:
    facts = known[vendor]
    assert facts["create: status"] == "200"
    assert facts["results: lines"] == "3"
    assert facts["results: each row once"] == "True"
    assert facts["unknown batch: status"] == "404"
    told = str(facts)
    assert "kettle" not in told
    assert KEY not in told
    assert "emulator" not in told


def test_both_kinds_of_rows_are_seen_as_each_vendor_writes_them(known: dict[str, Facts]) -> None:
    anthropic, openai = known["anthropic"], known["openai"]
    assert anthropic["an answered row: .result.type"] == "'succeeded'"
    assert anthropic["a refused row: .result.error.error.type"] == "'invalid_request_error'"
    assert anthropic["counts: at the end"] == (
        '{"canceled": 0, "errored": 1, "expired": 0, "processing": 0, "succeeded": 2}'
    )
    assert anthropic["delete: status"] == "200"
    assert openai["an answered row: .response.status_code"] == "200"
    assert openai["a refused row: .response.status_code"] == "400"
    assert openai["counts: at the end"] == '{"completed": 2, "failed": 1, "total": 3}'
    assert openai["delete a file: status"] == "200"


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_same_server_differs_in_nothing(emulator: Emulator, known: dict[str, Facts], vendor: str) -> None:
    assert differences(talk(emulator, vendor), known[vendor]) == []


@pytest.mark.parametrize(
    ("vendor", "fault", "point"),
    [
        ("openai", "missing_row", "results: lines"),
        ("openai", "counts_disagree", "counts: at the end"),
        ("anthropic", "overloaded", "an answered row: .result.type"),
        ("anthropic", "duplicate_row", "results: each row once"),
    ],
)
def test_what_another_server_says_differently_is_a_point(
    emulator: Emulator, known: dict[str, Facts], vendor: str, fault: str, point: str
) -> None:
    emulator.faults([{"fault": fault}])
    assert point in [each.point for each in differences(talk(emulator, vendor), known[vendor])]


def test_points_that_only_one_has_are_told() -> None:
    found = shape_facts("create", {"id": "batch_abc123", "new": None, "created_at": 1, "tags": []})
    expected = shape_facts("create", {"id": "batch_xyz789", "created_at": "2026-11-01T00:00:00Z"})
    assert found["create: .id"] == "id batch_…"
    assert differences(found, expected) == [
        Difference("create: .created_at", "int", "time"),
        Difference("create: .new", "null", ""),
        Difference("create: .tags", "[]", ""),
    ]


@pytest.mark.parametrize("vendor", VENDORS)
def test_three_rows_cost_less_than_a_cent(vendor: str) -> None:
    """Every byte a token, at the dearest rate that either model has in real time."""
    assert len(shard_of(vendor)) / 1e6 * 0.50 + 3 * 64 / 1e6 * 0.50 < 0.01


def test_what_only_one_has_at_all_is_one_point() -> None:
    row = shape_facts("a refused row", {"error": {"code": "x", "message": "no"}})
    assert differences({}, row) == [Difference("a refused row", "", "all of it")]
    assert differences(row, {}) == [Difference("a refused row", "all of it", "")]


# -- as a command


def live(**environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ANTHROPIC_", "OPENAI_"))}
    command = [sys.executable, "-m", "live", "--pause-seconds", "0.1"]
    root = Path(__file__).parents[1]
    return subprocess.run(command, cwd=root, env=clean | environment, capture_output=True, text=True, check=False)


def test_without_a_key_it_says_so_and_sends_nothing() -> None:
    done = live()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("No key is set (ANTHROPIC_API_KEY, OPENAI_API_KEY): nothing was sent.")


def test_the_vendor_whose_key_is_set_is_asked_and_the_key_is_not_told(emulator: Emulator) -> None:
    emulator.faults([{"fault": "counts_disagree"}])
    done = live(OPENAI_API_KEY=KEY, OPENAI_BASE_URL=emulator.openai_url)
    assert done.returncode == 0, done.stderr
    assert "counts: at the end" in done.stdout
    assert "points are as the emulator has them" in done.stdout
    assert "anthropic" not in done.stdout
    assert KEY not in done.stdout + done.stderr


@pytest.fixture
def nothing() -> Iterator[str]:
    """A server that knows no batches, and quotes the key that it was shown."""
    with serving() as server:
        server.will(Reply(401, f'{{"error":{{"type":"x","message":"bad key {KEY}"}}}}'.encode()))
        yield server.url


def test_a_vendor_that_takes_no_batch_is_told_by_its_status(nothing: str) -> None:
    with pytest.raises(NoConversation, match="anthropic took no batch: HTTP 401"):
        Conversation("anthropic", Credentials(KEY, nothing), pause=lambda _: None).hold()
    done = live(ANTHROPIC_API_KEY=KEY, ANTHROPIC_BASE_URL=nothing)
    assert done.returncode == 1
    assert "anthropic took no batch: HTTP 401" in done.stdout
    assert KEY not in done.stdout + done.stderr


def test_a_vendor_that_cannot_be_reached_is_told_without_a_traceback() -> None:
    with pytest.raises(NoConversation, match=r"openai at 127.0.0.1 cannot be reached \(ConnectError\)"):
        Conversation("openai", Credentials(KEY, "http://127.0.0.1:9/v1"), pause=lambda _: None).hold()
