"""How far a partition is: its requests and documents counted, part by part. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import polars as pl

from llm_assets.records import DOCUMENT_ID, FailureKind, Plan, Reason, Spent
from llm_assets.retries import Standing

_EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a partition is, in documents, requests and tokens.

    `requests` counts the plan's distinct requests by standing; `failures` documents by reason once published, and
    requests by their last reason before. `spent` is all that was paid for the partition; `saved_usd` is what was not,
    because documents share a request or another partition had its answer, at what an answer costs here. `examples` are
    the ids of a few documents for each of the `failures`; `by_wave` counts answers by wave, once published those of
    documents, before those of requests. `strays` counts result lines that no request of ours was waiting for, and
    `conflicts` those that say something else than an earlier line for the same request, which counts.
    """

    documents: int = 0
    enriched: int = 0
    failed: int = 0
    published: bool = False
    wave: int = 0
    requests: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    by_wave: dict[int, int] = field(default_factory=dict)
    held: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    spent: Spent = field(default_factory=Spent)
    saved_usd: float = 0.0
    strays: int = 0
    conflicts: int = 0


@dataclass(frozen=True, slots=True)
class Oddities:
    """Result lines that were not taken in; see Progress."""

    strays: int = 0
    conflicts: int = 0

    def __add__(self, other: Oddities) -> Oddities:
        return Oddities(self.strays + other.strays, self.conflicts + other.conflicts)


class Tally:
    """What was counted, part by part."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.no_room = False  # whether some of what is due was refused for lack of room
        self.enriched = 0
        self.failed = 0
        self._last_failures: Counter[str] = Counter()
        self._refusals: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._last_examples: dict[str, list[str]] = {}
        self._examples: dict[str, list[str]] = {}
        self._by_wave: Counter[int] = Counter()
        self._tokens: Counter[str] = Counter()

    def count(self, standings: pl.DataFrame, wants: pl.LazyFrame) -> None:
        """Count where requests stand (see retries.standings); `wants` are the plan's rows for them."""
        standing, reason = pl.col("standing"), pl.col("reason")
        self.requests.update(counts(standings["standing"]))
        unanswered = standings.filter((standing != Standing.ANSWERED) & reason.is_not_null())
        self._last_failures.update(counts(unanswered["reason"]))
        _note_examples(self._last_examples, unanswered.select("reason", "fingerprint"), wants)
        self._refusals.update(counts(standings.filter(standing == Standing.HELD)["reason"]))
        waits_for_room = (standing == Standing.DUE) & (pl.col("kind") == FailureKind.CAPACITY)
        self.no_room |= not standings.filter(waits_for_room).is_empty()

    def count_tables(self, enriched: pl.DataFrame, failed: pl.DataFrame) -> None:
        """Count what came of documents, all of whose requests have a final outcome."""
        self.enriched += enriched.height
        self.failed += failed.height
        self._failures.update(counts(failed["reason"]))
        self._by_wave.update(dict(enriched["wave"].value_counts().iter_rows()))
        _note_examples(self._examples, failed.select("reason", DOCUMENT_ID))
        for name in ("input_tokens", "output_tokens"):
            self._tokens[name] += int(enriched[name].sum()) + int(failed[name].sum())

    @property
    def pending(self) -> int:
        """Requests that are still to be sent."""
        return self.requests[Standing.DUE] + self.requests[Standing.HELD]

    @property
    def open(self) -> int:
        """Requests without a final outcome."""
        return self.pending + self.requests[Standing.WAITING]

    def held(self) -> str:
        """Why nothing more is to be sent: the account or the model was refused, or what was paid for is gone."""
        if gone := self._refusals[Reason.RESULTS_GONE]:
            return (
                f"the results of {gone:,} requests are gone at the provider, and asking again would pay for them again"
            )
        return f"refused by the provider: {', '.join(sorted(self._refusals))}" if self._refusals else ""

    def finished(self, plan: Plan, oddities: Oddities) -> Progress:
        """How far the partition is, once it is published."""
        return Progress(
            documents=plan.documents,
            enriched=self.enriched,
            failed=self.failed,
            published=True,
            wave=plan.wave,
            requests=dict(self.requests),
            failures=dict(self._failures.most_common()),
            examples=self._examples,
            by_wave=dict(self._by_wave),
            input_tokens=self._tokens["input_tokens"],
            output_tokens=self._tokens["output_tokens"],
            strays=oddities.strays,
            conflicts=oddities.conflicts,
        )

    def unfinished(self, plan: Plan, results: pl.LazyFrame, oddities: Oddities, held: str) -> Progress:
        """How far it is before; `results` are all that came back for it."""
        used = results.select(pl.col("input_tokens", "output_tokens").sum()).collect()
        answers = results.filter(pl.col("reason").is_null()).group_by("wave").len().collect()
        return Progress(
            documents=plan.documents,
            wave=plan.wave,
            requests=dict(self.requests),
            failures=dict(self._last_failures.most_common()),
            examples=self._last_examples,
            by_wave=dict(answers.iter_rows()),
            held=held,
            input_tokens=used["input_tokens"].item(),
            output_tokens=used["output_tokens"].item(),
            strays=oddities.strays,
            conflicts=oddities.conflicts,
        )


def _note_examples(found: dict[str, list[str]], failures: pl.DataFrame, wants: pl.LazyFrame | None = None) -> None:
    """Add ids of documents to the examples by reason, a few of each.

    `failures` has a `reason` and a `document_id`; or, of requests, a `fingerprint`, whose documents `wants` has.
    """
    few = failures.group_by("reason", maintain_order=True).head(_EXAMPLES)
    if few.is_empty():
        return
    if wants is not None:
        documents = wants.select("fingerprint", DOCUMENT_ID).join(few.lazy(), on="fingerprint")
        few = documents.unique("fingerprint", keep="first", maintain_order=True).collect()
    for reason, document_id in few.select("reason", DOCUMENT_ID).iter_rows():
        ids = found.setdefault(reason, [])
        ids += [document_id] if len(ids) < _EXAMPLES else []


def counts(values: pl.Series) -> Counter[str]:
    """How often each value is there."""
    return Counter(dict(values.value_counts().iter_rows()))
