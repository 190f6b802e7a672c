"""The chaos runs, is replayable and counts; that nothing is lost or paid twice is for the long run to show."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chaos.referee import Billing, Verdict, judge_content, mood_of
from chaos.schedule import draw
from llm_assets.emulator.faults import MENU, parse_rules

ROOT = Path(__file__).parents[1]
PROMISED = ("documents_lost", "requests_billed_twice", "requests_in_two_batches_at_once")


def test_it_plays_three_schedules_and_leaves_nothing_but_the_numbers(tmp_path: Path) -> None:
    output = tmp_path / "results" / "chaos.json"
    done = subprocess.run(
        [sys.executable, "-m", "chaos", "--schedules", "3", "--seed", "1", "--output", str(output)],
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(output.read_text())
    assert all(isinstance(value, int | float) for value in found.values())
    assert (found["schedules"], found["seed"]) == (3, 1)
    assert found["documents"] == found["documents_enriched"] + found["documents_failed"]
    assert {name: found[name] for name in PROMISED} == dict.fromkeys(PROMISED, 0)
    assert min(found[name] for name in ("faults_injected", "kills", "double_runs", "partitions", "documents")) > 0
    assert list(output.parent.iterdir()) == [output]


def test_a_schedule_is_drawn_from_its_own_seed() -> None:
    assert draw(1, 17) == draw(1, 17)
    assert draw(1, 17) != draw(2, 17)


def test_the_emulator_understands_every_rule_and_two_hundred_schedules_know_the_whole_menu() -> None:
    rules = [rule for number in range(200) for act in draw(1, number).acts for rule in act.rules]
    assert {rule.fault.name for rule in parse_rules(rules)} == set(MENU)


def billing(batch: int, **changes: Any) -> Billing:
    """A content that was accepted in the batch of this number, one an hour, and ended half an hour later."""
    fields: dict[str, Any] = {"created_at": f"{batch:02}:00", "ended_at": f"{batch:02}:30", "billed": True}
    return Billing(**{"batch": batch, "lost": False, "useful": True} | fields | changes)


CASES = [
    pytest.param([billing(1)], {}, id="once"),
    pytest.param([billing(1, billed=False), billing(2)], {}, id="the-first-was-not-billed"),
    pytest.param([billing(1), billing(2)], {"requests_billed_twice": 1}, id="twice"),
    pytest.param([billing(1), billing(2), billing(3)], {"requests_billed_twice": 2}, id="three-times"),
    pytest.param(
        [billing(1, useful=False), billing(2)],
        {"requests_paid_again_after_useless_answer": 1},
        id="the-first-was-of-no-use",
    ),
    pytest.param(
        [billing(1, lost=True), billing(2)],
        {"requests_lost_by_provider_and_paid_again": 1},
        id="the-provider-lost-the-first",
    ),
    pytest.param(
        [billing(1, lost=True, ended_at="02:01"), billing(2)],
        {"requests_billed_twice": 1, "requests_in_two_batches_at_once": 1},
        id="nobody-could-know-that-the-first-is-lost",
    ),
    pytest.param(
        [billing(1, billed=False, ended_at="9999"), billing(2)],
        {"requests_in_two_batches_at_once": 1},
        id="two-at-once-and-one-bill",
    ),
]


@pytest.mark.parametrize(("billings", "expected"), CASES)
def test_every_bill_but_the_last_needs_an_excuse(billings: list[Billing], expected: dict[str, int]) -> None:
    verdict = Verdict()
    judge_content("content", billings, verdict)
    again = ("requests_paid_again_after_useless_answer", "requests_lost_by_provider_and_paid_again")
    found = verdict.faulty | {name: count for name in again if (count := getattr(verdict, name))}
    assert found == expected


def test_what_a_document_says_decides_its_answer() -> None:
    assert [mood_of(f"report is {word}") for word in ("good", "bad", "plain")] == ["positive", "negative", "neutral"]
