"""Times of day: when yesterday's documents are read and sent, and by when their answers are wanted."""

import warnings

import dagster as dg

from llm_assets.errors import DeclarationError

FRESHNESS_CHECK = "freshness_check"  # as Dagster calls it
_LOOKS_EVERY_SECONDS = 60


def nightly(name: str, assets: dg.AssetSelection, at: str, source: str) -> dg.Definitions:
    """A schedule that materializes yesterday's partition of these assets; the sensor does the rest."""
    hour, minute = _time_of_day("nightly", at, source)
    job = dg.define_asset_job(f"{name}_nightly", selection=assets)
    schedule = dg.build_schedule_from_partitioned_job(
        job, hour_of_day=hour, minute_of_hour=minute, default_status=dg.DefaultScheduleStatus.RUNNING
    )
    return dg.Definitions(schedules=[schedule])


def freshness(
    name: str, asset: dg.AssetKey, at: str, partitions: dg.PartitionsDefinition[str], source: str
) -> dg.Definitions:
    """A check that yesterday's partition of the asset is there by a time of day, and the sensor that runs it then.

    Dagster takes an observation of a partition for its arrival: what still waits must not be observed on this asset.
    """
    hour, minute = _time_of_day("fresh_by", at, source)
    if not isinstance(partitions, dg.TimeWindowPartitionsDefinition):
        raise DeclarationError(source, "fresh_by is for days, but the documents have a partition a file; leave it out")
    with warnings.catch_warnings():
        # What supersedes them, FreshnessPolicy, is met by any partition, an old one too.
        warnings.simplefilter("ignore", dg.SupersessionWarning)
        checks = dg.build_time_partition_freshness_checks(
            assets=[asset],
            deadline_cron=f"{minute} {hour} * * *",
            timezone=partitions.timezone,
            severity=dg.AssetCheckSeverity.ERROR,
        )
        sensor = dg.build_sensor_for_freshness_checks(
            freshness_checks=checks,
            name=f"{name}_freshness",
            minimum_interval_seconds=_LOOKS_EVERY_SECONDS,
            default_status=dg.DefaultSensorStatus.RUNNING,
        )
    return dg.Definitions(asset_checks=checks, sensors=[sensor])


def _time_of_day(key: str, at: str, source: str) -> tuple[int, int]:
    hour, _, minute = at.partition(":")
    if hour.isdecimal() and minute.isdecimal() and int(hour) < 24 and int(minute) < 60:
        return int(hour), int(minute)
    raise DeclarationError(source, f"{key} is {at!r}; write a time of day such as '02:30' (in quotes)")
