"""What is known of a partition's requests so far: the ledger says which tables count, the store holds them.

A shard that is read here as in flight stays so for the reader even if its results arrive a moment later; one that
is read as collected has its table in place, since the ledger moves on only after the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from functools import wraps
from importlib.metadata import version
from itertools import pairwise
from typing import Concatenate, ParamSpec, TypeVar

import orjson
import polars as pl

from llm_assets.answers import invalid_answers
from llm_assets.enrichment import Enrichment, Output
from llm_assets.platform import Platform
from llm_assets.records import ACTIVE, REQUESTS_SCHEMA, RESULTS_SCHEMA, Amendment, Fingerprint, Reason, Shard
from llm_assets.retries import amendments, standings, truncations_max
from llm_assets.store import DAMAGE, Store

Args = ParamSpec("Args")
Done = TypeVar("Done")
_Act = Callable[Concatenate[Platform, Enrichment, str, Args], Done]


def naming_damage(act: _Act[Args, Done]) -> _Act[Args, Done]:
    """For what acts on a partition: where a table of it cannot be read, StoreError says which, and what to do."""

    @wraps(act)
    def acting(
        platform: Platform, enrichment: Enrichment, partition: str, /, *args: Args.args, **options: Args.kwargs
    ) -> Done:
        try:
            return act(platform, enrichment, partition, *args, **options)
        except DAMAGE:
            platform.store.check(enrichment.name, partition)
            raise

    return acting


def parts_of(requests: int, most: int) -> list[pl.Expr]:
    """Conditions on `fingerprint` that cut so many requests into parts of about `most`, each request in one of them.

    Documents without a request are in the first. The parts are ranges: of a table that is sorted by fingerprint, only
    the row groups that a part needs are read.
    """
    count = min(-(-requests // most), 0x10000)
    if count <= 1:
        return [pl.lit(True)]
    fingerprint = pl.col("fingerprint")
    bounds = [f"{0x10000 * number // count:04x}" for number in range(1, count)]
    between = [(fingerprint >= low) & (fingerprint < high) for low, high in pairwise(bounds)]
    return [fingerprint.is_null() | (fingerprint < bounds[0]), *between, fingerprint >= bounds[-1]]


def partition_standings(
    platform: Platform,
    enrichment: Enrichment,
    partition: str,
    *,
    rounds: int,
    part: pl.Expr | None = None,
    without: Collection[str] = (),
) -> pl.DataFrame:
    """Where all requests stand that a partition ever sent (see retries.standings).

    `part` is a condition on `fingerprint`: only those that meet it are asked about. `without` names shards (by key) to
    be taken as if they had never been planned.
    """
    shards = [s for s in platform.ledger.shards(enrichment.name, partition) if s.key not in without]
    part = pl.lit(True) if part is None else part
    results = results_so_far(platform.store, shards, enrichment.output).filter(part)
    in_flight = requests_in_flight(platform.store, shards).filter(part)
    sent = pl.concat([results.select("fingerprint"), in_flight.select("fingerprint")]).unique().collect()["fingerprint"]
    return standings_of(enrichment, sent, results, in_flight, rounds=rounds)


def standings_of(
    enrichment: Enrichment, wanted: pl.Series, results: pl.LazyFrame, in_flight: pl.LazyFrame, *, rounds: int
) -> pl.DataFrame:
    """Where these requests (distinct fingerprints) of an enrichment stand, by the tables of the same shards."""
    return standings(
        wanted,
        results,
        in_flight.collect()["fingerprint"],
        attempts_max=enrichment.attempts,
        truncations_max=truncations_max(enrichment.max_tokens, enrichment.ceiling),
        rounds=rounds,
    )


def partition_amendments(
    platform: Platform, enrichment: Enrichment, partition: str, standings: pl.DataFrame
) -> dict[Fingerprint, Amendment]:
    """How the requests of a partition that are to be sent differ from what was declared (see retries.amendments)."""
    results = results_so_far(platform.store, platform.ledger.shards(enrichment.name, partition), enrichment.output)
    return amendments(standings, results, max_tokens=enrichment.max_tokens, ceiling=enrichment.ceiling)


def results_so_far(store: Store, shards: Sequence[Shard], output: Output | None = None) -> pl.LazyFrame:
    """All rows (RESULTS_SCHEMA) that came back for these shards.

    With an output schema, answers to it that came while another was declared are judged by it now; all of them, where
    it is a class of the user's own, as its validators may have changed since. Other answers that are not judged belong
    to requests that nobody can want while it is declared.
    """
    done = [shard for shard in shards if shard.state not in ACTIVE]
    results = _results(store, done)
    if output is None:
        return results
    again = pl.lit(True) if output.foreign else ~pl.col("judged")
    judged = [
        invalid_answers(answers, output)
        for shard in done
        if asked_for(shard, output)
        for answers in [_answers(store, shard).filter(again).collect()]
        if not answers.is_empty()
    ]
    if not judged:
        return results
    invalid = pl.concat(judged).lazy()
    refused = pl.col("problem").is_not_null()
    return (
        results.join(invalid, on=("fingerprint", "wave"), how="left", maintain_order="left")
        .with_columns(
            reason=pl.when(refused).then(pl.lit(Reason.INVALID_ANSWER.value)).otherwise("reason"),
            message=pl.coalesce("problem", "message"),
        )
        .drop("problem")
    )


def _answers(store: Store, shard: Shard) -> pl.LazyFrame:
    return _results(store, [shard]).filter(pl.col("reason").is_null()).select("fingerprint", "wave", "answer", "judged")


def asked_for(shard: Shard, output: Output) -> bool:
    """Whether a shard asked for answers to this schema; one that does not say which was sent by an older release."""
    return shard.schema_digest in ("", output.digest)


def _results(store: Store, shards: Sequence[Shard]) -> pl.LazyFrame:
    tables = store.scan_all([store.results(shard) for shard in shards], RESULTS_SCHEMA)
    return tables.with_columns(pl.col("judged").fill_null(True))


def sent_fingerprints(store: Store, shard: Shard) -> list[Fingerprint]:
    """The requests of a shard, in the order of its lines."""
    requests = store.scan(store.requests(shard)).select("fingerprint").collect()
    return [Fingerprint(fingerprint) for fingerprint in requests["fingerprint"]]


def requests_in_flight(store: Store, shards: Sequence[Shard]) -> pl.LazyFrame:
    """The requests (REQUESTS_SCHEMA) of those of these shards that are not collected."""
    active = [store.requests(shard) for shard in shards if shard.state in ACTIVE]
    return store.scan_all(active, REQUESTS_SCHEMA)


def inputs_of(platform: Platform, enrichment: Enrichment, partition: str) -> str:
    """A digest of all that a plan is made from: while it is the same, so is what a plan would say.

    Empty where there are no documents: nothing can be told from that.
    """
    documents = platform.store.documents(enrichment.documents, partition)
    if not platform.store.files.exists(documents):
        return ""
    digest = hashlib.sha256()  # which processors have instructions for
    for chunk in platform.store.files.chunks(documents):
        digest.update(chunk)
    task, limits = enrichment.task, enrichment.limits
    declared = [
        version("llm-assets"),
        (enrichment.provider, enrichment.endpoint, task.model_name, task.max_tokens, task.schema_name),
        (task.schema, task.params, enrichment.prompt.text, enrichment.keep),
        (
            enrichment.output.digest,
            enrichment.evidence,
            enrichment.attempts,
            enrichment.ceiling,
            limits and limits.bytes,
            enrichment.text_limit and repr(enrichment.text_limit),
        ),
    ]
    digest.update(orjson.dumps(declared))
    return digest.hexdigest()
