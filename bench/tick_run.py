"""Ticks of the real sensor, in a process of their own.

    python -m bench.tick_run PROVIDER ROOT URL

First some in which nothing has changed; then all batches end, and as many as it takes until the ledger knows.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.request
from dataclasses import asdict, dataclass, field
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg

from bench.platform_run import credentials
from bench.task import enrichment
from llm_assets.components.completion import completion_sensor
from llm_assets.components.enrichment_assets import enrichment_definitions
from llm_assets.components.resources import PlatformResource
from llm_assets.documents import DocumentSource
from llm_assets.records import ShardState

_QUIET_TICKS = 5
# When so many ticks learn nothing, no further one will.
_PATIENCE = 5


@dataclass(slots=True)
class Ticks:
    """What each tick took: provider calls, wall and processor time; the quiet ones, and those that learn.

    `unlearned` batches have ended without any tick finding out.
    """

    calls: list[int] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    learning_wall_s: list[float] = field(default_factory=list)
    unlearned: int = 0


def main(provider: str, root: str, url: str) -> None:
    """Tick, and print a line of JSON."""
    for name, found in credentials(url).items():
        os.environ[f"{name.upper()}_API_KEY"] = found.api_key
        os.environ[f"{name.upper()}_BASE_URL"] = found.base_url or ""
    resource, ticks = PlatformResource(root=root, ledger_url=f"sqlite:///{root}/ledger.db"), Ticks()
    repository = _definitions(provider, resource).get_repository_def()
    with TemporaryDirectory() as home, dg.DagsterInstance.local_temp(home) as instance:
        cursor = None
        for _ in range(_QUIET_TICKS):
            before, wall, cpu = _calls(url), time.perf_counter(), time.process_time()
            cursor = _tick(repository, instance, resource, cursor)
            ticks.wall_s.append(time.perf_counter() - wall)
            ticks.cpu_s.append(time.process_time() - cpu)
            ticks.calls.append(_calls(url) - before)
        _end_all(url, resource)
        in_flight = [_in_flight(resource)]
        while in_flight[-1] and (len(in_flight) <= _PATIENCE or in_flight[-1] < in_flight[-_PATIENCE]):
            wall = time.perf_counter()
            cursor = _tick(repository, instance, resource, cursor)
            ticks.learning_wall_s.append(time.perf_counter() - wall)
            in_flight.append(_in_flight(resource))
        ticks.unlearned = in_flight[-1]
    sys.stdout.write(json.dumps(asdict(ticks)) + "\n")


def _definitions(provider: str, resource: PlatformResource) -> dg.Definitions:
    """The enrichment with the partitions that the ledger has, and the sensor."""
    asked = enrichment(provider)
    with resource.platform() as platform:
        partitions = dg.StaticPartitionsDefinition([plan.partition for plan in platform.ledger.plans()])
    documents = DocumentSource(asked.documents, "{partition}.parquet", "document_id", "text")
    assets = enrichment_definitions(asked, documents, partitions)
    sensor = dg.Definitions(sensors=[completion_sensor([asked.name], 30)], resources={"platform": resource})
    return dg.Definitions.merge(assets, sensor)


def _tick(
    repository: dg.RepositoryDefinition, instance: dg.DagsterInstance, resource: PlatformResource, cursor: str | None
) -> str | None:
    context = dg.build_sensor_context(
        instance=instance, cursor=cursor, repository_def=repository, resources={"platform": resource}
    )
    with context:
        return repository.get_sensor_def("batch_completion").evaluate_tick(context).cursor


def _in_flight(resource: PlatformResource) -> int:
    with resource.platform() as platform:
        return sum(shard.state is ShardState.SUBMITTED for shard in platform.ledger.active_shards())


def _calls(url: str) -> int:
    return sum(_emulator(url, "GET", "accounting")["calls"].values())


def _end_all(url: str, resource: PlatformResource) -> None:
    """Let all batches go, and ask about each once, so that the emulator's work is not part of a tick."""
    _emulator(url, "POST", "hold", {"held": False})
    with resource.platform() as platform:
        for shard in platform.ledger.active_shards():
            assert shard.batch_id is not None
            platform.client(shard.provider, shard.endpoint).batch(shard.batch_id)


def _emulator(url: str, method: str, page: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/_emulator/{page}", data, method=method)  # noqa: S310 (loopback)
    with urllib.request.urlopen(request) as reply:  # noqa: S310
        return json.loads(reply.read())


if __name__ == "__main__":
    main(*sys.argv[1:])
