"""Shards → batches. Intent is written before the network is touched, and nothing is ever sent on a guess.

    claim (ledger: submitting) ──▶ stage ──▶ create: one POST ──▶ record (ledger: submitted)
                                                 └── outcome unknown: stays claimed, see reconciliation.py

Planning and sending are each safe to repeat, to interrupt anywhere, and to run twice at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from llm_assets.answers import same_outcome
from llm_assets.documents import read_documents
from llm_assets.enrichment import Enrichment
from llm_assets.errors import (
    CapacityError,
    IllegalTransition,
    NotThere,
    OutcomeUnknown,
    PlanConflict,
    ProviderError,
    RequestRejected,
    SystemicError,
    TransientError,
)
from llm_assets.history import naming_damage, partition_amendments, partition_standings, sent_fingerprints
from llm_assets.platform import Platform
from llm_assets.providers import FILE_NOT_VISIBLE, TOO_LARGE, Client
from llm_assets.records import (
    REQUESTS_SCHEMA,
    Amendment,
    Batch,
    FailureKind,
    Fingerprint,
    Plan,
    Reason,
    Shard,
    ShardState,
)
from llm_assets.requests import Renderer
from llm_assets.retries import KIND_OF, Standing
from llm_assets.shards import PackedShard, Packer, limits_for

SLICE_ROWS = 5_000
RETRY_LATER = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Sent:
    """What one call of `send_planned` did: shards by how it went, and requests and bytes that were accepted."""

    batch_ids: tuple[str, ...] = ()
    requests: int = 0
    bytes: int = 0
    unknown: int = 0  # shards whose outcome must be reconciled
    later: int = 0  # shards that wait for room or for the provider
    rejected: int = 0


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
    faster.
    """
    current = platform.ledger.plan(enrichment.name, partition)
    if current is not None and current.held and not release_hold:
        return current
    rounds = current.rounds if current else 1
    if retry_failed and _has_failed(platform, enrichment, partition, rounds):
        rounds += 1
    draft = _draft(platform, enrichment, partition, current, rounds)
    plan = draft.plan(current, rounds)
    unsent = _unsent(platform, current, all_of_them=plan.digest != current.digest) if current else []
    if unsent:
        draft.discard()
        draft = _draft(platform, enrichment, partition, current, rounds, without=[shard.key for shard in unsent])
        plan = draft.plan(current, rounds)
    if plan == current:
        return plan
    try:
        draft.write_plan(plan)
        platform.ledger.record_plan(plan, draft.shards(), replaces=current, withdraws=[shard.key for shard in unsent])
    except PlanConflict:
        draft.discard()
        return platform.ledger.plan(enrichment.name, partition) or plan
    for shard in unsent:
        platform.store.local(platform.request_file(shard)).unlink(missing_ok=True)
    return plan


def _has_failed(platform: Platform, enrichment: Enrichment, partition: str, rounds: int) -> bool:
    """Whether there is anything that another round could help: asking twice for one must not grant two."""
    standings = partition_standings(platform, enrichment, partition, rounds=rounds)
    failed = (pl.col("standing") == Standing.FAILED) & (pl.col("kind") != FailureKind.PERMANENT)
    return not standings.filter(failed).is_empty()


def _unsent(platform: Platform, plan: Plan, *, all_of_them: bool) -> list[Shard]:
    """The shards that were planned, never sent, and are to be taken back.

    When the plan changes, they hold requests that may not be wanted any more. Others whose file is lost can never be
    sent: their requests go into new ones.
    """
    shards = platform.ledger.shards(plan.enrichment, plan.partition)
    planned = [shard for shard in shards if shard.state is ShardState.PLANNED]
    return [shard for shard in planned if all_of_them or not platform.store.exists(platform.request_file(shard))]


def _draft(
    platform: Platform,
    enrichment: Enrichment,
    partition: str,
    current: Plan | None,
    rounds: int,
    without: Sequence[str] = (),
) -> _Draft:
    standings = partition_standings(platform, enrichment, partition, rounds=rounds, without=without)
    settled = standings.filter(~pl.col("standing").is_in([Standing.DUE, Standing.HELD]))["fingerprint"]
    draft = _Draft(platform, enrichment, partition, wave=(current.wave if current else 0) + 1)
    try:
        draft.render(set(settled), partition_amendments(platform, enrichment, partition, standings))
    except BaseException:
        draft.discard()
        raise
    return draft


def send_planned(platform: Platform, plan: Plan) -> Sent:
    """Send the shards of a partition that are planned and due, unless the plan is held.

    Raises SystemicError, after it has put the plan on hold, when the account or the model is refused.
    """
    sent = Sent()
    if plan.held:
        return sent
    now = platform.clock()
    for shard in platform.ledger.shards(plan.enrichment, plan.partition):
        if shard.state is not ShardState.PLANNED or (shard.not_before and shard.not_before > now):
            continue
        try:
            sent = _send(platform, shard, sent)
        except SystemicError as error:
            platform.ledger.hold(plan, f"{error.code}: {error}")
            raise
    return sent


