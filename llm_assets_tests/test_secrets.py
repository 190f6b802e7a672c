"""Keys, documents, prompts and answers are in the store's files and at the provider, and nowhere else, whatever breaks.

Everything runs through the assets in an instance that keeps all that Dagster keeps; then all of it is searched.
"""

import io
import logging
import secrets
import sqlite3
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from llm_assets.components.completion import completion_sensor
from llm_assets.components.documents import documents_asset, documents_key
from llm_assets.components.enrichment_assets import asset_key, enrichment_definitions
from llm_assets.components.resources import PlatformResource
from llm_assets.documents import DocumentSource
from llm_assets.emulator.faults import MENU, Scope
from llm_assets.enrichment import Enrichment
from llm_assets.output_schema import OutputSchema
from llm_assets.prompt import Prompt
from llm_assets.records import ShardLimits
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.platforms import MODELS

# Made up anew each time: a traceback shows the lines of this file, which must not hold them.
KEY, DOCUMENT, PROMPT, ANSWER = (secrets.token_hex(32) for _ in range(4))
PLANTED = {"key": KEY, "document": DOCUMENT, "prompt": PROMPT, "answer": ANSWER}
QUOTING = (f"invalid value: '{DOCUMENT}'", f"messages.0.content: {DOCUMENT}")
PIECE = 12  # so long a piece of what was planted counts as a leak

DAYS = dg.DailyPartitionsDefinition(start_date="2026-01-01", end_date="2026-06-01")
ROWS_DAY, *OTHER_DAYS = DAYS.get_partition_keys()
_BY_ITSELF = [fault.name for fault in MENU.values() if fault.scope is Scope.TRANSPORT and fault.name != "list_lag"]
TRANSPORT: list[list[dict[str, Any]]] = [
    *([{"fault": name, "delay_s": 0.1}] for name in _BY_ITSELF),
    *([{"fault": "http_401", "route": route}] for route in ("upload", "retrieve", "results")),
    *([{"fault": "http_400", "route": route}] for route in ("results", "delete", "delete_file")),
    *([{"fault": "html_200", "route": route}] for route in ("upload", "retrieve", "results")),
    *([{"fault": f"http_{status}", "says": words}] for status in (400, 403, 429, 500) for words in QUOTING),
    *([{"fault": "http_402", "provider": "anthropic", "says": words}] for words in QUOTING),
    *([{"fault": "http_400", "route": "upload", "says": words}] for words in QUOTING),
    [{"fault": "dropped_after_store"}, {"fault": "list_lag"}],
]
PROVIDERS = ("anthropic", "openai")
_WHOLE = [fault for fault in MENU.values() if fault.scope is not Scope.TRANSPORT]


def enrichment(provider: str) -> Enrichment:
    return Enrichment(
        name=f"notes_{provider}",
        documents="texts",
        provider=provider,
        model_name=MODELS[provider],
        prompt=Prompt.parse(f"system:\n{PROMPT}\n\nuser:\nSay {PROMPT} of:\n{{{{ text }}}}", "prompt.md"),
        output=OutputSchema.from_fields("notes", {"note": "string"}, "test"),
        max_tokens=64,
        reuse_days=0,  # each day is to send what it has
        keep=("text",),
        limits=ShardLimits(requests=1, bytes=1_000_000),
        hold_above=1,
        request_files_days=0,
        delete_at_provider=True,
        source="defs.yaml",
    )


def unrenderable(provider: str) -> Enrichment:
    """Its prompt trips over every document."""
    template = f"user:\n{PROMPT} {{{{ text | batch(text) }}}} {{{{ text.a.b.c }}}}"
    return replace(enrichment(provider), name="unrenderable", prompt=Prompt.parse(template, "prompt.md"))


ENRICHMENTS = [*map(enrichment, PROVIDERS), unrenderable("openai")]


def source(folder: Path, name: str, path: str, **columns: str) -> DocumentSource:
    return DocumentSource(
        name=name, path=path, id_column="id", text_column="body", columns=columns, base=folder, source="defs.yaml"
    )


def sources(folder: Path) -> list[DocumentSource]:
    return [
        source(folder, "texts", "{partition}.csv"),
        source(folder, "numbers", "{partition}.csv", number="integer"),
        source(folder, "lines", "{partition}.jsonl"),
        source(folder, "frames", "{partition}.parquet"),
    ]


