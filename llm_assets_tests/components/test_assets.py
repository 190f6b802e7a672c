"""The shipped assets in Dagster: what a person sees when it works, when it waits, and when it is refused."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.sensor_definition import SensorExecutionData

from llm_assets.collection import collect_partition
from llm_assets.components.loaded import DECLARED
from llm_assets.components.resources import PROCESS_TAG, WORK_TAG, PlatformResource
from llm_assets.definitions import defs
from llm_assets.platform import this_process
from llm_assets_tests.emulator_process import Emulator

DAY, EMPTY_DAY = "2026-11-01", "2026-11-20"
SECRET = "sk-secret-of-this-test"
NAME = "review_sentiment"
DOCUMENTS = dg.AssetKey(["documents", "reviews"])
BATCHES, ENRICHED, FAILED = (dg.AssetKey([NAME, table]) for table in ("batches", "enriched", "failed"))
TABLES = [ENRICHED, FAILED]


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return defs()


@pytest.fixture
def instance(emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("LLM_ASSETS_ROOT", str(tmp_path / "store"))
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", emulator.url)
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened


def materialize(
    definitions: dg.Definitions, instance: dg.DagsterInstance, *keys: dg.AssetKey, day: str = DAY, work: str = ""
) -> dg.ExecuteInProcessResult:
    job = definitions.resolve_implicit_global_asset_job_def()
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    return job.execute_in_process(
        run_config=quiet,
        instance=instance,
        partition_key=day,
        asset_selection=list(keys),
        raise_on_error=False,
        tags={WORK_TAG: work} if work else None,
    )


def materialized(result: dg.ExecuteInProcessResult) -> set[dg.AssetKey | None]:
    return {event.asset_key for event in result.get_asset_materialization_events()}


def test_a_partition_that_still_waits_is_not_materialized_and_shows_its_progress(
    definitions: dg.Definitions, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    emulator.hold(True)
    result = materialize(definitions, instance, DOCUMENTS, BATCHES, *TABLES)
    assert result.success
    assert materialized(result) == {DOCUMENTS, BATCHES}
    (observed,) = (event.asset_observation_data.asset_observation for event in result.get_asset_observation_events())
    assert (observed.asset_key, observed.partition) == (BATCHES, DAY)
    found: dict[str, Any] = {key: value.value for key, value in observed.metadata.items()}
    assert (found["requests_waiting"], found["requests_in_flight"], found["batches_in_flight"]) == (42, 42, 1)
    assert found["deadline"] - found["in_flight_since"] == 26 * 3600
    assert "expected_about" not in found  # nothing has come back yet
    emulator.hold(False)
    result = materialize(definitions, instance, *TABLES)
    assert materialized(result) == set(TABLES)
    assert [check.passed for check in result.get_asset_check_evaluations()] == [True, True, True]


def shown(result: dg.ExecuteInProcessResult, key: dg.AssetKey) -> dict[str, Any]:
    """The metadata of an asset that a run materialized; of a table its rows."""
    (event,) = (event for event in result.get_asset_materialization_events() if event.asset_key == key)
    return {
        name: [dict(record.data) for record in value.records]
        if isinstance(value, dg.TableMetadataValue)
        else value.value
        for name, value in event.materialization.metadata.items()
    }


def test_what_failed_and_why_the_waves_the_budgets_and_what_answers_say(
    definitions: dg.Definitions, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    emulator.faults(
        [
            {"fault": "refusal", "match": "I have watched paint dry"},
            {"fault": "overloaded", "match": "Boils in two minutes", "times": 1},
        ]
    )
    materialize(definitions, instance, DOCUMENTS, BATCHES)
    materialize(definitions, instance, *TABLES)  # one of them is worth sending again
    sent = shown(materialize(definitions, instance, BATCHES), BATCHES)
    assert (sent["wave"], sent["requests_retried"], sent["requests_in_flight"]) == (2, 1, 1)
    assert sent["in_flight_since"] <= sent["expected_about"] < sent["deadline"]
    counted = {row["counted"]: row["spent or reserved"] for row in sent["budgets"]}
    assert all(re.fullmatch(r"\$0\.0\d+ \(no limit\)", counted[of]) for of in ("partition", "today (UTC)"))
    assert re.fullmatch(r"\$0\.0\d+ of \$20\.00 \(0\.\d%\)", counted["all, today"])  # llm_assets/defs/spending

    result = materialize(definitions, instance, *TABLES)
    failed, enriched = shown(result, FAILED), shown(result, ENRICHED)
    reasons = {row["reason"]: (row["count"], row["such as"]) for row in failed["reasons"]}
    assert reasons == {"refusal": (1, "r-0006"), "empty_document": (1, "r-0035")}
    assert (failed["failed_refusal"], failed["failed_empty_document"]) == (1, 1)
    assert [(row["wave"], row["requests"], row["answers"]) for row in enriched["by_wave"]] == [(1, 42, 40), (2, 1, 1)]
    shares = [value for name, value in enriched.items() if name.startswith("share sentiment=")]
    assert len(shares) == 3
    assert sum(shares) == pytest.approx(1, abs=0.001)
    assert "paint" not in str(failed) + str(enriched)


def test_a_day_without_a_file_completes_with_empty_tables(
    definitions: dg.Definitions, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    materialize(definitions, instance, DOCUMENTS, BATCHES, day=EMPTY_DAY)
    result = materialize(definitions, instance, *TABLES, day=EMPTY_DAY)
    assert materialized(result) == set(TABLES)
    assert emulator.accounting()["requests"] == 0


def test_what_is_not_kept_any_longer_is_deleted_once_a_partition_is_published(
    definitions: dg.Definitions, instance: dg.DagsterInstance, emulator: Emulator, tmp_path: Path
) -> None:
    emulator.hold(True)
    materialize(definitions, instance, DOCUMENTS, BATCHES)
    (sent,) = (tmp_path / "store").rglob("wave-01/*.json")
    strange = sent.with_name("0123456789ab.json")
    strange.write_text("of a plan that was never recorded")
    os.utime(strange, (0, 0))
    materialize(definitions, instance, *TABLES)
    assert strange.exists()
    emulator.hold(False)
    materialize(definitions, instance, *TABLES)
    assert sent.exists()
    assert not strange.exists()


def test_materializing_a_finished_partition_again_makes_no_call(
    definitions: dg.Definitions, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    materialize(definitions, instance, DOCUMENTS, BATCHES)
    materialize(definitions, instance, *TABLES)
    before = emulator.calls()
    result = materialize(definitions, instance, DOCUMENTS, BATCHES, *TABLES)
    assert materialized(result) == {DOCUMENTS, BATCHES, *TABLES}
    assert emulator.calls() == before


def test_results_that_nobody_asked_for_and_two_that_differ_are_reported(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    emulator: Emulator,
) -> None:
    materialize(definitions, instance, DOCUMENTS, BATCHES)
    tick(definitions, instance)
    (batch,) = emulator.batches()
    results = emulator.state_dir / "batches" / batch["id"] / "results.jsonl"
    first, *_ = results.read_text().splitlines()
    row = json.loads(first)
    odd = [row | {"result": {"type": "expired"}}, row | {"custom_id": "nobodys"}, row | {"custom_id": "another"}]
    with results.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in odd)
    result = materialize(definitions, instance, *TABLES)
    (published,) = (event for event in result.get_asset_materialization_events() if event.asset_key == ENRICHED)
    metadata = published.materialization.metadata
    assert (metadata["stray_results"].value, metadata["conflicting_results"].value) == (2, 1)
    assert metadata["dagster/row_count"].value == 42
    again = materialize(definitions, instance, *TABLES)
    (published,) = (event for event in again.get_asset_materialization_events() if event.asset_key == ENRICHED)
    assert not {"stray_results", "conflicting_results"} & set(published.materialization.metadata)
    warned = [str(event.user_message) for event in instance.all_logs(result.run_id)]
    assert any("'stray_results': 2, 'conflicting_results': 1" in text for text in warned)


def test_a_refused_key_fails_the_partition_and_says_what_to_do_without_the_key(
    definitions: dg.Definitions, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    emulator.faults([{"fault": "http_401"}])
    result = materialize(definitions, instance, DOCUMENTS, BATCHES)
    failure = result.failure_data_for_node(f"{NAME}__batches")
    assert failure is not None
    assert failure.user_failure_data is not None
    assert "Then materialize this again." in str(failure.user_failure_data.description)
    told = "".join(str(event) for event in result.all_events)
    assert SECRET not in told
    assert "delightful" not in told


def test_a_run_of_the_sensors_does_not_release_what_waits_for_a_person(
    definitions: dg.Definitions, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    emulator.faults([{"fault": "http_401", "times": 1}])
    materialize(definitions, instance, DOCUMENTS, BATCHES)
    materialize(definitions, instance, BATCHES, work="submit")
    assert emulator.calls() == {"anthropic.create": 1}
    materialize(definitions, instance, BATCHES)
    assert emulator.calls() == {"anthropic.create": 2}


def test_a_missing_key_is_said_by_name(
    definitions: dg.Definitions, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    result = materialize(definitions, instance, DOCUMENTS, BATCHES)
    failure = result.failure_data_for_node(f"{NAME}__batches")
    assert failure is not None
    assert failure.user_failure_data is not None
    assert "set the environment variable ANTHROPIC_API_KEY" in str(failure.user_failure_data.description)


def tick(definitions: dg.Definitions, instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    return list(evaluated(definitions, instance).run_requests or [])


def evaluated(definitions: dg.Definitions, instance: dg.DagsterInstance) -> SensorExecutionData:
    repository = definitions.get_repository_def()
    sensor = repository.get_sensor_def("batch_completion")
    with dg.build_sensor_context(
        instance=instance, repository_def=repository, resources=dict(repository.get_top_level_resources())
    ) as context:
        return sensor.evaluate_tick(context)


def test_an_idle_tick_says_how_long_nothing_was_heard(
    definitions: dg.Definitions, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    emulator.hold(True)
    materialize(definitions, instance, DOCUMENTS, BATCHES)
    said = r"1 batches in flight, 1 provider calls, nothing is due; longest without news: \d s"
    assert re.fullmatch(said, str(evaluated(definitions, instance).skip_message))
    emulator.faults([{"fault": "http_500", "route": "retrieve"}])
    said = r"1 batches in flight, 1 provider calls, 1 providers could not be asked, nothing is due; longest .* \d+ s"
    assert re.fullmatch(said, str(evaluated(definitions, instance).skip_message))
    emulator.hold(False)


def test_the_log_of_a_run_says_which_shard_went_into_which_batch(
    definitions: dg.Definitions, emulator: Emulator, instance: dg.DagsterInstance
) -> None:
    settings = yaml.safe_load((Path(__file__).parents[2] / "dagster.yaml").read_text())
    with dg.DagsterInstance.ephemeral(settings={"python_logs": settings["python_logs"]}) as logging:
        result = materialize(definitions, logging, DOCUMENTS, BATCHES)
        told = [entry.user_message for entry in logging.all_logs(result.run_id)]
    assert any(
        re.match(r"submitted enrichment=\w+ partition=\S+ wave=1 shard=\w+ provider=\w+ batch=\S+", line)
        for line in told
    )


def test_the_sensor_asks_for_what_is_due_and_for_nothing_twice(
    definitions: dg.Definitions, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    emulator.hold(True)
    materialize(definitions, instance, DOCUMENTS, BATCHES)
    assert tick(definitions, instance) == []
    emulator.hold(False)
    (request,) = tick(definitions, instance)
    assert (request.partition_key, request.asset_selection) == (DAY, TABLES)
    run = instance.create_run_for_job(
        definitions.resolve_implicit_global_asset_job_def(), tags=request.tags, status=dg.DagsterRunStatus.STARTED
    )
    assert tick(definitions, instance) == []
    instance.report_run_failed(run)
    assert tick(definitions, instance) == []  # it waits a minute before it tries again
    materialize(definitions, instance, *TABLES)
    assert tick(definitions, instance) == []


def process_of_the_past() -> str:
    """The name of a process that is gone."""
    name = "from llm_assets.platform import this_process; print(this_process())"
    return subprocess.run([sys.executable, "-c", name], capture_output=True, text=True, check=True).stdout.strip()


def test_a_run_whose_process_is_gone_is_reported_as_failed_and_asked_for_again(
    definitions: dg.Definitions, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    materialize(definitions, instance, DOCUMENTS, BATCHES)
    (request,) = tick(definitions, instance)
    gone = process_of_the_past()
    job = definitions.resolve_implicit_global_asset_job_def()
    for process in (gone, this_process()):
        tags = dict(request.tags) | {PROCESS_TAG: process}
        run = instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)
        asked = tick(definitions, instance)
        found = instance.get_run_by_id(run.run_id)
        assert found is not None
        assert (len(asked), found.status) == (
            (1, dg.DagsterRunStatus.FAILURE) if process == gone else (0, dg.DagsterRunStatus.STARTED)
        )


def test_what_was_published_by_a_run_that_died_before_dagster_knew_of_it_is_told(
    definitions: dg.Definitions, instance: dg.DagsterInstance, emulator: Emulator
) -> None:
    materialize(definitions, instance, DOCUMENTS, BATCHES)
    (request,) = tick(definitions, instance)
    job = definitions.resolve_implicit_global_asset_job_def()
    tags = dict(request.tags) | {PROCESS_TAG: process_of_the_past()}
    instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)
    with PlatformResource().platform() as opened:
        assert collect_partition(opened, DECLARED[NAME], DAY).published
    (again,) = tick(definitions, instance)
    assert (again.partition_key, again.asset_selection) == (DAY, TABLES)
    calls = emulator.calls()
    materialize(definitions, instance, *TABLES, work=again.tags[WORK_TAG])
    assert tick(definitions, instance) == []
    assert emulator.calls() == calls


def test_the_nightly_schedule_sends_yesterdays_documents(
    definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    schedule = definitions.resolve_schedule_def(f"{NAME}_nightly_schedule")
    now = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)
    with dg.build_schedule_context(instance=instance, scheduled_execution_time=now) as context:
        (request,) = schedule.evaluate_tick(context).run_requests or []
    assert request.partition_key == "2026-11-22"
