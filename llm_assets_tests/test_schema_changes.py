"""An output schema that changes while answers to the former one are on their way: each is judged by its own."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from pydantic import BaseModel, ConfigDict, field_validator

from llm_assets.collection import collect_partition
from llm_assets.enrichment import Enrichment
from llm_assets.history import asked_for, results_so_far
from llm_assets.output_schema import OutputSchema
from llm_assets.platform import Platform
from llm_assets.polling import poll
from llm_assets.records import RESULTS_SCHEMA, Reason, ShardState
from llm_assets.waves import Step
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.platforms import (
    P,
    enriched,
    failed,
    finish,
    labels,
    open_platform,
    run,
    submit,
    write_documents,
)
from llm_assets_tests.samples import SHARD

TEXTS: list[str | None] = ["good", "bad", "an unlucky and bad one"]
OTHER = OutputSchema.from_fields("labels", {"mood": {"type": "string", "enum": ["positive", "negative"]}}, "test")


@pytest.fixture(params=["anthropic", "openai"])
def first(request: pytest.FixtureRequest) -> Enrichment:
    return labels(str(request.param))


@pytest.fixture
def second(first: Enrichment) -> Enrichment:
    return replace(first, output=OTHER)


@pytest.fixture
def platform(tmp_path: Path, emulator: Emulator) -> Iterator[Platform]:
    opened = open_platform(tmp_path / "store", emulator.url)
    yield opened
    opened.close()


def change_on_the_way(platform: Platform, first: Enrichment, second: Enrichment, emulator: Emulator) -> None:
    """Documents are sent with one schema, then another is declared, and both batches are collected."""
    emulator.hold(True)
    write_documents(platform, TEXTS)
    submit(platform, first)
    submit(platform, second)
    emulator.hold(False)
    finish(platform, second)


def test_the_new_schema_is_answered_and_the_old_answers_are_kept(
    platform: Platform, first: Enrichment, second: Enrichment, emulator: Emulator
) -> None:
    change_on_the_way(platform, first, second, emulator)
    assert enriched(platform, second)["mood"].to_list() == ["positive", "negative", "negative"]
    assert failed(platform, second).is_empty()
    assert max(row["accepted"] for row in emulator.contents()) == 1
    stored = results_so_far(platform.store, platform.ledger.shards(first.name, P)).collect()
    assert stored["reason"].null_count() == stored.height == 2 * len(TEXTS)
    assert sorted(stored["judged"].to_list()) == [False] * len(TEXTS) + [True] * len(TEXTS)


def test_the_old_answers_are_used_when_their_schema_is_declared_again(
    platform: Platform, first: Enrichment, second: Enrichment, emulator: Emulator
) -> None:
    change_on_the_way(platform, first, second, emulator)
    submit(platform, first)
    assert Step.SUBMIT not in finish(platform, first)
    assert enriched(platform, first)["sentiment"].to_list() == ["positive", "negative", "negative"]
    assert set(enriched(platform, first)["wave"]) == {1}
    assert len(emulator.batches()) == 2
    submit(platform, second)
    finish(platform, second)
    assert enriched(platform, second)["mood"].to_list() == ["positive", "negative", "negative"]
    assert [row["billed"] for row in emulator.contents()] == [1] * 2 * len(TEXTS)


def test_an_old_answer_that_nobody_has_judged_is_not_taken_by_another_day(
    platform: Platform, first: Enrichment, second: Enrichment, emulator: Emulator
) -> None:
    change_on_the_way(platform, first, second, emulator)
    write_documents(platform, TEXTS, "2026-11-02")
    submit(platform, first, "2026-11-02")
    finish(platform, first, "2026-11-02")
    assert set(enriched(platform, first, "2026-11-02")["wave"]) == {1}
    assert emulator.accounting()["billed"] == 3 * len(TEXTS)


def test_an_old_answer_that_breaks_its_own_schema_is_repaired_when_that_is_declared_again(
    platform: Platform, first: Enrichment, second: Enrichment, emulator: Emulator
) -> None:
    emulator.faults([{"fault": "schema_violation", "match": "unlucky"}])
    write_documents(platform, TEXTS)
    submit(platform, first)
    while {shard.state for shard in platform.ledger.shards(first.name, P)} != {ShardState.ENDED}:
        poll(platform, platform.ledger.active_shards(), calls_max=25)
    emulator.faults([])
    submit(platform, second)
    finish(platform, second)
    submit(platform, first)
    finish(platform, first)
    assert enriched(platform, first)["wave"].to_list() == [1, 1, 3]
    results = results_so_far(platform.store, platform.ledger.shards(first.name, P), first.output).collect()
    assert results.filter(pl.col("reason").is_not_null())["reason"].to_list() == [Reason.INVALID_ANSWER]
    assert [row["billed"] for row in emulator.contents()] == [1] * (2 * len(TEXTS) + 1)


def test_a_table_of_an_older_release_is_judged(platform: Platform, first: Enrichment, emulator: Emulator) -> None:
    run(platform, first, TEXTS)
    (shard,) = platform.ledger.shards(first.name, P)
    table = platform.store.scan(platform.store.results(shard)).drop("judged").collect()
    platform.store.write(platform.store.results(shard), table)
    found = results_so_far(platform.store, [shard], first.output)
    assert found.collect_schema() == RESULTS_SCHEMA
    assert found.collect()["judged"].to_list() == [True] * len(TEXTS)
    run(platform, first, TEXTS)
    assert len(emulator.batches()) == 1


def test_a_shard_that_does_not_say_what_it_asked_for_counts_as_the_current_schemas() -> None:
    shard = replace(SHARD, schema_digest="")
    assert asked_for(shard, OTHER)
    assert not asked_for(replace(SHARD, schema_digest="another"), OTHER)


def test_two_schemas_are_one_when_only_the_order_of_their_keys_differs() -> None:
    fields = {"label": "string", "note": "string"}
    schema = OutputSchema.from_fields("e", fields, "test")
    again = OutputSchema.from_fields("other", fields, "elsewhere")
    turned = replace(schema, json_schema=dict(reversed(schema.json_schema.items())))
    assert schema.digest == again.digest == turned.digest != OTHER.digest


class Loose(BaseModel):
    model_config = ConfigDict(extra="forbid", title="Labels")
    sentiment: str


class Tight(Loose):  # the same JSON schema: without docstrings, which would be descriptions in it
    @field_validator("sentiment")
    @classmethod
    def known(cls, value: str) -> str:
        if value not in ("negative", "neutral"):
            raise ValueError("not of today's list")
        return value


def of_class(first: Enrichment, model: type[BaseModel]) -> Enrichment:
    output = OutputSchema.from_class_path(f"{__name__}:{model.__name__}", "test")
    return replace(first, output=replace(output, name="labels"))


def test_a_tighter_validator_judges_what_is_taken_from_another_day(
    platform: Platform, first: Enrichment, emulator: Emulator
) -> None:
    loose, tight = of_class(first, Loose), of_class(first, Tight)
    assert loose.output.digest == tight.output.digest
    run(platform, loose, ["good", "bad"])
    found = enriched(platform, loose)["sentiment"].to_list()
    write_documents(platform, ["good", "bad"], "2026-11-02")
    submit(platform, tight, "2026-11-02")
    finish(platform, tight, "2026-11-02")
    settled = enriched(platform, tight, "2026-11-02").height + failed(platform, tight, "2026-11-02").height
    assert settled == 2
    assert not set(enriched(platform, tight, "2026-11-02")["sentiment"]) - {"negative", "neutral"}
    assert set(found) - {"negative", "neutral"}, "nothing was refused: the test has lost its point"


def test_a_tighter_validator_judges_what_is_not_published_yet(
    platform: Platform, first: Enrichment, emulator: Emulator
) -> None:
    loose, tight = of_class(first, Loose), of_class(first, Tight)
    emulator.faults([{"fault": "overloaded", "match": "later", "times": 1}])
    write_documents(platform, ["good", "bad", "later"])
    submit(platform, loose)
    poll(platform, platform.ledger.active_shards(), calls_max=25)
    assert not collect_partition(platform, loose, P).published
    finish(platform, tight)
    assert enriched(platform, tight).height + failed(platform, tight).height == 3
    assert not set(enriched(platform, tight)["sentiment"]) - {"negative", "neutral"}


def test_a_tighter_validator_asks_again_what_is_published(
    platform: Platform, first: Enrichment, emulator: Emulator
) -> None:
    loose, tight = of_class(first, Loose), of_class(first, Tight)
    run(platform, loose, ["good", "bad"])
    refused = set(enriched(platform, loose)["sentiment"]) - {"negative", "neutral"}
    assert refused, "nothing is refused: the test has lost its point"
    submit(platform, tight)
    finish(platform, tight)
    assert not set(enriched(platform, tight)["sentiment"]) - {"negative", "neutral"}
    assert enriched(platform, tight).height + failed(platform, tight).height == 2
    asked = emulator.accounting()["requests"]
    assert asked > 2
    assert submit(platform, tight).published_at is not None
    assert emulator.accounting()["requests"] == asked
