"""One tick of the sensor with 1,000 batches in flight over 200 partitions, spread among 20,000 that have ended.

The provider has two batches that were really sent, one that has ended and one that is held; all others are copies of
them in the emulator's own database. The ledger's rows go straight into its tables. Those in flight are spread evenly
over the last 20 hours: pages of a list are as thin as they can be.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import sqlalchemy as sa

from bench.platform_run import opened
from bench.task import PROVIDERS, enrichment
from bench.tick_run import Ticks
from llm_assets.ledger import tables
from llm_assets.platform import Platform
from llm_assets.records import Message, Plan, Shard, ShardState
from llm_assets_tests.emulator_process import Emulator

PARTITIONS, SHARDS_A_PARTITION, ENDED = 200, 5, 20_000
_IN_FLIGHT = PARTITIONS * SHARDS_A_PARTITION
_SPREAD = timedelta(hours=20)
_DIGITS = 6  # with which the ids of copies end: their number, the oldest first
_SECONDS_MAX = 300


def measure_ticks(folder: Path, tell: Callable[[str], None], *, scale: float = 1.0) -> dict[str, float]:
    """Calls and seconds of a tick, by provider; `scale` makes everything smaller, for tests."""
    found: dict[str, float] = {}
    for provider in PROVIDERS:
        tell(f"{provider}: {_IN_FLIGHT * scale:,.0f} batches in flight among {ENDED * scale:,.0f}")
        with TemporaryDirectory(prefix="scratch-", dir=folder) as name:
            ticks = _measure(provider, Path(name), scale)
        found |= {f"{name}_{provider}": value for name, value in _numbers(ticks).items()}
    return found


def _numbers(ticks: Ticks) -> dict[str, float]:
    """`tick_s` is the median tick, `tick_calls` the most calls of one. `ticks_to_learn` is how many ticks it takes
    until all are known to have ended, `tick_learning_s` the longest of these; `tick_unlearned` are never known.
    """
    return {
        "tick_calls": max(ticks.calls),
        "tick_s": median(ticks.wall_s),
        "tick_cpu_s": median(ticks.cpu_s),
        "tick_learning_s": max(ticks.learning_wall_s),
        "ticks_to_learn": len(ticks.learning_wall_s),
        "tick_unlearned": ticks.unlearned,
    }


def _measure(provider: str, folder: Path, scale: float) -> Ticks:
    with Emulator(folder / "emulator") as emulator:
        root = folder / "root"
        partitions, ended = max(1, round(PARTITIONS * scale)), round(ENDED * scale)
        with opened(root, emulator.url) as platform:
            ended_id = _send(platform, provider, folder, 1)
            emulator.hold()
            held_id = _send(platform, provider, folder, 2)
            account = platform.client(provider, None).account
        emulator.stop()
        ids = _copy_batches(emulator.state_dir, ended_id, held_id, ended, partitions * SHARDS_A_PARTITION)
        emulator.start()
        _fill_ledger(root, provider, account, ids, partitions)
        return _ticks(provider, root, emulator.url)


def _send(platform: Platform, provider: str, folder: Path, number: int) -> str:
    """Send one request in a batch of its own, which moves on as it is asked about. Returns the batch's id."""
    asked = enrichment(provider)
    dialect = platform.dialect(provider, None)
    body = json.dumps(dialect.body(asked.task, [Message("user", f"Report {number}.")])).encode()
    key = f"{number:012x}"
    file = folder / (key + dialect.shard_format.suffix)
    form = dialect.shard_format
    file.write_bytes(form.header + dialect.line(f"{key}-0", body) + form.footer)
    client = platform.client(provider, None)
    batch = client.create(file, staged=client.stage(file), stamp=key)
    return client.batch(batch.batch_id).batch_id


