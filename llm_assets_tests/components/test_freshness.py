"""`fresh_by`: yesterday's answers by a time of day. What is only in flight is not there."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from llm_assets_tests.components import projects
from llm_assets_tests.components.projects import materialize
from llm_assets_tests.components.test_declarations import DOCUMENTS, ENRICHMENT, PROMPT
from llm_assets_tests.emulator_process import Emulator

KEY = dg.AssetCheckKey(dg.AssetKey(["topic", "enriched"]), "freshness_check")


def check(definitions: dg.Definitions, instance: dg.DagsterInstance) -> dg.AssetCheckEvaluation:
    """What the check says now, in a run of its own as the sensor asks for."""
    job = definitions.resolve_implicit_global_asset_job_def().get_subset(asset_check_selection={KEY})
    (found,) = job.execute_in_process(instance=instance).get_asset_check_evaluations()
    return found


def test_a_partition_in_flight_is_late_and_one_that_is_published_is_not(
    emulated: dg.DagsterInstance, emulator: Emulator
) -> None:
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
    declared = {"reviews": ("Documents", DOCUMENTS), "topic": ("Enrichment", ENRICHMENT | {"fresh_by": "00:00"})}
    with projects.project(declared, {"topic": PROMPT}) as (definitions, folder):
        (folder / "reviews" / "data").mkdir()
        (folder / "reviews" / "data" / f"{yesterday}.csv").write_text("id,product,body\n1,kettle,It leaks.\n")
        repository = definitions.get_repository_def()
        with dg.build_sensor_context(instance=emulated, repository_def=repository) as context:
            sensor = definitions.resolve_sensor_def("topic_freshness")
            (request,) = sensor.evaluate_tick(context).run_requests or ()
        assert request.asset_check_keys == [KEY]
        assert sensor.default_status is dg.DefaultSensorStatus.RUNNING

        emulator.hold(True)
        materialize(definitions, emulated, "documents/reviews", "topic/batches", day=yesterday)
        materialize(definitions, emulated, "topic/enriched", "topic/failed", day=yesterday)  # only looks
        late = check(definitions, emulated)
        assert (late.passed, late.severity) == (False, dg.AssetCheckSeverity.ERROR)
        assert f"We currently expect partition {yesterday}" in str(late.description)

        emulator.hold(False)
        result = materialize(definitions, emulated, "topic/enriched", "topic/failed", day=yesterday)
        found = {each.check_name: each.passed for each in result.get_asset_check_evaluations()}
        assert found["freshness_check"] is True
        assert check(definitions, emulated).passed
