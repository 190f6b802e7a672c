"""The benchmark runs and says what it found; how fast anything is, no test asserts."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bench.comparison import Comparison
from bench.peer_run import PEERS, run_peers
from bench.phase import Measured, PhaseFailed, run_phase
from bench.report import against_peers, compared, with_headlines
from bench.scale import Clock, live_through, measure
from bench.tick import measure_ticks

ROOT = Path(__file__).parents[1]
PROMISED = {
    "documents",
    "docs_per_cpu_s",
    "wall_ratio_script",
    "peak_mib",
    "collect_ratio_sdk",
    "noop_docs_per_s",
    "submit_limit_share",
    "server_cpu_s",
}


def test_it_measures_both_over_both_protocols_and_leaves_nothing_but_the_numbers(tmp_path: Path) -> None:
    output, only = tmp_path / "results" / "numbers.json", ("--only", "script", "--only", "interruption")
    done = subprocess.run(
        [sys.executable, "-m", "bench", *only, "--runs", "1", "--output", str(output)],
        cwd=ROOT,
        env={**os.environ, "BENCH_DOCUMENTS": "500", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(output.read_text())
    assert found.keys() >= PROMISED
    assert (found["documents"], found["runs"]) == (500, 1)
    assert (found["noop_calls"], found["changed_requests"]) == (0, 1)
    assert (found["killed_lost"], found["killed_billed_twice"]) == (0, 0)
    none = ("noop_calls", "killed_lost", "killed_billed_twice")
    assert all(value > 0 for name, value in found.items() if not name.startswith(none))
    assert "500 documents" in done.stdout
    assert list(output.parent.iterdir()) == [output]


def comparison(runs: int, measured: Callable[[str, str], Measured]) -> Comparison:
    """What both contenders took, the same in every run."""
    made = Comparison(documents=100, text_bytes=1, runs=runs)
    for provider in ("anthropic", "openai"):
        for contender, phases in (
            ("platform_run", "submit collect again changed"),
            ("plain_script", "submit collect read"),
        ):
            made.server_cpu_s[provider, contender] = made.limits_s[provider] = [1.0]
            for phase in phases.split():
                taken = measured(provider, contender)
                taken = replace(taken, documents=1) if phase == "changed" else taken
                for _ in range(runs):
                    made.add(provider, contender, phase, taken)
    return made


def test_ratios_above_one_favour_the_platform_and_the_worse_protocol_is_the_headline() -> None:
    def measured(provider: str, contender: str) -> Measured:
        slow = {"platform_run": 1.0, "plain_script": 2.0 if provider == "anthropic" else 3.0}[contender]
        return Measured(documents=100, wall_s=slow, cpu_s=slow, peak_mib=100 * slow, cpu_started_s=slow)

    found = with_headlines(compared(comparison(2, measured)))
    assert (found["wall_ratio_script_anthropic"], found["wall_ratio_script_openai"]) == (2, 3)
    assert (found["wall_ratio_script"], found["peak_mib"], found["docs_per_cpu_s"]) == (2, 100, 50)
    assert found["noop_docs_per_s"] == 100


def test_the_medians_of_runs_count() -> None:
    made = Comparison(documents=100, text_bytes=1, runs=3)
    for seconds in (1.0, 9.0, 2.0):
        for phase in ("submit", "collect"):
            made.add("openai", "platform_run", phase, Measured(100, seconds, seconds / 2, seconds * 10))
    assert made.wall_s("openai", "platform_run") == 4
    assert made.cpu_s("openai", "platform_run", "submit") == 1
    assert made.peak_mib("openai", "platform_run") == 20


def test_a_phase_that_lost_documents_is_no_measurement() -> None:
    made = Comparison(documents=100, text_bytes=1, runs=1)
    with pytest.raises(RuntimeError, match="plain_script collect openai: 99 of 100 documents"):
        made.add("openai", "plain_script", "collect", Measured(99, 1, 1, 1))


def test_a_phase_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(PhaseFailed, match="documents/texts/2026-11-01"):
        run_phase("platform_run", "submit", "openai", tmp_path, "http://127.0.0.1:9")


def test_the_slower_protocol_is_held_against_the_fastest_peer() -> None:
    found = {"docs_per_s_anthropic": 900.0, "docs_per_s_openai": 600.0}
    of_peers = {"peer_a_over_openai_docs_per_s": 20.0, "peer_docs_per_s": 30.0}
    assert against_peers(found) == {}
    assert with_headlines(against_peers(found | of_peers))["wall_ratio_peer"] == 20


def test_a_tick_is_measured_with_batches_in_flight_until_their_ends_are_known(tmp_path: Path) -> None:
    found = with_headlines(measure_ticks(tmp_path, lambda _: None, scale=0.02))
    assert found["tick_s"] > 0
    assert found["tick_calls"] >= 1
    assert found["tick_unlearned"] == 0
    assert list(tmp_path.iterdir()) == []


def test_tools_that_cannot_be_installed_are_left_out_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    found, missing = run_peers(1, tmp_path, lambda _: None)
    assert found == {}
    assert len(missing) == len({peer.environment for peer in PEERS})
    assert all("left out: it could not be installed" in reason for reason in missing)


def test_a_small_history_is_lived_through_and_asked(tmp_path: Path) -> None:
    found = {}
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    for platform in live_through(url, Clock(), days=3, shards_a_day=20):
        found = measure(platform)
        shards, costs = platform.ledger.active_shards(), platform.ledger.money.cost_by_partition()
    assert len(shards) == 20
    assert len(costs) == 20  # ten enrichments, two days that are home
    assert all(seconds > 0 for seconds in found.values())