def _send(platform: Platform, shard: Shard, sent: Sent) -> Sent:
    client = platform.client(shard.provider, shard.endpoint)
    if not platform.store.exists(platform.request_file(shard)):
        return replace(sent, later=sent.later + 1)  # the next plan writes it anew
    if not platform.ledger.claim(shard.key, owner=platform.owner, account=client.account):
        return sent
    file = platform.store.local(platform.request_file(shard))
    try:
        staged = shard.staged_id or _left_behind(client, shard, file) or client.stage(file)
        if staged:
            platform.ledger.staged(shard.key, staged, owner=platform.owner)
        batch = client.create(file, staged=staged, stamp=shard.key)
    except OutcomeUnknown as error:
        # The call may have taken minutes: what it created may show from now on, not only from the claim on.
        patience = platform.clock() + platform.visibility_delay
        platform.ledger.unsettled(shard.key, str(error), owner=platform.owner, not_before=patience)
        return replace(sent, unknown=sent.unknown + 1)
    except (CapacityError, TransientError) as error:
        _release(platform, shard, error)
        return replace(sent, later=sent.later + 1)
    except RequestRejected as error:
        _reject(platform, shard, error)
        return replace(sent, rejected=sent.rejected + 1)
    except SystemicError as error:
        _give_back(platform, shard, error, not_before=None)
        raise
    _record(platform, client, shard, batch)
    return replace(
        sent,
        batch_ids=(*sent.batch_ids, batch.batch_id),
        requests=sent.requests + shard.requests,
        bytes=sent.bytes + shard.bytes,
    )


def _left_behind(client: Client, shard: Shard, file: Path) -> str | None:
    """What a former claim uploaded without living to write it down: nobody else would ever use or remove it."""
    if shard.claimed_at is None or shard.code == FILE_NOT_VISIBLE:
        return None  # there was no claim, or its file is known to be of no use
    with suppress(NotThere, RequestRejected):  # a server that does not list files
        return client.find_staged(file.name)
    return None


def _record(platform: Platform, client: Client, shard: Shard, batch: Batch) -> None:
    """Write down the batch. Where the claim was taken for dead and sent by another, this one is one too many."""
    try:
        platform.ledger.submitted(shard.key, batch)
    except IllegalTransition:
        if platform.ledger.known_batches([batch.batch_id]):
            return  # who took the claim over has found the batch
        with suppress(ProviderError):
            client.cancel(batch.batch_id)
        raise


def _release(platform: Platform, shard: Shard, error: ProviderError) -> None:
    if error.code == FILE_NOT_VISIBLE == shard.code:
        # The second time that the staged file is not found: it is not late but gone, and uploading is free.
        platform.ledger.forget_staged(shard.key)
    wait = timedelta(seconds=error.retry_after_s) if error.retry_after_s else RETRY_LATER
    _give_back(platform, shard, error, not_before=platform.clock() + wait)


def _give_back(platform: Platform, shard: Shard, error: ProviderError, *, not_before: datetime | None) -> None:
    facts: dict[str, Any] = {"code": error.code, "message": str(error), "not_before": not_before}
    with suppress(IllegalTransition):  # the claim was taken for dead, and is another's to give back
        platform.ledger.released(shard.key, of_owner=platform.owner, **facts)


def _reject(platform: Platform, shard: Shard, error: ProviderError) -> None:
    """Give every request of a refused shard its outcome; the table is in place before the ledger says so."""
    reason = Reason.INVALID_REQUEST
    if error.code == TOO_LARGE:  # smaller shards may pass, until one document is too large by itself
        reason = Reason.CAPACITY if shard.requests > 1 else Reason.DOCUMENT_TOO_LARGE
    outcomes = same_outcome(sent_fingerprints(platform.store, shard), reason, error.code, str(error), shard.wave)
    results = platform.store.new_results(shard, platform.new_key())
    platform.store.write(results, outcomes)
    with suppress(IllegalTransition):
        platform.ledger.rejected(shard.key, results, of_owner=platform.owner, code=error.code, message=str(error))


