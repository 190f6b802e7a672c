"""How tests wire a platform to an emulator, and drive a partition to its end without Dagster."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from llm_assets.collection import collect_partition
from llm_assets.enrichment import Enrichment
from llm_assets.ledger import Ledger
from llm_assets.output_schema import OutputSchema
from llm_assets.planning import plan_partition
from llm_assets.platform import Platform, utc_now
from llm_assets.polling import poll
from llm_assets.progress import Progress
from llm_assets.prompt import Prompt
from llm_assets.providers import Credentials
from llm_assets.reconciliation import reconcile_partition
from llm_assets.records import Plan, Reason
from llm_assets.store import Store
from llm_assets.submission import send_planned
from llm_assets.waves import Step, next_step
from llm_assets_tests.emulator_process import Emulator

P = "2026-11-01"
_POLL_SECONDS = 0.05
MODELS = {"anthropic": "claude-haiku-5-5", "openai": "gpt-6-luna"}

LABELS = Enrichment(
    name="labels",
    documents="texts",
    provider="anthropic",
    model_name=MODELS["anthropic"],
    prompt=Prompt.parse("system:\nHow does the writer feel?\n\nuser:\n{{ text }}", "prompt.md"),
    output=OutputSchema.from_fields(
        "labels", {"sentiment": {"type": "string", "enum": ["positive", "negative", "neutral"]}}, "test"
    ),
    max_tokens=64,
)


@dataclass(slots=True)
class Time:
    """The platform's clock and the emulator's, moved together."""

    emulator: Emulator
    offset: timedelta = timedelta()

    def __call__(self) -> datetime:
        return utc_now() + self.offset

    def passes(self, **how_long: float) -> None:
        """Move both clocks; the arguments are timedelta's."""
        self.offset += timedelta(**how_long)
        self.emulator.advance_clock(timedelta(**how_long).total_seconds())


def labels(provider: str) -> Enrichment:
    """The enrichment of these tests, through one of the providers."""
    return replace(LABELS, provider=provider, model_name=MODELS[provider])


def open_platform(root: Path, url: str, clock: Callable[[], datetime] = utc_now) -> Platform:
    """A platform in a folder, whose providers are the emulator at `url`."""
    root.mkdir(parents=True, exist_ok=True)
    credentials = {"anthropic": Credentials("k", url), "openai": Credentials("k", f"{url}/v1")}
    return Platform(Store(root), Ledger(f"sqlite:///{root / 'ledger.db'}", clock), credentials, clock=clock)


def local(store: Store, path: str = "") -> Path:
    """Where a file of a store in a folder lies."""
    return Path(store.files.where(path))


def write_documents(platform: Platform, texts: list[str | None], partition: str = P) -> None:
    """The documents d0, d1, … with these texts."""
    frame = pl.DataFrame(
        {"document_id": [f"d{number}" for number in range(len(texts))], "text": texts},
        schema={"document_id": pl.String, "text": pl.String},
    )
    platform.store.write(platform.store.documents("texts", partition), frame)


def submit(platform: Platform, enrichment: Enrichment, partition: str = P, *, retry_failed: bool = False) -> Plan:
    """What materializing `batches` does."""
    reconcile_partition(platform, enrichment.name, partition)
    plan = plan_partition(platform, enrichment, partition, retry_failed=retry_failed)
    send_planned(platform, plan)
    return plan


def finish(platform: Platform, enrichment: Enrichment, partition: str = P, *, steps_max: int = 60) -> list[Step]:
    """Do what is due until nothing is, or until somebody must act. Returns the steps that were taken."""
    taken: list[Step] = []
    while not taken or taken[-1] not in (Step.NOTHING, Step.HELD):
        assert len(taken) <= steps_max, f"no end after {taken}"
        taken.append(go_on(platform, enrichment, partition))
    return taken


def finish_in_time(platform: Platform, enrichment: Enrichment, partition: str = P, *, seconds_max: float) -> None:
    """Do what is due until nothing is, with a model that takes its time. Fails where somebody must act."""
    deadline = time.monotonic() + seconds_max
    while (step := go_on(platform, enrichment, partition)) is not Step.NOTHING:
        assert step is not Step.HELD
        assert time.monotonic() < deadline, f"still to {step} after {seconds_max} s"
        time.sleep(_POLL_SECONDS)


def go_on(platform: Platform, enrichment: Enrichment, partition: str = P) -> Step:
    """Do what is due, and return what that was; then poll, as the sensor does at its next tick."""
    plan = platform.ledger.plan(enrichment.name, partition)
    assert plan is not None
    step = next_step(plan, platform.ledger.shards(enrichment.name, partition), platform.clock())
    if step is Step.SUBMIT:
        submit(platform, enrichment, partition)
    elif step is Step.COLLECT:
        collect_partition(platform, enrichment, partition)
    if step not in (Step.NOTHING, Step.HELD):
        poll(platform, platform.ledger.active_shards(), calls_max=25)
    return step


def run(platform: Platform, enrichment: Enrichment, texts: list[str | None]) -> Progress:
    """Documents in, tables out."""
    write_documents(platform, texts)
    submit(platform, enrichment)
    finish(platform, enrichment)
    return collect_partition(platform, enrichment, P)


def enriched(platform: Platform, enrichment: Enrichment, partition: str = P) -> pl.DataFrame:
    """The published answers."""
    return platform.store.scan(platform.store.enriched(enrichment.name, partition)).collect()


def failed(platform: Platform, enrichment: Enrichment, partition: str = P) -> pl.DataFrame:
    """The published failures."""
    return platform.store.scan(platform.store.failed(enrichment.name, partition)).collect()


def reasons(platform: Platform, enrichment: Enrichment) -> dict[str, Reason]:
    """Why the failed documents failed, by id."""
    rows = failed(platform, enrichment).select("document_id", "reason").iter_rows()
    return {document_id: Reason(reason) for document_id, reason in rows}
