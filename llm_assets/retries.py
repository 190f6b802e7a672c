"""Results so far → what is worth sending again, and why not the rest.

Pure, and the only place that decides: `KIND_OF` says what each reason means, `standings` applies it to every
request of a plan. Which requests are left to do is always computed from the results, never remembered.
"""

from __future__ import annotations

from enum import StrEnum

import polars as pl

from llm_assets.records import Amendment, FailureKind, Fingerprint, Reason

# The failure table. A reason that is not listed is TRANSIENT: attempts are bounded, so asking again is safe.
KIND_OF: dict[Reason, FailureKind] = {
    Reason.OVERLOADED: FailureKind.TRANSIENT,
    Reason.API_ERROR: FailureKind.TRANSIENT,
    Reason.TIMEOUT: FailureKind.TRANSIENT,
    Reason.RATE_LIMIT: FailureKind.TRANSIENT,
    Reason.EXPIRED: FailureKind.TRANSIENT,
    Reason.CANCELED: FailureKind.TRANSIENT,
    Reason.MISSING_RESULT: FailureKind.TRANSIENT,
    Reason.INTERRUPTED: FailureKind.TRANSIENT,
    Reason.UNREADABLE_RESULT: FailureKind.TRANSIENT,
    Reason.UNKNOWN: FailureKind.TRANSIENT,
    Reason.CAPACITY: FailureKind.CAPACITY,
    Reason.AUTHENTICATION: FailureKind.SYSTEMIC,
    Reason.BILLING: FailureKind.SYSTEMIC,
    Reason.PERMISSION: FailureKind.SYSTEMIC,
    Reason.UNKNOWN_MODEL: FailureKind.SYSTEMIC,
    Reason.RESULTS_GONE: FailureKind.SYSTEMIC,  # asking again would pay again: that is for a person to decide
    Reason.TRUNCATED: FailureKind.REPAIRABLE,
    Reason.INVALID_ANSWER: FailureKind.REPAIRABLE,
    Reason.REFUSAL: FailureKind.PERMANENT,
    Reason.CONTEXT_WINDOW_EXCEEDED: FailureKind.PERMANENT,
    Reason.INVALID_REQUEST: FailureKind.PERMANENT,
    Reason.DOCUMENT_TOO_LARGE: FailureKind.PERMANENT,
    Reason.EMPTY_DOCUMENT: FailureKind.PERMANENT,
    Reason.PROMPT_FAILED: FailureKind.PERMANENT,
    Reason.ABANDONED: FailureKind.PERMANENT,
}
_KIND_NAMES = {reason.value: kind.value for reason, kind in KIND_OF.items()}
# Whose fault it was not: these do not use up a request's attempts, nor does it when our own process was killed.
_FREE_KINDS = (FailureKind.CAPACITY, FailureKind.SYSTEMIC)
# How often an answer that breaks the schema is shown to the model with what was wrong: who does not mend it then, will
# not, and every try is paid for.
REPAIRS_MAX = 1
# How often a request may be refused for lack of room. With an hour between such waves it is a day: longer than any
# queue of a batch API should take.
CAPACITY_REFUSALS_MAX = 24
# How much of a refused answer is shown: enough to see where it went wrong.
REFUSED_CHARS_MAX = 20_000


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
    wanted: pl.Series,
    results: pl.LazyFrame,
    in_flight: pl.Series,
    *,
    attempts_max: int,
    truncations_max: int,
    rounds: int = 1,
) -> pl.DataFrame:
    """Where each request of a plan stands.

    `wanted` are the plan's distinct fingerprints, `results` all rows so far (RESULTS_SCHEMA), `in_flight` the
    fingerprints in shards that are not collected. In each of the `rounds` that somebody granted, a request may fail
    `attempts_max` times, its invalid answer is shown to the model REPAIRS_MAX times, and it may be given up by an
    operator once; a truncated answer is given more room `truncations_max` times in all. Returns a row a request:
    fingerprint, standing, attempts, truncations, invalid (how often its answer broke the schema), and reason, kind of
    the last failure (null without one).
    """
    frame = pl.LazyFrame({"fingerprint": wanted}).join(_history(results), on="fingerprint", how="left")
    waiting = pl.col("fingerprint").is_in(in_flight.implode())
    kind = pl.col("kind")
    reason = pl.col("reason")
    exhausted = (
        (pl.col("attempts") >= attempts_max * rounds)
        | ((reason == Reason.TRUNCATED) & (pl.col("truncations") > truncations_max))
        | ((reason == Reason.INVALID_ANSWER) & (pl.col("invalid") > REPAIRS_MAX * rounds))
    )
    gave_up = (reason == Reason.ABANDONED) & (pl.col("abandoned") < rounds)
    never_room = (kind == FailureKind.CAPACITY) & (pl.col("capacity") >= CAPACITY_REFUSALS_MAX * rounds)
    standing = (
        pl.when(pl.col("answered").fill_null(False))
        .then(pl.lit(Standing.ANSWERED.value))
        .when(waiting)
        .then(pl.lit(Standing.WAITING.value))
        .when(kind.is_null())
        .then(pl.lit(Standing.DUE.value))
        .when(kind == FailureKind.SYSTEMIC)
        .then(pl.lit(Standing.HELD.value))
        .when((kind == FailureKind.CAPACITY) & ~never_room)
        .then(pl.lit(Standing.DUE.value))
        .when(gave_up)
        .then(pl.lit(Standing.DUE.value))
        .when((kind == FailureKind.PERMANENT) | never_room | exhausted)
        .then(pl.lit(Standing.FAILED.value))
        .otherwise(pl.lit(Standing.DUE.value))
    )
    return frame.select(
        "fingerprint",
        standing.alias("standing"),
        pl.col("attempts", "truncations", "invalid").fill_null(0),
        "reason",
        "kind",
    ).collect()