BROKEN: dict[str, list[bytes]] = {
    "texts": [
        f"id,body\n1,{DOCUMENT},{DOCUMENT}\n".encode(),
        f"id,body\n1,{DOCUMENT}".encode() + b"\xff\n",
        f'id,body\n1,"{DOCUMENT}\n2,"x" {DOCUMENT}\n'.encode(),
        f"id,body\n1,{DOCUMENT}\n1,{DOCUMENT}\n".encode(),
        f"id,body\n,{DOCUMENT}\n".encode(),
        f"{DOCUMENT},{DOCUMENT} and more\n".encode(),
    ],
    "numbers": [f"id,body,number\n1,x,{DOCUMENT}\n".encode()],
    "lines": [
        f'{{"id":"1","body":"{DOCUMENT}"}}\n{{"id": {DOCUMENT}\n'.encode(),
        f'{{"id":"1","body":{{"{DOCUMENT}":1}}}}\n'.encode(),
        f'{{"id":"1","body":"{DOCUMENT}\\ud800"}}\n'.encode(),
        f'["{DOCUMENT}"]\n'.encode(),
    ],
    "frames": [f"PAR1{DOCUMENT}PAR1".encode()],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "sources"
    folder.mkdir()
    return folder


@pytest.fixture
def definitions(folder: Path) -> dg.Definitions:
    read = sources(folder)
    return dg.Definitions.merge(
        dg.Definitions(
            assets=[documents_asset(one, DAYS) for one in read],
            sensors=[completion_sensor([one.name for one in ENRICHMENTS], 30)],
            resources={"platform": PlatformResource()},
            executor=dg.in_process_executor,
        ),
        *(enrichment_definitions(one, read[0], DAYS) for one in ENRICHMENTS),
    )


@pytest.fixture
def home(tmp_path: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("LLM_ASSETS_ROOT", str(tmp_path / "store"))
    monkeypatch.setenv("ANTHROPIC_API_KEY", f"sk-ant-{KEY}")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", emulator.url)
    monkeypatch.setenv("OPENAI_API_KEY", f"sk-proj-{KEY}")
    monkeypatch.setenv("OPENAI_BASE_URL", emulator.openai_url)
    return home


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.get() as opened:
        yield opened


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """All that any library logs, debugging included."""
    words = io.StringIO()
    handler = logging.StreamHandler(words)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield words
    root.setLevel(level)
    root.removeHandler(handler)


class Deployment:
    """The assets, and a person who materializes them again and again."""

    def __init__(self, definitions: dg.Definitions, instance: dg.DagsterInstance) -> None:
        self._definitions, self._instance = definitions, instance
        self._job = definitions.resolve_implicit_global_asset_job_def()

    def materialize(self, *keys: dg.AssetKey, day: str) -> dg.ExecuteInProcessResult:
        return self._job.execute_in_process(
            instance=self._instance, partition_key=day, asset_selection=list(keys), raise_on_error=False
        )

    def enrich(self, day: str, *tables: str) -> dg.ExecuteInProcessResult:
        keys = [asset_key(one.name, table) for one in ENRICHMENTS for table in tables]
        return self.materialize(*([documents_key("texts")] * ("batches" in tables)), *keys, day=day)

    def tick(self) -> None:
        repository = self._definitions.get_repository_def()
        resources = dict(repository.get_top_level_resources())
        with dg.build_sensor_context(
            instance=self._instance, repository_def=repository, resources=resources
        ) as context:
            repository.get_sensor_def("batch_completion").evaluate_tick(context)


def write_day(folder: Path, day: str, names: list[str]) -> None:
    rows = [f"{number},fault-{name}: {DOCUMENT}" for number, name in enumerate(names)]
    (folder / f"{day}.csv").write_text("\n".join(["id,body", *rows]) + "\n")


def plant_answers(emulator: Emulator) -> int:
    """Put what was planted into every answer that the emulator holds. Returns how many files hold one."""
    changed = 0
    for file in (emulator.state_dir / "batches").rglob("*"):
        if file.is_file() and b"scripted" in (content := file.read_bytes()):
            file.write_bytes(content.replace(b"scripted", ANSWER.encode()))
            changed += 1
    return changed


def told_by(act: Callable[[], object]) -> str:
    """The full text of what is raised, with its causes."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is, it is searched
        act()
    return "".join(traceback.format_exception(caught.value))


WRONG: Mapping[str, Callable[[], object]] = {
    "prompt-that-does-not-parse": lambda: Prompt.parse(f"user:\n{PROMPT} {{{{ text", "prompt.md"),
    "prompt-with-a-stray-string": lambda: Prompt.parse(f"user:\n{{{{ 1 '{PROMPT}' }}}}", "prompt.md"),
    "prompt-that-cannot-be-rendered": lambda: Prompt.parse(f"user:\n{{{{ '{PROMPT}' + 1 }}}}", "prompt.md"),
    "prompt-with-an-unfinished-block": lambda: Prompt.parse(f"user:\n{{% if text %}}{PROMPT}", "prompt.md"),
    "prompt-without-a-user": lambda: Prompt.parse(f"system:\n{PROMPT}", "prompt.md"),
    "prompt-that-ends-with-an-answer": lambda: Prompt.parse(f"user:\n{PROMPT}\nassistant:\n{PROMPT}", "prompt.md"),
    "prompt-of-another-table": lambda: replace(
        enrichment("openai"), prompt=Prompt.parse(f"user:\n{PROMPT} {{{{ body }}}}", "prompt.md")
    ).check(["document_id", "text"]),
    "everything": lambda: replace(enrichment("openai"), name="A", attempts=0, max_tokens=0, provider="x").check([]),
    "params": lambda: replace(enrichment("anthropic"), params={"model": "x"}).check(["document_id", "text"]),
}


def leaks(content: str | bytes) -> set[str]:
    """Which planted things any piece of some content comes from."""
    text = content if isinstance(content, str) else content.decode("latin-1")
    return {
        name
        for name, planted in PLANTED.items()
        if any(planted[at : at + PIECE] in text for at in range(0, len(planted) - PIECE + 1, PIECE))
    }


def database_text(file: Path) -> str:
    """All rows of a SQLite file: in its bytes a long value is in pieces."""
    with sqlite3.connect(file) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = [row for name in names for row in connection.execute(f'SELECT * FROM "{name}"')]
    connection.close()
    return "\n".join(map(str, rows))


def searched(home: Path, store: Path) -> Iterator[tuple[str, str | bytes]]:
    """Every file that is not the store's own, and every database row by row, with its name."""
    for file in (*home.rglob("*"), *store.glob("ledger.db*")):
        if file.is_file():
            yield str(file), file.read_bytes()
            if file.suffix == ".db":
                yield f"rows of {file}", database_text(file)


def message_tables(store: Path, damaged_day: str) -> list[Path]:
    """The tables that hold the provider's words, where they can be read."""
    found = [*store.rglob("*.results.parquet"), *store.rglob("failed/*.parquet")]
    return [table for table in found if damaged_day not in str(table)]


def test_nothing_planted_is_anywhere_but_where_it_belongs(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    emulator: Emulator,
    home: Path,
    folder: Path,
    tmp_path: Path,
    logged: io.StringIO,
    capfd: pytest.CaptureFixture[str],
) -> None:
    deployment = Deployment(definitions, instance)
    store = tmp_path / "store"

    # Every fault of rows and batches, each on a document of its own.
    write_day(folder, ROWS_DAY, [fault.name for fault in _WHOLE])
    emulator.faults([{"fault": fault.name, "match": f"fault-{fault.name}:"} for fault in _WHOLE])
    deployment.enrich(ROWS_DAY, "batches")
    deployment.tick()
    assert plant_answers(emulator) > len(PROVIDERS)
    for _ in range(2):
        emulator.advance_clock(3600)
        deployment.enrich(ROWS_DAY, "enriched", "failed")
        deployment.enrich(ROWS_DAY, "batches")

    # Every fault of the transport, each on a day of its own.
    days = iter(OTHER_DAYS)
    for rules in TRANSPORT:
        day = next(days)
        write_day(folder, day, ["none"])
        emulator.faults(rules)
        run = deployment.enrich(day, "batches", "enriched", "failed")
        assert run.success or not rules[0].get("route", "").startswith("delete"), "what is published stays published"
    deployment.enrich(day, "batches")  # which asks what became of the batches whose replies were lost
    deployment.tick()
    assert set(MENU) - set(emulator.injected()) == set()

    # Sources and tables that cannot be read.
    emulator.faults([])
    for name, contents in BROKEN.items():
        for content in contents:
            day = next(days)
            suffix = {"lines": "jsonl", "frames": "parquet"}.get(name, "csv")
            (folder / f"{day}.{suffix}").write_bytes(content)
            assert not deployment.materialize(documents_key(name), day=day).success
    day = next(days)
    write_day(folder, day, ["none"])
    deployment.enrich(day, "batches", "enriched", "failed")
    for damaged in (*store.rglob(f"texts/{day}.parquet"), *store.rglob(f"{day}/wave-01/*.parquet")):
        content = damaged.read_bytes()
        damaged.write_bytes(content[:4] + DOCUMENT.encode() + content[4 + len(DOCUMENT) :])
    assert not deployment.enrich(day, "enriched", "failed").success

    raised = {name: told_by(act) for name, act in WRONG.items()}
    out, err = capfd.readouterr()
    found = {"stdout": leaks(out), "stderr": leaks(err), "logging": leaks(logged.getvalue())}
    found |= {f"the declaration {name}": leaks(text) for name, text in raised.items()}
    runs = instance.get_runs()
    found |= {f"run {one.run_id}": leaks(f"{one.tags} {one.run_config} {one}") for one in runs}
    found |= {name: leaks(content) for name, content in searched(home, store)}
    words = pl.concat([pl.read_parquet(table).select("message") for table in message_tables(store, day)])
    found["messages"] = leaks("\n".join(words["message"].drop_nulls()))
    assert {name: leaked for name, leaked in found.items() if leaked} == {}

    # The search is not in vain: all this is where it belongs, and all these places were written to.
    kept = b"".join(file.read_bytes() for file in store.rglob("*.json*"))
    assert leaks(kept) >= {"document", "prompt"}
    assert len(runs) > len(TRANSPORT)
    assert len(words["message"].drop_nulls().unique()) > len(_WHOLE) / 2
    assert "stays at the provider until it expires" in err
    assert logged.getvalue()
    names = [name for name, _ in searched(home, store)]
    for part in ("history/runs/", "runs.db", "compute_logs", "ledger.db"):
        assert any(part in name for name in names)
