"""Documents and results so far → a partition's plan, and the shards of its next wave. Nothing is sent here.

    documents ──▶ rendered by slices ──▶ shard files ──▶ plan.parquet ──▶ ledger: planned ──▶ budgets: reserved

Files come first, the ledger last: planning is safe to repeat, to interrupt anywhere, and to run twice at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import polars as pl
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from llm_assets.draft import Draft, Known
from llm_assets.enrichment import Enrichment
from llm_assets.errors import PlanConflict
from llm_assets.fingerprints import FingerprintSet
from llm_assets.history import inputs_of, naming_damage, partition_amendments, partition_standings, parts_of
from llm_assets.platform import Platform
from llm_assets.prices import encoded, in_dollars
from llm_assets.records import (
    Amendment,
    FailureKind,
    Fingerprint,
    Plan,
    Reason,
    Shard,
    ShardState,
)
from llm_assets.retries import Standing
from llm_assets.trail import of_partition, of_plan, span, tell

# How often planning begins anew because another run planned the partition meanwhile.
_CONFLICTS_MAX = 3
# Finer than a cent: what is asked and what there is must not look the same.
_PLACES = 4


@naming_damage
def plan_partition(
    platform: Platform,
    enrichment: Enrichment,
    partition: str,
    *,
    retry_failed: bool = False,
    release_hold: bool = True,
) -> Plan:
    """Decide what a partition wants and write the shards of what is still to be sent: the next wave, if any.

    Requests that are answered, waiting or finally failed are not sent again. `retry_failed` grants those whose
    attempts are used up as many again; `release_hold` says that somebody has acted, and without it a held plan stays.
    Documents come from the store. Returns the plan that is now current, which is another run's when that one was
    faster and wanted the same. Raises PlanConflict when others are faster time and again.

    What is planned is charged to the budgets as the most that it may cost. Where that is too much for one of them, the
    plan is held.
    """
    turns = Retrying(retry=retry_if_exception_type(PlanConflict), stop=stop_after_attempt(_CONFLICTS_MAX), reraise=True)
    with span("plan", **of_partition(enrichment.name, partition)):
        plan = turns(_plan, platform, enrichment, partition, retry_failed=retry_failed, release_hold=release_hold)
        plan = plan if plan.held else _within_budgets(platform, enrichment, plan)
        tell("planned", **of_plan(plan), documents=plan.documents, requests=plan.requests, held=bool(plan.held))
    return plan


def _within_budgets(platform: Platform, enrichment: Enrichment, plan: Plan) -> Plan:
    short = platform.ledger.money.reserve(
        plan.enrichment, plan.partition, enrichment.budgets(plan.partition, platform.clock())
    )
    if short is None:
        return plan
    budget, charged, asked = short
    planned = [s for s in platform.ledger.shards(plan.enrichment, plan.partition) if s.state is ShardState.PLANNED]
    expected = sum(shard.expected_usd for shard in planned)
    about, most, limit, taken = (in_dollars(usd, _PLACES) for usd in (expected, asked, budget.usd, charged))
    held = (
        f"over budget: {sum(shard.requests for shard in planned):,} requests would cost about {about} and at most "
        f"{most}; {budget.name} is {limit}, of which {taken} are spent or reserved. Raise {budget.name}, or lower "
        f"max_tokens{', or wait until tomorrow (UTC)' if budget.since else ''}"
    )
    platform.ledger.hold(plan, held)
    return replace(plan, held=held)


def _plan(
    platform: Platform, enrichment: Enrichment, partition: str, *, retry_failed: bool, release_hold: bool
) -> Plan:
    current = platform.ledger.plan(enrichment.name, partition)
    if current is not None and current.held and not release_hold:
        return current
    inputs = inputs_of(platform, enrichment, partition)
    rounds = current.rounds if current else 1
    if retry_failed and _has_failed(platform, enrichment, partition, rounds):
        rounds += 1
    elif current is not None and inputs and current.inputs == inputs and _is_done(platform, enrichment, current):
        return current  # every document has its outcome, and nothing has changed since
    draft, plan, unsent = _drafted(platform, enrichment, partition, current, rounds, inputs)
    if plan == current and not draft.reused and not unsent and platform.store.files.exists(plan.path):
        draft.discard()
    else:
        _record(platform, draft, plan, current, unsent)
    return plan


def _drafted(
    platform: Platform, enrichment: Enrichment, partition: str, current: Plan | None, rounds: int, inputs: str
) -> tuple[Draft, Plan, list[Shard]]:
    """What is to be sent, the plan for it, and the shards that were planned before and are to be taken back for it."""
    is_new = current is None or current.inputs != inputs
    draft = _draft(platform, enrichment, partition, current, rounds, is_new)
    plan = draft.plan(current, rounds, inputs)
    unsent = _unsent(platform, enrichment, current, all_of_them=plan.digest != current.digest) if current else []
    if unsent:  # what was left out for them goes into new shards
        draft.discard()
        without = [shard.key for shard in unsent]
        draft = _draft(platform, enrichment, partition, current, rounds, is_new, without)
        plan = draft.plan(current, rounds, inputs)
    if inputs != inputs_of(platform, enrichment, partition):
        # The documents were replaced while they were read: whose plan this is, nobody can say.
        plan = replace(plan, inputs="")
        if unsent:  # nor whether these were to be taken back
            draft.discard()
            raise PlanConflict(f"{enrichment.name} {partition}: the documents were replaced while they were read")
    return draft, plan, unsent


def _record(platform: Platform, draft: Draft, plan: Plan, current: Plan | None, unsent: Sequence[Shard]) -> None:
    """Make a plan the current one, with its shards in place of those that were not sent."""
    try:
        draft.write_plan(plan)
        new = [replace(shard, plan_digest=plan.digest) for shard in (*draft.shards, *draft.reused)]
        platform.ledger.record_plan(plan, new, replaces=current, withdraws=[shard.key for shard in unsent])
    except PlanConflict:
        draft.discard()
        raise
    for shard in unsent:
        platform.store.files.delete(platform.request_file(shard))


def _is_done(platform: Platform, enrichment: Enrichment, plan: Plan) -> bool:
    """Whether a plan is published, and neither has anything of an earlier one come back that is to be taken back, nor
    may an answer be refused now: a class of the user's own may judge otherwise than when it was published.
    """
    is_settled = plan.published_at is not None and not plan.pending and not enrichment.output.foreign
    is_whole = platform.store.files.exists(plan.path)
    return is_settled and is_whole and not _unsent(platform, enrichment, plan, all_of_them=False)


def _has_failed(platform: Platform, enrichment: Enrichment, partition: str, rounds: int) -> bool:
    """Whether there is anything that another round could help: asking twice for one must not grant two."""
    standings = partition_standings(platform, enrichment, partition, rounds=rounds)
    helps = (pl.col("kind") != FailureKind.PERMANENT) | (pl.col("reason") == Reason.ABANDONED)
    failed = (pl.col("standing") == Standing.FAILED) & helps
    return not standings.filter(failed).is_empty()


def _unsent(platform: Platform, enrichment: Enrichment, plan: Plan, *, all_of_them: bool) -> list[Shard]:
    """The shards that were planned, never sent, and are to be taken back.

    When the plan changes, they hold requests that may not be wanted any more, and so do those of an earlier plan, which
    were with the provider when it changed and came back. Others whose file is lost can never be sent, and those that
    were planned at another price would cost what no budget was asked for: their requests go into new ones.
    """
    shards = platform.ledger.shards(plan.enrichment, plan.partition)
    planned = [shard for shard in shards if shard.state is ShardState.PLANNED]
    return [
        shard
        for shard in planned
        if all_of_them
        or not shard.is_of(plan)
        or _costs_otherwise(platform, enrichment, shard)
        or not platform.store.files.exists(platform.request_file(shard))
    ]


def _costs_otherwise(platform: Platform, enrichment: Enrichment, shard: Shard) -> bool:
    """Whether what is declared now has another price than a shard was planned at; an older release kept none."""
    return shard.rates not in ("", encoded(enrichment.price_at(platform.clock(), shard.mode)))


def _draft(
    platform: Platform,
    enrichment: Enrichment,
    partition: str,
    current: Plan | None,
    rounds: int,
    is_new: bool,
    without: Sequence[str] = (),
) -> Draft:
    draft = Draft(platform, enrichment, partition, wave=(current.wave if current else 0) + 1, is_new=is_new)
    try:
        draft.render(_known(platform, enrichment, partition, rounds, without))
    except BaseException:
        draft.discard()
        raise
    return draft


def _known(platform: Platform, enrichment: Enrichment, partition: str, rounds: int, without: Sequence[str]) -> Known:
    left_out, useless = FingerprintSet(), FingerprintSet()
    amendments: dict[Fingerprint, Amendment] = {}
    unanswered = pl.col("standing").is_in([Standing.DUE, Standing.HELD])
    sent = sum(shard.requests for shard in platform.ledger.shards(enrichment.name, partition))
    for part in parts_of(sent, platform.part_requests):
        standings = partition_standings(platform, enrichment, partition, rounds=rounds, part=part, without=without)
        left_out.add(standings.filter(~unanswered)["fingerprint"])
        useless.add(standings.filter(unanswered & (pl.col("reason") == Reason.INVALID_ANSWER))["fingerprint"])
        amendments |= partition_amendments(platform, enrichment, partition, standings.filter(unanswered))
    return Known(left_out, useless, amendments)


def known_requests(platform: Platform, enrichment: Enrichment, partition: str) -> Known:
    """What is known of a partition's requests, if its next wave were planned now."""
    current = platform.ledger.plan(enrichment.name, partition)
    return _known(platform, enrichment, partition, current.rounds if current else 1, without=())
