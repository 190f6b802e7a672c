"""Who is at work, and the proof that somebody is not: with real processes that live, are killed, close and fork."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from threading import Thread

import pytest
import sqlalchemy as sa

from llm_assets.errors import LedgerError
from llm_assets.ledger import Ledger
from llm_assets.platform import new_owner
from llm_assets.reconciliation import Adopt, reconcile_partition
from llm_assets.records import ShardState
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.platforms import P, labels, open_platform, submit, write_documents
from llm_assets_tests.samples import NOW, PLAN, SHARD

OWNER = "host/1/random, with spaces"
_PROCESSES = get_context("forkserver")
_GONE_SECONDS_MAX = 30


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    opened = Ledger(ledger_url, lambda: NOW)
    opened.record_plan(PLAN, [SHARD], replaces=None)
    yield opened
    opened.close()


def claim(ledger: Ledger, owner: str = OWNER) -> bool:
    return ledger.claim("k", owner=owner, account="a")


Life = Callable[[Ledger, Connection], None]


def work_until_told(ledger: Ledger, pipe: Connection) -> None:
    pipe.send(os.getpid())
    pipe.recv()


def close_and_stay(ledger: Ledger, pipe: Connection) -> None:
    ledger.close()
    pipe.send(os.getpid())
    pipe.recv()


def fork_and_stay(ledger: Ledger, pipe: Connection) -> None:
    """The child tells, and goes on when its parent is dead."""
    if os.fork() == 0:
        pipe.send(os.getpid())
        pipe.recv()
        os._exit(0)
    os.waitpid(-1, 0)


def fork_a_child_that_ends(ledger: Ledger, pipe: Connection) -> None:
    if (child := os.fork()) == 0:
        ledger.close()
        os._exit(0)
    os.waitpid(child, 0)
    pipe.send(os.getpid())
    pipe.recv()


def fork_a_child_that_claims(ledger: Ledger, pipe: Connection) -> None:
    if (child := os.fork()) == 0:
        try:
            ledger.claim("other", owner=OWNER, account="a")
        except LedgerError as error:
            pipe.send(str(error))
        os._exit(0)
    os.waitpid(child, 0)


def live(url: str, life: Life, pipe: Connection) -> None:
    """A process that claims a shard, and what it does then."""
    ledger = Ledger(url, lambda: NOW)
    assert claim(ledger)
    life(ledger, pipe)


@contextmanager
def worker(url: str, life: Life) -> Iterator[tuple[ForkServerProcess, Connection]]:
    ours, theirs = _PROCESSES.Pipe()
    process = _PROCESSES.Process(target=live, args=(url, life, theirs))
    process.start()
    theirs.close()
    try:
        yield process, ours
    finally:
        process.kill()
        process.join()
        ours.close()


def told(pipe: Connection) -> object:
    assert pipe.poll(60)
    return pipe.recv()


def gone_before_long(ledger: Ledger, owner: str = OWNER) -> bool:
    """A server hears of the end of a connection a moment later."""
    deadline = time.monotonic() + _GONE_SECONDS_MAX
    while not ledger.is_gone(owner):
        if time.monotonic() > deadline:
            return False
    return True


def lock_files(url: str) -> list[Path]:
    return [*Path(f"{url.removeprefix('sqlite:///')}.owners").glob("*")] if url.startswith("sqlite") else []


def test_who_works_is_not_gone_and_who_was_killed_is(ledger: Ledger, ledger_url: str) -> None:
    with worker(ledger_url, work_until_told) as (process, pipe):
        told(pipe)
        assert not ledger.is_gone(OWNER)
        process.kill()
        process.join()
        assert gone_before_long(ledger)
    assert ledger.shard("k").owner == OWNER
    assert lock_files(ledger_url) == []


def test_who_closed_the_ledger_is_gone_although_its_process_lives(ledger: Ledger, ledger_url: str) -> None:
    with worker(ledger_url, close_and_stay) as (_, pipe):
        told(pipe)
        assert lock_files(ledger_url) == []
        assert gone_before_long(ledger)


def test_a_forked_child_does_not_keep_its_dead_parents_lock(ledger: Ledger, ledger_url: str) -> None:
    with worker(ledger_url, fork_and_stay) as (process, pipe):
        child = told(pipe)
        assert not ledger.is_gone(OWNER)
        process.kill()
        process.join()
        assert gone_before_long(ledger)
        assert isinstance(child, int)
        os.kill(child, 0)  # it lives
        pipe.send("go")


def test_a_forked_child_does_not_end_its_parents_lock(ledger: Ledger, ledger_url: str) -> None:
    with worker(ledger_url, fork_a_child_that_ends) as (_, pipe):
        told(pipe)
        assert not ledger.is_gone(OWNER)


def test_a_forked_child_cannot_work_under_its_parents_name(ledger: Ledger, ledger_url: str) -> None:
    with worker(ledger_url, fork_a_child_that_claims) as (_, pipe):
        assert "at work in another process already" in str(told(pipe))


def test_who_never_had_a_lock_is_gone(ledger: Ledger) -> None:
    assert ledger.is_gone("host/1/from an old ledger")


def test_two_owners_in_two_threads_of_one_process_are_told_apart(ledger: Ledger, ledger_url: str) -> None:
    with closing(Ledger(ledger_url, lambda: NOW)) as other:
        threads = [Thread(target=claim, args=(each, name)) for each, name in ((ledger, "first"), (other, "second"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [each.is_gone(name) for each in (ledger, other) for name in ("first", "second")] == [False] * 4
    assert gone_before_long(ledger, "second")
    assert not ledger.is_gone("first")


def test_a_lock_is_taken_by_who_claims_only(ledger: Ledger, ledger_url: str) -> None:
    assert lock_files(ledger_url) == []
    assert ledger.is_gone("looks only")
    assert lock_files(ledger_url) == []


def test_names_are_never_used_again() -> None:
    assert len({new_owner() for _ in range(100)}) == 100


@pytest.mark.parametrize("ledger_url", ["postgres"], indirect=True)
def test_a_broken_connection_counts_as_gone_until_the_next_claim(ledger: Ledger, ledger_url: str) -> None:
    assert claim(ledger)
    engine = sa.create_engine(ledger_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        holders = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
        assert len(connection.exec_driver_sql(holders).all()) == 1
    engine.dispose()
    assert gone_before_long(ledger)
    assert ledger.lingers > timedelta()
    ledger.released("k")
    assert claim(ledger)
    assert not ledger.is_gone(OWNER)


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_the_claim_of_a_platform_that_is_open_is_left_alone(emulator: Emulator, tmp_path: Path, provider: str) -> None:
    enrichment = labels(provider)
    other = open_platform(tmp_path, emulator.url)
    with closing(open_platform(tmp_path, emulator.url)) as platform:
        write_documents(platform, ["This is good."])
        emulator.faults([{"fault": "dropped_after_store", "times": 1}])
        submit(platform, enrichment)
        assert reconcile_partition(other, enrichment.name, P) == []
    (verdict,) = reconcile_partition(other, enrichment.name, P)
    assert isinstance(verdict, Adopt)
    assert [shard.state for shard in other.ledger.shards(enrichment.name, P)] == [ShardState.SUBMITTED]
    other.close()
