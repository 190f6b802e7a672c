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
from bench.phase import Measured, PhaseFailed, run_phase
from bench.report import numbers

ROOT = Path(__file__).parents[1]
NAMES = (
    "docs_per_s",
    "docs_per_cpu_s",
    "docs_per_cpu_started_s",
    "server_cpu_s",
    "peak_mib",
    "noop_docs_per_s",
    "wall_ratio_script",
    "cpu_ratio_script",
    "peak_ratio_script",
    "submit_ratio_sdk",
    "collect_ratio_sdk",
)
EXPECTED = {"documents", "text_bytes", "runs"} | {
    name + suffix for name in NAMES for suffix in ("", "_anthropic", "_openai")
}


def test_it_measures_both_over_both_protocols_and_leaves_nothing_but_the_numbers(tmp_path: Path) -> None:
    output = tmp_path / "results" / "numbers.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--runs", "1", "--output", str(output)],
        cwd=ROOT,
        env={**os.environ, "BENCH_DOCUMENTS": "500", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(output.read_text())
    assert found.keys() == EXPECTED
    assert (found["documents"], found["runs"]) == (500, 1)
    assert all(value > 0 for value in found.values())
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
            made.server_cpu_s[provider, contender] = [1.0]
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

    found = numbers(comparison(2, measured))
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
