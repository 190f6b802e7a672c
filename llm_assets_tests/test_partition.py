"""A partition's whole life, without Dagster: the real SDKs over real HTTP, the emulator as the other side.

The emulator's accounting is the referee: what it accepted and billed is counted there, not by the code under test.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from llm_assets.collection import collect_partition
from llm_assets.enrichment import Enrichment
from llm_assets.errors import LLMAssetsError, StoreError, SystemicError
from llm_assets.history import results_so_far
from llm_assets.planning import plan_partition
from llm_assets.platform import Platform
from llm_assets.prompt import Prompt
from llm_assets.records import Reason, ShardLimits, ShardState
from llm_assets.submission import send_planned
from llm_assets.waves import Step
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.platforms import (
    P,
    enriched,
    failed,
    finish,
    labels,
    local,
    open_platform,
    reasons,
    run,
    submit,
    write_documents,
)

TEXTS: list[str | None] = [f"Review {number}: this is a good thing." for number in range(20)]


@pytest.fixture(params=["anthropic", "openai", "openai-chat"])
def enrichment(request: pytest.FixtureRequest) -> Enrichment:
    provider, _, chat = str(request.param).partition("-")
    return replace(labels(provider), endpoint="/v1/chat/completions" if chat else None)


@pytest.fixture
def platform(tmp_path: Path, emulator: Emulator) -> Iterator[Platform]:
    opened = open_platform(tmp_path / "store", emulator.url)
    opened.missing_tolerance = timedelta()  # a row that is missing will not come any more
    yield opened
    opened.close()


def accepted(emulator: Emulator) -> Counter[str]:
    """How often each request's content was accepted, over all batches."""
    return Counter(row["digest"] for row in emulator.rows())


def billed(emulator: Emulator) -> Counter[str]:
    """How often each request's content was billed, over all batches."""
    return Counter(row["digest"] for row in emulator.rows() if row["billed"])


def test_documents_in_answers_out(platform: Platform, enrichment: Enrichment, emulator: Emulator) -> None:
    progress = run(platform, enrichment, TEXTS)
    answers = enriched(platform, enrichment)
    assert (progress.enriched, progress.failed, progress.wave) == (20, 0, 1)
    assert answers["document_id"].to_list() == [f"d{number}" for number in range(20)]
    assert set(answers["sentiment"]) == {"positive"}
    assert all("emulator" in model for model in answers["model"])
    assert answers["input_tokens"].min() > 0  # type: ignore[operator]
    assert set(billed(emulator).values()) == {1}


