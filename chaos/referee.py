"""What was lost, and what was paid twice: judged by the emulator's own records and by the tables alone.

Nothing of the ledger, the results' tables or the code that reads results is asked. Whether an answer was worth its
money is read in the result lines that the emulator wrote, by a few lines of code that are here.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from http.client import HTTPConnection
from itertools import pairwise
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import polars as pl

from chaos.schedule import MOODS
from llm_assets_tests.emulator_process import Emulator

Json = dict[str, Any]
# The faults by which a provider takes money and never gives the results.
LOST_BY_PROVIDER = frozenset({"vanished", "expired_file", "results_gone"})
_FINGERPRINT_DIGITS = 32
_LISTS = {"anthropic": "/v1/messages/batches?limit=1000", "openai": "/v1/batches?limit=100"}
_HEADERS = {"authorization": "Bearer k", "anthropic-version": "2026-10-21"}
_SETTLING_S = (0, 3600, 4 * 3600, 26 * 3600)


@dataclass(slots=True)
class Verdict:
    """What came of one schedule, or of many together. Anything of `faulty` above 0 is a broken promise."""

    partitions: int = 0
    documents: int = 0
    documents_enriched: int = 0
    documents_failed: int = 0
    documents_lost: int = 0
    documents_twice_or_unasked: int = 0
    answers_of_other_documents: int = 0
    answers_paid_and_not_delivered: int = 0
    batches: int = 0
    requests_accepted: int = 0
    requests_billed: int = 0
    requests_billed_twice: int = 0
    requests_in_two_batches_at_once: int = 0
    requests_lost_by_provider_and_paid_again: int = 0
    requests_paid_again_after_useless_answer: int = 0
    details: list[str] = field(default_factory=list)

    def __iadd__(self, other: Verdict) -> Self:
        """Both together."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))
        return self

    @property
    def faulty(self) -> dict[str, int]:
        """The promises that were broken, and how often."""
        names = (
            *("documents_lost", "documents_twice_or_unasked", "answers_of_other_documents"),
            *("answers_paid_and_not_delivered", "requests_billed_twice", "requests_in_two_batches_at_once"),
        )
        return {name: found for name in names if (found := getattr(self, name))}


@dataclass(frozen=True, slots=True)
class Billing:
    """One time that a content was accepted: in which batch, from when to when, and what became of it."""

    batch: int
    created_at: str
    ended_at: str
    billed: bool
    lost: bool
    useful: bool


def judge(
    emulator: Emulator, provider: str, tables: Mapping[str, Sequence[Path]], wanted: Mapping[str, Json]
) -> Verdict:
    """Judge a schedule. `tables` are enriched and failed of each partition, `wanted` its documents: texts by id."""
    _let_everything_end(emulator, provider)
    verdict = Verdict()
    delivered = _judge_bills(emulator, verdict)
    for partition, documents in wanted.items():
        _judge_tables(partition, tables[partition], documents, delivered, verdict)
    return verdict


# -- money


def _judge_bills(emulator: Emulator, verdict: Verdict) -> set[str]:
    """Count what was billed. Returns the fingerprints whose answer was paid for and could be had."""
    batches = {batch["id"]: (number, batch) for number, batch in enumerate(emulator.batches())}
    verdict.batches += len(batches)
    contents: dict[str, list[Billing]] = defaultdict(list)
    useful = {batch_id: set(_useful(emulator.state_dir / "batches" / batch_id)) for batch_id in batches}
    delivered = set()
    for row in emulator.rows():
        number, batch = batches[row["batch_id"]]
        lost = bool(LOST_BY_PROVIDER & set(batch["faults"]))
        billing = Billing(
            batch=number,
            created_at=batch["created_at"],
            ended_at=batch["ended_at"] or "9999",
            billed=row["billed"],
            lost=lost,
            useful=row["custom_id"] in useful[row["batch_id"]],
        )
        contents[row["digest"]].append(billing)
        if billing.billed and billing.useful and not lost:
            delivered.add(row["custom_id"][-_FINGERPRINT_DIGITS:])
    for digest, billings in contents.items():
        judge_content(digest, sorted(billings, key=lambda one: one.batch), verdict)
    return delivered


