"""The ledger's sum against the referee's, over many requests of all lengths that fail in many ways."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import exp, log
from pathlib import Path
from random import Random
from typing import Any

import polars as pl

from bench.month.contenders import STEPS_MAX, MonthFailed, Tell
from bench.month.referee import Bill, bill_of
from bench.task import DOCUMENTS, PARTITION, PROVIDERS, enrichment
from llm_assets.enrichment import Enrichment
from llm_assets.platform import Platform
from llm_assets.records import ShardLimits
from llm_assets.waves import Step
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.platforms import Time, go_on, open_platform, submit

_CHARS_MIN, _CHARS_MAX = 50, 5_000
# Beyond the length from which a request costs more: 100,000 tokens at Anthropic, 272,000 at OpenAI, of four characters.
_LONG_CHARS = {"anthropic": (390_000, 480_000), "openai": (1_080_000, 1_200_000)}
_LONG = 12
_SHARDS = 8
_LOOK_S = 600.0  # what is missing counts as gone when it is missed at every look of a quarter of an hour
_FAULTS: list[dict[str, Any]] = [
    *({"fault": fault, "rate": 0.02, "attempts": 2} for fault in ("overloaded", "api_error", "expired", "missing_row")),
    *({"fault": fault, "rate": 0.02} for fault in ("truncated", "invalid_json", "schema_violation", "duplicate_row")),
    *({"fault": fault, "rate": 0.01} for fault in ("refusal", "empty_content", "duplicate_conflict", "stray_row")),
    {"fault": "status_zero", "rate": 0.01, "provider": "openai"},
    {"fault": "expired_partial", "times": 1},
]


@dataclass(frozen=True, slots=True)
class Accounts:
    """What the referee, the ledger and the published tables say of the same requests."""

    bill: Bill
    ledger_usd: float
    tables_usd: float
    waves: int
    long_requests: int


def accounts_of(requests: int, seed: int, folder: Path, tell: Tell) -> dict[str, Accounts]:
    """Both protocols' accounts, half of the requests over each."""
    return {provider: _accounts(provider, requests // 2, seed, folder / provider, tell) for provider in PROVIDERS}


def _accounts(provider: str, requests: int, seed: int, folder: Path, tell: Tell) -> Accounts:
    limits = ShardLimits(requests=max(1, requests // _SHARDS), bytes=100_000_000)
    asked = replace(enrichment(provider), limits=limits, failure_rate_max=1.0)
    with Emulator(folder / "emulator", latency_s=3600) as emulator:
        time = Time(emulator)
        platform = open_platform(folder / "store", emulator.url, time)
        try:
            tell(f"{provider}: {requests:,} documents")
            texts = _texts(provider, requests, seed)
            documents = pl.DataFrame({"document_id": [f"d{number}" for number in range(requests)], "text": texts})
            platform.store.write(platform.store.documents(DOCUMENTS, PARTITION), documents)
            emulator.faults(_FAULTS)
            _to_the_end(platform, asked, time, tell)
            tables = (platform.store.enriched(asked.name, PARTITION), platform.store.failed(asked.name, PARTITION))
            return Accounts(
                bill=bill_of(emulator, provider, asked.model_name),
                ledger_usd=platform.ledger.money.spent(asked.name).cost_usd,
                tables_usd=sum(
                    platform.store.scan(table).select(pl.col("cost_usd").sum()).collect().item() for table in tables
                ),
                waves=max(shard.wave for shard in platform.ledger.shards(asked.name, PARTITION)),
                long_requests=min(_LONG, requests),
            )
        finally:
            platform.close()


def _to_the_end(platform: Platform, asked: Enrichment, time: Time, tell: Tell) -> None:
    submit(platform, asked, PARTITION)
    for number in range(STEPS_MAX):
        step = go_on(platform, asked, PARTITION)
        tell(f"{asked.provider}: step {number + 1}, {step}")
        if step is Step.NOTHING:
            return
        if step is Step.HELD:
            break
        if step is not Step.COLLECT:
            time.passes(seconds=_LOOK_S)
    raise MonthFailed(f"{asked.provider}: no end after {number + 1} steps, the last {step}")


def _texts(provider: str, requests: int, seed: int) -> list[str]:
    """Texts of 50 to 5,000 characters, as many short ones as long ones on a scale of doublings, and a few huge ones."""
    random = Random(f"{seed}/{provider}")  # noqa: S311 (texts, not secrets)
    doublings = log(_CHARS_MAX / _CHARS_MIN)
    lengths = [round(_CHARS_MIN * exp(random.random() * doublings)) for _ in range(requests)]
    for place in random.sample(range(requests), min(_LONG, requests)):
        lengths[place] = random.randint(*_LONG_CHARS[provider])
    return [_filled(number, length) for number, length in enumerate(lengths)]


def _filled(number: int, length: int) -> str:
    return (f"Text {number}. " + "It says a thing or two. " * (length // 24 + 1))[:length]
