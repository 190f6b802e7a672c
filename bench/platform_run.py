"""The first contender: this platform, by the calls that its Dagster assets make. Dagster itself is not measured."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.task import KEY, PARTITION, enrichment
from llm_assets.collection import collect_partition
from llm_assets.platform import Platform, Settings
from llm_assets.polling import poll
from llm_assets.providers import Credentials, get_provider
from llm_assets.reconciliation import reconcile_partition
from llm_assets.records import ShardState
from llm_assets.submission import plan_partition, send_planned
from llm_assets.waves import Step, next_step

_POLL_SECONDS = 0.2


def prepare(provider: str) -> None:
    """Import what is imported late."""
    get_provider(provider)


def submit(provider: str, root: Path, url: str) -> int:
    """What materializing `batches` does. Returns the requests that were sent."""
    with _platform(root, url) as platform:
        return _submit(platform, provider)


def wait(provider: str, root: Path, url: str) -> None:
    """What the sensor does, until every batch has ended."""
    with _platform(root, url) as platform:
        while _is_waiting(platform, provider):
            poll(platform, platform.ledger.active_shards(), calls_max=25)
            time.sleep(_POLL_SECONDS)  # what the sensor's interval is; not part of what is timed


def collect(provider: str, root: Path, url: str) -> int:
    """What materializing `enriched` and `failed` does. Returns the answers that were published."""
    with _platform(root, url) as platform:
        progress = collect_partition(platform, enrichment(provider), PARTITION)
        if not progress.published or progress.failed:
            raise RuntimeError(f"expected a published partition without failures, found {progress}")
        return progress.enriched


def again(provider: str, root: Path, url: str) -> int:
    """Materializing `batches` once more, when there is nothing to do. Returns the documents that were looked at."""
    with _platform(root, url) as platform:
        if sent := _submit(platform, provider):
            raise RuntimeError(f"expected nothing to do, found {sent} requests sent again")
        plan = platform.ledger.plan(enrichment(provider).name, PARTITION)
        shards = platform.ledger.shards(enrichment(provider).name, PARTITION)
        if plan is None or next_step(plan, shards, platform.clock()) is not Step.NOTHING:
            raise RuntimeError(f"expected a partition that needs nothing, found {plan}")
        return plan.documents


def changed(provider: str, root: Path, url: str) -> int:
    """Materializing `batches` when one document says something else. Returns the requests that were sent."""
    with _platform(root, url) as platform:
        return _submit(platform, provider)


def _submit(platform: Platform, provider: str) -> int:
    asked = enrichment(provider)
    reconcile_partition(platform, asked.name, PARTITION)
    plan = plan_partition(platform, asked, PARTITION)
    return send_planned(platform, plan).requests


def _is_waiting(platform: Platform, provider: str) -> bool:
    shards = platform.ledger.shards(enrichment(provider).name, PARTITION)
    return any(shard.state is ShardState.SUBMITTED for shard in shards)


@contextmanager
def _platform(root: Path, url: str) -> Iterator[Platform]:
    credentials = {"anthropic": Credentials(KEY, url), "openai": Credentials(KEY, f"{url}/v1")}
    platform = Platform.open(Settings(str(root), f"sqlite:///{root / 'ledger.db'}", credentials))
    try:
        yield platform
    finally:
        platform.close()
