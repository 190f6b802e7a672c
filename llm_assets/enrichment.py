"""An enrichment, declared: documents, prompt, model, output schema, limits, and whether they fit together."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import polars as pl

from llm_assets import providers
from llm_assets.embedding import DIMENSIONS_MAX, Embedding
from llm_assets.errors import DeclarationError
from llm_assets.evidence import UNSUPPORTED, path_problem
from llm_assets.output_schema import OutputSchema
from llm_assets.prices import Price, PriceUnknown, listed_price
from llm_assets.prompt import Prompt
from llm_assets.records import (
    DOCUMENT_ID,
    FAILED_SCHEMA,
    PLAN_SCHEMA,
    RESULTS_SCHEMA,
    Budget,
    Message,
    Mode,
    Quota,
    ShardLimits,
    Task,
)
from llm_assets.text_limit import WAS_CUT, TextLimit

# What an answer may be.
Output = OutputSchema | Embedding
NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")
ATTEMPTS_MAX = 20
REALTIME_REQUESTS_MAX = 500
REQUEST_FILES_DAYS_MAX = 36_500
CEILING_FACTOR = 4
NO_LIMIT = 1 << 62
_SHARD_ANSWER_BYTES = 1 << 25
_REALTIME_REQUESTS, _REALTIME_BYTES = 2_000, 20_000_000

# What `enriched` says about every answer, after its id, the columns that are kept and the answer itself.
_ENRICHED: dict[str, pl.DataType] = {
    "model": pl.String(),
    "wave": pl.Int32(),
    "input_tokens": pl.Int64(),
    "output_tokens": pl.Int64(),
    "cache_read_tokens": pl.Int64(),
    "cache_write_tokens": pl.Int64(),
    "cost_usd": pl.Float64(),
    "fingerprint": pl.String(),
}
ENRICHED_COLUMNS = (DOCUMENT_ID, *_ENRICHED)
# Kept columns travel through the plan and both tables, beside what is worked out on the way.
_WORKED_OUT = ("position", "standing", "last_reason", "last_message")
RESERVED_COLUMNS = frozenset((*ENRICHED_COLUMNS, *FAILED_SCHEMA, *PLAN_SCHEMA, *RESULTS_SCHEMA, *_WORKED_OUT))


def enriched_schema(
    kept: Iterable[str],
    answer: Mapping[str, pl.DataType],
    documents: Mapping[str, pl.DataType],
    *,
    has_evidence: bool,
    is_cut: bool = False,
) -> dict[str, pl.DataType]:
    """The columns of `enriched`, where `answer` has those of an answer and `documents` those of the documents."""
    columns = {name: documents.get(name, pl.String()) for name in kept}
    flagged: dict[str, pl.DataType] = {UNSUPPORTED: pl.List(pl.String())} if has_evidence else {}
    flagged |= {WAS_CUT: pl.Boolean()} if is_cut else {}
    return {DOCUMENT_ID: pl.String(), **columns, **answer, **flagged, **_ENRICHED}


def failed_schema(kept: Iterable[str], documents: Mapping[str, pl.DataType]) -> dict[str, pl.DataType]:
    """The columns of `failed`."""
    columns = {name: documents.get(name, pl.String()) for name in kept}
    return {**FAILED_SCHEMA, **columns, "fingerprint": pl.String()}


@dataclass(frozen=True)
class Enrichment:
    """What is asked about every document of a table.

    A truncated answer is asked for again with twice the room, up to `max_tokens_ceiling` (default: four
    times `max_tokens`). `limits` lower the provider's. A partition whose share of failures is above
    `failure_rate_max` fails its check. When more than `hold_above` of the first requests fail for good or break the
    schema, what is not sent yet waits for a person. A batch that is not done after `deadline_hours` is cancelled: what
    is finished is kept, the rest is sent again. The files of requests, which hold documents' text, are deleted
    `request_files_days` after their results came; with `delete_at_provider` so is at once what the provider keeps of
    them. `source` is the file that declares all this.

    `price` is what the model costs where the price list does not know or does not apply. No more than
    `partition_budget_usd` is ever spent on a partition, no more than `day_budget_usd` on what is sent in a day (UTC),
    and no more than `project_day_budget_usd` on that of all enrichments. The answer to the same request in another
    partition is taken from there when it is at most `reuse_days` old. No more is sent at once than `quotas` say that a
    provider's queue holds. A system prompt that is the same for all documents is marked for the provider's prompt
    cache, unless `prompt_cache` is off, it is too short, or what came so far cost more with it than without.

    `evidence` names fields of the answer whose values must stand in the document's text: the column `unsupported` lists
    those that do not (evidence.py). In the `mode` realtime requests are answered at once, at the standard price. After
    `rescue_after_hours` so are those that batches have not answered: what is late is cancelled, and what it did not
    answer is asked. A text that is longer than the `text_limit` is refused, or cut: the column `text_was_cut` says so.
    In real time at most `realtime_requests` are under way at once, and a `service_tier` is answered more slowly, at the
    price of a batch.
    """

    name: str
    documents: str
    provider: str
    model_name: str
    prompt: Prompt
    output: Output
    max_tokens: int = 1024
    max_tokens_ceiling: int | None = None
    attempts: int = 3
    endpoint: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    keep: tuple[str, ...] = ()
    limits: ShardLimits | None = None
    failure_rate_max: float = 0.05
    hold_above: float = 0.5
    deadline_hours: float = 26
    request_files_days: float = 30
    delete_at_provider: bool = False
    price: Price | None = None
    partition_budget_usd: float = float("inf")
    day_budget_usd: float = float("inf")
    project_day_budget_usd: float = float("inf")
    reuse_days: float = 30
    quotas: tuple[Quota, ...] = ()
    prompt_cache: bool = True
    evidence: tuple[str, ...] = ()
    mode: Mode = Mode.BATCH
    rescue_after_hours: float | None = None
    text_limit: TextLimit | None = None
    realtime_requests: int | None = None
    service_tier: str | None = None
    source: str = ""

    @cached_property
    def task(self) -> Task:
        """What all requests have in common, with room for `max_tokens`."""
        output = self.output
        if isinstance(output, Embedding):
            return Task(self.model_name, self.max_tokens, {}, output.name, self.params, output.dimensions)
        return Task(self.model_name, self.max_tokens, output.json_schema, output.name, self.params)

    def shard_limits(self, mode: Mode = Mode.BATCH) -> ShardLimits | None:
        """What a shard may hold, below the provider's limits: of long answers fewer, as they are collected at once; in
        real time fewer, as a shard is collected when all of it is answered.
        """
        if mode is Mode.REALTIME:
            most = self.limits or ShardLimits(_REALTIME_REQUESTS, _REALTIME_BYTES)
            return ShardLimits(min(most.requests, _REALTIME_REQUESTS), min(most.bytes, _REALTIME_BYTES))
        if self.limits is None and isinstance(self.output, Embedding):
            return ShardLimits(requests=max(1, _SHARD_ANSWER_BYTES // self.output.answer_bytes), bytes=NO_LIMIT)
        return self.limits

    @property
    def cuts(self) -> bool:
        """Whether texts that are too long are cut."""
        return self.text_limit is not None and self.text_limit.cuts

    @cached_property
    def ceiling(self) -> int:
        """The most tokens that an answer is ever given."""
        if self.max_tokens_ceiling is None:
            return CEILING_FACTOR * self.max_tokens
        return self.max_tokens_ceiling

    def price_at(self, moment: datetime, mode: Mode = Mode.BATCH) -> Price:
        """What the model costs at a time, sent this way. Raises PriceUnknown."""
        price = self.price or listed_price(self.provider, self.model_name, moment)
        if mode is Mode.BATCH or self.service_tier is not None:
            return price
        return Price(price.standard, price.standard)

    def mode_at(self, now: datetime, first_sent_at: datetime | None) -> Mode:
        """How the next requests of a partition are sent, whose first were at some time."""
        if self.rescue_after_hours is None or first_sent_at is None:
            return self.mode
        return Mode.REALTIME if now >= first_sent_at + timedelta(hours=self.rescue_after_hours) else self.mode

    @property
    def deadline(self) -> timedelta:
        """How long a batch may take before it is cancelled."""
        return timedelta(hours=min(self.deadline_hours, self.rescue_after_hours or self.deadline_hours))

    @cached_property
    def shared_prefix(self) -> str:
        """The system prompt, where it is the same for all documents; else empty."""
        first = self.prompt.turns[0]
        return first.constant.text if first.role == "system" and first.constant else ""

    def budgets(self, partition: str, now: datetime) -> list[Budget]:
        """What may be spent on a partition that is sent now."""
        return [budget for budget in self.accounts(partition, now) if budget.usd < float("inf")]

    def accounts(self, partition: str, now: datetime) -> tuple[Budget, Budget, Budget]:
        """What is spent is counted for the partition, for the enrichment's day and for the project's: without a limit
        that is infinite.
        """
        today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return (
            Budget("budget.partition_usd", self.partition_budget_usd, self.name, partition),
            Budget("budget.day_usd", self.day_budget_usd, self.name, since=today),
            Budget("the project's day_usd", self.project_day_budget_usd, since=today),
        )

    def task_with(self, max_tokens: int) -> Task:
        """The same task with another room for the answer."""
        return replace(self.task, max_tokens=max_tokens)

    def check(self, columns: Iterable[str]) -> None:
        """Raise one DeclarationError that lists all that is wrong; `columns` are those of the documents."""
        problems = [
            *self._name_problems(),
            *self._number_problems(),
            *self._column_problems(tuple(columns)),
            *self._provider_problems(),
        ]
        DeclarationError.raise_for(self.source, problems)

    def _name_problems(self) -> Iterator[str]:
        if not NAME.fullmatch(self.name):
            yield (
                f"the name {self.name[:80]!r} must begin with a lower-case letter and have at most 60 "
                "lower-case letters, digits and underscores"
            )
        if not self.model_name.strip():
            yield "model_name is empty; write the provider's name of a model"

    def _number_problems(self) -> Iterator[str]:
        if self.max_tokens < 1:
            yield f"max_tokens is {self.max_tokens}; it must be at least 1"
        elif self.ceiling < self.max_tokens:
            yield f"max_tokens_ceiling {self.ceiling} is below max_tokens {self.max_tokens}"
        if not 1 <= self.attempts <= ATTEMPTS_MAX:
            yield f"attempts is {self.attempts}; it must be between 1 and {ATTEMPTS_MAX}"
        for name, share in (("failure_rate_max", self.failure_rate_max), ("hold_above", self.hold_above)):
            if not 0 <= share <= 1:
                yield f"{name} is {share}; it is a share between 0 and 1"
        if not self.deadline_hours > 0:
            yield f"deadline_hours is {self.deadline_hours}; it must be above 0 (the providers give up after 24)"
        if self.rescue_after_hours is not None and not 0 < self.rescue_after_hours < self.deadline_hours:
            yield (
                f"rescue_after_hours is {self.rescue_after_hours}; it must be above 0 and below deadline_hours "
                f"({self.deadline_hours})"
            )
        if not 0 <= self.request_files_days <= REQUEST_FILES_DAYS_MAX:
            yield (
                f"request_files_days is {self.request_files_days}; it must be between 0 (deleted when the partition is "
                f"published) and {REQUEST_FILES_DAYS_MAX}"
            )
        if not 0 <= self.reuse_days <= REQUEST_FILES_DAYS_MAX:
            yield f"reuse_days is {self.reuse_days}; it must be between 0 (never) and {REQUEST_FILES_DAYS_MAX}"
        if self.realtime_requests is not None and not 1 <= self.realtime_requests <= REALTIME_REQUESTS_MAX:
            yield (
                f"realtime_requests is {self.realtime_requests}; it must be between 1 and {REALTIME_REQUESTS_MAX}: "
                "as many may be paid twice when a process is killed"
            )
        yield from self.text_limit.problems() if self.text_limit else ()
        for name, usd in (("partition_usd", self.partition_budget_usd), ("day_usd", self.day_budget_usd)):
            if not usd > 0:
                yield f"budget.{name} is {usd}; it must be above 0 (US dollars), or left out for no limit"

    def _column_problems(self, columns: tuple[str, ...]) -> Iterator[str]:
        there = f"{self.documents} has {', '.join(columns)}"
        declare = "other columns must be declared under `columns:` of the documents"
        for name in sorted(self.prompt.variables - set(columns)):
            yield f"the prompt {self.prompt.source} uses {name!r}, but {there}; {declare}"
        for name in self.keep:
            if name not in columns:
                yield f"keep names the column {name!r}, but {there}; {declare}"
            elif name in RESERVED_COLUMNS or (self.cuts and name == WAS_CUT):
                yield f"keep names {name!r}, which is a built-in column of the answers"
        for name in sorted({name for name in self.keep if self.keep.count(name) > 1}):
            yield f"keep names {name!r} more than once"
        for name in self.output.frame_schema:
            if name in self.keep:
                yield f"the output field {name!r} has the name of a column that is kept; rename one of them"
            elif name in ENRICHED_COLUMNS or name in self._flags:
                yield f"the output field {name!r} has the name of a built-in column of the answers; rename it"

        if isinstance(self.output, Embedding) and not 1 <= self.output.dimensions <= DIMENSIONS_MAX:
            yield f"embedding.dimensions is {self.output.dimensions}; it must be between 1 and {DIMENSIONS_MAX:,}"
        for path in self.evidence:
            if problem := path_problem(self.output.frame_schema, path):
                yield f"evidence names {path!r}, which the output does not have: {problem}"

    @property
    def _flags(self) -> tuple[str, ...]:
        """The columns of `enriched` that only some enrichments have."""
        return (*((UNSUPPORTED,) if self.evidence else ()), *((WAS_CUT,) if self.cuts else ()))

    def _provider_problems(self) -> Iterator[str]:
        if self.provider not in providers.NAMES:
            close = difflib.get_close_matches(self.provider, providers.NAMES, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            yield f"the provider {self.provider!r} is unknown; there are {', '.join(providers.NAMES)}{hint}"
            return
        try:
            dialect = providers.get_provider(self.provider, self.endpoint).dialect
        except ValueError as error:
            yield f"the endpoint {self.endpoint!r} cannot be used: {error}"
            return
        yield from self._limit_problems(dialect.limits)
        yield from self._tier_problems(dialect)
        yield from self._price_problems()
        if dialect.embeds != isinstance(self.output, Embedding):
            yield _wrong_endpoint(dialect)
            return
        for problem in dialect.schema_problems(self.output.json_schema):
            yield f"{self.provider} cannot enforce the output schema: {problem}"
        yield from self._body_problems(dialect)

    def _price_problems(self) -> Iterator[str]:
        if not self.model_name.strip():
            return
        try:
            self.price_at(datetime.now(UTC))
        except PriceUnknown as problem:
            yield f"{problem}; declare what it costs under `prices` of a Spending component, or that it is `free`"

    def _limit_problems(self, most: ShardLimits) -> Iterator[str]:
        for unit in ("requests", "bytes") if self.limits else ():
            limit, provider_limit = getattr(self.limits, unit), getattr(most, unit)
            if limit != NO_LIMIT and not 1 <= limit <= provider_limit:
                yield f"limits.{unit} is {limit}; {self.provider} takes between 1 and {provider_limit}"

    def _tier_problems(self, dialect: providers.Dialect) -> Iterator[str]:
        if (tier := self.params.get("service_tier")) in dialect.tiers:
            yield (f"params.service_tier is {tier!r}, at another price; declare `service_tier: {tier}` beside `params`")
        if self.service_tier is None:
            return
        if self.service_tier not in dialect.tiers:
            there = ", ".join(dialect.tiers) or "none"
            yield f"service_tier is {self.service_tier!r}; {dialect.name} has {there} at {dialect.endpoint}"
        elif self.mode is Mode.BATCH and self.rescue_after_hours is None:
            yield "service_tier is for real time; declare `mode: realtime` or `rescue_after_hours` with it"

    def _body_problems(self, dialect: providers.Dialect) -> Iterator[str]:
        try:
            dialect.body(self.task, [Message(turn.role, "x") for turn in self.prompt.turns])
        except ValueError as error:
            yield f"the request cannot be built: {error}"


def _wrong_endpoint(dialect: providers.Dialect) -> str:
    if dialect.embeds:
        return f"{dialect.endpoint} answers with vectors; declare `embedding: {{dimensions: …}}` instead of an output"
    return (
        f"{dialect.name} has no vectors at {dialect.endpoint}; for an embedding declare `provider: openai` and "
        "`endpoint: /v1/embeddings`"
    )
