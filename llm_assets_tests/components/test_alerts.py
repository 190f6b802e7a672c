"""Alerts: real runs that fail, the real sensors' ticks, a real server that is told; and what is never told."""

import json
import logging
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

import dagster as dg
import pytest

from llm_assets_tests.components import projects
from llm_assets_tests.components.projects import causes, materialize
from llm_assets_tests.components.test_declarations import DOCUMENTS, ENRICHMENT, PROMPT
from llm_assets_tests.components.test_freshness import check
from llm_assets_tests.emulator_process import Emulator
from llm_assets_tests.providers.http_server import Reply, Server, json_reply, serving

DAY = "2026-11-01"
SECRET = "the duke stole the pearls"
ROWS = "id,product,body\n" + "".join(f"r{number},kettle,{SECRET} {number}\n" for number in range(4))
TOKEN = "xoxb-a-token"


@dg.asset
def of_somebody_else() -> None:
    raise ValueError(SECRET)


@dg.asset
def failed_by_somebody_else() -> None:
    raise dg.Failure(SECRET, metadata={"reasons": SECRET, "rows": 3})


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Who gets the alerts: a webhook and Slack's API."""
    with serving() as server:
        monkeypatch.setenv("LLM_ASSETS_ALERT_WEBHOOK", f"{server.url}/hook/a-secret-path")
        monkeypatch.setenv("LLM_ASSETS_UI_URL", "https://dagster.example.com/")
        monkeypatch.setenv("SLACK_BOT_TOKEN", TOKEN)
        monkeypatch.setenv("SLACK_API_URL", f"{server.url}/api/")
        yield server


def load(alerts: dict[str, Any], **enrichment: Any) -> Iterator[dg.Definitions]:
    declared = {
        "reviews": ("Documents", DOCUMENTS),
        "topic": ("Enrichment", ENRICHMENT | enrichment),
        "alerts": ("Alerts", alerts),
    }
    with projects.project(declared, {"topic": PROMPT}) as (definitions, folder):
        (folder / "reviews" / "data").mkdir()
        (folder / "reviews" / "data" / f"{DAY}.csv").write_text(ROWS)
        yield dg.Definitions.merge(definitions, dg.Definitions(assets=[of_somebody_else, failed_by_somebody_else]))


def tick(definitions: dg.Definitions, sensor: str, instance: dg.DagsterInstance, cursor: str | None) -> tuple[str, str]:
    """The cursor after a tick of the sensor, and what went wrong in it."""
    with dg.build_sensor_context(instance=instance, cursor=cursor) as context:
        data = definitions.resolve_sensor_def(sensor).evaluate_tick(context)
        errors = [str(reaction.error.message) for reaction in data.dagster_run_reactions or () if reaction.error]
        return str(data.cursor), "".join(errors)


def run_and_tell(
    definitions: dg.Definitions, instance: dg.DagsterInstance, *assets: str, sensor: str = "failed_runs"
) -> tuple[dg.ExecuteInProcessResult, str]:
    """The result of a run of the assets, and what went wrong when a sensor told of it."""
    cursor, _ = tick(definitions, sensor, instance, None)
    result = materialize(definitions, instance, *assets, day=DAY if "/" in assets[0] else None)
    cursor, problem = tick(definitions, sensor, instance, cursor)
    tick(definitions, sensor, instance, cursor)  # which must not tell of it again
    return result, problem


def test_a_run_that_failed_is_told_with_its_reason_once(
    emulated: dg.DagsterInstance, emulator: Emulator, receiver: Server
) -> None:
    emulator.faults([{"fault": "http_401"}])
    receiver.will(Reply(status=503), Reply(drop=True), Reply())
    for definitions in load({"webhook": True}):
        result, problem = run_and_tell(definitions, emulated, "documents/reviews", "topic/batches")
    assert problem == ""
    assert len(receiver.asked) == 3  # two of which the receiver did not take
    told = json.loads(receiver.asked[-1].body)
    assert (told["event"], told["run_id"], told["partition"]) == ("run_failed", result.run_id, DAY)
    assert told["assets"] == ["documents/reviews", "topic/batches"]
    assert told["url"] == f"https://dagster.example.com/runs/{result.run_id}"
    assert "topic__batches: Nothing more is sent until somebody acts: anthropic create: HTTP 401" in told["text"]
    assert SECRET not in receiver.asked[-1].body.decode()


