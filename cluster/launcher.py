"""A launcher that puts each run on one host or another: what EcsRunLauncher is to a cluster of ECS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import dagster as dg
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, RunLauncher, WorkerStatus
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from cluster.agent import KEY, PORT, Agents

HOST_TAG = "cluster/host"
# An agent that cannot be reached: nobody knows what its runs do, or its host is gone.
_UNREACHABLE = (OSError, EOFError)


class HostsLauncher(RunLauncher[dg.DagsterInstance], ConfigurableClass):
    """Runs on `hosts`, which are addresses of agents, in turn; where one is gone, on the next."""

    def __init__(self, hosts: Sequence[str], inst_data: ConfigurableClassData | None = None) -> None:
        self._hosts, self._data, self._launched = list(hosts), inst_data, 0
        Agents.register("runs")
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """What dagster.yaml says."""
        return self._data

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """The form of that."""
        return {"hosts": [str]}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """As dagster.yaml says."""
        return cls(inst_data=inst_data, **config_value)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start it on the host whose turn it is."""
        run, instance = context.dagster_run, self._instance
        origin = context.job_code_origin
        assert origin is not None
        arguments = ExecuteRunArgs(job_origin=origin, run_id=run.run_id, instance_ref=instance.get_ref())
        self._launched += 1
        turn = self._launched % len(self._hosts)
        for host in self._hosts[turn:] + self._hosts[:turn]:
            try:
                _runs(host).start(run.run_id, arguments.get_command_args()[-2:])
            except _UNREACHABLE:
                continue
            instance.add_run_tags(run.run_id, {HOST_TAG: host})
            return
        raise dg.DagsterError(f"none of the hosts {', '.join(self._hosts)} can be reached")

    def terminate(self, run_id: str) -> bool:
        """End it."""
        run = self._instance.get_run_by_id(run_id)
        return run is not None and HOST_TAG in run.tags and bool(_runs(run.tags[HOST_TAG]).stop(run_id))

    @property
    def supports_check_run_worker_health(self) -> bool:
        """As that of ECS does."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether its process lives."""
        host = run.tags.get(HOST_TAG)
        if host is None:
            return CheckRunHealthResult(WorkerStatus.UNKNOWN, "not launched yet")
        try:
            code = _runs(host).exit_code(run.run_id)
        except _UNREACHABLE:
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"the host {host} is gone")
        if code is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED if code else WorkerStatus.SUCCESS, f"it ended with {code}")


def _runs(host: str) -> Any:
    agents = Agents((host, PORT), KEY)
    agents.connect()
    return agents.runs()  # type: ignore[attr-defined]
