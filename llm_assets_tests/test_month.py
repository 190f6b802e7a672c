"""A month of a daily snapshot is paid once, counted by the emulator, and its arithmetic is right."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from genai_prices import Usage, calc_price

from bench.month.accounts import accounts_of
from bench.month.contenders import night
from bench.month.referee import bill
from bench.month.snapshot import Snapshot
from llm_assets.records import Shard

ROOT = Path(__file__).parents[1]
PROMISED = {"referee_difference_usd", "forecast_error", "first_night_error", "project_requests", "script_requests"}
MODEL = "claude-haiku-5-5"


def test_two_days_are_lived_through_and_leave_nothing_but_the_numbers(tmp_path: Path) -> None:
    output = tmp_path / "results" / "month.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench.month", "--days", "2", "--no-peer", "--output", str(output)],
        cwd=ROOT,
        env={**os.environ, "MONTH_DOCUMENTS": "40", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(output.read_text())
    assert found.keys() >= PROMISED
    assert (found["documents"], found["days"]) == (40, 2)
    assert found["referee_difference_usd"] < 1e-9
    assert found["project_copies_usd"] == found["project_again_usd"] == 0
    assert found["script_usd"] > found["script_again_usd"] > found["script_copies_usd"] > 0
    assert 0 < found["project_usd"] < found["script_crash_usd"] < found["script_usd"]
    assert "40 documents" in done.stdout
    assert list(output.parent.iterdir()) == [output]


def test_the_ledger_the_tables_and_the_referee_agree_on_every_kind_of_row(tmp_path: Path) -> None:
    for provider, found in accounts_of(200, 1, tmp_path, lambda _: None).items():
        assert found.bill.requests > 100, provider
        assert found.waves > 1
        assert found.ledger_usd == pytest.approx(float(found.bill.usd), abs=1e-9)
        assert found.tables_usd == pytest.approx(float(found.bill.usd), abs=1e-9)


def test_a_tenth_are_copies_and_a_fiftieth_of_the_contents_changes_a_day() -> None:
    month, same = Snapshot(1000, 1), Snapshot(1000, 1)
    before = dict(month.rows())
    assert list(before.items()) == same.rows()
    assert (len(before), len(set(before.values()))) == (1000, 900)
    month.next_day()
    after = dict(month.rows())
    assert after.keys() == before.keys()
    assert len(set(after.values())) == 900
    assert len(set(after.values()) - set(before.values())) == 18


def row(digest: str, *, billed: bool = True, read: int = 1000, **cached: int) -> dict[str, Any]:
    return {"digest": digest, "billed": billed, "input_tokens": read, "output_tokens": 100, **cached}


def usd(read: int, **cached: int) -> float:
    usage = Usage(input_tokens=read, output_tokens=100, **cached)
    context = {"processing": "batch"}
    return float(calc_price(usage, model_ref=MODEL, provider_id="anthropic", price_context=context).total_price)


def test_a_bill_tells_what_was_paid_once_from_copies_and_from_earlier_days() -> None:
    rows = [("1", row("a")), ("1", row("a")), ("1", row("b", billed=False)), ("1", row("b")), ("2", row("a"))]
    found = bill(rows, "anthropic", MODEL)
    assert (found.requests, found.failed) == (5, 1)
    assert [float(part / found.usd) for part in (found.once_usd, found.copies_usd, found.again_usd)] == [
        0.5,
        0.25,
        0.25,
    ]
    assert float(found.usd) == pytest.approx(4 * usd(1000))


def test_a_bill_prices_long_prompts_and_caches_row_by_row() -> None:
    rows = [("1", row("a", read=100_001)), ("1", row("b", cache_read_tokens=400, cache_write_tokens=300))]
    found = bill(rows, "anthropic", MODEL)
    assert float(found.usd) == pytest.approx(usd(100_001) + usd(1000, cache_read_tokens=400, cache_write_tokens=300))
    assert found.cached_tokens == 700


def shard(wave: int, expected_usd: float, charge_usd: float) -> Shard:
    named = dict.fromkeys(("key", "enrichment", "partition", "provider", "endpoint", "path"), "")
    numbers = {"expected_usd": expected_usd, "charge_usd": charge_usd}
    return Shard(**named, wave=wave, requests=1, bytes=1, **numbers)  # type: ignore[arg-type]


def test_what_failed_at_first_is_in_the_forecast_of_the_night_once() -> None:
    found = night([shard(0, 0, 0), shard(1, 1.0, 0.9), shard(2, 0.1, 0.1)])
    assert found.error == pytest.approx(0.1)
    assert found.plan_error == pytest.approx(0.0)
