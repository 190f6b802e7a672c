"""What a partition would take, said before it is sent, and held against what it took. The emulator is referee."""

from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from llm_assets import console
from llm_assets.collection import collect_partition
from llm_assets.enrichment import Enrichment
from llm_assets.errors import RequestRejected
from llm_assets.platform import Platform
from llm_assets.polling import poll
from llm_assets.preview import Answered, Outlook, ask_some, count_some, outlook
from llm_assets.records import ShardLimits, Usage
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.platforms import P, finish, labels, submit, write_documents

LENGTHS = [50 + 37 * (number * number % 101) for number in range(200)]
TEXTS: list[str | None] = [f"Review {number}: " + "good " * (length // 5) for number, length in enumerate(LENGTHS)]


@pytest.fixture(params=["anthropic", "openai"])
def enrichment(request: pytest.FixtureRequest, empty: Platform) -> Enrichment:
    write_documents(empty, TEXTS)
    return labels(str(request.param))


def off_by(ahead: Outlook, platform: Platform, enrichment: Enrichment) -> float:
    """Send all of it: by which share of the true cost was the forecast off?"""
    submit(platform, enrichment)
    finish(platform, enrichment)
    actual = platform.ledger.money.spent(enrichment.name).cost_usd
    return abs(ahead.forecast.usd - actual) / actual


def test_a_first_night_is_judged_by_the_few_that_were_asked(empty: Platform, enrichment: Enrichment) -> None:
    guess = outlook(empty, enrichment, P)
    ahead = outlook(empty, enrichment, P, ask_some(empty, enrichment, P, 5))

    assert (guess.evidence, guess.asked, ahead.evidence, ahead.asked) == (0, 0, 0, 5)
    off = off_by(ahead, empty, enrichment)
    assert off < 0.05
    assert abs(guess.forecast.usd / ahead.forecast.usd - 1) > 5 * off


def test_the_provider_counts_what_would_be_read_for_nothing(
    empty: Platform, emulator: Emulator, enrichment: Enrichment
) -> None:
    counted = count_some(empty, enrichment, P)
    assert emulator.accounting()["billed"] == 0

    ahead = outlook(empty, enrichment, P, counted=counted)
    submit(empty, enrichment)
    finish(empty, enrichment)
    read = empty.ledger.money.spent(enrichment.name).input_tokens
    assert ahead.counted == len(counted) >= 20
    assert ahead.forecast.input_tokens == pytest.approx(read, rel=0.01)


def test_what_is_too_large_for_the_declared_limits_is_not_counted_as_sent(
    empty: Platform, emulator: Emulator, enrichment: Enrichment
) -> None:
    narrow = replace(enrichment, limits=ShardLimits(requests=10, bytes=20_000))
    write_documents(empty, ["good", "good " * 6_000, "bad"])
    ahead = outlook(empty, narrow, P)
    assert (ahead.failed_before, ahead.forecast.requests) == (1, 2)
    submit(empty, narrow)
    finish(empty, narrow)
    assert emulator.accounting()["requests"] == 2


def test_an_answer_that_was_refused_here_is_not_foretold_from_elsewhere(
    empty: Platform, emulator: Emulator, enrichment: Enrichment
) -> None:
    emulator.faults([{"fault": "schema_violation", "times": 1}])
    write_documents(empty, ["good"])
    submit(empty, enrichment)
    poll(empty, empty.ledger.active_shards(), calls_max=25)
    collect_partition(empty, enrichment, P)  # refused: to be asked once more
    write_documents(empty, ["good"], "2026-11-02")
    submit(empty, enrichment, "2026-11-02")
    finish(empty, enrichment, "2026-11-02")
    ahead = outlook(empty, enrichment, P)
    before = emulator.accounting()["requests"]
    submit(empty, enrichment)
    finish(empty, enrichment)
    assert ahead.forecast.requests == emulator.accounting()["requests"] - before


def test_history_outweighs_what_was_asked_now(empty: Platform, enrichment: Enrichment) -> None:
    submit(empty, enrichment)
    finish(empty, enrichment)
    ahead = outlook(empty, enrichment, P, ask_some(empty, enrichment, P, 2))
    assert (ahead.evidence, ahead.asked) == (len(TEXTS), 0)


def test_where_nothing_counts_tokens_it_is_said(empty: Platform) -> None:
    write_documents(empty, TEXTS)
    chat = replace(labels("openai"), endpoint="/v1/chat/completions")
    with pytest.raises(RequestRejected, match="counts tokens for /v1/responses alone"):
        count_some(empty, chat, P)


@pytest.mark.parametrize("fault", ["http_503", "html_200", "http_429"])
def test_what_cannot_be_asked_now_keeps_no_answer_that_is_paid_from_being_shown(
    empty: Platform, emulator: Emulator, enrichment: Enrichment, fault: str
) -> None:
    write_documents(empty, [f"Review {number}" for number in range(4)])
    emulator.faults([{"fault": fault, "route": "ask", "times": 1}])
    answers = ask_some(empty, enrichment, P, 4)
    assert sorted(answer.reason for answer in answers) == ["", "", "", "api_error"]


def test_answers_are_shown_as_json() -> None:
    answer: dict[str, Any] = {"name": "Ann", "paid": True, "lines": [{"price": 1.5, "note": None}]}
    shown = Answered(
        document_id="d", text="t", answer=answer, reason="", message="", usage=Usage(), standard_usd=0.0, bytes=1
    )
    out = Console(width=200, file=StringIO(), record=True)
    out.print(console.preview_table([shown]))
    assert 'name: Ann, paid: true, lines: [{"price":1.5,"note":null}]' in out.export_text()
