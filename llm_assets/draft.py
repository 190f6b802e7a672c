"""A plan and its shards while they are being written.

    documents ──▶ rendered by slices ──▶ shard files ──▶ plan.parquet

What the ledger is to say of them is for planning.py, when all files are there; until then all of it can be discarded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl

from llm_assets.documents import read_documents
from llm_assets.enrichment import Enrichment
from llm_assets.fingerprints import FingerprintSet
from llm_assets.forecast import Estimate, Forecast, caching_pays, estimate_from, forecast
from llm_assets.parquet import SliceWriter
from llm_assets.platform import Platform
from llm_assets.prices import encoded
from llm_assets.records import REQUESTS_SCHEMA, Amendment, Fingerprint, Mode, Plan, Shard, ShardState, Spent
from llm_assets.requests import Renderer
from llm_assets.reuse import Answers
from llm_assets.shards import Packer, limits_for

SLICE_ROWS = 5_000
_PLAN_GROUP_ROWS = 50_000
# How far back the evidence for estimates goes.
_EVIDENCE_AGE = timedelta(days=90)
# And that against the prompt cache: what did not pay is tried again, as partitions grow.
_CACHED_AGE = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a partition's requests when its next wave is planned.

    Those that are `left_out` are not to be sent; of the `useless` no answer that another partition has helps, as it was
    refused here. `amendments` say how those that were sent before and are again differ from the declared.
    """

    left_out: FingerprintSet = field(default_factory=FingerprintSet)
    useless: FingerprintSet = field(default_factory=FingerprintSet)
    amendments: Mapping[Fingerprint, Amendment] = field(default_factory=dict)