def _copy_batches(state: Path, ended_id: str, held_id: str, ended: int, held: int) -> tuple[list[str], list[str]]:
    """Fill the emulator's database, oldest first. Returns the ids of those that have ended and of those in flight."""
    ids: tuple[list[str], list[str]] = ([], [])
    with sqlite3.connect(state / "emulator.db") as database:
        database.row_factory = sqlite3.Row
        models = [
            dict(database.execute("SELECT * FROM batches WHERE id = ?", (one,)).fetchone())
            for one in (ended_id, held_id)
        ]
        total, begun = ended + held, (datetime.now(UTC) - _SPREAD).timestamp()
        for number in range(total):
            is_held = number * held // total != (number + 1) * held // total
            model = models[is_held]
            row = {name: value for name, value in model.items() if name != "seq"}
            row |= {"id": f"{model['id']}{number:0{_DIGITS}}", "folded_accepted": 1, "folded_billed": 1}
            row["created_at"] = begun + _SPREAD.total_seconds() * number / total
            names, marks = ", ".join(row), ", ".join("?" * len(row))
            database.execute(f"INSERT INTO batches ({names}) VALUES ({marks})", list(row.values()))  # noqa: S608
            ids[is_held].append(row["id"])
    database.close()
    for batch_id in ids[True]:
        shutil.copytree(state / "batches" / held_id, state / "batches" / batch_id)
    return ids


def _fill_ledger(root: Path, provider: str, account: str, ids: tuple[list[str], list[str]], partitions: int) -> None:
    engine = sa.create_engine(f"sqlite:///{root / 'ledger.db'}")
    total = sum(map(len, ids))
    in_flight = list(_partitions(provider, account, ids[True], ShardState.SUBMITTED, partitions, "now", total))
    earlier = max(1, len(ids[False]) // SHARDS_A_PARTITION)
    done = list(_partitions(provider, account, ids[False], ShardState.COLLECTED, earlier, "earlier", total))
    with engine.begin() as connection:
        for plan, shards in (*in_flight, *done):
            connection.execute(sa.insert(tables.plans), [asdict(plan)])
            connection.execute(sa.insert(tables.shards), [asdict(shard) | {"past_batches": []} for shard in shards])
    engine.dispose()


def _partitions(
    provider: str, account: str, ids: list[str], state: ShardState, partitions: int, name: str, total: int
) -> Iterator[tuple[Plan, list[Shard]]]:
    """Plans with their shards, the batches dealt out in turn, each submitted when the provider says: of `total`."""
    now = datetime.now(UTC)
    done = now if state is ShardState.COLLECTED else None
    common: dict[str, Any] = {"enrichment": enrichment(provider).name, "provider": provider, "account": account}
    for number in range(partitions):
        partition, mine = f"{name}-{number:04}", ids[number::partitions]
        plan = Plan(
            enrichment=common["enrichment"],
            partition=partition,
            plan_id=f"{name}{number}",
            digest="",
            path="",
            documents=len(mine),
            requests=len(mine),
            wave=1,
            planned_at=now,
            published_at=done,
        )
        shards = [
            Shard(
                **common,
                key=batch_id[-12:] + name,
                partition=partition,
                wave=1,
                endpoint=_endpoint(provider),
                requests=1,
                bytes=1,
                path=f"{partition}/{batch_id}",
                state=state,
                batch_id=batch_id,
                submitted_at=now - _SPREAD * (1 - int(batch_id[-_DIGITS:]) / total),
                ended_at=done,
                collected_at=done,
                deadline_s=26 * 3600,
            )
            for batch_id in mine
        ]
        yield plan, shards


def _endpoint(provider: str) -> str:
    return {"anthropic": "/v1/messages", "openai": "/v1/responses"}[provider]


def _ticks(provider: str, root: Path, url: str) -> Ticks:
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "bench.tick_run", provider, str(root), url],
        capture_output=True,
        text=True,
        timeout=_SECONDS_MAX,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"ticks of {provider}: exit code {done.returncode}\n{done.stderr[-3000:]}")
    return Ticks(**json.loads(done.stdout.splitlines()[-1]))
