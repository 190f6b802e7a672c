"""The frozen records that cross modules, and the schemas of the frames that do.

The words are those of docs/architecture.md. Nothing here acts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NewType

import msgspec
import polars as pl

DOCUMENT_ID = "document_id"
TEXT = "text"

# 32 hexadecimal digits: a hash of all that decides the answer (see requests.py).
Fingerprint = NewType("Fingerprint", str)


class Mode(StrEnum):
    """How requests are sent."""

    BATCH = "batch"
    REALTIME = "realtime"


class ShardState(StrEnum):
    """Where a shard is. The ledger allows only the transitions that it lists."""

    PLANNED = "planned"  # written to the store, not sent
    SUBMITTING = "submitting"  # claimed by a run: the provider may or may not have it
    SUBMITTED = "submitted"  # the provider has it, under a batch id
    ENDED = "ended"  # the provider is done with it
    COLLECTED = "collected"  # every request has its outcome in the store
    REJECTED = "rejected"  # the provider refused it for good; every request has its outcome in the store


# What the provider has, or may have; and all that is not done.
IN_FLIGHT = (ShardState.SUBMITTING, ShardState.SUBMITTED, ShardState.ENDED)
ACTIVE = (ShardState.PLANNED, *IN_FLIGHT)


class Reason(StrEnum):
    """Why a request has no answer, in one vocabulary for all providers."""

    # The provider's bad day
    OVERLOADED = "overloaded"
    API_ERROR = "api_error"
    TIMEOUT = "timeout"
    RATE_LIMIT = "rate_limit"
    EXPIRED = "expired"
    CANCELED = "canceled"
    MISSING_RESULT = "missing_result"
    UNREADABLE_RESULT = "unreadable_result"
    INTERRUPTED = "interrupted"  # the process that asked was killed before the turn of this request, or while it waited
    RESULTS_GONE = "results_gone"  # the batch has ended and was paid for, but its results cannot be had any more
    # A limit of queue or tokens
    CAPACITY = "capacity"
    # The account
    AUTHENTICATION = "authentication"
    BILLING = "billing"
    PERMISSION = "permission"
    UNKNOWN_MODEL = "unknown_model"
    # The answer
    TRUNCATED = "truncated"
    INVALID_ANSWER = "invalid_answer"
    REFUSAL = "refusal"
    CONTEXT_WINDOW_EXCEEDED = "context_window_exceeded"
    # The request
    INVALID_REQUEST = "invalid_request"
    DOCUMENT_TOO_LARGE = "document_too_large"
    EMPTY_DOCUMENT = "empty_document"
    PROMPT_FAILED = "prompt_failed"
    ABANDONED = "abandoned"  # nobody knows what became of it, and an operator gave it up
    # Anything that no table knows
    UNKNOWN = "unknown"


class FailureKind(StrEnum):
    """What a reason means for the request: the rows of the failure table."""

    TRANSIENT = "transient"  # the next wave, as it was
    CAPACITY = "capacity"  # later, no attempt counted
    SYSTEMIC = "systemic"  # nothing more is sent until somebody acts
    REPAIRABLE = "repairable"  # the next wave, changed
    PERMANENT = "permanent"  # failed, with the reason


class BatchState(StrEnum):
    """A provider's batch, reduced to what matters here."""

    IN_PROGRESS = "in_progress"
    ENDED = "ended"  # there may be results: also after expiry and cancellation
    FAILED = "failed"  # refused as a whole after it was accepted; no request was processed


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a rendered prompt; `role` is system, user or assistant."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Task:
    """What all requests of an enrichment have in common, in a provider's eyes.

    `schema` is the JSON schema that the answer must obey (objects closed, all properties required), or `dimensions`
    what its vector has; `params` go into the request body as they are.
    """

    model_name: str
    max_tokens: int
    schema: Mapping[str, Any]
    schema_name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    dimensions: int | None = None


@dataclass(frozen=True, slots=True)
class Amendment:
    """What a request says differently from what was declared when it is sent again.

    `max_tokens` is the room for its answer. An `error` says why an answer was refused, and `refused_answer` is that
    answer or its beginning; both are shown to the model, and neither belongs into a log.
    """

    max_tokens: int
    error: str = ""
    refused_answer: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class ShardLimits:
    """The most that one shard may hold: requests, and bytes of the file as it is sent."""

    requests: int
    bytes: int


@dataclass(frozen=True, slots=True)
class ShardFormat:
    """How request lines become a file that the provider takes: header, lines joined by separator, footer."""

    header: bytes
    separator: bytes
    footer: bytes
    suffix: str