def test_what_a_receiver_says_is_not_read_and_its_url_not_logged(
    emulated: dg.DagsterInstance, receiver: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    receiver.will(Reply(cut=1))  # who reads it finds that it is broken off, and would tell it all again
    for definitions in load({"webhook": True}):
        _, problem = run_and_tell(definitions, emulated, "of_somebody_else")
    assert (problem, len(receiver.asked)) == ("", 1)
    assert "a-secret-path" not in caplog.text


def test_a_partition_that_is_held_is_told_with_counts_and_ids(
    emulated: dg.DagsterInstance, emulator: Emulator, receiver: Server
) -> None:
    """Here because what was paid for is gone at the provider."""
    emulator.faults([{"fault": "billing", "rate": 1}])
    for definitions in load({"webhook": True}):
        materialize(definitions, emulated, "documents/reviews", "topic/batches", day=DAY)
        run_and_tell(definitions, emulated, "topic/enriched", "topic/failed")
    (asked,) = receiver.asked
    told = json.loads(asked.body)
    assert told["details"][0].startswith("topic__tables: refused by the provider: billing")
    assert re.fullmatch(r"billing: 4 \(such as r\d, r\d, r\d\)", told["details"][1])
    assert told["counts"]["requests_due"] == 4
    assert SECRET not in asked.body.decode()


@pytest.mark.parametrize(
    ("asset", "error"), [("of_somebody_else", "ValueError"), ("failed_by_somebody_else", "Failure")]
)
def test_of_somebody_elses_error_only_the_class_is_told(
    emulated: dg.DagsterInstance, receiver: Server, asset: str, error: str
) -> None:
    for definitions in load({"webhook": True}):
        run_and_tell(definitions, emulated, asset)
    (asked,) = receiver.asked
    told = json.loads(asked.body)
    assert (told["details"], told["counts"]) == ([f"{asset}: {error}"], {})
    assert SECRET not in asked.body.decode()


def test_a_check_that_failed_is_told_with_its_numbers(
    emulated: dg.DagsterInstance, emulator: Emulator, receiver: Server
) -> None:
    emulator.faults([{"fault": "refusal", "match": f"{SECRET} 3"}])
    for definitions in load({"webhook": True}):
        materialize(definitions, emulated, "documents/reviews", "topic/batches", day=DAY)
        run_and_tell(definitions, emulated, "topic/enriched", "topic/failed", sensor="failed_checks")
    (asked,) = receiver.asked
    told = json.loads(asked.body)
    assert (told["event"], told["assets"], told["partition"]) == ("check_failed", ["topic/enriched"], DAY)
    assert told["details"] == ["failure_rate (warn): failed 1, failure_rate 0.25, failure_rate_max 0.05"]


def test_answers_that_are_late_are_told(emulated: dg.DagsterInstance, receiver: Server) -> None:
    for definitions in load({"webhook": True}, fresh_by="00:00"):
        cursor, _ = tick(definitions, "failed_checks", emulated, None)
        check(definitions, emulated)
        tick(definitions, "failed_checks", emulated, cursor)
    (asked,) = receiver.asked
    assert "freshness_check (error): The asset has never been" in json.loads(asked.body)["text"]


def test_what_passed_and_what_is_launched_again_is_not_told(
    emulated: dg.DagsterInstance, emulator: Emulator, receiver: Server
) -> None:
    for definitions in load({"webhook": True}):
        run_and_tell(definitions, emulated, "documents/reviews", sensor="failed_checks")
        cursor, _ = tick(definitions, "failed_runs", emulated, None)
        run = emulated.create_run_for_job(
            definitions.resolve_implicit_global_asset_job_def(), tags={"dagster/will_retry": "true"}
        )
        emulated.report_run_failed(run, "its process is gone")
        tick(definitions, "failed_runs", emulated, cursor)
    assert receiver.asked == []


def test_slack_is_told_in_its_channel(emulated: dg.DagsterInstance, emulator: Emulator, receiver: Server) -> None:
    receiver.will(json_reply({"ok": False, "error": "ratelimited"}, 429, retry_after="0"), json_reply({"ok": True}))
    for definitions in load({"slack_channel": "#data"}):
        result, problem = run_and_tell(definitions, emulated, "of_somebody_else")
    assert problem == ""
    too_early, asked = receiver.asked
    assert too_early.body == asked.body
    assert (asked.path, asked.headers["authorization"]) == ("/api/chat.postMessage", f"Bearer {TOKEN}")
    said = asked.body.decode()
    fields = parse_qs(said) if asked.headers["content-type"].startswith("application/x-www") else json.loads(said)
    assert "#data" in fields["channel"]
    assert f"run {result.run_id[:8]}" in str(fields["text"])
    assert SECRET not in said


@pytest.mark.parametrize(
    ("alerts", "replies", "says"),
    [
        pytest.param({"webhook": True}, [Reply(status=404)], "the webhook answered 404; is LLM_ASSETS_A", id="gone"),
        pytest.param({"webhook": True}, [Reply(status=500)], "the webhook answered 500, 3 times", id="broken"),
        pytest.param({"webhook": True}, [Reply(drop=True)], "the webhook cannot be reached (", id="unreachable"),
        pytest.param(
            {"slack_channel": "#typo"},
            [json_reply({"ok": False, "error": "channel_not_found"})],
            "Slack refused it for #typo: channel_not_found",
            id="slack-refuses",
        ),
        pytest.param({"slack_channel": "#data"}, [Reply(drop=True)], "Slack cannot be reached (", id="slack-is-gone"),
    ],
)
def test_an_alert_that_cannot_be_sent_fails_the_tick_without_the_secrets(
    emulated: dg.DagsterInstance, receiver: Server, alerts: dict[str, Any], replies: list[Reply], says: str
) -> None:
    receiver.will(*replies)
    for definitions in load(alerts):
        result, problem = run_and_tell(definitions, emulated, "of_somebody_else")
    assert f"the alert of run {result.run_id} was not sent: {says}" in problem
    assert not any(secret in problem for secret in ("a-secret-path", TOKEN, SECRET))


def test_what_goes_wrong_with_one_does_not_keep_it_from_the_other(
    emulated: dg.DagsterInstance, receiver: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LLM_ASSETS_ALERT_WEBHOOK")
    receiver.will(json_reply({"ok": True}))
    for definitions in load({"webhook": True, "slack_channel": "#data"}):
        _, problem = run_and_tell(definitions, emulated, "of_somebody_else")
    assert "LLM_ASSETS_ALERT_WEBHOOK is not set where Dagster's code runs" in problem
    assert [asked.path for asked in receiver.asked] == ["/api/chat.postMessage"]


@pytest.mark.parametrize(
    ("alerts", "says"),
    [
        pytest.param({}, "alerts go nowhere", id="nowhere"),
        pytest.param({"webhook": "https://hooks.example.com/x"}, "valid boolean", id="url-in-the-declaration"),
    ],
)
def test_bad_declarations(alerts: dict[str, Any], says: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 (Dagster wraps it)
        next(load(alerts))
    assert any(says in message for message in causes(caught.value)), list(causes(caught.value))


def test_without_checks_nobody_looks_at_them() -> None:
    for definitions in load({"webhook": True, "checks": False}):
        assert [sensor.name for sensor in definitions.sensors or ()] == ["failed_runs"]
