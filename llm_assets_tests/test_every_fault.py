"""Each fault of the menu, by itself, on each provider that has it: what becomes of the documents, and what it costs.

A fault that is added to the emulator fails here until somebody says what must become of it.
"""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import pytest

from llm_assets.emulator.faults import ANTHROPIC, MENU, OPENAI, Fault, Scope
from llm_assets.enrichment import Enrichment
from llm_assets.errors import SystemicError, TransientError
from llm_assets.platform import Platform
from llm_assets.records import Reason, ShardLimits
from llm_assets.waves import Step
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.platforms import (
    P,
    Time,
    enriched,
    failed,
    go_on,
    labels,
    reasons,
    submit,
    write_documents,
)

DOCUMENTS = 8
MET = "d1"
TEXTS: list[str | None] = [f"Review d{number}: this is a good thing." for number in range(DOCUMENTS)]
TWO_BATCHES = ShardLimits(requests=5, bytes=1_000_000)
MINUTES_MAX = 60 * 30


@dataclass(frozen=True)
class Ends:
    """What becomes of the documents that a fault meets: answered, or failed for a reason.

    `billed` is how often each of their requests is paid for in all, `stops` whether somebody has to act before it
    goes on. The documents that the fault does not meet are answered and paid once.
    """

    reason: Reason | None = None
    billed: int = 1
    stops: bool = False


FINE = Ends()
STOPS = Ends(stops=True)


def never(reason: Reason) -> Ends:
    return Ends(reason, billed=0)


# Row faults meet one document whenever it is asked.
ROWS = {
    "overloaded": never(Reason.OVERLOADED),
    "api_error": never(Reason.API_ERROR),
    "rate_limit": never(Reason.RATE_LIMIT),
    "timeout": never(Reason.TIMEOUT),
    "invalid": never(Reason.INVALID_REQUEST),
    "billing": STOPS,
    "expired": never(Reason.EXPIRED),
    "canceled": never(Reason.CANCELED),
    "refusal": Ends(Reason.REFUSAL),
    "content_filter": Ends(Reason.REFUSAL),
    "context_window": Ends(Reason.CONTEXT_WINDOW_EXCEEDED),
    "truncated": Ends(Reason.TRUNCATED, billed=3),
    "invalid_json": Ends(Reason.INVALID_ANSWER, billed=2),
    "schema_violation": Ends(Reason.INVALID_ANSWER, billed=2),
    "empty_content": Ends(Reason.UNREADABLE_RESULT, billed=3),
    "thinking_first": FINE,
    "u2028": FINE,
    "huge_answer": Ends(Reason.UNREADABLE_RESULT, billed=3),
    "deep_answer": Ends(Reason.INVALID_ANSWER, billed=2),
    "missing_row": never(Reason.MISSING_RESULT),
    "duplicate_row": FINE,
    "duplicate_conflict": FINE,
    "stray_row": FINE,
    "garbage_line": FINE,
    "status_zero": never(Reason.MISSING_RESULT),
}
# Batch faults meet the first batch only.
BATCHES = {
    "token_limit_exceeded": FINE,
    "file_not_found": FINE,
    "line_errors": never(Reason.INVALID_REQUEST),
    "only_error_file": FINE,
    "all_errored": FINE,
    "empty_error_file_id": FINE,
    "expired_partial": FINE,
    "slow_cancelling": FINE,
    "stalled_finalizing": FINE,
    "stalled": FINE,
    "counts_disagree": FINE,
    "vanished": Ends(billed=2),
    "expired_file": Ends(billed=2, stops=True),
    "results_gone": Ends(billed=2, stops=True),
}
# Faults of the transport meet the first call of their kind only.
CALLS = {
    "dropped_before_store": FINE,
    "dropped_after_store": FINE,
    "error_500_after_store": FINE,
    "http_400": never(Reason.INVALID_REQUEST),
    "http_401": STOPS,
    "http_402": STOPS,
    "http_403": STOPS,
    "http_429": FINE,
    "spend_limit": STOPS,
    "http_500": FINE,
    "http_503": FINE,
    "http_504": FINE,
    "http_529": FINE,
    "html_413": FINE,
    "html_200": FINE,
    "slow": FINE,
    "retrieve_404_at_first": FINE,
    "retrieve_404_blip": FINE,
    "retrieve_5xx": FINE,
    "foreign_results_url": STOPS,
    "list_lag": FINE,
    "results_404_after_ended": FINE,
    "cut_mid_line": FINE,
    "silent_short_read": FINE,
    "shuffled": FINE,
}
TABLES = {Scope.ROW: ROWS, Scope.BATCH: BATCHES, Scope.TRANSPORT: CALLS}
RULES: dict[Scope, dict[str, Any]] = {
    Scope.ROW: {"match": f"Review {MET}:"},
    Scope.BATCH: {"times": 1},
    Scope.TRANSPORT: {"times": 1},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "slow": {"delay_s": 0.1},
    "list_lag": {"times": 20},
    "slow_cancelling": {"for_s": 600},
    "foreign_results_url": {"times": 20},
}
# What makes a fault possible: batches are cancelled when they are late, and listed when a reply was lost.
TOGETHER: dict[str, list[dict[str, Any]]] = {
    "slow_cancelling": [{"fault": "stalled", "times": 1, "for_s": 23 * 3600}],
    "list_lag": [{"fault": "dropped_after_store", "times": 1}],
}
CASES = [
    pytest.param(fault, provider, id=f"{provider}-{fault.name}")
    for fault in MENU.values()
    for provider in (ANTHROPIC, OPENAI)
    if provider in fault.providers
]


