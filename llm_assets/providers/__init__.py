"""What a provider is: a dialect (pure) and a handful of verbs (network). The name table stands at the end.

A provider knows records and errors, nothing else of ours. It never retries what creates something: the SDK's
own retries are off for `stage` and `create`, since a re-sent create is a second paid batch. Every exception
that leaves a verb is one of `errors.ProviderError`'s children.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from llm_assets.records import Batch, BatchPage, Message, Reason, Result, ShardFormat, ShardLimits, Task

# The code of a CapacityError or of a FAILED batch when the provider does not see the staged file: nothing was
# processed, and the same file will do later.
FILE_NOT_VISIBLE = "file_not_visible"
# The code of a RequestRejected when what was sent is too large for the provider, or for a gateway before it.
TOO_LARGE = "too_large"
# The codes of lines that are written for requests in real time without an answer: whose reply was lost, which may have
# been billed, and that were not asked, as the provider is out of order.
REPLY_LOST, NOT_ASKED, ACCOUNT_REFUSED = "reply_lost", "not_asked", "account_refused"
UNANSWERED: dict[Any, Reason] = {
    REPLY_LOST: Reason.MISSING_RESULT,
    NOT_ASKED: Reason.CAPACITY,
    ACCOUNT_REFUSED: Reason.PERMISSION,
}


class Dialect(Protocol):
    """A provider's language: how a request is written and a result line is read. No state, no network."""

    name: str
    endpoint: str
    limits: ShardLimits
    shard_format: ShardFormat
    list_page_size: int
    embeds: bool  # whether its answers are vectors
    tiers: tuple[str, ...]  # what is answered at once at the price of a batch, when it is asked for
    carries_stamp: bool  # whether a batch gives back the submission key it was created with
    lists_after_any: bool  # whether a page of a list can begin after any batch: its cursor is a batch's id

    def schema_problems(self, schema: dict[str, Any]) -> list[str]:
        """Why this provider cannot enforce this JSON schema; empty when it can."""
        ...

    def body(self, task: Task, messages: Sequence[Message]) -> dict[str, Any]:
        """The request body for one rendered prompt: everything that decides the answer."""
        ...

    def cache_tokens_min(self, model_name: str) -> int:
        """From how many tokens on the provider caches what requests begin with."""
        ...

    def marked(self, body: bytes, system: str) -> bytes:
        """The same encoded request, its system prompt marked for the provider's prompt cache."""
        ...

    def tiered(self, body: bytes, tier: str) -> bytes:
        """The same encoded request, to be answered in this tier, one of `tiers`."""
        ...

    def line(self, custom_id: str, body: bytes) -> bytes:
        """One request of a shard file, without its separator; `body` is encoded JSON."""
        ...

    def requests(self, shard: Path) -> Iterator[tuple[str, bytes]]:
        """What a shard's file asks: custom_id and encoded body of each request."""
        ...

    def error_line(self, custom_id: str, code: str, message: str) -> bytes:
        """A result line for a request that was refused, as the provider would write it."""
        ...

    def result(self, line: bytes) -> Result:
        """One result line in neutral terms. Raises ValueError when it is no result line at all."""
        ...

    def batch_reason(self, code: str) -> Reason:
        """What the code of a batch that FAILED as a whole means for its requests; UNKNOWN for a new code."""
        ...


class Client(Protocol):
    """A provider's verbs, for one account. Every call may raise a ProviderError."""

    account: str  # digest of base URL and key: a batch is only ever asked about with the account that made it
    base_url: str

    def stage(self, shard: Path) -> str | None:
        """Upload what `create` refers to; free and repeatable. None where there is nothing to stage."""
        ...

    def find_staged(self, name: str) -> str | None:
        """What `stage` gave for the file of this name, when that reply never came; None when there is nothing."""
        ...

    def create(self, shard: Path, *, staged: str | None, stamp: str) -> Batch:
        """Create the paid batch: exactly one POST. OutcomeUnknown when the reply did not arrive.

        CapacityError with code FILE_NOT_VISIBLE: try again later with the same `staged`, no attempt counted.
        """
        ...

    def ask(self, body: bytes) -> bytes:
        """One request in real time: one POST. Returns a result line like a batch's.

        OutcomeUnknown when it may have been billed, and its answer is lost.
        """
        ...

    def count_tokens(self, body: bytes) -> int:
        """How many tokens a request reads, as the provider counts them for free. RequestRejected where it does not."""
        ...

    def batch(self, batch_id: str) -> Batch:
        """One batch as it stands. NotThere when the provider does not know it."""
        ...

    def batches(self, cursor: str | None = None) -> BatchPage:
        """One page of the account's batches, newest first."""
        ...

    def download(self, batch: Batch, folder: Path) -> list[Path]:
        """Stream all of a batch's output to files of result lines in `folder`."""
        ...

    def cancel(self, batch_id: str) -> None:
        """Ask for cancellation; finished rows are kept (and billed)."""
        ...

    def forget(self, batch: Batch | None, *, staged: str | None) -> None:
        """Delete what the provider keeps of an ended batch and of its staged file; already gone is success."""
        ...

    def close(self) -> None:
        """Give back the connections."""
        ...


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client needs to reach an account. `base_url` None means the vendor's own."""

    api_key: str = field(repr=False)
    base_url: str | None = None


@dataclass(frozen=True, slots=True)
class Provider:
    """A dialect and the way to connect to it. A `caveat` is told wherever somebody could mistake it for one that is
    known to work.
    """

    dialect: Dialect
    connect: Callable[[Credentials], Client]
    caveat: str = ""


# Provider name -> module with `provider(endpoint)`: all that there is to name of a provider. docs/providers.md.
_MODULES = {
    "anthropic": "llm_assets.providers.anthropic",
    "openai": "llm_assets.providers.openai",
    "mistral": "llm_assets.providers.mistral",
}

NAMES = tuple(_MODULES)


def get_provider(name: str, endpoint: str | None = None) -> Provider:
    """The provider of this name, for one of its endpoints (None: its default).

    Raises KeyError for an unknown name, ValueError for an endpoint that it does not batch. A vendor's SDK is imported
    by `connect` and not before, as loading definitions should not cost a second per vendor.
    """
    provider: Provider = import_module(_MODULES[name]).provider(endpoint)
    return provider


def caveat(name: str) -> str:
    """What is to be known of a provider before it is trusted; empty for none. Raises KeyError for an unknown name."""
    return get_provider(name).caveat
