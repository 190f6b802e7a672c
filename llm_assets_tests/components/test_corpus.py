"""A corpus in Dagster: partitions that come with their files, and what follows them."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from llm_assets.components.documents import arrivals_sensor
from llm_assets.definitions import defs
from llm_assets.documents import DocumentSource
from llm_assets_tests.components import projects
from llm_assets_tests.components.projects import causes
from llm_assets_tests.components.test_declarations import DOCUMENTS, ENRICHMENT, PROMPT
from llm_assets_tests.s3_server import BUCKET, S3Server

CORPUS: dict[str, Any] = {key: value for key, value in DOCUMENTS.items() if key != "start_date"}
CORPUS |= {"partitioned_by": "file", "path": "../../../corpus/{partition}.csv"}
FOLLOWING = ENRICHMENT | {"follow": True}


class Project:
    """Definitions of a corpus, and the folder in which its files arrive."""

    def __init__(self, definitions: dg.Definitions, folder: Path) -> None:
        self.definitions, self.folder = definitions, folder

    def arrive(self, name: str, *, age_s: float = 60) -> None:
        self.folder.mkdir(exist_ok=True)
        path = self.folder / f"{name}.csv"
        path.write_text("id,body,product\n1,fine,kettle\n")
        now = path.stat().st_mtime - age_s
        os.utime(path, (now, now))

    def tick(self, instance: dg.DagsterInstance) -> dg.SensorResult | dg.SkipReason:
        sensor = self.definitions.resolve_sensor_def("reviews_arrivals")
        result = sensor(dg.build_sensor_context(instance=instance))
        assert isinstance(result, dg.SensorResult | dg.SkipReason)
        return result


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened


def load(documents: dict[str, Any], enrichment: dict[str, Any]) -> Iterator[Project]:
    declared = {
        "reviews": ("Documents", documents),
        "topic": ("Enrichment", enrichment),
        "completion": ("BatchCompletion", {"every_seconds": 30}),
    }
    with projects.project(declared, {"topic": PROMPT}) as (definitions, folder):
        yield Project(definitions, (folder / "reviews" / "../../../corpus").resolve())


@pytest.fixture
def project() -> Iterator[Project]:
    yield from load(CORPUS, FOLLOWING)


def test_a_partition_comes_with_its_file_once_that_is_left_alone(
    project: Project, instance: dg.DagsterInstance
) -> None:
    assert isinstance(project.tick(instance), dg.SkipReason)
    project.arrive("1987")
    project.arrive("1988", age_s=0)
    found = project.tick(instance)
    assert isinstance(found, dg.SensorResult)
    assert [request.partition_key for request in found.run_requests or ()] == ["1987"]
    (added,) = found.dynamic_partitions_requests or ()
    assert isinstance(added, dg.AddDynamicPartitionsRequest)
    instance.add_dynamic_partitions(added.partitions_def_name, list(added.partition_keys))
    assert isinstance(project.tick(instance), dg.SkipReason)
    project.arrive("1988")
    found = project.tick(instance)
    assert isinstance(found, dg.SensorResult)
    assert [request.partition_key for request in found.run_requests or ()] == ["1988"]


def test_objects_that_arrive_in_a_bucket_become_partitions_and_tables(
    s3: S3Server, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LLM_ASSETS_ROOT", str(tmp_path))
    url = s3.root()
    project = next(load(CORPUS | {"path": f"{url}/{{partition}}.csv"}, FOLLOWING))
    declared = project.definitions.resolve_sensor_def("reviews_arrivals")
    source = DocumentSource("reviews", f"{url}/{{partition}}.csv", "id", "body")
    partitions = dg.DynamicPartitionsDefinition(name="documents_reviews")
    later = arrivals_sensor(source, partitions, is_on=True, clock=lambda: time.time() + 60)

    def tick(sensor: dg.SensorDefinition) -> tuple[list[str | None], str | None]:
        # Called with its context alone, as a daemon's tick calls it; calling the sensor would pass resources by name.
        context = dg.build_sensor_context(instance=instance, resources=project.definitions.resources)
        found = sensor._raw_fn(context)
        if isinstance(found, dg.SkipReason):
            return [], found.skip_message
        assert isinstance(found, dg.SensorResult)
        return [request.partition_key for request in found.run_requests or ()], None

    assert tick(declared) == ([], f"0 partitions, no new files at {url}/*.csv")
    s3.objects().put(f"{url.removeprefix(f's3://{BUCKET}/')}/1987.csv", b"id,body,product\n1,fine,kettle\n")
    assert tick(declared)[0] == []  # another file of its partition may follow
    assert tick(later)[0] == ["1987"]
    instance.add_dynamic_partitions("documents_reviews", ["1987"])
    assert projects.materialize(project.definitions, instance, "documents/reviews", day="1987").success
    assert pl.read_parquet(tmp_path / "documents/reviews/1987.parquet")["text"].to_list() == ["fine"]


@pytest.mark.parametrize(("watch", "status"), [(True, "RUNNING"), (False, "STOPPED")])
def test_the_sensor_is_on_unless_it_is_told_not_to_watch(watch: bool, status: str) -> None:
    project = next(load(CORPUS | {"watch": watch}, FOLLOWING))
    assert project.definitions.resolve_sensor_def("reviews_arrivals").default_status.value == status


def test_nothing_that_is_shipped_is_sent_because_a_daemon_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLM_ASSETS_WATCH", raising=False)
    assert defs().resolve_sensor_def("letters_arrivals").default_status.value == "STOPPED"


def test_an_enrichment_follows_its_documents_where_it_is_told_to(project: Project) -> None:
    batches = project.definitions.resolve_asset_graph().get(dg.AssetKey(["topic", "batches"]))
    assert batches.automation_condition is not None
    assert project.definitions.resolve_sensor_def("following")


@pytest.mark.parametrize(
    ("documents", "enrichment", "told"),
    [
        pytest.param(
            CORPUS | {"start_date": "2026-11-01"}, {}, "'file' with a start_date; write", id="files from a day on"
        ),
        pytest.param(
            CORPUS | {"partitioned_by": "day"}, {}, "'day' without a start_date; write", id="days without one"
        ),
        pytest.param(CORPUS | {"partitioned_by": "week"}, {}, "'week' without a start_date", id="something else"),
        pytest.param(CORPUS, {"nightly": "02:00"}, "nightly is for days, but reviews has", id="nightly files"),
    ],
)
def test_what_is_no_partitioning_is_told(documents: dict[str, Any], enrichment: dict[str, Any], told: str) -> None:
    with pytest.raises(Exception, match=r".") as raised:
        next(load(documents, FOLLOWING | enrichment))
    assert any("defs.yaml" in cause and told in cause for cause in causes(raised.value)), list(causes(raised.value))