@dataclass(frozen=True, slots=True)
class BatchCounts:
    """Requests by outcome, as the provider counts them (Anthropic: zero until the batch ends)."""

    total: int
    succeeded: int = 0
    failed: int = 0  # errored, expired and canceled together

    @property
    def finished(self) -> int:
        """How many requests the provider says it is done with."""
        return self.succeeded + self.failed


@dataclass(frozen=True, slots=True)
class Batch:
    """A provider's batch as it stands now.

    `stamp` is the submission key where the provider carries metadata, else None. `outputs` are what the
    provider's `download` needs (a results URL, file ids); `code` and `message` say why a batch FAILED. `staged_id` is
    the uploaded file that it was made of, where there is one. Where a provider has no row for requests that were not
    done when the batch ended, `rest` says why they were not.
    """

    batch_id: str
    state: BatchState
    created_at: datetime
    counts: BatchCounts
    stamp: str | None = None
    outputs: tuple[str, ...] = ()
    code: str = ""
    message: str = ""
    staged_id: str | None = None
    rest: Reason | None = None


@dataclass(frozen=True, slots=True)
class BatchPage:
    """One page of the provider's list, newest first; `cursor` asks for the next one, None at the end.

    `unread` counts entries that are not what the provider documents.
    """

    batches: tuple[Batch, ...]
    cursor: str | None
    unread: int = 0


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens that the provider says it used. `input_tokens` is the total, cached ones included."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0  # of those written, the ones that are kept for an hour, which costs more


class Result(msgspec.Struct, frozen=True, gc=False):
    """One result line in neutral terms. Exactly one of `text` and `reason` speaks for a clean result;
    a truncated or refused answer has both.

    `provider_type` and `message` are the provider's own words (never the document's). A shard has as many of these
    as requests, and the garbage collector looks at none of them.
    """

    custom_id: str
    text: str | None = None
    reason: Reason | None = None
    provider_type: str = ""
    message: str = ""
    model: str = ""
    usage: Usage = Usage()


