"""The component `BatchCompletion`: the one sensor that waits for all batches of all enrichments.

A tick asks the providers what has ended, within a budget of calls and time, and requests runs for what the ledger
says is due. The ledger is the only state: a tick that is killed, and a run that fails, lose nothing.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice

import dagster as dg

from llm_assets.components.automation import following_sensor
from llm_assets.components.derived import DerivedDocuments
from llm_assets.components.enrichment import Enrichment
from llm_assets.components.enrichment_assets import ENRICHMENT_TAG, asset_key
from llm_assets.components.evaluation import Evaluation
from llm_assets.components.loaded import DECLARED
from llm_assets.components.metadata import budget_metadata, in_flight_metadata
from llm_assets.components.resources import PROCESS_TAG, WORK_TAG, PlatformResource
from llm_assets.platform import Platform, is_dead
from llm_assets.polling import Poll, poll
from llm_assets.records import Plan, Shard, ShardState
from llm_assets.status import asked_lately, in_flight, usual_turnaround
from llm_assets.waves import Step, next_step

CALLS_MAX = 25
# Far below the 60 s after which Dagster kills a tick.
SECONDS_MAX = 20
RUNS_MAX = 25
_FAILED_WAIT = timedelta(seconds=30)
_FAILED_WAIT_MAX = timedelta(hours=1)
# How long such a run is looked at again.
_UNTOLD_FOR = timedelta(days=2)
_PARTITION_TAG = "dagster/partition"
_DONE = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


class BatchCompletion(dg.Component, dg.Model, dg.Resolvable):
    """Polls the providers every `every_seconds` and materializes what is downstream of ended batches."""

    every_seconds: int = 30

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The sensor `batch_completion`, for all enrichments of this project, and one for what follows them."""
        enrichments = context.component_tree.get_all_components(Enrichment)
        names = [enrichment.name for enrichment in enrichments]
        sensors: list[dg.SensorDefinition] = [completion_sensor(names, self.every_seconds)] if names else []
        tree = context.component_tree
        follows: list[type[dg.Component]] = [DerivedDocuments, Evaluation]
        if any(one.follow for one in enrichments) or any(tree.get_all_components(kind) for kind in follows):
            sensors.append(following_sensor(self.every_seconds))
        return dg.Definitions(sensors=sensors)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A former run for the same work: whether it is done and how, and when it ended."""

    status: dg.DagsterRunStatus
    ended_at: datetime | None


def next_attempt(runs: Sequence[Attempt], now: datetime) -> int | None:
    """The number of the run to request for some work, or None while one is in flight or it is too early.

    Work that is still due after a run of it waits a while: twice as long after each failure.
    """
    if any(run.status not in _DONE for run in runs):
        return None
    failures = sum(run.status is not dg.DagsterRunStatus.SUCCESS for run in runs)
    wait = min(_FAILED_WAIT * 2**failures, _FAILED_WAIT_MAX) if failures else _FAILED_WAIT
    last = max((run.ended_at for run in runs if run.ended_at), default=None)
    return None if last is not None and now - last < wait else len(runs) + 1


def completion_sensor(enrichments: Collection[str], every_seconds: int) -> dg.SensorDefinition:
    """The sensor `batch_completion` for these enrichments."""

    @dg.sensor(
        name="batch_completion",
        description="Asks the providers which batches have ended, and starts collection and the next waves.",
        asset_selection=dg.AssetSelection.assets(
            *(asset_key(name, table) for name in enrichments for table in ("batches", "enriched", "failed"))
        ),
        minimum_interval_seconds=every_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def batch_completion(
        context: dg.SensorEvaluationContext, platform: dg.ResourceParam[PlatformResource]
    ) -> dg.SensorResult:
        start = int(context.cursor or 0)
        buried = _bury_the_dead(context.instance)
        with platform.platform() as opened:
            before = opened.ledger.active_shards()
            deadline = opened.clock() + timedelta(seconds=SECONDS_MAX)
            report = poll(opened, before, calls_max=CALLS_MAX, start=start, deadline=deadline)
            for problem in report.problems:
                context.log.warning(problem)
            active, now = opened.ledger.active_shards(), opened.clock()
            requests = list(islice(_run_requests(context, opened, enrichments, active, buried), RUNS_MAX))
            observed = list(_observations(opened, enrichments, before, active, now))
        return dg.SensorResult(
            run_requests=requests,
            asset_events=observed,
            cursor=str(start + report.asked),
            skip_reason=None if requests else idle(report, active, now),
        )

    return batch_completion


def _run_requests(
    context: dg.SensorEvaluationContext,
    platform: Platform,
    enrichments: Collection[str],
    active: Sequence[Shard],
    buried: Collection[str],
) -> Iterator[dg.RunRequest]:
    by_partition = _by_partition(active)
    plans = {(plan.enrichment, plan.partition): plan for plan in platform.ledger.plans(open_only=True)}
    for enrichment, partition in sorted(plans.keys() | by_partition.keys()):
        plan = plans.get((enrichment, partition)) or platform.ledger.plan(enrichment, partition)
        if enrichment not in enrichments or plan is None:
            continue
        step = next_step(plan, by_partition.get((enrichment, partition), []), platform.clock())
        if step in (Step.SUBMIT, Step.COLLECT) and (request := _request(context, plan, step, buried)):
            yield request
    for plan in _untold(context.instance, platform, enrichments):
        if request := _request(context, plan, Step.COLLECT, buried):
            yield request


def _untold(instance: dg.DagsterInstance, platform: Platform, enrichments: Collection[str]) -> Iterator[Plan]:
    """What runs have published that died, or lost Dagster's database, before they could tell Dagster of it."""
    failed = instance.get_run_records(
        dg.RunsFilter(
            statuses=[dg.DagsterRunStatus.FAILURE],
            tags={ENRICHMENT_TAG: list(enrichments)},
            updated_after=datetime.now(UTC) - _UNTOLD_FOR,
        ),
        limit=RUNS_MAX,
    )
    runs = [record.dagster_run.tags for record in failed]
    found = {
        (tags[ENRICHMENT_TAG], tags[_PARTITION_TAG])
        for tags in runs
        if tags.get(WORK_TAG, "").startswith(f"{Step.COLLECT}:") and _PARTITION_TAG in tags
    }
    plans = (platform.ledger.plan(enrichment, partition) for enrichment, partition in sorted(found))
    return (plan for plan in plans if plan and plan.published_at and not _is_told(instance, plan, plan.published_at))


