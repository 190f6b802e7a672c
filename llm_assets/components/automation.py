"""What materializes by itself: assets that follow others, partition by partition, and the sensor that sees to it."""

from collections.abc import Iterable
from functools import reduce
from operator import and_
from typing import Any

import dagster as dg

_SENSOR = "following"


def following() -> dg.AutomationCondition[Any]:
    """A partition is materialized when what it is made of was: all of it is there, and none of it is under way.

    Of what was materialized before there was such a condition nothing follows: that is for a backfill.
    """
    ready = ~dg.AutomationCondition.any_deps_missing() & ~dg.AutomationCondition.any_deps_in_progress()
    updated = dg.AutomationCondition.any_deps_updated().since_last_handled()
    return (updated & ready & ~dg.AutomationCondition.in_progress()).with_label("following")


def following_all(tables: Iterable[dg.AssetKey]) -> dg.AutomationCondition[Any]:
    """Materialized when a partition of what it is made of was, each of these tables has one, and none is under way."""
    there = (dg.AutomationCondition.asset_matches(table, ~dg.AutomationCondition.missing()) for table in tables)
    idle = ~dg.AutomationCondition.any_deps_in_progress() & ~dg.AutomationCondition.in_progress()
    updated = dg.AutomationCondition.any_deps_updated().since_last_handled()
    return reduce(and_, there, updated & idle).with_label("following all")


def follows(run: dg.DagsterRun) -> bool:
    """Whether a run was started by such a condition, and by nobody else."""
    return run.tags.get("dagster/from_automation_condition") == "true"


def following_sensor(every_seconds: int) -> dg.AutomationConditionSensorDefinition:
    """The sensor that looks after all assets that follow others; on, unless somebody switches it off."""
    return dg.AutomationConditionSensorDefinition(
        name=_SENSOR,
        target=dg.AssetSelection.all(),
        description="Materializes what is made of tables that were published: documents made of answers, comparisons.",
        minimum_interval_seconds=every_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
