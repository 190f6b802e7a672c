"""The contenders live through the month: each day's snapshot is answered whole before the next day begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl

from bench import plain_script
from bench.month.referee import Bill, bill_of
from bench.month.snapshot import Snapshot
from bench.peer_run import Peer, PeerMissing, drive, environment_python
from bench.task import DOCUMENTS, MODELS, enrichment
from llm_assets.platform import Platform
from llm_assets.records import Shard
from llm_assets.waves import Step
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.platforms import Time, go_on, open_platform, submit

Tell = Callable[[str], None]

# The tool among the peers that keeps answers from one day to the next. It leaves rows alone that failed in a way that
# it does not know, and stops at a row that expired: of all kinds of failures it meets the one that it sends again.
PEER = Peer("llm-batch-py", "steadybatch", "openai", MODELS["openai"])
_FAILING_SHARE = 0.03
_KINDS = ("overloaded", "api_error", "expired")
_KINDS_OF_PEER = ("api_error",)
_LATENCY_S = 3600.0
_LOOKS = timedelta(minutes=20)
STEPS_MAX = 200
_ROUNDS_MAX = 20


class MonthFailed(Exception):
    """A contender did not come to the end of a day."""


@dataclass(frozen=True, slots=True)
class Month:
    """So many days of so many documents, and where files may lie meanwhile."""

    documents: int
    days: int
    provider: str
    seed: int
    folder: Path

    def snapshot(self) -> Snapshot:
        """The first day."""
        return Snapshot(self.documents, self.seed)

    def faults(self, day: int, kinds: tuple[str, ...] = _KINDS) -> list[dict[str, Any]]:
        """What fails on a day: the first try of three rows in a hundred."""
        rate = _FAILING_SHARE / len(kinds)
        return [{"fault": kind, "rate": rate, "seed": self.seed * 1000 + day} for kind in kinds]


@dataclass(frozen=True, slots=True)
class Night:
    """What one partition was to cost and did.

    `planned_usd` was expected of the first wave, before anything was sent, and `expected_usd` of all waves, each when
    it was planned.
    """

    planned_usd: float
    expected_usd: float
    cost_usd: float

    @property
    def error(self) -> float:
        """How far the shards' costs were from what was expected of them, as a share."""
        return abs(self.expected_usd - self.cost_usd) / self.cost_usd

    @property
    def plan_error(self) -> float:
        """How far the whole night's costs were from what was expected at its begin."""
        return abs(self.planned_usd - self.cost_usd) / self.cost_usd


@dataclass(frozen=True, slots=True)
class OfProject:
    """The month of this project: the referee's bill, what the ledger says, and every night's forecast."""

    bill: Bill
    ledger_usd: float
    nights: list[Night]


def project_month(month: Month, tell: Tell) -> OfProject:
    """A partition a day. In the middle of the month a connection drops when a batch was just created."""
    asked = enrichment(month.provider)
    with Emulator(month.folder / "of-project", latency_s=_LATENCY_S) as emulator:
        time = Time(emulator)
        platform = open_platform(month.folder / "store", emulator.url, time)
        try:
            days = _days(month, time, "this project", tell)
            nights = [_project_day(platform, month, time, day, rows) for day, rows in days]
            ledger_usd = platform.ledger.money.spent(asked.name).cost_usd
        finally:
            platform.close()
        return OfProject(bill_of(emulator, month.provider, asked.model_name), ledger_usd, nights)


def script_month(month: Month, tell: Tell) -> Bill:
    """The whole snapshot a day, and what failed again until nothing is left."""
    with Emulator(month.folder / "of-script", latency_s=_LATENCY_S) as emulator:
        time = Time(emulator)
        for day, rows in _days(month, time, "the script", tell):
            emulator.faults(month.faults(day))
            _script_day(month.provider, emulator.url, time, rows)
        return bill_of(emulator, month.provider, MODELS[month.provider])


