"""The process, its own endpoints, and how it refuses."""

from pathlib import Path
from typing import Any

import httpx2
import pytest

from llm_assets.emulator.faults import FaultFileError, parse_rules, read_rules
from llm_assets.emulator.models import ModelUnavailable, load_model
from llm_assets.emulator.server import NotLoopback, check_loopback
from llm_assets_tests.emulator_process import Emulator, EmulatorGone


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_loopback_is_served(host: str) -> None:
    check_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.1", "example.com", "::", ""])
def test_nothing_else_is(host: str) -> None:
    with pytest.raises(NotLoopback, match="refusing to listen"):
        check_loopback(host)


@pytest.mark.parametrize(
    ("options", "says"),
    [({"model": "nobody"}, "no model is called 'nobody'"), ({"port": 70_000}, "Invalid value for '--port'")],
    ids=["model", "port"],
)
def test_what_is_wrong_is_said_at_the_start(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(EmulatorGone, match=says):
        Emulator(tmp_path, **options).start()


def test_a_port_that_is_taken(running: Emulator, tmp_path: Path) -> None:
    port = int(running.url.rpartition(":")[2])
    with pytest.raises(EmulatorGone, match="cannot listen on"):
        Emulator(tmp_path, port=port).start()


def test_a_bad_fault_file(tmp_path: Path) -> None:
    rules = tmp_path / "faults.yaml"
    rules.write_text("- fault: sparkle\n")
    with pytest.raises(EmulatorGone, match="no fault is called 'sparkle'"):
        Emulator(tmp_path, faults_file=rules).start()
    rules.write_text("{")
    with pytest.raises(FaultFileError, match="cannot be read as YAML"):
        read_rules(rules)


def test_unknown_models() -> None:
    with pytest.raises(ModelUnavailable, match="scripted, smollm2"):
        load_model("nobody")


@pytest.mark.parametrize(
    ("found", "says"),
    [
        pytest.param({"rules": []}, "expected a list of faults", id="other-key"),
        pytest.param([7], "expected a mapping", id="number"),
        pytest.param([{"rate": 1}], "the key `fault`", id="no-name"),
        pytest.param(["sparkle"], "no fault is called 'sparkle'", id="name"),
        pytest.param([{"fault": "refusal", "color": 1}], "found the key 'color'", id="key"),
        pytest.param([{"fault": "refusal", "times": "2"}], 'times is "2"; expected int', id="type"),
        pytest.param([{"fault": "refusal", "rate": 2}], "expected 0 to 1", id="rate"),
        pytest.param([{"fault": "refusal", "rate": 1, "attempts": "often"}], "'always'", id="attempts"),
        pytest.param([{"fault": "status_zero", "provider": "anthropic"}], "expected openai", id="provider"),
        pytest.param([{"fault": "refusal", "route": "create"}], "only faults of the transport", id="route"),
        pytest.param([{"fault": "slow", "route": "sparkle"}], "route is 'sparkle'; expected", id="route-name"),
        pytest.param([{"fault": "slow", "custom_id": "r1"}], "has no custom_id", id="custom_id"),
    ],
)
def test_bad_faults_say_what_was_found_and_expected(found: Any, says: str) -> None:
    with pytest.raises(FaultFileError) as caught:
        parse_rules(found)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/_emulator/faults", ["sparkle"]),
        ("POST", "/_emulator/clock", {"advance": 1}),
        ("POST", "/_emulator/clock", {"advance_s": "1"}),
        ("POST", "/_emulator/hold", []),
        ("PUT", "/_emulator/settings", {"limits": {"sparkle": 1}}),
        ("PUT", "/_emulator/settings", {"limits": {"openai_rows": -1}}),
        ("GET", "/_emulator/accounting?detail=sparkle", None),
        ("GET", "/_emulator/accounting?detail=contents&billed_min=x", None),
    ],
)
def test_nonsense_is_refused(emulator: Emulator, method: str, path: str, body: Any) -> None:
    with pytest.raises(ValueError, match="HTTP 400"):
        emulator.call(method, path, body)


@pytest.mark.parametrize("path", ["/", "/_emulator"])
def test_it_says_what_it_is(emulator: Emulator, path: str) -> None:
    reply = httpx2.get(emulator.url + path)
    assert reply.status_code == 200
    assert "emulator" in reply.text
    assert reply.headers["x-emulator"] == "llm_assets/scripted"
