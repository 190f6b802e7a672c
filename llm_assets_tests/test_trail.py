"""What the log and the spans tell of a partition's life: every id, in one form, and nothing that anybody wrote."""

import logging
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from llm_assets import trail
from llm_assets.errors import SystemicError
from llm_assets.platform import Platform
from llm_assets.polling import poll
from llm_assets.records import ShardLimits
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.platforms import P, labels, run, submit, write_documents

TEXTS: list[str | None] = [f"Wendelstein said it is good, number {number}." for number in range(4)]
FORM = re.compile(r'[a-z-]+( [a-z_]+=([^\s"=]+|"([^"\\]|\\.)*"))*')
LABELS = replace(labels("openai"), limits=ShardLimits(requests=2, bytes=1_000_000))


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "llm_assets" and record.levelno >= level]


def facts(line: str) -> dict[str, str]:
    return dict(re.findall(r"(\w+)=(\S+)", line))


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG, "llm_assets"):
        yield caplog


def test_the_life_of_a_partition_is_told_in_lines_of_one_form(empty: Platform, log: pytest.LogCaptureFixture) -> None:
    run(empty, LABELS, TEXTS)
    told = lines(log)
    assert all(FORM.fullmatch(line) for line in told), told
    assert "Wendelstein" not in "".join(told)
    counted = [line.partition(" ")[0] for line in told]
    assert [counted.count(event) for event in ("planned", "submitted", "ended", "collected")] == [1, 2, 2, 2]
    assert counted[-1] == "published"
    for shard in empty.ledger.shards("labels", P):
        assert shard.batch_id is not None
        of_it = [line for line in told if shard.batch_id in line]
        assert [line.partition(" ")[0] for line in of_it] == ["submitted", "ended", "collected"]
        expected = {"enrichment": "labels", "partition": P, "wave": "1", "shard": shard.key, "provider": "openai"}
        for line in of_it:
            assert facts(line).items() >= (expected | {"requests": "2"}).items()
    assert facts(told[-1]).items() >= {"documents": "4", "enriched": "4", "failed": "0", "held": "False"}.items()


@pytest.mark.parametrize(
    ("fault", "event", "code"),
    [
        pytest.param("http_429", "postponed", "rate_limit_error", id="later"),
        pytest.param("dropped_after_store", "unsettled", "no_reply", id="nobody knows"),
        pytest.param("html_413", "rejected", "too_large", id="too large"),
        pytest.param("http_401", "refused", "authentication_error", id="the account"),
    ],
)
def test_what_was_not_accepted_is_a_warning_with_its_code(
    empty: Platform, emulator: Emulator, log: pytest.LogCaptureFixture, fault: str, event: str, code: str
) -> None:
    emulator.faults([{"fault": fault, "route": "create", "times": 1}])
    write_documents(empty, TEXTS)
    try:
        submit(empty, labels("anthropic"))
    except SystemicError:
        assert event == "refused"
    first, *_ = lines(log, logging.WARNING)
    assert first.partition(" ")[0] == event
    assert facts(first)["code"] == code
    assert facts(first)["shard"] == empty.ledger.shards("labels", P)[0].key


def test_a_poll_in_which_nothing_happened_is_no_line_for_everybody(
    empty: Platform, emulator: Emulator, log: pytest.LogCaptureFixture
) -> None:
    emulator.hold()
    write_documents(empty, TEXTS)
    submit(empty, LABELS)
    log.clear()
    poll(empty, empty.ledger.active_shards(), calls_max=9)
    assert lines(log) == []
    assert lines(log, logging.DEBUG) == ["polled calls=2 asked=2 ended=0 cancelled=0 problems=0"]
    emulator.hold(held=False)


def test_a_partition_with_blanks_in_its_name_is_quoted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "llm_assets"):
        trail.tell("planned", partition='a "b" c=d', held=False)
    assert lines(caplog) == [r'planned partition="a \"b\" c=d" held=False']
    assert FORM.fullmatch(lines(caplog)[0])


# -- spans


@pytest.fixture(scope="module")
def exporter() -> Iterator[InMemorySpanExporter]:
    """OpenTelemetry is set up once in a process; after these tests nothing is kept any more."""
    provider, found = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(found))
    trace.set_tracer_provider(provider)
    yield found
    found.shutdown()


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> InMemorySpanExporter:
    exporter.clear()
    return exporter


def named(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [found for found in spans.get_finished_spans() if found.name == f"llm_assets.{name}"]


def test_each_step_is_a_span_with_its_ids_and_without_texts(empty: Platform, spans: InMemorySpanExporter) -> None:
    run(empty, LABELS, TEXTS)
    shards = {shard.key: shard.batch_id for shard in empty.ledger.shards("labels", P)}
    for step in ("submit", "collect"):
        found = [dict(each.attributes or {}) for each in named(spans, step)]
        assert {each["llm_assets.shard"]: each["llm_assets.batch"] for each in found} == shards
        assert {(each["llm_assets.enrichment"], each["llm_assets.partition"]) for each in found} == {("labels", P)}
    assert [dict(each.attributes or {})["llm_assets.documents"] for each in named(spans, "plan")] == [4]
    assert dict(named(spans, "publish")[0].attributes or {})["llm_assets.enriched"] == 4
    assert named(spans, "poll")
    assert "Wendelstein" not in "".join(each.to_json() for each in spans.get_finished_spans())


def test_a_step_that_fails_says_so_by_the_type_of_its_error_alone(
    empty: Platform, emulator: Emulator, spans: InMemorySpanExporter
) -> None:
    emulator.faults([{"fault": "http_401", "route": "create", "times": 1, "says": "Wendelstein"}])
    write_documents(empty, TEXTS)
    with pytest.raises(SystemicError):
        submit(empty, LABELS)
    (failed,) = named(spans, "submit")
    assert (failed.status.status_code, failed.status.description) == (trace.StatusCode.ERROR, "SystemicError")
    assert failed.events == ()
    assert "Wendelstein" not in failed.to_json()


@pytest.mark.parametrize(
    ("fact", "told"),
    [
        pytest.param("plain", "plain", id="as it is"),
        pytest.param("two words", '"two words"', id="a blank"),
        pytest.param("a=b", '"a=b"', id="what would be a fact of its own"),
        pytest.param('say "no"', r'"say \"no\""', id="quotes"),
        pytest.param("two\nlines", r'"two\nlines"', id="two lines"),
        pytest.param("\x1b[2Jgone", r'"\u001b[2Jgone"', id="what clears a terminal"),
        pytest.param("a\u2028b", r'"a\u2028b"', id="a line's end in Unicode alone"),
        pytest.param("", '""', id="nothing"),
        pytest.param(1.5, "1.500000", id="a number"),
    ],
)
def test_no_fact_is_taken_for_two(log: pytest.LogCaptureFixture, fact: trail.Fact, told: str) -> None:
    trail.tell("seen", fact=fact)
    assert lines(log) == [f"seen fact={told}"]
    assert FORM.fullmatch(lines(log)[0])