def script_crash(month: Month, tell: Tell) -> Bill:
    """What it costs when the script dies after create: it is started again, and nobody asks for those batches."""
    tell("the script dies once")
    with Emulator(month.folder / "of-crash") as emulator:
        for batch_id in plain_script.send(month.provider, emulator.url, month.snapshot().rows()):
            while not plain_script.has_ended(month.provider, emulator.url, batch_id):
                Time(emulator).passes(seconds=_LOOKS.total_seconds())
        return bill_of(emulator, month.provider, MODELS[month.provider])


def peer_month(month: Month, tell: Tell, environments: Path) -> Bill:
    """A run a day over the whole snapshot, with the cache of the days before. Raises PeerMissing."""
    if month.provider != PEER.provider:
        raise PeerMissing(f"it is driven over {PEER.provider} only")
    python, own = environment_python(PEER.environment, environments), month.folder / "of-peer-cache"
    own.mkdir()
    with Emulator(month.folder / "of-peer") as emulator:
        for day, rows in _days(month, Time(emulator), PEER.name, tell):
            emulator.faults(month.faults(day, _KINDS_OF_PEER))
            drive(PEER, python, [{"document_id": name, "text": text} for name, text in rows], own, emulator.url)
        return bill_of(emulator, PEER.provider, PEER.model)


def _days(month: Month, time: Time, who: str, tell: Tell) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """Every day's number and documents; each begins at six in the morning, and the first tomorrow."""
    snapshot = month.snapshot()
    begins = time().replace(hour=6, minute=0, second=0) + timedelta(days=1)
    for day in range(month.days):
        time.passes(seconds=(begins + timedelta(days=day) - time()).total_seconds())
        tell(f"{who}: day {day + 1} of {month.days}")
        yield day, snapshot.rows()
        snapshot.next_day()


def _script_day(provider: str, url: str, time: Time, rows: list[tuple[str, str]]) -> None:
    for _ in range(_ROUNDS_MAX):
        answered = set()
        for batch_id in plain_script.send(provider, url, rows):
            while not plain_script.has_ended(provider, url, batch_id):
                time.passes(seconds=_LOOKS.total_seconds())
            answered |= {row["document_id"] for row in plain_script.answers(provider, url, batch_id)}
        rows = [row for row in rows if row[0] not in answered]
        if not rows:
            return
    raise MonthFailed(f"the script: {len(rows)} documents without an answer after {_ROUNDS_MAX} rounds")


def _project_day(platform: Platform, month: Month, time: Time, day: int, rows: list[tuple[str, str]]) -> Night:
    asked, partition = enrichment(month.provider), time().date().isoformat()
    documents = pl.DataFrame(rows, schema=["document_id", "text"], orient="row")
    platform.store.write(platform.store.documents(DOCUMENTS, partition), documents)
    dropped: list[dict[str, Any]] = [{"fault": "dropped_after_store", "times": 1}] if day == month.days // 2 else []
    time.emulator.faults(month.faults(day) + dropped)
    submit(platform, asked, partition)
    for _ in range(STEPS_MAX):
        step = go_on(platform, asked, partition)
        if step in (Step.NOTHING, Step.HELD):
            break
        if step is not Step.COLLECT:
            time.passes(seconds=_LOOKS.total_seconds())
    answered = platform.store.scan(platform.store.enriched(asked.name, partition)).select(pl.len()).collect().item()
    if step is not Step.NOTHING or answered != len(rows):
        raise MonthFailed(f"this project: {answered} of {len(rows)} documents answered on {partition}, then {step}")
    return night(platform.ledger.shards(asked.name, partition))


def night(shards: Sequence[Shard]) -> Night:
    """What a partition's shards were to cost and did."""
    return Night(
        planned_usd=sum(shard.expected_usd for shard in shards if shard.wave == 1),
        expected_usd=sum(shard.expected_usd for shard in shards),
        cost_usd=sum(shard.charge_usd for shard in shards),
    )