class Draft:
    """A plan and its shards while they are being written. What the ledger is to say of them is for who records it."""

    def __init__(self, platform: Platform, enrichment: Enrichment, partition: str, *, wave: int, is_new: bool) -> None:
        self._platform = platform
        self._is_new = is_new
        self._enrichment = enrichment
        self._partition = partition
        self._wave = wave
        self._dialect = platform.dialect(enrichment.provider, enrichment.endpoint)
        self._mode = _mode(platform, enrichment, partition)
        self._price = enrichment.price_at(platform.clock(), self._mode)
        self._limits = limits_for(
            self._dialect, enrichment.shard_limits(self._mode), self._refused_requests(), enrichment.quotas
        )
        self._packer = Packer(self._dialect, self._limits, self._new_shard)
        self._plan_id = platform.new_key()
        self._path = platform.store.plan(enrichment.name, partition, self._plan_id)
        self._documents = 0
        self._wanted = FingerprintSet()
        # What is looked for in published answers makes another table of them.
        self._digest = hashlib.blake2b("\n".join(enrichment.evidence).encode(), digest_size=16)
        self._folder = Path()
        self._written: list[str] = []
        self._elsewhere = answers_elsewhere(platform, enrichment, partition)
        self._estimate = estimate_requests(platform, enrichment)
        self._is_cached = is_cached(platform, enrichment)
        self._taken: list[pl.Series] = []
        self._amendments: Mapping[Fingerprint, Amendment] = {}
        self.shards: list[Shard] = []  # the ledger's rows for the shards that are written
        self.reused: list[Shard] = []  # and for what is answered by other partitions' results

    def render(self, known: Known) -> None:
        """Read the documents by slices, write the plan's table, and pack each request that is not left out, once.

        What other partitions have the answer to is left out from then on, too.
        """
        self._amendments = known.amendments
        store = self._platform.store
        renderer = Renderer(self._enrichment, self._dialect, self._limits.bytes, known.amendments)
        with store.files.scratch() as self._folder:
            table = SliceWriter(self._folder, _PLAN_GROUP_ROWS)
            for documents in document_slices(self._platform, self._enrichment, self._partition):
                rendered = renderer.render(documents)
                table.add(rendered.plan)
                self._documents += rendered.plan.height
                self._digest.update(rendered.plan.write_ndjson().encode())
                self._take_from_elsewhere(rendered.plan["fingerprint"], known)
                self._pack(rendered.bodies, known.left_out)
                self._keep_finished()
            with store.files.writing(self._path) as file:
                self._written.append(self._path)
                table.write(file)
            self._packer.close()
            self._keep_finished()
        self._keep_taken()

    def _pack(self, bodies: Mapping[Fingerprint, bytes], left_out: FingerprintSet) -> None:
        fingerprints = pl.Series(list(bodies), dtype=pl.String)
        is_sent = self._wanted.add(fingerprints) & ~left_out.holds(fingerprints)
        for (fingerprint, body), wanted in zip(bodies.items(), is_sent, strict=True):
            if wanted:
                self._packer.add(fingerprint, self._marked(body))

    def plan(self, current: Plan | None, rounds: int, inputs: str) -> Plan:
        """The plan to record; equal to the current one when there is nothing to change."""
        wave = self._wave if self.shards else self._wave - 1
        digest = self._digest.hexdigest()
        if current is not None and current.digest == digest:
            changes: dict[str, Any] = {
                "wave": wave,
                "rounds": rounds,
                "inputs": inputs,
                "pending": 0,
                "not_before": None,
            }
            if self.shards or self.reused:
                changes["published_at"] = None
            if current.held:
                # A plan that was held and is materialized again is released: somebody has acted.
                changes |= {"held": "", "released_at": self._platform.clock()}
            return replace(current, **changes)
        return Plan(
            enrichment=self._enrichment.name,
            partition=self._partition,
            plan_id=self._plan_id,
            digest=digest,
            inputs=inputs,
            path=self._path,
            documents=self._documents,
            requests=len(self._wanted),
            wave=wave,
            rounds=rounds,
            planned_at=self._platform.clock(),
        )

    def write_plan(self, plan: Plan) -> None:
        """See to it that the plan's table is in its place: another may be there already that says the same."""
        if plan.path == self._path:
            return
        files = self._platform.store.files
        if files.exists(plan.path):
            files.delete(self._path)
        else:
            files.move(self._path, plan.path)

    def discard(self) -> None:
        """Remove what was written: another run's plan holds, or this one could not be finished."""
        self._packer.abandon()
        for path in self._written:
            self._platform.store.files.delete(path)

    def _refused_requests(self) -> int | None:
        """How many requests the smallest shard of the current plan had that the provider never had room for."""
        if self._is_new:
            return None  # what was too large before may not be wanted any more
        shards = self._platform.ledger.shards(self._enrichment.name, self._partition)
        no_room = [shard for shard in shards if shard.collected_at and self._platform.had_no_room(shard)]
        return min((shard.requests for shard in no_room), default=None)

    def _stem(self, key: str) -> str:
        return self._platform.store.shard(self._enrichment.name, self._partition, self._wave, key)

    def _new_shard(self) -> tuple[str, Path]:
        key = self._platform.new_key()
        return key, self._folder / (key + self._dialect.shard_format.suffix)

    def _take_from_elsewhere(self, fingerprints: pl.Series, known: Known) -> None:
        """Settle what other partitions have the answer to."""
        there = fingerprints.filter(self._elsewhere.known(fingerprints)).unique()
        taken = there.filter(~(known.left_out.holds(there) | known.useless.holds(there)))
        known.left_out.add(taken)
        self._taken.append(taken)

    def _keep_taken(self) -> None:
        """Write the answers of other partitions as results of this one, with the ledger's row for them."""
        taken = pl.concat(self._taken)
        if taken.is_empty():
            return
        key = self._platform.new_key()
        stem = self._platform.store.shard(self._enrichment.name, self._partition, 0, key)
        results = f"{stem}.results.parquet"
        with self._platform.store.files.writing(results) as file:
            self._elsewhere.write(taken, file)
        self._written.append(results)
        now = self._platform.clock()
        self.reused.append(
            replace(
                self._shard(key, stem, wave=0, requests=taken.len(), size=0),
                state=ShardState.COLLECTED,
                results=results,
                collected_at=now,
                swept_at=now,
                forgotten_at=now,
            )
        )

    def _keep_finished(self) -> None:
        """Write what the finished shards ask, and keep the ledger's rows for them."""
        for packed in self._packer.take_finished():
            stem = self._stem(packed.key)
            self._written.append(stem + self._dialect.shard_format.suffix)
            self._platform.store.files.take(packed.path, self._written[-1])
            columns = {"fingerprint": packed.fingerprints, "bytes": packed.line_bytes}
            self._written.append(f"{stem}.requests.parquet")
            self._platform.store.write(f"{stem}.requests.parquet", pl.DataFrame(columns, schema=REQUESTS_SCHEMA))
            expected = self._forecast(packed.fingerprints, packed.line_bytes)
            self.shards.append(
                replace(
                    self._shard(packed.key, stem, wave=self._wave, requests=expected.requests, size=packed.bytes),
                    tokens=expected.input_tokens,
                    expected_usd=expected.usd,
                    at_most_usd=expected.at_most_usd,
                )
            )

    def _shard(self, key: str, stem: str, *, wave: int, requests: int, size: int) -> Shard:
        return Shard(
            key=key,
            enrichment=self._enrichment.name,
            partition=self._partition,
            wave=wave,
            provider=self._dialect.name,
            endpoint=self._dialect.endpoint,
            model_name=self._enrichment.model_name,
            requests=requests,
            bytes=size,
            path=stem,
            schema_digest=self._enrichment.output.digest,
            deadline_s=round(self._enrichment.deadline.total_seconds()),
            mode=self._mode,
            rates=encoded(self._price),
        )

    def _forecast(self, fingerprints: Sequence[Fingerprint], line_bytes: Sequence[int]) -> Forecast:
        room = rooms(self._enrichment, fingerprints, self._amendments)
        lengths = pl.Series(line_bytes, dtype=pl.Int64)
        return forecast(lengths, self._estimate, self._price, room, cached=self._is_cached)

    def _marked(self, body: bytes) -> bytes:
        if self._is_cached:
            body = self._dialect.marked(body, self._enrichment.shared_prefix)
        tier = self._enrichment.service_tier
        return body if tier is None or self._mode is Mode.BATCH else self._dialect.tiered(body, tier)


