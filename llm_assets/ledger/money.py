"""Money in the ledger: what the budgets have reserved for shards, and what was spent on those that are collected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from datetime import datetime

import sqlalchemy as sa

from llm_assets.ledger.tables import in_partition, ledger, shards, spending
from llm_assets.records import Budget, Shard, ShardState, Spent

# The columns of `spending` that add up, and what makes a number of a database's.
_SPENT: dict[str, type] = {
    each.name: float if each.name.endswith("_usd") or each.name.startswith("bytes_") else int for each in fields(Spent)
}
_SPENT_ON = ("key", "enrichment", "partition", "provider", "model_name")


class Money:
    """Reads and reserves; what was spent is written with the shard's state, by `write_spent`. US dollars throughout."""

    def __init__(self, engine: sa.Engine, clock: Callable[[], datetime]) -> None:
        self._engine, self._clock = engine, clock

    def reserve(self, enrichment: str, partition: str, budgets: Sequence[Budget]) -> tuple[Budget, float, float] | None:
        """Charge the most that the planned shards of a partition may cost to the budgets: all of them, or none.

        Where a budget is a day's, what was charged on an earlier day and was not sent is charged anew, to this one.
        Returns None when that is done, else the first budget without room, what it has spent and reserved by now, and
        what was asked of it.
        """
        planned = in_partition(shards, enrichment, partition) & (shards.c.state == ShardState.PLANNED)
        uncharged = shards.c.charged_at.is_(None)
        days = [budget.since for budget in budgets if budget.since]
        new = planned & ((uncharged | (shards.c.charged_at < max(days))) if days else uncharged)
        with self._engine.begin() as connection:
            # One at a time: two partitions that are each within a budget may not be so together.
            connection.execute(sa.select(ledger).with_for_update())
            asked = connection.execute(sa.select(sa.func.sum(shards.c.at_most_usd)).where(new)).scalar()
            if asked is None:
                return None
            for budget in budgets:
                charged = _charged(connection, _within(budget) & ~new)
                if charged + asked > budget.usd:
                    return budget, charged, asked
            values = {"charge_usd": shards.c.at_most_usd, "charged_at": self._clock()}
            connection.execute(sa.update(shards).where(new).values(**values))
        return None

    def charged(self, budget: Budget) -> float:
        """US dollars of a budget that are spent or reserved."""
        with self._engine.connect() as connection:
            return _charged(connection, _within(budget))

    def spent(
        self,
        enrichment: str | None = None,
        partition: str | None = None,
        *,
        model_name: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        cached_only: bool = False,
    ) -> Spent:
        """The sum of what was spent on all, or on what is named, by when it was collected; `cached_only` of shards that
        used a prompt cache.
        """
        found = self.spent_by_model(
            enrichment, partition, model_name=model_name, since=since, until=until, cached_only=cached_only
        )
        return Spent(
            **{name: kind(sum(getattr(each, name) for each in found.values())) for name, kind in _SPENT.items()}
        )

    def spent_by_model(
        self,
        enrichment: str | None = None,
        partition: str | None = None,
        *,
        model_name: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        cached_only: bool = False,
    ) -> dict[tuple[str, str, str], Spent]:
        """What was spent by enrichment, provider and model."""
        by = (spending.c.enrichment, spending.c.provider, spending.c.model_name)
        wanted: list[sa.ColumnElement[bool]] = [sa.true()]
        given = {"enrichment": enrichment, "partition": partition, "model_name": model_name}
        wanted += [spending.c[name] == value for name, value in given.items() if value is not None]
        wanted += [spending.c.collected_at >= since] if since else []
        wanted += [spending.c.collected_at < until] if until else []
        wanted += [spending.c.cache_read_tokens + spending.c.cache_write_tokens > 0] if cached_only else []
        query = sa.select(*by, *(sa.func.sum(spending.c[name]).label(name) for name in _SPENT)).where(*wanted)
        with self._engine.connect() as connection:
            rows = connection.execute(query.group_by(*by).order_by(*by)).mappings()
            return {
                (row["enrichment"], row["provider"], row["model_name"]): Spent(
                    **{name: kind(row[name]) for name, kind in _SPENT.items()}
                )
                for row in rows
            }

    def cost_by_partition(self) -> dict[tuple[str, str], float]:
        """US dollars that were spent so far, by enrichment and partition; none for those that cost nothing."""
        by = (spending.c.enrichment, spending.c.partition)
        query = sa.select(*by, sa.func.sum(spending.c.cost_usd)).group_by(*by)
        with self._engine.connect() as connection:
            return {(enrichment, partition): usd for enrichment, partition, usd in connection.execute(query)}


def write_spent(connection: sa.Connection, shard: Shard, spent: Spent, collected_at: datetime) -> None:
    """Write what was spent on a shard, in the transaction that makes it collected: exactly once."""
    what = {name: getattr(shard, name) for name in _SPENT_ON}
    connection.execute(sa.insert(spending).values(**what, **asdict(spent), collected_at=collected_at))


def _charged(connection: sa.Connection, which: sa.ColumnElement[bool]) -> float:
    total = sa.select(sa.func.coalesce(sa.func.sum(shards.c.charge_usd), 0.0)).where(which)
    return float(connection.execute(total).scalar_one())


def _within(budget: Budget) -> sa.ColumnElement[bool]:
    """The shards that a budget counts."""
    wanted = [shards.c.charged_at.is_not(None) if budget.since is None else shards.c.charged_at >= budget.since]
    wanted += [shards.c.enrichment == budget.enrichment] if budget.enrichment else []
    wanted += [shards.c.partition == budget.partition] if budget.partition else []
    return sa.and_(*wanted)