def amendments(
    standings: pl.DataFrame, results: pl.LazyFrame, *, max_tokens: int, ceiling: int
) -> dict[Fingerprint, Amendment]:
    """How the requests that are to be sent differ from what was declared, for those that do.

    Whose answers were cut get twice the last room, up to the ceiling. Whose answer broke the schema are shown the last
    such answer and its error; of all answers in `results` (RESULTS_SCHEMA), only theirs are read.
    """
    unsent = pl.col("standing").is_in([Standing.DUE, Standing.HELD])
    amended = standings.filter(unsent & ((pl.col("truncations") > 0) | (pl.col("invalid") > 0)))
    if amended.is_empty():
        return {}
    rows = amended.join(_refused(results, amended), on="fingerprint", how="left")
    return {
        Fingerprint(fingerprint): Amendment(min(max_tokens * 2**truncations, ceiling), error or "", answer or "")
        for fingerprint, truncations, error, answer in rows.select(
            "fingerprint", "truncations", "message", "answer"
        ).iter_rows()
    }


def _refused(results: pl.LazyFrame, amended: pl.DataFrame) -> pl.DataFrame:
    """The last answer that broke the schema, and its error, of each of these requests that has one."""
    invalid = amended.filter(pl.col("invalid") > 0)["fingerprint"]
    return (
        results.filter((pl.col("reason") == Reason.INVALID_ANSWER) & pl.col("fingerprint").is_in(invalid.implode()))
        .select("fingerprint", "wave", "message", pl.col("answer").str.head(REFUSED_CHARS_MAX))
        .sort("wave", maintain_order=True)
        .unique("fingerprint", keep="last", maintain_order=True)
        .collect()
    )


def truncations_max(max_tokens: int, ceiling: int) -> int:
    """How often doubling `max_tokens` still gives more room."""
    return max(0, (-(-ceiling // max_tokens) - 1).bit_length())


def _history(results: pl.LazyFrame) -> pl.LazyFrame:
    """A row a fingerprint: whether it was answered, how often it failed in which way, and its last failure."""
    failed = pl.col("reason").is_not_null()
    free = pl.col("kind").is_in([kind.value for kind in _FREE_KINDS]) | (pl.col("reason") == Reason.INTERRUPTED)
    counted = failed & ~free
    return (
        results.select("fingerprint", "wave", "reason")
        .with_columns(kind=kind_of(pl.col("reason")))
        .sort("wave", maintain_order=True)
        .group_by("fingerprint")
        .agg(
            answered=(~failed).any(),
            attempts=counted.sum().cast(pl.Int32),
            truncations=(pl.col("reason") == Reason.TRUNCATED).sum().cast(pl.Int32),
            invalid=(pl.col("reason") == Reason.INVALID_ANSWER).sum().cast(pl.Int32),
            abandoned=(pl.col("reason") == Reason.ABANDONED).sum().cast(pl.Int32),
            capacity=(pl.col("kind") == FailureKind.CAPACITY).sum().cast(pl.Int32),
            reason=pl.col("reason").filter(failed).last(),
            kind=pl.col("kind").filter(failed).last(),
        )
    )
