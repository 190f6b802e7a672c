"""Which batches have ended? Asked by page or one by one, whichever takes fewer calls, within a budget of calls.

A fifth of the calls is for the newest pages of a list, a fifth for asking one by one, and the others for pages further
back that begin where batches of ours are; where a list does not begin anywhere, these are for its newest pages too.
What was learned goes into the ledger at once, with when it was: where a poll ran out of calls, the next one begins.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import sample

from llm_assets.errors import IllegalTransition, NotThere, ProviderError, RequestRejected
from llm_assets.platform import Platform
from llm_assets.providers import Client
from llm_assets.records import Batch, BatchPage, BatchState, Mode, Shard, ShardState
from llm_assets.trail import of_shard, span, tell

# A list is worth its calls from so many shards on.
_SINGLES_MAX = 3
# After so many pages it shows whether batches of ours lie closely enough together.
_PAGES_TRIED = 3
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
# How far back a list is read beyond the oldest batch in question: clocks differ.
_LIST_MARGIN = timedelta(minutes=15)
# A cancellation that shows no effect is asked for again.
_CANCEL_AGAIN = timedelta(hours=1)


@dataclass(slots=True)
class Poll:
    """What one poll did: provider calls made, shards asked about, shards that ended or were cancelled, what went wrong.

    `problems` are sentences without secrets or document text, `seen` the keys of shards of which the provider said
    anything.
    """

    calls: int = 0
    asked: int = 0
    ended: int = 0
    cancelled: int = 0
    problems: tuple[str, ...] = ()
    seen: list[str] = field(default_factory=list)


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
    report = Poll()
    with span("poll"):
        _poll(platform, shards, report, _Budget(platform, calls_max, deadline), start)
        if report.seen:
            platform.ledger.asked(report.seen)
        happened = report.ended or report.cancelled or report.problems
        tell(
            "polled",
            logging.INFO if happened else logging.DEBUG,
            calls=report.calls,
            asked=report.asked,
            ended=report.ended,
            cancelled=report.cancelled,
            problems=len(report.problems),
        )
    return report


def _poll(platform: Platform, shards: Sequence[Shard], report: Poll, budget: _Budget, start: int) -> None:
    accounts = list(_by_account(shards).items())
    first = start % len(accounts) if accounts else 0
    for (provider, *_), group in accounts[first:] + accounts[:first]:
        turn = start % len(group)
        try:
            client = platform.client_of(group[0])
            _poll_account(platform, client, group[turn:] + group[:turn], report, budget)
        except ProviderError as error:
            report.problems += (f"{provider}, {len(group):,} in flight: {error}",)


@dataclass(frozen=True, slots=True)
class _Budget:
    platform: Platform
    calls_max: int
    deadline: datetime | None

    def share(self, fifths: int) -> int:
        """So many fifths of the calls, one at least."""
        return max(1, self.calls_max * fifths // 5)

    def calls_left(self, report: Poll) -> int:
        if self.deadline is not None and self.platform.clock() >= self.deadline:
            return 0
        return self.calls_max - report.calls


def _poll_account(platform: Platform, client: Client, group: list[Shard], report: Poll, budget: _Budget) -> None:
    left = {shard.batch_id: shard for shard in group if shard.batch_id}
    singles = list(left.values())
    if len(left) > _SINGLES_MAX:
        begins_anywhere = platform.dialect_of(group[0]).lists_after_any
        for page in _from_the_top(client, group, report, budget, budget.share(4 if begins_anywhere else 1)):
            _record_listed(platform, client, page, left, report, budget)
            if not left:
                return
        missed = _poll_further_back(platform, client, group, left, report, budget) if begins_anywhere else []
        # The others in any order: with a fixed one, some might be left out for ever.
        singles = list(dict.fromkeys((*missed, *sample(list(left.values()), len(left)))))
    for shard in singles:
        if budget.calls_left(report) <= 0:
            return
        report.calls += 1
        _ask(platform, client, shard, report, budget)


def _from_the_top(
    client: Client, group: Sequence[Shard], report: Poll, budget: _Budget, kept: int
) -> Iterator[BatchPage]:
    """The account's batches page by page, as long as that takes fewer calls than asking one by one and leaves as many
    calls as are to be `kept` for what is further back.
    """
    oldest = min(shard.submitted_at for shard in group if shard.submitted_at) - _LIST_MARGIN
    cursor = None
    for _ in range(len(group)):
        if budget.calls_left(report) <= kept:
            return
        report.calls += 1
        page = client.batches(cursor)
        yield page
        cursor = page.cursor
        if cursor is None or page.batches[-1].created_at < oldest:
            return


def _poll_further_back(
    platform: Platform,
    client: Client,
    group: Sequence[Shard],
    left: dict[str, Shard],
    report: Poll,
    budget: _Budget,
) -> list[Shard]:
    """Pages that begin where batches of ours are, as long as they have one on average; those come first that nothing
    was said of for the longest time. Returns those that were on no page, though one was read for them.
    """
    newest_first = sorted(group, key=_submitted, reverse=True)
    newer = {shard.key: other.batch_id for other, shard in pairwise(newest_first)}
    pages = found = 0
    missed = []
    for shard in sorted(newest_first, key=_asked):
        if shard.batch_id not in left or shard.key not in newer:
            continue
        is_worth_it = pages < _PAGES_TRIED or found >= pages
        if not is_worth_it or budget.calls_left(report) <= budget.share(1):
            break
        report.calls += 1
        pages += 1
        with suppress(NotThere, RequestRejected):  # where nothing is known of the batch before it
            found += _record_listed(platform, client, client.batches(newer[shard.key]), left, report, budget)
        missed.append(shard)
    return [shard for shard in missed if shard.batch_id in left]


def _submitted(shard: Shard) -> datetime:
    return shard.submitted_at or _LONG_AGO


def _asked(shard: Shard) -> datetime:
    return shard.asked_at or _LONG_AGO


def _record_listed(
    platform: Platform, client: Client, page: BatchPage, left: dict[str, Shard], report: Poll, budget: _Budget
) -> int:
    """Record what a page says of the batches that are left, and take them out. Returns how many these were."""
    found = [batch for batch in page.batches if batch.batch_id in left]
    for batch in found:
        _record(platform, client, left.pop(batch.batch_id), batch, report, budget)
    return len(found)


def _ask(platform: Platform, client: Client, shard: Shard, report: Poll, budget: _Budget) -> None:
    assert shard.batch_id is not None
    try:
        batch = client.batch(shard.batch_id)
    except NotThere as error:
        report.seen.append(shard.key)
        # Counted from the first time that it was not there: an old batch may be missing for a moment too.
        if not platform.missing_for_good(shard, error):
            return
        report.problems += (f"batch {shard.batch_id} has vanished: {error}",)
        with suppress(IllegalTransition):
            platform.ledger.vanished(shard, f"the provider does not know batch {shard.batch_id} any more")
            report.ended += 1
            tell("vanished", logging.WARNING, **of_shard(shard))
    else:
        _record(platform, client, shard, batch, report, budget)


def _record(platform: Platform, client: Client, shard: Shard, batch: Batch, report: Poll, budget: _Budget) -> None:
    report.asked += 1
    report.seen.append(shard.key)
    platform.ledger.there(shard)
    if batch.state is BatchState.IN_PROGRESS:
        if batch.counts.finished != shard.finished:
            platform.ledger.progress(shard.key, batch.counts.finished)
        if is_overdue(shard, platform.clock()) and budget.calls_left(report) > 0:
            report.calls += 1
            _cancel(platform, client, shard, report)
        return
    with suppress(IllegalTransition):  # another poll was faster
        platform.ledger.ended(shard.key, batch)
        report.ended += 1
        tell("ended", **of_shard(shard), state=batch.state.value, finished=batch.counts.finished)


def is_overdue(shard: Shard, now: datetime) -> bool:
    """Whether a batch that is not done has had its time and is to be cancelled (again). Pure.

    Never one that is only believed to be the shard's: it may be somebody else's.
    """
    if shard.deadline_s is None or shard.submitted_at is None or shard.adopted:
        return False
    if shard.cancelled_at is not None and now < shard.cancelled_at + _CANCEL_AGAIN:
        return False
    return now >= shard.submitted_at + timedelta(seconds=shard.deadline_s)


def _cancel(platform: Platform, client: Client, shard: Shard, report: Poll) -> None:
    """What is finished is kept and collected once the provider has stopped; the rest is for the next wave."""
    assert shard.batch_id is not None
    platform.ledger.cancelled(shard)
    try:
        client.cancel(shard.batch_id)
        report.cancelled += 1
        tell("cancelled", logging.WARNING, **of_shard(shard))
    except ProviderError as error:
        report.problems += (f"batch {shard.batch_id} is past its deadline and could not be cancelled: {error}",)


def _by_account(shards: Sequence[Shard]) -> dict[tuple[str, str, str, Mode], list[Shard]]:
    groups: dict[tuple[str, str, str, Mode], list[Shard]] = defaultdict(list)
    for shard in shards:
        if shard.state is ShardState.SUBMITTED:
            groups[shard.provider, shard.endpoint, shard.account, shard.mode].append(shard)
    return groups
