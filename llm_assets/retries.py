"""Results so far → what is worth sending again, and why not the rest.

Pure, and the only place that decides: `KIND_OF` says what each reason means, `standings` applies it to every
request of a plan. What is left to do is always computed from the results, never remembered.
"""

from __future__ import annotations

from enum import StrEnum

import polars as pl

from llm_assets.records import FailureKind, Fingerprint, Reason

# The failure table. A reason that is not listed is TRANSIENT: attempts are bounded, so asking again is safe.
KIND_OF: dict[Reason, FailureKind] = {
    Reason.OVERLOADED: FailureKind.TRANSIENT,
    Reason.API_ERROR: FailureKind.TRANSIENT,
    Reason.TIMEOUT: FailureKind.TRANSIENT,
    Reason.RATE_LIMIT: FailureKind.TRANSIENT,
    Reason.EXPIRED: FailureKind.TRANSIENT,
    Reason.CANCELED: FailureKind.TRANSIENT,
    Reason.MISSING_RESULT: FailureKind.TRANSIENT,
    Reason.UNREADABLE_RESULT: FailureKind.TRANSIENT,
    Reason.UNKNOWN: FailureKind.TRANSIENT,
    Reason.CAPACITY: FailureKind.CAPACITY,
    Reason.AUTHENTICATION: FailureKind.SYSTEMIC,
    Reason.BILLING: FailureKind.SYSTEMIC,
    Reason.PERMISSION: FailureKind.SYSTEMIC,
    Reason.UNKNOWN_MODEL: FailureKind.SYSTEMIC,
    Reason.TRUNCATED: FailureKind.REPAIRABLE,
    Reason.INVALID_ANSWER: FailureKind.REPAIRABLE,
    Reason.REFUSAL: FailureKind.PERMANENT,
    Reason.CONTEXT_WINDOW_EXCEEDED: FailureKind.PERMANENT,
    Reason.INVALID_REQUEST: FailureKind.PERMANENT,
    Reason.DOCUMENT_TOO_LARGE: FailureKind.PERMANENT,
    Reason.EMPTY_DOCUMENT: FailureKind.PERMANENT,
    Reason.PROMPT_FAILED: FailureKind.PERMANENT,
}
_KIND_NAMES = {reason.value: kind.value for reason, kind in KIND_OF.items()}
# Whose fault it was not: these do not use up a request's attempts.
_FREE_KINDS = (FailureKind.CAPACITY, FailureKind.SYSTEMIC)


class Standing(StrEnum):
    """Where a request stands."""

    ANSWERED = "answered"
    WAITING = "waiting"  # in a shard that is not collected yet
    DUE = "due"  # to be sent in the next wave
    HELD = "held"  # to be sent when somebody has mended the account
    FAILED = "failed"


def kind_of(reason: pl.Expr) -> pl.Expr:
    """The failure kind of a column of reasons; null where there is no reason."""
    known = reason.replace_strict(_KIND_NAMES, default=FailureKind.TRANSIENT.value, return_dtype=pl.String)
    return pl.when(reason.is_not_null()).then(known)


def standings(
    wanted: pl.Series, results: pl.LazyFrame, in_flight: pl.Series, *, attempts_max: int, truncations_max: int
) -> pl.DataFrame:
    """Where each request of a plan stands.

    `wanted` are the plan's distinct fingerprints, `results` all rows so far (RESULTS_SCHEMA), `in_flight` the
    fingerprints in shards that are not collected. A request may fail `attempts_max` times; a truncated answer is
    given more room `truncations_max` times. Returns a row a request: fingerprint, standing, attempts, truncations,
    and reason, kind of the last failure (null without one).
    """
    frame = pl.LazyFrame({"fingerprint": wanted}).join(_history(results), on="fingerprint", how="left")
    waiting = pl.col("fingerprint").is_in(in_flight.implode())
    kind = pl.col("kind")
    exhausted = (pl.col("attempts") >= attempts_max) | (
        (pl.col("reason") == Reason.TRUNCATED) & (pl.col("truncations") > truncations_max)
    )
    standing = (
        pl.when(pl.col("answered").fill_null(False))
        .then(pl.lit(Standing.ANSWERED.value))
        .when(waiting)
        .then(pl.lit(Standing.WAITING.value))
        .when(kind.is_null())
        .then(pl.lit(Standing.DUE.value))
        .when(kind == FailureKind.SYSTEMIC)
        .then(pl.lit(Standing.HELD.value))
        .when(kind == FailureKind.CAPACITY)
        .then(pl.lit(Standing.DUE.value))
        .when((kind == FailureKind.PERMANENT) | exhausted)
        .then(pl.lit(Standing.FAILED.value))
        .otherwise(pl.lit(Standing.DUE.value))
    )
    return frame.select(
        "fingerprint",
        standing.alias("standing"),
        pl.col("attempts", "truncations").fill_null(0),
        "reason",
        "kind",
    ).collect()


def room_for(standings: pl.DataFrame, max_tokens: int, ceiling: int) -> dict[Fingerprint, int]:
    """How many output tokens the requests whose answers were cut get next: twice the last, up to the ceiling."""
    cut = standings.filter((pl.col("standing") == Standing.DUE) & (pl.col("truncations") > 0))
    return {
        Fingerprint(fingerprint): min(max_tokens * 2**truncations, ceiling)
        for fingerprint, truncations in cut.select("fingerprint", "truncations").iter_rows()
    }


def truncations_max(max_tokens: int, ceiling: int) -> int:
    """How often doubling `max_tokens` still gives more room."""
    return max(0, (-(-ceiling // max_tokens) - 1).bit_length())


def _history(results: pl.LazyFrame) -> pl.LazyFrame:
    """A row a fingerprint: whether it was answered, its attempts, and its last failure."""
    failed = pl.col("reason").is_not_null()
    counted = failed & ~pl.col("kind").is_in([kind.value for kind in _FREE_KINDS])
    return (
        results.select("fingerprint", "wave", "reason")
        .with_columns(kind=kind_of(pl.col("reason")))
        .sort("wave", maintain_order=True)
        .group_by("fingerprint")
        .agg(
            answered=(~failed).any(),
            attempts=counted.sum().cast(pl.Int32),
            truncations=(pl.col("reason") == Reason.TRUNCATED).sum().cast(pl.Int32),
            reason=pl.col("reason").filter(failed).last(),
            kind=pl.col("kind").filter(failed).last(),
        )
    )
