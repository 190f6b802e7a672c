"""The program of a host for runs: it starts a process for each that the launcher sends, and knows what became of it.

    python -m cluster.agent NAME ADDRESS [daemon]

What is imported once is forked for each run, which so begins in a second instead of ten.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from multiprocessing.managers import BaseManager
from pathlib import Path

PORT = 9000
KEY = b"the hosts' network has no other guests"
_FORKS = get_context("forkserver")
_PRELOADED = (
    *("cluster.definitions", "cluster.launcher", "dagster._cli.api", "dagster_postgres", "psycopg", "psycopg2"),
    *("dagster_aws.s3", "llm_assets.store.bucket", "anthropic", "openai"),
)


class Agents(BaseManager):
    """The way to an agent: `connect`, then `runs`."""


class Runs:
    """The runs of this host."""

    def __init__(self) -> None:
        self._processes: dict[str, ForkServerProcess] = {}

    def start(self, run_id: str, arguments: Sequence[str]) -> None:
        """Start a process with what `dagster api` is given."""
        self._processes[run_id] = process = _FORKS.Process(target=_run, args=(list(arguments),))
        process.start()

    def exit_code(self, run_id: str) -> int | None:
        """None while it lives; -1 for a run that nothing is known of."""
        process = self._processes.get(run_id)
        return -1 if process is None else process.exitcode

    def stop(self, run_id: str) -> bool:
        """End it, if it lives."""
        if self.exit_code(run_id) is not None:
            return False
        self._processes[run_id].terminate()
        return True


def _run(arguments: list[str]) -> None:
    from dagster._cli.api import api_cli

    api_cli(arguments)


def main(name: str, address: str, role: str = "") -> None:
    """Until the host ends."""
    socket.sethostname(name)
    sys.stdin.readline()  # the network is there
    _FORKS.set_forkserver_preload(list(_PRELOADED))
    runs = Runs()
    Agents.register("runs", lambda: runs, exposed=("start", "exit_code", "stop"))
    server = Agents((address, PORT), KEY).get_server()
    if role == "daemon":
        threading.Thread(target=_keep_a_daemon, daemon=True).start()
    server.serve_forever()


def _keep_a_daemon() -> None:
    """Dagster's daemon, started again when it ends, as a service is."""
    command = [str(Path(sys.executable).with_name("dagster-daemon")), "run", "--module-name", "cluster.definitions"]
    while True:
        subprocess.run(command, cwd=os.environ["DAGSTER_HOME"], check=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