def _is_told(instance: dg.DagsterInstance, plan: Plan, published_at: datetime) -> bool:
    """Whether Dagster knows of both tables of a partition, since they were published."""
    return all(
        instance.fetch_materializations(
            dg.AssetRecordsFilter(
                asset_key=asset_key(plan.enrichment, table),
                asset_partitions=[plan.partition],
                after_timestamp=published_at.timestamp(),
            ),
            limit=1,
        ).records
        for table in ("enriched", "failed")
    )


def _request(
    context: dg.SensorEvaluationContext, plan: Plan, step: Step, buried: Collection[str]
) -> dg.RunRequest | None:
    work = f"{step}:{plan.enrichment}:{plan.partition}:{plan.plan_id}:wave-{plan.wave}:round-{plan.rounds}"
    attempt = next_attempt(_attempts(context.instance, work, buried), datetime.now(UTC))
    if attempt is None:
        return None
    tables = ["batches"] if step is Step.SUBMIT else ["enriched", "failed"]
    return dg.RunRequest(
        run_key=f"{work}:{attempt}",
        partition_key=plan.partition,
        asset_selection=[asset_key(plan.enrichment, table) for table in tables],
        # Dagster retries crashed runs that people launched; these are asked for again by the next tick.
        tags={WORK_TAG: work, ENRICHMENT_TAG: plan.enrichment, "dagster/max_retries": "0"},
    )


def _attempts(instance: dg.DagsterInstance, work: str, buried: Collection[str]) -> list[Attempt]:
    records = instance.get_run_records(dg.RunsFilter(tags={WORK_TAG: work}))
    return [
        Attempt(
            record.dagster_run.status,
            # What was only killed need not wait as what has failed does.
            datetime.fromtimestamp(record.end_time, UTC)
            if record.end_time and record.dagster_run.run_id not in buried
            else None,
        )
        for record in records
    ]


def _bury_the_dead(instance: dg.DagsterInstance) -> frozenset[str]:
    """Report as failed the runs whose process is gone, and return their ids.

    When a code server is killed along with its runs, nobody else tells Dagster, and they would stay STARTED.
    """
    buried = []
    for record in instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]), limit=RUNS_MAX):
        process = record.dagster_run.tags.get(PROCESS_TAG)
        if process and is_dead(process):
            instance.report_run_failed(record.dagster_run, f"its process {process} is gone")
            buried.append(record.dagster_run.run_id)
    return frozenset(buried)


def _observations(
    platform: Platform, enrichments: Collection[str], before: Sequence[Shard], after: Sequence[Shard], now: datetime
) -> Iterator[dg.AssetObservation]:
    """Progress of the partitions in which something moved since the last tick."""
    then = {shard.key: (shard.state, shard.finished) for shard in before}
    for (enrichment, partition), shards in _by_partition(after).items():
        moved = any(then.get(shard.key) != (shard.state, shard.finished) for shard in shards)
        if moved and enrichment in enrichments:
            yield dg.AssetObservation(
                asset_key=asset_key(enrichment, "batches"),
                partition=partition,
                metadata=in_flight_metadata(in_flight(shards, usual_turnaround(platform, enrichment)))
                | budget_metadata(platform, DECLARED[enrichment], partition)
                | {"unasked_seconds": _unasked_seconds(shards, now)},
            )


def _by_partition(shards: Sequence[Shard]) -> dict[tuple[str, str], list[Shard]]:
    groups: dict[tuple[str, str], list[Shard]] = defaultdict(list)
    for shard in shards:
        groups[shard.enrichment, shard.partition].append(shard)
    return groups


def _unasked_seconds(shards: Sequence[Shard], now: datetime) -> int:
    """For how long the provider has said nothing of the batch that waits the longest."""
    since = [each.unasked_since for each in asked_lately(shards)]
    return round((now - min(since, default=now)).total_seconds())


def idle(report: Poll, active: Sequence[Shard], now: datetime) -> str:
    """What a tick says that requests no run."""
    in_flight = sum(shard.state is ShardState.SUBMITTED for shard in active)
    wrong = f"{len(report.problems)} providers could not be asked, " if report.problems else ""
    return (
        f"{in_flight} batches in flight, {report.calls} provider calls, {wrong}nothing is due; longest without news: "
        f"{_unasked_seconds(active, now)} s"
    )