def test_a_partition_looked_at_in_parts_has_the_same_tables(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    emulator.faults([{"fault": "refusal", "match": "Review 3:"}, {"fault": "overloaded", "rate": 0.3, "attempts": 1}])
    numbered: list[str | None] = [f"Review {number}: this is a good thing." for number in range(2_500)]
    whole = run(platform, enrichment, [*numbered, None, numbered[3], "", numbered[0]])
    tables = enriched(platform, enrichment), failed(platform, enrichment)
    platform.part_requests = 1  # which are 2,000, the least that is worth a part
    parted = collect_partition(platform, enrichment, P)
    assert replace(parted, examples=whole.examples) == whole  # whichever come first in their part
    assert parted.examples.keys() == whole.examples.keys()
    assert enriched(platform, enrichment).equals(tables[0])
    assert failed(platform, enrichment).equals(tables[1])


def test_waves_planned_in_parts_send_what_is_due_once(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    platform.part_requests = 4
    emulator.faults([{"fault": "overloaded", "rate": 0.5, "attempts": 1}])
    assert run(platform, enrichment, TEXTS).enriched == 20
    assert set(billed(emulator).values()) == {1}


def test_more_attempts_are_made_when_more_are_declared(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    emulator.faults([{"fault": "overloaded", "match": "Review 7:"}])
    once = replace(enrichment, attempts=1)
    assert run(platform, once, TEXTS).failed == 1
    emulator.faults([])
    submit(platform, once)
    finish(platform, once)
    assert reasons(platform, once) == {"d7": Reason.OVERLOADED}
    submit(platform, enrichment)
    finish(platform, enrichment)
    assert reasons(platform, enrichment) == {}


def test_identical_documents_are_sent_once_and_answered_each(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    run(platform, enrichment, ["good", "good", "bad", "good"])
    answers = enriched(platform, enrichment)
    assert answers["sentiment"].to_list() == ["positive", "positive", "negative", "positive"]
    assert sorted(accepted(emulator).values()) == [1, 1]
    total = sum(row["input_tokens"] for row in emulator.rows())
    assert answers["input_tokens"].sum() == total


def test_a_document_without_text_costs_nothing(platform: Platform, enrichment: Enrichment, emulator: Emulator) -> None:
    run(platform, enrichment, ["good", None, "", "  "])
    assert reasons(platform, enrichment) == dict.fromkeys(["d1", "d2", "d3"], Reason.EMPTY_DOCUMENT)
    assert accepted(emulator).total() == 1


def test_a_partition_of_zero_documents_completes(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    progress = run(platform, enrichment, [])
    assert progress.published
    assert enriched(platform, enrichment).height == failed(platform, enrichment).height == 0
    assert accepted(emulator).total() == 0


def test_a_document_larger_than_a_shard_fails_alone(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    small = replace(enrichment, limits=ShardLimits(requests=100, bytes=20_000))
    run(platform, small, ["good", "x" * 30_000, "bad"])
    assert reasons(platform, small) == {"d1": Reason.DOCUMENT_TOO_LARGE}
    assert accepted(emulator).total() == 2


def test_requests_are_sent_in_shards_of_the_declared_size(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    run(platform, replace(enrichment, limits=ShardLimits(requests=8, bytes=1_000_000)), TEXTS)
    assert [shard.requests for shard in platform.ledger.shards(enrichment.name, P)] in ([8, 8, 4], [8, 4, 8], [4, 8, 8])
    assert set(billed(emulator).values()) == {1}


def test_materializing_again_sends_nothing(platform: Platform, enrichment: Enrichment, emulator: Emulator) -> None:
    run(platform, enrichment, TEXTS)
    before = emulator.accounting()["calls"]
    plan = platform.ledger.plan(enrichment.name, P)
    assert submit(platform, enrichment) == plan
    assert finish(platform, enrichment) == [Step.NOTHING]
    assert emulator.accounting()["calls"] == before


def test_submitting_again_while_the_batch_is_on_its_way_sends_nothing(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    emulator.hold(True)
    write_documents(platform, TEXTS)
    for _ in range(3):
        submit(platform, enrichment)
    emulator.hold(False)
    finish(platform, enrichment)
    assert set(accepted(emulator).values()) == {1}


def test_only_new_and_changed_documents_are_sent(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    run(platform, enrichment, TEXTS)
    run(platform, enrichment, [*TEXTS[:-1], "a changed one", "a new one"])
    assert accepted(emulator).total() == 22
    assert set(accepted(emulator).values()) == {1}
    assert enriched(platform, enrichment).height == 21


def test_a_new_prompt_is_not_answered_by_the_old_ones_batch(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    emulator.hold(True)
    write_documents(platform, ["good", "bad"])
    submit(platform, enrichment)
    changed = replace(enrichment, prompt=Prompt.parse("Another question: {{ text }}", "prompt.md"))
    submit(platform, changed)
    emulator.hold(False)
    finish(platform, changed)
    answers = enriched(platform, changed)
    second = {shard.wave for shard in platform.ledger.shards(enrichment.name, P)}
    assert second == {1, 2}
    assert set(answers["wave"]) == {2}
    assert all(shard.state is ShardState.COLLECTED for shard in platform.ledger.shards(enrichment.name, P))


def test_going_back_to_the_former_prompt_costs_nothing(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    changed = replace(enrichment, prompt=Prompt.parse("Another question: {{ text }}", "prompt.md"))
    run(platform, enrichment, ["good", "bad"])
    run(platform, changed, ["good", "bad"])
    run(platform, enrichment, ["good", "bad"])
    assert set(accepted(emulator).values()) == {1}
    assert set(enriched(platform, enrichment)["wave"]) == {1}


MIXED = [
    {"fault": "overloaded", "rate": 0.05, "seed": 1},
    {"fault": "expired", "rate": 0.05, "seed": 2},
    {"fault": "invalid_json", "rate": 0.02, "seed": 3},
    {"fault": "truncated", "rate": 0.01, "seed": 4},
    {"fault": "invalid", "rate": 0.01, "seed": 5, "attempts": "always"},
]


def test_mixed_row_faults_lose_nothing_and_only_what_is_worth_it_is_sent_again(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    emulator.faults(MIXED)
    texts: list[str | None] = [f"Review {number}: good or bad, who knows." for number in range(600)]
    progress = run(platform, enrichment, texts)
    first, *later = _fingerprints_by_batch(emulator)
    found = _outcomes_of_wave(platform, enrichment, 1)
    assert first == set(found)
    assert {None, "overloaded", "expired", "invalid_answer", "truncated", "invalid_request"} == set(found.values())
    permanent = {name for name, reason in found.items() if reason == Reason.INVALID_REQUEST}
    assert later[0] == {name for name, reason in found.items() if reason and name not in permanent}
    assert not permanent & set().union(*later)
    # Asked again with more room it is another content, which may meet the permanent fault for the first time.
    assert len(permanent) <= progress.failed <= len(permanent) + 3
    assert progress.enriched + progress.failed == 600
    assert set(reasons(platform, enrichment).values()) == {Reason.INVALID_REQUEST}


def _fingerprints_by_batch(emulator: Emulator) -> list[set[str]]:
    """What the emulator accepted, batch by batch; a custom_id ends with the request's fingerprint."""
    batches: dict[str, set[str]] = {}
    for row in emulator.rows():
        batches.setdefault(row["batch_id"], set()).add(row["custom_id"][-32:])
    return list(batches.values())


def _outcomes_of_wave(platform: Platform, enrichment: Enrichment, wave: int) -> dict[str, str | None]:
    shards = [shard for shard in platform.ledger.shards(enrichment.name, P) if shard.wave == wave]
    rows = results_so_far(platform.store, shards).select("fingerprint", "reason").collect().iter_rows()
    return dict(rows)


ROW_FAULTS = [
    pytest.param("overloaded", Reason.OVERLOADED, 3, id="overloaded"),
    pytest.param("api_error", Reason.API_ERROR, 3, id="api-error"),
    pytest.param("timeout", Reason.TIMEOUT, 3, id="timeout"),
    pytest.param("expired", Reason.EXPIRED, 3, id="expired"),
    pytest.param("canceled", Reason.CANCELED, 3, id="canceled"),
    pytest.param("missing_row", Reason.MISSING_RESULT, 3, id="missing-row"),
    pytest.param("invalid_json", Reason.INVALID_ANSWER, 2, id="invalid-json"),
    pytest.param("schema_violation", Reason.INVALID_ANSWER, 2, id="schema-violation"),
    pytest.param("truncated", Reason.TRUNCATED, 3, id="truncated"),
    pytest.param("invalid", Reason.INVALID_REQUEST, 1, id="invalid"),
    pytest.param("refusal", Reason.REFUSAL, 1, id="refusal"),
]


@pytest.mark.parametrize(("fault", "reason", "attempts"), ROW_FAULTS)
def test_a_row_that_always_fails_ends_in_failed_with_its_reason(
    platform: Platform,
    enrichment: Enrichment,
    emulator: Emulator,
    fault: str,
    reason: Reason,
    attempts: int,
) -> None:
    emulator.faults([{"fault": fault, "match": "unlucky"}])
    run(platform, enrichment, ["good", "unlucky", "bad"])
    row = failed(platform, enrichment).row(0, named=True)
    assert (row["document_id"], row["reason"], row["attempts"]) == ("d1", reason, attempts)
    assert enriched(platform, enrichment)["document_id"].to_list() == ["d0", "d2"]


@pytest.mark.parametrize("fault", ["thinking_first", "u2028", "duplicate_row"])
def test_an_awkward_row_is_an_answer_all_the_same(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, fault: str
) -> None:
    emulator.faults([{"fault": fault, "match": "awkward"}])
    run(platform, enrichment, ["good", "an awkward and bad one"])
    assert enriched(platform, enrichment)["sentiment"].to_list() == ["positive", "negative"]
    assert set(accepted(emulator).values()) == {1}


def test_a_truncated_answer_is_asked_for_with_more_room(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    emulator.faults([{"fault": "truncated", "match": "long", "times": 1}])
    run(platform, enrichment, ["good", "a long story"])
    assert enriched(platform, enrichment)["wave"].to_list() == [1, 2]


def test_an_expired_batchs_finished_rows_are_kept(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    emulator.faults([{"fault": "expired_partial", "times": 1, "share": 0.5}])
    run(platform, enrichment, TEXTS)
    assert enriched(platform, enrichment).height == 20
    assert set(billed(emulator).values()) == {1}
    assert set(enriched(platform, enrichment)["wave"]) == {1, 2}


def test_failed_documents_are_asked_about_again_when_somebody_wants_it(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    emulator.faults(
        [{"fault": "overloaded", "match": "unlucky", "rate": 1, "attempts": 3}, {"fault": "refusal", "match": "never"}]
    )
    run(platform, enrichment, ["good", "unlucky", "never"])
    assert reasons(platform, enrichment) == {"d1": Reason.OVERLOADED, "d2": Reason.REFUSAL}
    submit(platform, enrichment, retry_failed=True)
    finish(platform, enrichment)
    assert reasons(platform, enrichment) == {"d2": Reason.REFUSAL}
    assert max(billed(emulator).values()) == 1


def test_asking_again_for_what_has_failed_grants_one_round_however_often_it_is_asked(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    emulator.faults([{"fault": "overloaded", "match": "unlucky"}])
    run(platform, enrichment, ["good", "unlucky"])
    for _ in range(5):
        submit(platform, enrichment, retry_failed=True)
    finish(platform, enrichment)
    assert failed(platform, enrichment)["attempts"].to_list() == [6]
    assert max(accepted(emulator).values()) == 6


def test_a_refused_key_stops_everything_until_somebody_acts(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    emulator.faults([{"fault": "http_401", "times": 1}])
    write_documents(platform, TEXTS)
    with pytest.raises(SystemicError):
        submit(platform, enrichment)
    assert finish(platform, enrichment) == [Step.HELD]
    assert accepted(emulator).total() == 0
    submit(platform, enrichment)
    finish(platform, enrichment)
    assert enriched(platform, enrichment).height == 20
    assert set(accepted(emulator).values()) == {1}


def test_a_held_partition_stays_held_when_nobody_has_acted(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    emulator.faults([{"fault": "http_401", "times": 1}])
    write_documents(platform, TEXTS)
    with pytest.raises(SystemicError):
        submit(platform, enrichment)
    plan = plan_partition(platform, enrichment, P, release_hold=False)
    assert plan.held
    assert send_planned(platform, plan).batch_ids == ()
    assert accepted(emulator).total() == 0


def test_rows_that_the_account_is_refused_are_held_and_not_failed(platform: Platform, emulator: Emulator) -> None:
    enrichment = labels("anthropic")
    emulator.faults([{"fault": "billing", "match": "Review 7", "rate": 1, "attempts": 1}])
    write_documents(platform, TEXTS)
    submit(platform, enrichment)
    assert finish(platform, enrichment)[-1] is Step.HELD
    plan = platform.ledger.plan(enrichment.name, P)
    assert plan is not None
    assert "billing" in plan.held
    assert not platform.store.files.exists(platform.store.enriched(enrichment.name, P))
    submit(platform, enrichment)
    finish(platform, enrichment)
    assert enriched(platform, enrichment).height == 20
    assert set(billed(emulator).values()) == {1}


def test_every_refused_shard_is_a_failure_with_its_reason(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    emulator.faults([{"fault": "http_400", "times": 1}])
    run(platform, enrichment, ["good", "bad"])
    assert set(reasons(platform, enrichment).values()) == {Reason.INVALID_REQUEST}
    assert accepted(emulator).total() == 0


def test_kept_columns_and_prompt_columns_travel_to_the_answers(platform: Platform, enrichment: Enrichment) -> None:
    wide = replace(
        enrichment, keep=("stars",), prompt=Prompt.parse("{{ product }} ({{ stars }}): {{ text }}", "prompt.md")
    )
    frame = pl.DataFrame({"document_id": ["a", "b"], "text": ["good", ""], "product": ["x", "y"], "stars": [5, 1]})
    platform.store.write(platform.store.documents("texts", P), frame)
    submit(platform, wide)
    finish(platform, wide)
    assert enriched(platform, wide)["stars"].to_list() == [5]
    assert failed(platform, wide)["stars"].to_list() == [1]


@pytest.mark.parametrize("kind", ["requests", "results", "plan"])
@pytest.mark.parametrize("bytes_kept", [100, -8], ids=["cut", "no-end"])
def test_a_damaged_table_is_named(platform: Platform, emulator: Emulator, kind: str, bytes_kept: int) -> None:
    enrichment = labels("anthropic")
    write_documents(platform, TEXTS)
    submit(platform, enrichment)
    if kind == "results":
        finish(platform, enrichment)
    (table,) = local(platform.store).rglob(f"batches/*/**/*{kind}*.parquet")
    table.write_bytes(table.read_bytes()[:bytes_kept])
    with pytest.raises(StoreError, match=rf"{table.name} in the store .* is damaged .* put back a copy"):
        collect_partition(platform, enrichment, P)


def test_damage_within_the_answers_is_named_wherever_it_is_met(platform: Platform, emulator: Emulator) -> None:
    enrichment = labels("anthropic")
    run(platform, enrichment, [f"Review {number}: a good thing" for number in range(500)])
    (table,) = local(platform.store).rglob("*.results.parquet")
    whole = table.read_bytes()
    told = []
    for at in range(4, len(whole) - 200, 500):
        table.write_bytes(whole[:at] + bytes(200) + whole[at + 200 :])
        for act in (plan_partition, collect_partition):
            try:
                act(platform, enrichment, P)
            except StoreError as error:
                told.append(str(error))
    assert told
    assert all(f"{table.name} in the store" in text for text in told)


def test_tables_that_lack_a_document_are_not_published(platform: Platform, enrichment: Enrichment) -> None:
    write_documents(platform, TEXTS)
    plan = submit(platform, enrichment)
    platform.store.write(plan.path, platform.store.scan(plan.path).collect().tail(-1))
    with pytest.raises(LLMAssetsError, match="20 documents, but 19 enriched and 0 failed; nothing was published"):
        finish(platform, enrichment)
    assert not platform.store.files.exists(platform.store.enriched(enrichment.name, P))


def test_collecting_again_changes_nothing(platform: Platform, enrichment: Enrichment) -> None:
    first = run(platform, enrichment, [*TEXTS, None])
    before = enriched(platform, enrichment), failed(platform, enrichment)
    again = collect_partition(platform, enrichment, P)
    assert again == first
    assert enriched(platform, enrichment).equals(before[0])
    assert failed(platform, enrichment).equals(before[1])
