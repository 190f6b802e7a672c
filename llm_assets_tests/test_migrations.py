"""Migrations: every released ledger comes along with its rows, whole or not at all, whoever opens it first."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from llm_assets.errors import LedgerError
from llm_assets.ledger import Ledger, migrations
from llm_assets.ledger.database import HEAD
from llm_assets.ledger.tables import metadata
from llm_assets.records import ShardState
from llm_assets_tests.postgres import Postgres
from llm_assets_tests.samples import NOW, PLAN, SHARD

# Each released schema as it was, by the revision that it counts as. It does not change any more.
RELEASED = {
    "0001": """
        CREATE TABLE plans (enrichment TEXT NOT NULL, partition TEXT NOT NULL, plan_id TEXT NOT NULL, digest TEXT NOT
            NULL, path TEXT NOT NULL, documents BIGINT NOT NULL, requests BIGINT NOT NULL, wave INTEGER NOT NULL, rounds
            INTEGER NOT NULL, pending BIGINT NOT NULL, held TEXT NOT NULL, planned_at TIME NOT NULL, published_at TIME,
            PRIMARY KEY (enrichment, partition));
        CREATE TABLE shards (key TEXT NOT NULL, enrichment TEXT NOT NULL, partition TEXT NOT NULL, wave INTEGER NOT
            NULL, provider TEXT NOT NULL, endpoint TEXT NOT NULL, account TEXT NOT NULL, requests BIGINT NOT NULL,
            bytes BIGINT NOT NULL, path TEXT NOT NULL, state TEXT NOT NULL, owner TEXT NOT NULL, claimed_at TIME,
            not_before TIME, staged_id TEXT, batch_id TEXT, past_batches JSON NOT NULL, adopted BOOLEAN NOT NULL,
            submitted_at TIME, ended_at TIME, collected_at TIME, finished BIGINT NOT NULL, code TEXT NOT NULL, message
            TEXT NOT NULL, PRIMARY KEY (key), UNIQUE (batch_id));
        CREATE INDEX shards_by_state ON shards (state);
        CREATE INDEX shards_of_a_partition ON shards (enrichment, partition)
    """,
    "0002": """
        CREATE TABLE decisions (number SERIAL NOT NULL, key TEXT NOT NULL, decided_at TIME NOT NULL, decision TEXT
            NOT NULL, batch_id TEXT, operator TEXT NOT NULL, PRIMARY KEY (number));
        CREATE INDEX ix_decisions_key ON decisions (key);
        CREATE TABLE ledger (id TEXT NOT NULL, PRIMARY KEY (id));
        CREATE TABLE plans (enrichment TEXT NOT NULL, partition TEXT NOT NULL, plan_id TEXT NOT NULL, digest TEXT
            NOT NULL, inputs TEXT DEFAULT '' NOT NULL, path TEXT NOT NULL, documents BIGINT NOT NULL, requests
            BIGINT NOT NULL, wave INTEGER NOT NULL, rounds INTEGER NOT NULL, pending BIGINT NOT NULL, held TEXT
            NOT NULL, planned_at TIME NOT NULL, published_at TIME, released_at TIME, not_before TIME, PRIMARY KEY
            (enrichment, partition));
        CREATE TABLE shards (key TEXT NOT NULL, enrichment TEXT NOT NULL, partition TEXT NOT NULL, wave INTEGER
            NOT NULL, provider TEXT NOT NULL, endpoint TEXT NOT NULL, model_name TEXT DEFAULT '' NOT NULL, account
            TEXT NOT NULL, requests BIGINT NOT NULL, bytes BIGINT NOT NULL, tokens BIGINT DEFAULT '0' NOT NULL,
            expected_usd DOUBLE PRECISION DEFAULT '0' NOT NULL, at_most_usd DOUBLE PRECISION DEFAULT '0' NOT NULL,
            charge_usd DOUBLE PRECISION DEFAULT '0' NOT NULL, charged_at TIME, path TEXT NOT NULL, state TEXT NOT
            NULL, owner TEXT NOT NULL, claimed_at TIME, not_before TIME, staged_id TEXT, batch_id TEXT,
            past_batches JSON NOT NULL, adopted BOOLEAN NOT NULL, submitted_at TIME, ended_at TIME, collected_at
            TIME, finished BIGINT NOT NULL, deadline_s BIGINT, cancelled_at TIME, missing_since TIME, missing_at
            TIME, missing_looks INTEGER DEFAULT '0' NOT NULL, schema_digest TEXT DEFAULT '' NOT NULL, results TEXT
            DEFAULT '' NOT NULL, swept_at TIME, forgotten_at TIME, code TEXT NOT NULL, message TEXT NOT NULL,
            plan_digest TEXT DEFAULT '' NOT NULL, PRIMARY KEY (key), UNIQUE (batch_id));
        CREATE INDEX shards_by_charge ON shards (charged_at);
        CREATE INDEX shards_by_collection ON shards (enrichment, collected_at);
        CREATE INDEX shards_by_state ON shards (state);
        CREATE INDEX shards_of_a_partition ON shards (enrichment, partition);
        CREATE INDEX shards_to_forget ON shards (enrichment, forgotten_at, collected_at);
        CREATE INDEX shards_to_sweep ON shards (enrichment, swept_at, collected_at);
        CREATE TABLE spending (key TEXT NOT NULL, enrichment TEXT NOT NULL, partition TEXT NOT NULL, provider TEXT
            NOT NULL, model_name TEXT NOT NULL, collected_at TIME NOT NULL, requests BIGINT NOT NULL, billed
            BIGINT NOT NULL, input_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL, cache_read_tokens BIGINT
            NOT NULL, cache_write_tokens BIGINT NOT NULL, cost_usd DOUBLE PRECISION NOT NULL, standard_usd DOUBLE
            PRECISION NOT NULL, uncached_usd DOUBLE PRECISION NOT NULL, bytes BIGINT NOT NULL, bytes_bytes DOUBLE
            PRECISION NOT NULL, bytes_input DOUBLE PRECISION NOT NULL, bytes_output DOUBLE PRECISION NOT NULL,
            PRIMARY KEY (key));
        CREATE INDEX spending_by_time ON spending (collected_at);
        CREATE INDEX spending_of_a_partition ON spending (enrichment, partition);
        CREATE INDEX spending_of_an_enrichment ON spending (enrichment, collected_at);
        CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, PRIMARY KEY (version_num));
        INSERT INTO alembic_version VALUES ('0002');
        INSERT INTO ledger VALUES ('an-id')
    """,
}
_PLAN_DIGEST = "plan_digest TEXT DEFAULT '' NOT NULL, "
_HOW_IT_IS_SENT = "mode TEXT DEFAULT 'batch' NOT NULL, rates TEXT DEFAULT '' NOT NULL, "
RELEASED["0003"] = (
    RELEASED["0002"].replace(_PLAN_DIGEST, _PLAN_DIGEST + _HOW_IT_IS_SENT).replace("VALUES ('0002')", "VALUES ('0003')")
)
PLANS = [
    replace(PLAN, pending=3, held="billing: no credit"),
    replace(PLAN, partition="q", wave=2, rounds=2, published_at=NOW),
]
SHARDS = [
    replace(
        SHARD,
        key=f"k-{state}",
        path=f"path-{number}",
        state=state,
        account="a",
        owner="host/1/2" if state is ShardState.SUBMITTING else "",
        batch_id=f"batch-{state}" if number >= 2 else None,
        claimed_at=NOW,
        staged_id="file",
        past_batches=("b1", "b2"),
        adopted=number % 2 == 0,
        submitted_at=NOW,
        finished=number,
        message="words",
    )
    for number, state in enumerate(ShardState)
]


@contextmanager
def database(url: str) -> Iterator[sa.Connection]:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def make_old(url: str, revision: str) -> None:
    """A ledger as that release made it, with rows in all states."""
    with database(url) as connection:
        zoned = connection.dialect.name == "postgresql"
        for statement in RELEASED[revision].split(";"):
            time = "TIMESTAMP WITH TIME ZONE" if zoned else "DATETIME"
            if not zoned:
                statement = statement.replace(" SERIAL", " INTEGER").replace("DOUBLE PRECISION", "DOUBLE")
            connection.exec_driver_sql(statement.replace(" TIME", f" {time}"))
        old = sa.MetaData()
        old.reflect(connection)
        for name, records in (("plans", PLANS), ("shards", SHARDS)):
            table = old.tables[name]
            rows = [{column.name: getattr(record, column.name) for column in table.columns} for record in records]
            connection.execute(sa.insert(table), rows)


def schema(url: str) -> dict[str, list[str]]:
    with database(url) as connection:
        seen = sa.inspect(connection)
        return {table: [column["name"] for column in seen.get_columns(table)] for table in seen.get_table_names()}


@pytest.mark.parametrize("revision", RELEASED)
def test_every_released_ledger_comes_along_with_its_rows(ledger_url: str, revision: str) -> None:
    make_old(ledger_url, revision)
    ledger = Ledger(ledger_url, lambda: NOW)
    assert ledger.plans("e") == PLANS
    assert ledger.shards("e", "p") == SHARDS
    ledger.close()


def test_all_schemas_but_the_newest_are_known_as_released() -> None:
    steps = ScriptDirectory(str(Path(migrations.__file__).parent)).walk_revisions()
    known = [step.revision for step in steps]
    assert known == [HEAD, *sorted(RELEASED, reverse=True)]


@pytest.mark.parametrize("start", ["empty", *RELEASED])
def test_the_migrations_leave_what_tables_py_says(ledger_url: str, start: str) -> None:
    if start in RELEASED:
        make_old(ledger_url, start)
    Ledger(ledger_url, lambda: NOW).close()
    with database(ledger_url) as connection:
        defaults = connection.dialect.name == "postgresql"  # Alembic misreads SQLite's empty ones
        options = {"compare_type": True, "compare_server_default": defaults}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
        assert connection.scalar(sa.text("SELECT COUNT(*) FROM ledger")) == 1


def test_a_new_ledger_needs_no_migrations(tmp_path: Path) -> None:
    opens = f"""
