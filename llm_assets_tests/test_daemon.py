"""A real daemon that is killed, with all its processes, and started again: the partitions finish all the same."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from llm_assets.demo import LABELS, Demo, Options
from llm_assets.ledger import Ledger
from llm_assets.platform import utc_now
from llm_assets.records import ShardState
from llm_assets.store import Store
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.ports import free_port

PARTITION = "2026-11-01"
SECONDS_MAX = 200


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    with Demo(Options(tmp_path, port=free_port(), model="scripted"), say=print) as running:
        yield running


@pytest.fixture
def emulator(demo: Demo, tmp_path: Path) -> Emulator:
    """The demo's emulator, to be told what to do."""
    controls = Emulator(tmp_path / "emulator")
    controls.url = f"http://127.0.0.1:{demo.emulator_port}"
    controls.faults([])
    return controls


def until(demo: Demo, happens: Callable[[Ledger], bool]) -> None:
    """Wait for the ledger to say something."""
    ledger = Ledger(f"sqlite:///{demo.options.folder / 'store' / 'ledger.db'}", utc_now)
    deadline = time.monotonic() + SECONDS_MAX
    while not happens(ledger):
        assert time.monotonic() < deadline, ledger.active_shards()
        time.sleep(0.2)  # polling a process that has no way to tell us
    ledger.close()


def in_state(state: ShardState, count: int) -> Callable[[Ledger], bool]:
    return lambda ledger: sum(shard.state is state for shard in ledger.active_shards()) >= count


def all_published(ledger: Ledger) -> bool:
    plans = ledger.plans()
    return len(plans) == len(LABELS.enrichments) and all(plan.published_at for plan in plans)


def kill_dagster_and_start_it_again(demo: Demo) -> None:
    dagster = demo._services.pop()
    os.killpg(dagster.process.pid, signal.SIGKILL)
    dagster.stop()
    demo._start_dagster()


def listening(demo: Demo) -> set[str]:
    """The addresses at which any process of the demo can be reached."""
    groups = {service.process.pid for service in demo._services}
    pids = [pid for pid in psutil.pids() if os.getpgid(pid) in groups]
    found = [socket for pid in pids for socket in psutil.Process(pid).net_connections("inet")]
    return {socket.laddr.ip for socket in found if socket.status == psutil.CONN_LISTEN}


def test_a_daemon_killed_in_the_middle_of_a_post_and_again_while_batches_are_on_their_way(
    demo: Demo, emulator: Emulator
) -> None:
    assert listening(demo) == {"127.0.0.1"}
    emulator.hold(True)
    emulator.faults([{"fault": "slow", "delay_s": 30, "times": 1}])
    demo.webserver.launch(
        PARTITION, [["documents", LABELS.documents], *([name, "batches"] for name in LABELS.enrichments)]
    )
    until(demo, in_state(ShardState.SUBMITTING, 1))
    kill_dagster_and_start_it_again(demo)
    until(demo, in_state(ShardState.SUBMITTED, 2))
    kill_dagster_and_start_it_again(demo)
    emulator.hold(False)

    until(demo, all_published)

    store = Store(demo.options.folder / "store")
    documents = store.scan(store.documents(LABELS.documents, PARTITION)).collect().height
    for name in LABELS.enrichments:
        tables = store.enriched(name, PARTITION), store.failed(name, PARTITION)
        assert sum(store.scan(table).collect().height for table in tables) == documents > 0
    accounting = emulator.accounting()
    assert accounting["contents"]["accepted_most"] == accounting["contents"]["billed_most"] == 1
    assert accounting["requests"] == accounting["billed"] == accounting["contents"]["contents"]