def _mode(platform: Platform, enrichment: Enrichment, partition: str) -> Mode:
    """How the next requests of a partition are sent."""
    shards = platform.ledger.shards(enrichment.name, partition)
    first = min((shard.submitted_at for shard in shards if shard.submitted_at), default=None)
    return enrichment.mode_at(platform.clock(), first)


def document_slices(platform: Platform, enrichment: Enrichment, partition: str) -> Iterator[pl.DataFrame]:
    """The documents of a partition. Raises StoreError when they were not materialized."""
    path = platform.store.documents(enrichment.documents, partition)
    # The first slice has no rows: a partition without documents has a plan with all its columns too.
    yield platform.store.scan(path).head(0).collect()
    with platform.store.files.reading(path) as file:
        yield from read_documents(file, SLICE_ROWS)


def rooms(
    enrichment: Enrichment, fingerprints: Sequence[Fingerprint], amendments: Mapping[Fingerprint, Amendment]
) -> pl.Series:
    """How many tokens the answer to each request may have: more where the last one was cut."""
    if not amendments:
        return pl.repeat(enrichment.max_tokens, len(fingerprints), dtype=pl.Int64, eager=True)
    found = (amendments.get(fingerprint) for fingerprint in fingerprints)
    tokens = [each.max_tokens if each else enrichment.max_tokens for each in found]
    return pl.Series(tokens, dtype=pl.Int64)


def estimate_requests(platform: Platform, enrichment: Enrichment) -> Estimate:
    """What the next requests of an enrichment will use, by its own of the last 90 days."""
    return estimate_from(_history(platform, enrichment, _EVIDENCE_AGE), enrichment.max_tokens)


def is_cached(platform: Platform, enrichment: Enrichment) -> bool:
    """Whether the next requests of an enrichment are marked for the provider's prompt cache."""
    dialect = platform.dialect(enrichment.provider, enrichment.endpoint)
    tokens_min = dialect.cache_tokens_min(enrichment.model_name)
    declared = enrichment.prompt_cache and "prompt_cache_key" not in enrichment.params
    cached = _history(platform, enrichment, _CACHED_AGE, cached_only=True)
    return declared and caching_pays(enrichment.shared_prefix, tokens_min, cached)


def _history(platform: Platform, enrichment: Enrichment, age: timedelta, *, cached_only: bool = False) -> Spent:
    """What the enrichment's requests to this model have used lately."""
    since, model = platform.clock() - age, enrichment.model_name
    return platform.ledger.money.spent(enrichment.name, model_name=model, since=since, cached_only=cached_only)


def answers_elsewhere(platform: Platform, enrichment: Enrichment, partition: str | None) -> Answers:
    """The answers of the enrichment's other partitions that are young enough to be taken; None for those of all."""
    oldest = platform.clock() - timedelta(days=enrichment.reuse_days)
    collected = platform.ledger.collected_since(enrichment.name, oldest) if enrichment.reuse_days else []
    return Answers(platform.store, [shard for shard in collected if shard.partition != partition], oldest)