import sys
from datetime import UTC, datetime
from llm_assets.ledger import Ledger
Ledger("sqlite:///{tmp_path / "ledger.db"}", lambda: datetime.now(UTC)).close()
sys.exit("alembic" in sys.modules)
"""
    assert [subprocess.run([sys.executable, "-c", opens], check=False).returncode for _ in range(2)] == [0, 0]


def test_an_upgrade_that_fails_changes_nothing(ledger_url: str) -> None:
    make_old(ledger_url, "0001")
    with database(ledger_url) as connection:
        connection.exec_driver_sql("CREATE TABLE decisions (mine TEXT)")  # in the way, halfway
    before = schema(ledger_url)
    with pytest.raises(sa.exc.DatabaseError, match="decisions"):
        Ledger(ledger_url, lambda: NOW)
    assert schema(ledger_url) == before


def test_a_newer_ledger_is_left_alone(ledger_url: str) -> None:
    Ledger(ledger_url, lambda: NOW).close()
    with database(ledger_url) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(LedgerError, match=f"has the schema 9999; this version .* up to {HEAD}"):
        Ledger(ledger_url, lambda: NOW)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://host/ledger"])
def test_what_cannot_be_a_ledger_is_refused(url: str) -> None:
    with pytest.raises(LedgerError, match="cannot be a ledger: expected sqlite"):
        Ledger(url, lambda: NOW)


def test_a_database_that_nobody_reaches_is_named_without_its_password(tmp_path: Path) -> None:
    for url in ("postgresql://user:planted@127.0.0.1:1/ledger", f"sqlite:///{tmp_path}/no/such/folder/ledger.db"):
        with pytest.raises(LedgerError, match=r"cannot be opened: .* LLM_ASSETS_LEDGER_URL") as refused:
            Ledger(url, lambda: NOW)
        assert "planted" not in str(refused.value)


def test_a_plain_postgres_url_is_enough(postgres: Postgres) -> None:
    Ledger(postgres.url().replace("+psycopg", ""), lambda: NOW).close()


def open_all(urls: list[str], together: Barrier, outcomes: Any) -> None:
    for url in urls:
        together.wait()
        try:
            Ledger(url, lambda: NOW).close()
        except Exception as error:
            outcomes.put(repr(error))
        else:
            outcomes.put("opened")


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_two_processes_open_an_empty_or_an_old_ledger_at_the_same_moment(
    kind: str, tmp_path: Path, postgres: Postgres
) -> None:
    urls = [f"sqlite:///{tmp_path / f'{n}.db'}" if kind == "sqlite" else postgres.url() for n in range(12)]
    for url in urls[::2]:
        make_old(url, "0001")
    processes = get_context("forkserver")
    together, outcomes = processes.Barrier(2), processes.Queue()
    pair = [processes.Process(target=open_all, args=(urls, together, outcomes)) for _ in range(2)]
    for process in pair:
        process.start()
    assert [outcomes.get(timeout=60) for _ in range(2 * len(urls))] == ["opened"] * 2 * len(urls)
    for process in pair:
        process.join()
    assert {len(schema(url)) for url in urls} == {len(metadata.tables) + 1}
