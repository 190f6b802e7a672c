"""The first contender: this platform, by the calls that its Dagster assets make. Dagster itself is not measured."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from bench.task import KEY, PARTITION, enrichment, share_documents
from llm_assets.collection import collect_partition
from llm_assets.planning import plan_partition
from llm_assets.platform import Platform, Settings, utc_now
from llm_assets.polling import poll
from llm_assets.providers import Credentials, get_provider
from llm_assets.reconciliation import reconcile_partition
from llm_assets.records import ShardState
from llm_assets.submission import send_planned
from llm_assets.waves import Step, next_step

EARLIER_PARTITIONS = 90
_POLL_SECONDS = 0.2
_HOUR = timedelta(hours=1)
_BETWEEN_LOOKS, _LOOKS_MAX = timedelta(minutes=5), 12


def prepare(provider: str) -> None:
    """Import what is imported late."""
    get_provider(provider).connect(credentials("http://127.0.0.1:9")[provider]).close()


def submit(provider: str, root: Path, url: str) -> int:
    """What materializing `batches` does. Returns the requests that were sent."""
    with opened(root, url) as platform:
        return _submit(platform, provider)


def wait(provider: str, root: Path, url: str) -> None:
    """What the sensor does, until every batch has ended."""
    with opened(root, url) as platform:
        _await(platform, provider)


def collect(provider: str, root: Path, url: str) -> int:
    """What materializing `enriched` and `failed` does. Returns the answers that were published."""
    with opened(root, url) as platform:
        progress = collect_partition(platform, enrichment(provider), PARTITION)
        if not progress.published or progress.failed:
            raise RuntimeError(f"expected a published partition without failures, found {progress}")
        return progress.enriched


def again(provider: str, root: Path, url: str) -> int:
    """Materializing `batches` once more, when there is nothing to do. Returns the documents that were looked at."""
    with opened(root, url) as platform:
        if sent := _submit(platform, provider):
            raise RuntimeError(f"expected nothing to do, found {sent} requests sent again")
        plan = platform.ledger.plan(enrichment(provider).name, PARTITION)
        shards = platform.ledger.shards(enrichment(provider).name, PARTITION)
        if plan is None or next_step(plan, shards, platform.clock()) is not Step.NOTHING:
            raise RuntimeError(f"expected a partition that needs nothing, found {plan}")
        return plan.documents


def changed(provider: str, root: Path, url: str) -> int:
    """Materializing `batches` when one document says something else. Returns the requests that were sent."""
    with opened(root, url) as platform:
        return _submit(platform, provider)


def resume(provider: str, root: Path, url: str) -> int:
    """`submit` an hour after another process was killed at it, and again every few minutes as the sensor does, until it
    is known of every shard whether the provider has it; and wait. Returns the requests that were sent.
    """
    sent = 0
    for look in range(_LOOKS_MAX):
        with opened(root, url, ahead=_HOUR + look * _BETWEEN_LOOKS) as platform:
            sent += _submit(platform, provider)
            _await(platform, provider)
            shards = platform.ledger.shards(enrichment(provider).name, PARTITION)
            if all(shard.state in (ShardState.ENDED, ShardState.COLLECTED) for shard in shards):
                break
    return sent


def resume_collect(provider: str, root: Path, url: str) -> int:
    """`collect` after `resume`."""
    with opened(root, url, ahead=_HOUR + _LOOKS_MAX * _BETWEEN_LOOKS) as platform:
        return collect_partition(platform, enrichment(provider), PARTITION).enriched


def sent_bytes(provider: str, root: Path, url: str) -> int:
    """How many bytes of requests the partition has sent."""
    with opened(root, url) as platform:
        return sum(shard.bytes for shard in platform.ledger.shards(enrichment(provider).name, PARTITION))


def beginning(provider: str, root: Path, url: str) -> int:
    """Take one partition from its documents to its tables. Returns the answers that were published."""
    return _earlier(1, provider, root, url)


def history(provider: str, root: Path, url: str) -> int:
    """As `beginning`, of 90 partitions."""
    return _earlier(EARLIER_PARTITIONS, provider, root, url)


def _earlier(partitions: int, provider: str, root: Path, url: str) -> int:
    names = [f"earlier-{number:02}" for number in range(partitions)]
    with opened(root, url) as platform:
        for partition in names:
            share_documents(root, root, partition)
            _submit(platform, provider, partition)
        for partition in names:
            _await(platform, provider, partition)
        return sum(collect_partition(platform, enrichment(provider), partition).enriched for partition in names)


def _submit(platform: Platform, provider: str, partition: str = PARTITION) -> int:
    asked = enrichment(provider)
    reconcile_partition(platform, asked.name, partition)
    plan = plan_partition(platform, asked, partition)
    return send_planned(platform, plan).requests


def _await(platform: Platform, provider: str, partition: str = PARTITION) -> None:
    while True:
        poll(platform, platform.ledger.active_shards(), calls_max=25)
        shards = platform.ledger.shards(enrichment(provider).name, partition)
        if all(shard.state is not ShardState.SUBMITTED for shard in shards):
            return
        time.sleep(_POLL_SECONDS)  # what the sensor's interval is; not part of what is timed


def credentials(url: str) -> dict[str, Credentials]:
    """Of both accounts at the emulator."""
    return {"anthropic": Credentials(KEY, url), "openai": Credentials(KEY, f"{url}/v1")}


@contextmanager
def opened(root: Path, url: str, ahead: timedelta = timedelta()) -> Iterator[Platform]:
    """A platform over the store and the ledger in a folder, whose clock is `ahead`."""
    settings = Settings(str(root), f"sqlite:///{root / 'ledger.db'}", credentials(url))
    platform = Platform.open(settings, clock=lambda: utc_now() + ahead)
    try:
        yield platform
    finally:
        platform.close()