# -- what the ledger holds ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a partition of an enrichment wants, and how far it is: the ledger's one row for it.

    `digest` changes when any document, prompt, model, schema or kept column does; `inputs` may change without it, as
    it is of the documents' file and the declaration themselves: while it stays, so does the plan. `path` names the
    plan's table (PLAN_SCHEMA) in the store. `wave` is the last one planned. `rounds` multiplies the attempts that a
    request may have: it grows when somebody asks for the failed ones again. `pending` counts requests that are due in
    the next wave, which is not planned before `not_before`. `held` says why nothing more is sent until somebody acts;
    empty when all is well. `released_at` is when somebody last did.
    """

    enrichment: str
    partition: str
    plan_id: str
    digest: str
    inputs: str = ""
    path: str
    documents: int
    requests: int
    wave: int = 0
    rounds: int = 1
    pending: int = 0
    held: str = ""
    planned_at: datetime
    published_at: datetime | None = None
    released_at: datetime | None = None
    not_before: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A file of requests, sent as one batch: the ledger's one row for it.

    `key` is the submission key: in every custom_id of the shard and in the batch's metadata where the provider
    carries any. `path` names the shard's folder-and-stem in the store, from which its files' names derive.
    `past_batches` are batch ids that turned out not to answer this shard; `adopted` says that its batch was found by
    size and age and that its results have still to prove it. A batch that is not done `deadline_s` seconds after its
    submission is cancelled (`cancelled_at`). `asked_at` is when the provider last said anything about it.
    `missing_since` and `missing_at` are when it first and last did not have what it should, in `missing_looks` looks.
    `schema_digest` names the output schema that the answers were asked for, `results` the table that holds them once
    collected. `tokens` are those that it will read and `expected_usd` what it will cost, as estimated when it was
    planned; `at_most_usd` is what it cannot cost more than.
    `charge_usd` is what it takes of the budgets since `charged_at`: the most that it may cost, and once that is known
    what it did cost. `swept_at` is when its request file was deleted, `forgotten_at` when what the provider kept of it
    was. `plan_digest` is its plan's. `mode` says whether it goes as a batch or in real time. `rates` is the price that
    it was planned at (prices.py): what is declared later does not change what was sent.
    """

    key: str
    enrichment: str
    partition: str
    wave: int
    provider: str
    endpoint: str
    model_name: str = ""
    account: str = ""
    requests: int
    bytes: int
    tokens: int = 0
    expected_usd: float = 0.0
    at_most_usd: float = 0.0
    charge_usd: float = 0.0
    charged_at: datetime | None = None
    path: str
    state: ShardState = ShardState.PLANNED
    owner: str = ""
    claimed_at: datetime | None = None
    not_before: datetime | None = None
    staged_id: str | None = None
    batch_id: str | None = None
    past_batches: tuple[str, ...] = ()
    adopted: bool = False
    submitted_at: datetime | None = None
    asked_at: datetime | None = None
    ended_at: datetime | None = None
    collected_at: datetime | None = None
    finished: int = 0
    deadline_s: int | None = None
    cancelled_at: datetime | None = None
    missing_since: datetime | None = None
    missing_at: datetime | None = None
    missing_looks: int = 0
    schema_digest: str = ""
    results: str = ""
    swept_at: datetime | None = None
    forgotten_at: datetime | None = None
    code: str = ""
    message: str = ""
    plan_digest: str = ""
    mode: Mode = Mode.BATCH
    rates: str = ""

    def is_of(self, plan: Plan) -> bool:
        """Whether the shard was made for this plan; one that does not say was made by an older release."""
        return self.plan_digest in ("", plan.digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What requests used and cost: one shard's, or the sum of many.

    `billed` counts the requests for which anything was used, all that follows is of these. `cost_usd` is what they
    cost, `standard_usd` what they would have cost in real time, `uncached_usd` without the provider's prompt cache.
    `bytes` are the lengths of their lines; the products with them, summed up, tie lengths to tokens (forecast.py).
    """

    requests: int = 0
    billed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost_usd: float = 0.0
    standard_usd: float = 0.0
    uncached_usd: float = 0.0
    bytes: int = 0
    bytes_bytes: float = 0.0
    bytes_input: float = 0.0
    bytes_output: float = 0.0


@dataclass(frozen=True, slots=True)
class Budget:
    """US dollars that may be spent on something, for which `name` is what the declaration calls it.

    `since` is when it begins to count; None for all time. Without an enrichment it is the whole project's, without a
    partition the enrichment's.
    """

    name: str
    usd: float
    enrichment: str | None = None
    partition: str | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Quota:
    """How much a provider's queue holds at once: requests, and tokens that they read. None for no limit.

    Without a model it is for all models of the provider together.
    """

    model_name: str | None = None
    requests: int | None = None
    tokens: int | None = None


# -- frames ------------------------------------------------------------------------------------------------

# What a partition wants: a row a document. `fingerprint` is null when the document fails before it is sent,
# then `reason` and `message` say why. The columns that the enrichment keeps follow.
PLAN_SCHEMA: dict[str, pl.DataType] = {
    DOCUMENT_ID: pl.String(),
    "fingerprint": pl.String(),
    "reason": pl.String(),
    "message": pl.String(),
}

# What a shard asked: a row a request.
REQUESTS_SCHEMA: dict[str, pl.DataType] = {
    "fingerprint": pl.String(),
    "bytes": pl.Int64(),
}

# What came back for a shard: exactly one row a request. `reason` is null for an answer that validated, and for one
# that is not `judged`: it was asked for with another output schema than was declared when it came. (Of what has a
# reason, `judged` says nothing.) `answered_at` is set
# for an answer that was taken from another partition, with wave 0 and no tokens of its own.
RESULTS_SCHEMA: dict[str, pl.DataType] = {
    "fingerprint": pl.String(),
    "wave": pl.Int32(),
    "reason": pl.String(),
    "provider_type": pl.String(),
    "message": pl.String(),
    "answer": pl.String(),
    "model": pl.String(),
    "input_tokens": pl.Int64(),
    "output_tokens": pl.Int64(),
    "cache_read_tokens": pl.Int64(),
    "cache_write_tokens": pl.Int64(),
    "cache_write_1h_tokens": pl.Int64(),
    "cost_usd": pl.Float64(),
    "judged": pl.Boolean(),
    "answered_at": pl.Datetime("us", "UTC"),
}

# The columns of `failed`, before those that the enrichment keeps.
FAILED_SCHEMA: dict[str, pl.DataType] = {
    DOCUMENT_ID: pl.String(),
    "kind": pl.String(),
    "reason": pl.String(),
    "provider_type": pl.String(),
    "message": pl.String(),
    "attempts": pl.Int32(),
    "model": pl.String(),
    "input_tokens": pl.Int64(),
    "output_tokens": pl.Int64(),
    "cost_usd": pl.Float64(),
}
