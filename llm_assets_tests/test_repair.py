"""Answers that break the schema are shown to the model once, with what was wrong: real SDKs against the emulator."""

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from llm_assets.enrichment import Enrichment
from llm_assets.platform import Platform
from llm_assets.records import Reason
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.platforms import P, enriched, failed, finish, labels, local, open_platform, reasons, run, submit

DOCUMENT = "an unlucky and bad one"
ENDPOINTS = {"anthropic": None, "openai": "/v1/responses", "openai-chat": "/v1/chat/completions"}


@pytest.fixture(params=ENDPOINTS)
def enrichment(request: pytest.FixtureRequest) -> Enrichment:
    provider = str(request.param).partition("-")[0]
    return replace(labels(provider), endpoint=ENDPOINTS[request.param], attempts=5)


@pytest.fixture
def platform(tmp_path: Path, emulator: Emulator) -> Iterator[Platform]:
    opened = open_platform(tmp_path / "store", emulator.url)
    yield opened
    opened.close()


def sent(platform: Platform, enrichment: Enrichment, wave: int) -> list[Any]:
    """The bodies that were sent in a wave, read from its shards' files."""
    shards = [shard for shard in platform.ledger.shards(enrichment.name, P) if shard.wave == wave]
    suffix = platform.dialect(enrichment.provider, enrichment.endpoint).shard_format.suffix
    bodies: list[Any] = []
    for shard in shards:
        text = local(platform.store, shard.path + suffix).read_bytes()
        rows = orjson.loads(text)["requests"] if suffix == ".json" else map(orjson.loads, text.splitlines())
        bodies += [row.get("params") or row["body"] for row in rows]
    return bodies


def turns(body: Any) -> list[tuple[str, str]]:
    found = body["messages"] if "messages" in body else body["input"]
    return [(turn["role"], turn["content"]) for turn in found if turn["role"] != "system"]


def asked(emulator: Emulator) -> Counter[str]:
    """How often each request was accepted, by fingerprint, whatever was changed about its content."""
    return Counter(row["custom_id"][-32:] for row in emulator.rows())


def test_the_second_request_shows_the_model_its_answer_and_the_error(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    emulator.faults([{"fault": "invalid_json", "match": "unlucky", "times": 1}])
    run(platform, enrichment, ["good", DOCUMENT])
    assert enriched(platform, enrichment)["sentiment"].to_list() == ["positive", "negative"]
    (first,) = [body for body in sent(platform, enrichment, 1) if DOCUMENT in str(body)]
    (second,) = sent(platform, enrichment, 2)
    prompt, answer, told = turns(second)
    assert [prompt] == turns(first)
    assert answer[0] == "assistant"
    assert answer[1].startswith("Sure! Here it is:")
    assert told[0] == "user"
    assert "refused: answer: Invalid JSON" in told[1]
    assert sorted(asked(emulator).values()) == [1, 2]
    assert max(row["billed"] for row in emulator.contents()) == 1


@pytest.mark.parametrize("fault", ["invalid_json", "schema_violation"])
def test_an_answer_that_is_invalid_twice_is_asked_for_exactly_twice(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, fault: str
) -> None:
    emulator.faults([{"fault": fault, "match": "unlucky"}])
    run(platform, enrichment, ["good", DOCUMENT])
    assert reasons(platform, enrichment) == {"d1": Reason.INVALID_ANSWER}
    assert sorted(asked(emulator).values()) == [1, 2]


def test_another_round_grants_another_repair(platform: Platform, enrichment: Enrichment, emulator: Emulator) -> None:
    emulator.faults([{"fault": "schema_violation", "match": "unlucky"}])
    run(platform, enrichment, [DOCUMENT])
    for _ in range(2):
        submit(platform, enrichment, retry_failed=True)
    finish(platform, enrichment)
    assert failed(platform, enrichment)["attempts"].to_list() == [3]
    emulator.faults([])
    submit(platform, enrichment, retry_failed=True)
    finish(platform, enrichment)
    assert enriched(platform, enrichment)["sentiment"].to_list() == ["negative"]
    assert [len(turns(body)) for body in sent(platform, enrichment, 4)] == [3]


def test_an_answer_without_text_is_told_of_alone(
    platform: Platform, enrichment: Enrichment, emulator: Emulator
) -> None:
    emulator.faults([{"fault": "empty_content", "match": "unlucky", "times": 1}])
    run(platform, enrichment, [DOCUMENT])
    assert enriched(platform, enrichment)["wave"].to_list() == [2]
    assert all(text.strip() for body in sent(platform, enrichment, 2) for _, text in turns(body))


@pytest.mark.parametrize("faults", [("truncated", "invalid_json"), ("invalid_json", "truncated")])
def test_an_answer_that_was_cut_and_another_that_was_invalid_are_both_remembered(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, faults: tuple[str, str]
) -> None:
    first, second = ({"fault": fault, "match": "unlucky", "times": 1} for fault in faults)
    emulator.faults([first, second])
    run(platform, enrichment, [DOCUMENT])
    assert enriched(platform, enrichment)["wave"].to_list() == [3]
    (body,) = sent(platform, enrichment, 3)
    assert len(turns(body)) == 3
    assert 128 in body.values()


def test_neither_document_nor_answer_comes_into_logs(
    platform: Platform, enrichment: Enrichment, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    emulator.faults([{"fault": "invalid_json", "match": "unlucky"}])
    run(platform, enrichment, [DOCUMENT])
    assert "unlucky" not in caplog.text
    assert "Here it is" not in caplog.text
    assert "Here it is" not in failed(platform, enrichment)["message"].item()