class _Draft:
    """A plan and its shards while they are being written: files first, the ledger last."""

    def __init__(self, platform: Platform, enrichment: Enrichment, partition: str, wave: int) -> None:
        self._platform = platform
        self._enrichment = enrichment
        self._partition = partition
        self._wave = wave
        self._dialect = platform.dialect(enrichment.provider, enrichment.endpoint)
        self._limits = limits_for(self._dialect, enrichment.limits, self._refused_requests())
        self._packer = Packer(self._dialect, self._limits, self._new_shard)
        self._slices: list[pl.DataFrame] = []
        self._digest = hashlib.blake2b(digest_size=16)
        self._written: list[Path] = []

    def render(self, settled: set[str], amendments: dict[Fingerprint, Amendment]) -> None:
        """Read the documents by slices and pack each request that is not settled, once."""
        renderer = Renderer(self._enrichment, self._dialect, self._limits.bytes, amendments)
        for documents in self._documents():
            rendered = renderer.render(documents)
            self._slices.append(rendered.plan)
            self._digest.update(rendered.plan.write_ndjson().encode())
            for fingerprint, body in rendered.bodies.items():
                if fingerprint not in settled:
                    settled.add(fingerprint)
                    self._packer.add(fingerprint, body)
        self._packer.close()
        for packed in self._packer.shards:
            self._write_requests(packed)

    def plan(self, current: Plan | None, rounds: int) -> Plan:
        """The plan to record; equal to the current one when there is nothing to change."""
        wants = pl.concat(self._slices)
        wave = self._wave if self._packer.shards else self._wave - 1
        digest = self._digest.hexdigest()
        if current is not None and current.digest == digest:
            changes: dict[str, Any] = {"wave": wave, "rounds": rounds, "pending": 0, "not_before": None}
            if self._packer.shards:
                changes["published_at"] = None
            if current.held:
                # A plan that was held and is materialized again is released: somebody has acted.
                changes |= {"held": "", "released_at": self._platform.clock()}
            return replace(current, **changes)
        plan_id = self._platform.new_key()
        return Plan(
            enrichment=self._enrichment.name,
            partition=self._partition,
            plan_id=plan_id,
            digest=digest,
            path=self._platform.store.plan(self._enrichment.name, self._partition, plan_id),
            documents=wants.height,
            requests=wants["fingerprint"].drop_nulls().n_unique(),
            wave=wave,
            rounds=rounds,
            planned_at=self._platform.clock(),
        )

    def write_plan(self, plan: Plan) -> None:
        """Write the plan's table, unless it is there already."""
        if self._platform.store.exists(plan.path):
            return
        wants = pl.concat(self._slices)
        self._platform.store.write(plan.path, wants)
        self._written.append(self._platform.store.local(plan.path))

    def shards(self) -> list[Shard]:
        """The ledger's rows for the packed shards."""
        return [
            Shard(
                key=packed.key,
                enrichment=self._enrichment.name,
                partition=self._partition,
                wave=self._wave,
                provider=self._dialect.name,
                endpoint=self._dialect.endpoint,
                requests=len(packed.fingerprints),
                bytes=packed.bytes,
                path=self._stem(packed.key),
                schema_digest=self._enrichment.output.digest,
                deadline_s=round(self._enrichment.deadline_hours * 3600),
            )
            for packed in self._packer.shards
        ]

    def discard(self) -> None:
        """Remove what was written: another run's plan holds, or this one could not be finished."""
        self._packer.close()
        for path in self._written:
            path.unlink(missing_ok=True)

    def _refused_requests(self) -> int | None:
        """How many requests the smallest shard of the partition had that the provider never had room for."""
        shards = self._platform.ledger.shards(self._enrichment.name, self._partition)
        no_room = [shard for shard in shards if shard.collected_at and self._had_no_room(shard)]
        return min((shard.requests for shard in no_room), default=None)

    def _had_no_room(self, shard: Shard) -> bool:
        reason = self._platform.dialect_of(shard).batch_reason(shard.code)
        return shard.code == TOO_LARGE or KIND_OF[reason] is FailureKind.CAPACITY

    def _documents(self) -> Iterator[pl.DataFrame]:
        store = self._platform.store
        path = store.documents(self._enrichment.documents, self._partition)
        # The first slice has no rows: a partition without documents has a plan with all its columns too.
        yield store.scan(path).head(0).collect()
        yield from read_documents(store.local(path), SLICE_ROWS)

    def _stem(self, key: str) -> str:
        return self._platform.store.shard(self._enrichment.name, self._partition, self._wave, key)

    def _new_shard(self) -> tuple[str, Path]:
        key = self._platform.new_key()
        path = self._platform.store.local(self._stem(key) + self._dialect.shard_format.suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._written.append(path)
        return key, path

    def _write_requests(self, packed: PackedShard) -> None:
        table = self._stem(packed.key) + ".requests.parquet"
        columns = {"fingerprint": packed.fingerprints, "bytes": packed.line_bytes}
        self._platform.store.write(table, pl.DataFrame(columns, schema=REQUESTS_SCHEMA))
        self._written.append(self._platform.store.local(table))