@pytest.fixture
def platform(empty: Platform) -> Platform:
    write_documents(empty, TEXTS)
    return empty


def to_the_end(platform: Platform, enrichment: Enrichment, time: Time) -> bool:
    """What the sensor does, and a person who mends what is wrong and materializes when somebody has to.

    Returns whether somebody had to.
    """
    stopped, minutes, wait = False, 0.0, 1.0
    while (step := tried(platform, enrichment)) is not Step.NOTHING:
        if step is Step.HELD:
            assert not stopped, "stopped again after somebody acted"
            stopped = True
            time.emulator.faults([])
            submit(platform, enrichment)
        assert minutes < MINUTES_MAX, f"no end after {minutes:,.0f} minutes"
        time.passes(minutes=wait)
        minutes, wait = minutes + wait, min(wait * 1.5, 5)
    return stopped


def tried(platform: Platform, enrichment: Enrichment) -> Step:
    """What is due, as far as the provider lets it be done."""
    try:
        if platform.ledger.plan(enrichment.name, P) is None:
            submit(platform, enrichment)
        return go_on(platform, enrichment)
    except TransientError:
        return Step.WAIT
    except SystemicError:
        return Step.HELD


def billed(platform: Platform, enrichment: Enrichment, emulator: Emulator) -> dict[str, int]:
    """How often each document was paid for, by the emulator's books."""
    tables = [table(platform, enrichment).select("fingerprint", "document_id") for table in (enriched, failed)]
    documents = {fingerprint: document for table in tables for fingerprint, document in table.iter_rows()}
    bills = Counter(documents[row["custom_id"][-32:]] for row in emulator.rows() if row["billed"])
    return {document: bills[document] for document in documents.values()}


def test_every_fault_has_its_end() -> None:
    assert {scope: set(table) for scope, table in TABLES.items()} == {
        scope: {fault.name for fault in MENU.values() if fault.scope is scope} for scope in Scope
    }


@pytest.mark.parametrize(("fault", "provider"), CASES)
def test_nothing_is_lost_and_nothing_is_paid_twice_but_what_the_table_says(
    emulator: Emulator, platform: Platform, time: Time, fault: Fault, provider: str
) -> None:
    rule = {"fault": fault.name, **RULES[fault.scope], **OPTIONS.get(fault.name, {})}
    emulator.faults([rule, *TOGETHER.get(fault.name, [])])
    enrichment = replace(labels(provider), limits=TWO_BATCHES, deadline_hours=22, hold_above=1)
    expected = TABLES[fault.scope][fault.name]

    stopped = to_the_end(platform, enrichment, time)

    assert emulator.injected().get(fault.name), "the fault was met"
    assert stopped is expected.stops
    found = reasons(platform, enrichment)
    assert enriched(platform, enrichment).height + len(found) == DOCUMENTS
    assert set(found.values()) == ({expected.reason} if expected.reason else set())
    bills = billed(platform, enrichment, emulator)
    if fault.scope is Scope.ROW:
        assert set(found) == ({MET} if expected.reason else set())
        assert {name for name, times in bills.items() if times != 1} == ({MET} if expected.billed != 1 else set())
    assert set(bills.values()) == {1, expected.billed}
