"""What can be seen from outside of the hosts: in Dagster's storage, in the ledger, and in pools over both hosts."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

import dagster as dg
from dagster._core.execution.backfill import BulkActionStatus

from cluster.definitions import ENRICHMENTS, PROVIDERS
from cluster.launcher import HOST_TAG
from llm_assets.components.enrichment_assets import asset_key

_WAITING = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED]
_UNDER_WAY = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
_EVERY_SECONDS = 1.0


def pool(provider: str) -> str:
    """The pool of the runs that send to a provider."""
    return f"llm_assets_{provider}"


def write_down_limits(instance: dg.DagsterInstance) -> None:
    """What `dagster instance concurrency set` does: the first runs of a pool of which nobody has written down a limit
    are let in without one, whatever dagster.yaml has as its default.
    """
    default = instance.get_concurrency_config().pool_config.default_pool_limit
    assert default is not None
    for provider in PROVIDERS:
        instance.event_log_storage.set_concurrency_slots(pool(provider), default)


def in_pools(runs: Iterable[dg.DagsterRun]) -> Counter[tuple[str, str]]:
    """How many of these runs are in which provider's pool, on which host: those that materialize `batches`."""
    found: Counter[tuple[str, str]] = Counter()
    for run in runs:
        for provider, enrichment in ENRICHMENTS.items():
            if run.asset_selection is None or asset_key(enrichment.name, "batches") in run.asset_selection:
                found[provider, run.tags.get(HOST_TAG, "")] += 1
    return found


@dataclass(slots=True)
class Pools:
    """The pools, looked at every second while the block lasts, by a query to Dagster's storage."""

    instance: dg.DagsterInstance
    looks: int = 0
    most: Counter[str] = field(default_factory=Counter)
    over_both: Counter[str] = field(default_factory=Counter)
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._look_on, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        assert self._thread is not None
        self._thread.join()

    @property
    def limits(self) -> dict[str, int]:
        """What Dagster allows in each provider's pool."""
        storage = self.instance.event_log_storage
        return {provider: storage.get_concurrency_info(pool(provider)).slot_count for provider in PROVIDERS}

    def _look_on(self) -> None:
        while not self._ended.wait(_EVERY_SECONDS):
            found = in_pools(self.instance.get_runs(dg.RunsFilter(statuses=_UNDER_WAY)))
            self.looks += 1
            for provider in PROVIDERS:
                by_host = {host: count for (name, host), count in found.items() if name == provider and host}
                self.most[provider] = max(self.most[provider], sum(by_host.values()))
                self.over_both[provider] += len(by_host) > 1


def running_on(instance: dg.DagsterInstance, address: str) -> int:
    """How many runs are under way on a host."""
    runs = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED], tags={HOST_TAG: address}))
    return len(runs)


def is_under_way(instance: dg.DagsterInstance, job: str) -> bool:
    """Whether anything of a job's backfills is to come, or runs."""
    runs = instance.get_runs(dg.RunsFilter(job_name=job, statuses=[*_WAITING, *_UNDER_WAY]), limit=1)
    return bool(runs or instance.get_backfills(status=BulkActionStatus.REQUESTED, limit=1))


def runs_by_host(instance: dg.DagsterInstance) -> Counter[tuple[str, str]]:
    """How many runs had which end on which host."""
    return Counter((run.tags.get(HOST_TAG, ""), run.status.value) for run in instance.get_runs())


def materialized(instance: dg.DagsterInstance) -> int:
    """Partitions of `enriched` that Dagster knows of, over all enrichments."""
    return sum(
        len(instance.get_materialized_partitions(asset_key(enrichment.name, "enriched")))
        for enrichment in ENRICHMENTS.values()
    )
