"""Dagster's entry point: what `defs/` declares, and the platform that it runs on."""

from pathlib import Path

import dagster as dg

from llm_assets.components.resources import PlatformResource


@dg.definitions
def defs() -> dg.Definitions:
    """All assets, checks, schedules and the sensor of this deployment."""
    declared = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    # Steps are light, and a process each would cost ten seconds: one process a run.
    platform = dg.Definitions(resources={"platform": PlatformResource()}, executor=dg.in_process_executor)
    return dg.Definitions.merge(declared, platform)