def judge_content(digest: str, billings: list[Billing], verdict: Verdict) -> None:
    """One content: every bill but the last needs an excuse, and none may be open when the next begins."""
    verdict.requests_accepted += len(billings)
    verdict.requests_billed += sum(one.billed for one in billings)
    for one, following in pairwise(billings):
        if following.created_at < one.ended_at:
            verdict.requests_in_two_batches_at_once += 1
            verdict.details.append(f"content {digest[:12]} was in batches {one.batch} and {following.batch} at once")
    paid = [one for one in billings if one.billed]
    for one, following in pairwise(paid):
        at_once = following.created_at < one.ended_at
        if one.lost and not at_once:
            verdict.requests_lost_by_provider_and_paid_again += 1
        elif not one.useful and not at_once:
            verdict.requests_paid_again_after_useless_answer += 1
        else:
            verdict.requests_billed_twice += 1
            verdict.details.append(f"content {digest[:12]} was paid for in batches {one.batch} and {following.batch}")


def _useful(folder: Path) -> Iterator[str]:
    """The custom_ids whose answer, as the emulator wrote it, is finished and obeys the schema."""
    lines = folder / "results.jsonl"
    for line in lines.read_bytes().split(b"\n") if lines.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:  # nothing, or what a fault wrote
            continue
        if _is_useful(row):
            yield row["custom_id"]


def _is_useful(row: Json) -> bool:
    if "result" in row:
        message = row["result"].get("message") or {}
        finished = message.get("stop_reason") == "end_turn"
        blocks = message.get("content", [])
    else:
        body = (row.get("response") or {}).get("body") or {}
        finished = body.get("status") == "completed"
        blocks = [block for item in body.get("output", []) for block in item.get("content") or []]
    text = "".join(block.get("text", "") for block in blocks if block.get("type") in ("text", "output_text"))
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):  # no JSON, or too deep for any reader
        return False
    return finished and isinstance(answer, dict) and answer.get("sentiment") in MOODS.values()


def _let_everything_end(emulator: Emulator, provider: str) -> None:
    """A batch of the emulator moves when somebody asks: one that all have forgotten must show its bill too."""
    for seconds in _SETTLING_S:
        emulator.advance_clock(seconds)
        after: str | None = ""
        while after is not None:
            after = _list_page(emulator, provider, after)


def _list_page(emulator: Emulator, provider: str, after: str) -> str | None:
    name = "after_id" if provider == "anthropic" else "after"
    connection = HTTPConnection(urlsplit(emulator.url).netloc, timeout=60)
    connection.request("GET", _LISTS[provider] + (f"&{name}={after}" if after else ""), headers=_HEADERS)
    page = json.loads(connection.getresponse().read())
    connection.close()
    return page["last_id"] if page["has_more"] else None


# -- documents


def _judge_tables(
    partition: str, tables: Sequence[Path], documents: Json, delivered: set[str], verdict: Verdict
) -> None:
    verdict.partitions += 1
    verdict.documents += len(documents)
    enriched, failed = (pl.read_parquet(path) if path.exists() else pl.DataFrame() for path in tables)
    answers = _by_document(enriched, "sentiment")
    failures = _by_document(failed, "reason")
    verdict.documents_enriched += len(answers)
    verdict.documents_failed += len(failures)
    lost = documents.keys() - answers.keys() - failures.keys()
    verdict.documents_lost += len(lost)
    rows = enriched.height + failed.height
    verdict.documents_twice_or_unasked += rows - len((answers.keys() | failures.keys()) & documents.keys())
    wrong = [name for name, answer in answers.items() if name in documents and answer != mood_of(documents[name])]
    verdict.answers_of_other_documents += len(wrong)
    kept = [name for name, found in _by_document(failed, "fingerprint").items() if found in delivered]
    verdict.answers_paid_and_not_delivered += len(kept)
    for what, names in (("lost", lost), ("with another's answer", wrong), ("failed though answered", kept)):
        if names:
            some = ", ".join(f"{name} ({failures.get(name)})" for name in sorted(names)[:3])
            verdict.details.append(f"{partition}: {len(names)} documents {what}, such as {some}")


def _by_document(table: pl.DataFrame, column: str) -> dict[str, Any]:
    return dict(table.select("document_id", column).iter_rows()) if table.height else {}


def mood_of(text: str) -> str:
    """The answer that a document must have."""
    return next(mood for word, mood in MOODS.items() if word in text)
