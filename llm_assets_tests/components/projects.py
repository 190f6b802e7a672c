"""Projects of a few declarations, loaded; their assets, materialized in this process."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster.components.testing import create_defs_folder_sandbox

from llm_assets.components.resources import PlatformResource

# Folder -> component and its attributes.
Declared = Mapping[str, tuple[str, Mapping[str, Any]]]


def text(kind: str, attributes: Mapping[str, Any]) -> str:
    """A declaration as it stands in its file."""
    return yaml.safe_dump({"type": f"llm_assets.components.{kind}", "attributes": dict(attributes)})


@contextmanager
def project(declared: Declared, prompts: Mapping[str, str]) -> Iterator[tuple[dg.Definitions, Path]]:
    """The definitions and the folder of a project. `prompts` are the texts of prompt.md by folder."""
    with create_defs_folder_sandbox() as sandbox:
        for name, (kind, attributes) in declared.items():
            there = sandbox.defs_folder_path / name
            there.mkdir()
            (there / "defs.yaml").write_text(text(kind, attributes))
        for name, prompt in prompts.items():
            (sandbox.defs_folder_path / name / "prompt.md").write_text(prompt)
        with sandbox.build_all_defs() as definitions:
            platform = dg.Definitions(resources={"platform": PlatformResource()})
            yield dg.Definitions.merge(definitions, platform), sandbox.defs_folder_path


def load(declared: Declared, prompts: Mapping[str, str]) -> dg.Definitions:
    """The definitions of a project, whose folder is gone."""
    with project(declared, prompts) as (definitions, _):
        return definitions


def causes(error: BaseException) -> Iterator[str]:
    """The messages of an error and of what caused it."""
    found: BaseException | None = error
    while found is not None:
        yield str(found)
        found = found.__cause__ or found.__context__


def materialize(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    *keys: str,
    day: str | None = None,
    tags: dict[str, str] | None = None,
) -> dg.ExecuteInProcessResult:
    """Run these assets, such as `topic/batches`, quietly."""
    job = definitions.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        instance=instance,
        partition_key=day,
        tags=tags,
        asset_selection=[dg.AssetKey(key.split("/")) for key in keys],
        raise_on_error=False,
    )


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    """What the asset that failed raised."""
    (failure,) = result.filter_events(lambda event: event.is_step_failure)
    error = failure.step_failure_data.error
    assert error is not None
    assert error.cause is not None
    return str(error.cause.message)
