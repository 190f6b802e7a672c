"""Which batches have ended? Asked by page or one by one, whichever takes fewer calls, within a budget of calls.

What was learned goes into the ledger at once. A poll that runs out of calls goes on where it stopped when it is
given another `start`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from llm_assets.errors import IllegalTransition, NotThere, ProviderError
from llm_assets.platform import Platform
from llm_assets.providers import Client
from llm_assets.records import Batch, BatchState, Shard, ShardState

# A list is worth its calls from so many shards on.
_SINGLES_MAX = 3
# A batch may not be found right after it was created, or for a while after it ended.
NOT_THERE_TOLERANCE = timedelta(minutes=15)


@dataclass(slots=True)
class Poll:
    """What one poll did: provider calls made, shards asked about, shards that ended, and what went wrong.

    `problems` are sentences without secrets or document text.
    """

    calls: int = 0
    asked: int = 0
    ended: int = 0
    problems: tuple[str, ...] = ()


def poll(
    platform: Platform,
    shards: Sequence[Shard],
    *,
    calls_max: int,
    start: int = 0,
    deadline: datetime | None = None,
) -> Poll:
    """Ask about the submitted ones among these shards and record in the ledger which have ended.

    `calls_max` bounds the provider calls, `deadline` the time at which the last may begin; `start` rotates the
    order, so that no shard is left out for ever.
    """
    budget = _Budget(platform, calls_max, deadline)
    report = Poll()
    for (provider, endpoint, account), group in _by_account(shards).items():
        turn = start % len(group)
        try:
            client = platform.client(provider, endpoint)
            if client.account != account:
                report.problems += (_other_account(provider, len(group)),)
                continue
            _poll_account(platform, client, group[turn:] + group[:turn], report, budget)
        except ProviderError as error:
            report.problems += (f"{provider}: {error}",)
    return report


@dataclass(frozen=True, slots=True)
class _Budget:
    platform: Platform
    calls_max: int
    deadline: datetime | None

    def calls_left(self, report: Poll) -> int:
        if self.deadline is not None and self.platform.clock() >= self.deadline:
            return 0
        return self.calls_max - report.calls


def _poll_account(platform: Platform, client: Client, group: list[Shard], report: Poll, budget: _Budget) -> None:
    left = {shard.batch_id: shard for shard in group if shard.batch_id}
    if len(left) > _SINGLES_MAX:
        for batch in _listed(client, group, report, budget):
            if shard := left.pop(batch.batch_id, None):
                _record(platform, shard, batch, report)
            if not left:
                return
    for shard in left.values():
        if budget.calls_left(report) <= 0:
            return
        report.calls += 1
        _ask(platform, client, shard, report)


def _listed(client: Client, group: Sequence[Shard], report: Poll, budget: _Budget) -> Iterator[Batch]:
    """The account's batches page by page, as long as that takes fewer calls than asking one by one."""
    oldest = min(shard.submitted_at for shard in group if shard.submitted_at) - NOT_THERE_TOLERANCE
    cursor = None
    for _ in range(len(group)):
        if budget.calls_left(report) <= 0:
            return
        report.calls += 1
        page = client.batches(cursor)
        yield from page.batches
        cursor = page.cursor
        if cursor is None or page.batches[-1].created_at < oldest:
            return


def _ask(platform: Platform, client: Client, shard: Shard, report: Poll) -> None:
    assert shard.batch_id is not None
    try:
        _record(platform, shard, client.batch(shard.batch_id), report)
    except NotThere as error:
        # Counted from the first time that it was not there: an old batch may be missing for a moment too.
        if platform.clock() < platform.ledger.missing(shard, until=platform.clock() + NOT_THERE_TOLERANCE):
            return
        report.problems += (f"batch {shard.batch_id} has vanished: {error}",)
        platform.ledger.vanished(shard, f"the provider does not know batch {shard.batch_id} any more")
        report.ended += 1


def _record(platform: Platform, shard: Shard, batch: Batch, report: Poll) -> None:
    report.asked += 1
    platform.ledger.there(shard)
    if batch.state is BatchState.IN_PROGRESS:
        if batch.counts.finished != shard.finished:
            platform.ledger.progress(shard.key, batch.counts.finished)
        return
    try:
        platform.ledger.ended(shard.key, batch)
        report.ended += 1
    except IllegalTransition:
        return  # another poll was faster


def _by_account(shards: Sequence[Shard]) -> dict[tuple[str, str, str], list[Shard]]:
    groups: dict[tuple[str, str, str], list[Shard]] = defaultdict(list)
    for shard in shards:
        if shard.state is ShardState.SUBMITTED:
            groups[shard.provider, shard.endpoint, shard.account].append(shard)
    return groups


def _other_account(provider: str, shards: int) -> str:
    return (
        f"{provider}: {shards} batches were submitted with another key or base URL than is set now; "
        f"set {provider.upper()}_API_KEY (and _BASE_URL) as they were to collect them"
    )
