"""`python -m bench.scale`: a year of history in a real ledger, on a clock of its own, and how long a look takes then.

Nothing is sent and no document is read: what grows with history is the ledger, and how long it takes to ask it. The
rows are those that partitions of such a size leave. docs/scale.md has the arithmetic around it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import sqlalchemy as sa
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from llm_assets.ledger import Ledger
from llm_assets.ledger.tables import spending
from llm_assets.platform import Platform
from llm_assets.prices import declared_price, encoded
from llm_assets.records import Budget, Plan, Shard, ShardState, Spent
from llm_assets.status import statuses
from llm_assets.store import Store

_FIRST = datetime(2026, 1, 1, tzinfo=UTC)
_ENRICHMENTS = 10
_REQUESTS = 100_000
_REPEATS = 3
_RATES = encoded(declared_price({"batch": {"input": 0.05, "output": 0.25}, "standard": {"input": 0.1, "output": 0.5}}))
_SPENT = Spent(
    requests=_REQUESTS,
    billed=_REQUESTS,
    input_tokens=40_000_000,
    output_tokens=2_000_000,
    cost_usd=2.5,
    standard_usd=5.0,
)
Asked = dict[str, float]


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = _FIRST

    def __call__(self) -> datetime:
        """The time."""
        return self.now


def live_through(url: str, clock: Clock, days: int, shards_a_day: int) -> Iterator[Platform]:
    """A platform after each day. The newest day's shards are with the provider, all others are home."""
    ledger = Ledger(url, clock)
    engine = sa.create_engine(url)
    with TemporaryDirectory() as folder:
        platform = Platform(Store(folder), ledger, {}, clock=clock)
        for day in range(days):
            for enrichment in range(_ENRICHMENTS):
                _partition(
                    ledger, engine, clock.now, f"enrichment_{enrichment}", shards_a_day // _ENRICHMENTS, day + 1 == days
                )
            clock.now += timedelta(days=1)
            yield platform
    engine.dispose()
    ledger.close()


def _partition(ledger: Ledger, engine: sa.Engine, now: datetime, enrichment: str, count: int, is_newest: bool) -> None:
    partition = now.date().isoformat()
    shards = [_shard(enrichment, partition, number, now, is_newest) for number in range(count)]
    if is_newest:  # one is still to be sent
        shards[-1] = replace(shards[-1], state=ShardState.PLANNED, charged_at=None, charge_usd=0, batch_id=None)
    published = None if is_newest else now + timedelta(hours=6)
    wants = count * _REQUESTS
    plan = Plan(
        enrichment=enrichment,
        partition=partition,
        plan_id=f"{enrichment}-{partition}",
        digest="d" * 32,
        path=f"enrichments/{enrichment}/batches/{partition}/plan.parquet",
        documents=wants,
        requests=wants,
        wave=1,
        planned_at=now,
        published_at=published,
    )
    ledger.record_plan(plan, shards, replaces=None)
    if not is_newest and shards:
        names = ("key", "enrichment", "partition", "provider", "model_name", "collected_at")
        rows = [{name: getattr(shard, name) for name in names} | asdict(_SPENT) for shard in shards]
        with engine.begin() as connection:
            connection.execute(sa.insert(spending), rows)


def _shard(enrichment: str, partition: str, number: int, now: datetime, is_newest: bool) -> Shard:
    key = f"{enrichment}-{partition}-{number}"
    return Shard(
        key=key,
        enrichment=enrichment,
        partition=partition,
        wave=1,
        provider="anthropic",
        endpoint="/v1/messages",
        model_name="claude-haiku-5-5",
        account="a" * 16,
        requests=_REQUESTS,
        bytes=130_000_000,
        tokens=40_000_000,
        expected_usd=2.5,
        at_most_usd=9.0,
        charge_usd=9.0 if is_newest else 2.5,
        charged_at=now,
        path=f"enrichments/{enrichment}/batches/{partition}/wave-01/{key}",
        state=ShardState.SUBMITTED if is_newest else ShardState.COLLECTED,
        batch_id=f"msgbatch_{key}",
        submitted_at=now,
        ended_at=None if is_newest else now + timedelta(hours=5),
        collected_at=None if is_newest else now + timedelta(hours=6),
        swept_at=None if is_newest else now + timedelta(days=30),
        results=f"enrichments/{enrichment}/batches/{partition}/wave-01/{key}.results.parquet",
        rates=_RATES,
    )


def looks(platform: Platform) -> dict[str, Callable[[], object]]:
    """What ticks, runs and people ask the ledger, by what it is for."""
    ledger, now = platform.ledger, platform.clock()
    day, name = (now - timedelta(days=1)).date().isoformat(), "enrichment_0"
    budget = Budget("day_usd", 0, since=now - timedelta(days=1))  # without room, so that nothing changes
    return {
        "a tick: what is in flight": ledger.active_shards,
        "a tick: which plans are open": lambda: ledger.plans(open_only=True),
        "a poll: write down what was asked": lambda: ledger.asked([s.key for s in ledger.active_shards()]),
        "a plan: the shards of its partition": lambda: ledger.shards(name, day),
        "a plan: what 90 days have cost": lambda: ledger.money.spent(name, since=now - timedelta(days=90)),
        "a plan: where answers may be reused": lambda: ledger.collected_since(name, now - timedelta(days=30)),
        "a plan: room in the budgets": lambda: ledger.money.reserve(name, day, [budget]),
        "a publication: what the partition cost": lambda: ledger.money.spent(name, day),
        "a sweep: what is to be deleted": lambda: ledger.unswept(name, until=now - timedelta(days=30), limit=50),
        "llm-assets status": lambda: statuses(platform),
        "llm-assets cost, all time": ledger.money.spent_by_model,
    }


def measure(platform: Platform) -> Asked:
    """Seconds that each look takes, the best of a few."""
    return {name: min(_seconds(look) for _ in range(_REPEATS)) for name, look in looks(platform).items()}


def _seconds(look: Callable[[], object]) -> float:
    started = time.perf_counter()
    look()
    return time.perf_counter() - started


def main(
    days: Annotated[int, typer.Option(min=2, help="Of history.")] = 365,
    shards_a_day: Annotated[int, typer.Option(min=_ENRICHMENTS, help="1,000 are 100 million documents.")] = 1_000,
    ledger_url: Annotated[str | None, typer.Option(help="An empty ledger; SQLite in a temporary folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Live through days with the real ledger, and measure what asking it takes after the first two and after all."""
    with TemporaryDirectory() as folder:
        file = Path(folder, "ledger.db")
        found: dict[str, Asked] = {}
        for length in (2, days):
            file.unlink(missing_ok=True)
            lived = live_through(ledger_url or f"sqlite:///{file}", Clock(), length, shards_a_day)
            for number, platform in enumerate(track(lived, f"{length} days", length, console=Console(stderr=True)), 1):
                if number == length:
                    found[f"{length} days"] = measure(platform)
            if ledger_url:
                break
        size = file.stat().st_size if file.exists() else 0
    if as_json:
        typer.echo(json.dumps({"seconds": found, "ledger_bytes": size, "shards": days * shards_a_day}))
        return
    out = Console()
    table = Table("milliseconds", *found, box=None)
    for name in next(iter(found.values())):
        table.add_row(name, *(f"{1000 * asked[name]:,.1f}" for asked in found.values()))
    out.print(table)
    out.print(f"{days * shards_a_day:,} shards; the ledger's file has {size / 1e6:,.0f} MB", highlight=False)


if __name__ == "__main__":
    typer.run(main)
