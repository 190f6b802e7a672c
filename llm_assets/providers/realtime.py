"""A shard answered at once: a client that asks its requests one by one, where others create a batch of them.

What comes back is written to a journal beside the shard's file as it comes. To all others the journal is a batch that
has ended when it was created. Who is killed leaves a shorter one: what it holds counts, and what it lacks is for the
next wave. So at most as many answers are paid twice as were being waited for.

A reply that is lost may have been billed: its request has an outcome all the same, which uses up an attempt and leaves
the shard's reservation standing. It is asked again at once only where nothing can have been billed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Protocol

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from llm_assets.errors import (
    CapacityError,
    NotThere,
    OutcomeUnknown,
    ProviderError,
    RequestRejected,
    SystemicError,
    TransientError,
)
from llm_assets.providers import ACCOUNT_REFUSED, NOT_ASKED, REPLY_LOST, Client, Dialect
from llm_assets.providers.wire import ASKED
from llm_assets.records import Batch, BatchCounts, BatchPage, BatchState, Reason, Shard

JOURNAL = ".answers.jsonl"
# So many requests without an answer in a row are no accident.
_FAILURES_MAX = 20
_REFUSED = "invalid_request_error"
_OF_THE_ACCOUNT = (Reason.AUTHENTICATION, Reason.BILLING, Reason.PERMISSION, Reason.UNKNOWN_MODEL)
_OF_ROOM = (Reason.CAPACITY, Reason.RATE_LIMIT, Reason.OVERLOADED)
_ID = "realtime"
_EMULATOR = b"+emulator-"
_TOLD_EVERY = 100
# Who is told to wait longer gives way: a run is no place to wait, and the next wave asks again.
_WAIT_SECONDS_MAX = 60.0
_BEFORE_RETRY = wait_random_exponential(multiplier=0.5, max=30)


class Journals(Protocol):
    """Where answers are kept as they come: see `store.files.Journals`."""

    def begin(self, path: str) -> AbstractContextManager[Callable[[bytes], None]]:
        """A journal without lines, and what adds one to it."""

    def modified(self, path: str) -> datetime | None:
        """When a journal got its last line; None where there is none."""

    def chunks(self, path: str) -> Iterator[bytes]:
        """What is in a journal."""


class Room:
    """How many requests may be under way at once, at the most `most`.

    Half as many when the provider had to be asked again, and one more after as many answers as are under way: what one
    crowd met counts once.
    """

    def __init__(self, most: int) -> None:
        self._most, self._now = most, float(most)
        self._of_this_crowd = 0

    @property
    def at_once(self) -> int:
        """How many may be under way now."""
        return int(self._now)

    def answered(self, *, again: bool) -> None:
        """A request has come back, after it had to be asked again or not."""
        self._of_this_crowd -= 1
        if not again:
            self._now = min(self._most, self._now + 1 / self._now)
        elif self._of_this_crowd <= 0:
            self._of_this_crowd, self._now = self.at_once, max(1.0, self._now / 2)


@dataclass(slots=True)
class _Tally:
    """What came of a shard's requests so far."""

    unanswered: list[tuple[str, ProviderError]] = field(default_factory=list)  # of which nothing can be billed
    may_be_billed: bool = False  # whether any other may be
    failed_in_a_row: int = 0
    stopped: ProviderError | None = None  # why no more are asked

    def count(self, name: str, found: bytes | ProviderError) -> None:
        """One that came back."""
        if isinstance(found, bytes):
            self.may_be_billed, self.failed_in_a_row = True, 0
            return
        if isinstance(found, OutcomeUnknown):
            self.may_be_billed = True
        else:
            self.unanswered.append((name, found))
        self.failed_in_a_row += 1
        if isinstance(found, SystemicError) or self.failed_in_a_row >= _FAILURES_MAX:
            self.stopped = found


class RealtimeClient:
    """The verbs of a provider for one shard, without a batch.

    Its answers are kept in `journals`. A few requests are asked `at_once`, fewer when the provider has no room, each up
    to `retries` times more while it has none or cannot be reached: with pauses that double, or as long as its
    `retry-after` says. `told` gets the shard's key and how many of its requests have come back, now and then.
    """

    def __init__(
        self,
        client: Client,
        dialect: Dialect,
        shard: Shard,
        journals: Journals,
        *,
        at_once: int,
        retries: int,
        told: Callable[[str, int], None],
    ) -> None:
        self._client, self._dialect, self._shard, self._journals = client, dialect, shard, journals
        self._journal = f"{shard.path}{JOURNAL}"
        self._at_once, self._retries, self._told = at_once, retries, told
        self.room = Room(at_once)
        self.account, self.base_url = client.account, client.base_url

    def stage(self, shard: Path) -> str | None:
        """Nothing goes ahead of the requests."""
        return None

    def find_staged(self, name: str) -> str | None:
        """Nothing did."""
        return None

    def create(self, shard: Path, *, staged: str | None, stamp: str) -> Batch:
        """Ask all requests of the shard, a few at once, until all have come back or the provider is out of order.

        Raises the provider's error when nothing was answered and nothing can have been billed; else what was not
        answered is in the journal, with the error.
        """
        count = 0
        with self._journals.begin(self._journal) as add:
            for line in self._lines(self._dialect.requests(shard)):
                add(line)
                count += 1
                if count % _TOLD_EVERY == 0:
                    self._told(stamp, count)
        return self.batch(self._id())

    def ask(self, body: bytes) -> bytes:
        """One request."""
        return self._client.ask(body)

    def count_tokens(self, body: bytes) -> int:
        """Of one request."""
        return self._client.count_tokens(body)

    def batch(self, batch_id: str) -> Batch:
        """The journal of this name. NotThere when it is gone."""
        _, requests, path = batch_id.split(":", 2)
        modified = self._journals.modified(path)
        if modified is None:
            raise NotThere(f"the journal {path} is not in the store any more", code="no_journal")
        lines = sum(chunk.count(b"\n") for chunk in self._journals.chunks(path))  # the last may have been cut
        return Batch(
            batch_id,
            BatchState.ENDED,
            modified,
            BatchCounts(total=int(requests), succeeded=lines),
            stamp=PurePosixPath(path).name.removesuffix(JOURNAL),
            outputs=(path,),
            rest=Reason.INTERRUPTED,
        )

    def batches(self, cursor: str | None = None) -> BatchPage:
        """What a run that was killed left of the shard."""
        if self._journals.modified(self._journal) is None:
            return BatchPage((), None)
        return BatchPage((self.batch(self._id()),), None)

    def download(self, batch: Batch, folder: Path) -> list[Path]:
        """The journal."""
        journal = folder / PurePosixPath(batch.outputs[0]).name
        with journal.open("wb") as file:
            file.writelines(self._journals.chunks(batch.outputs[0]))
        return [journal]

    def cancel(self, batch_id: str) -> None:
        """Nothing is under way any more."""

    def forget(self, batch: Batch | None, *, staged: str | None) -> None:
        """The provider keeps nothing."""

    def close(self) -> None:
        """The client that asks is closed by who made it."""

    def _lines(self, requests: Iterator[tuple[str, bytes]]) -> Iterator[bytes]:
        """A result line for each request, as they come; see `create`."""
        tally = _Tally()
        for name, found in self._replies(requests, tally):
            tally.count(name, found)
            if isinstance(found, bytes):
                yield found
            elif isinstance(found, OutcomeUnknown):
                yield self._dialect.error_line(name, REPLY_LOST, str(found))
        if tally.unanswered and not tally.may_be_billed:
            raise tally.stopped or tally.unanswered[-1][1]
        for name, error in tally.unanswered:
            yield self._dialect.error_line(name, self._code(error), str(error))
        if tally.stopped is not None:
            code = self._code(tally.stopped) if isinstance(tally.stopped, SystemicError) else NOT_ASKED
            for name, _ in requests:
                yield self._dialect.error_line(name, code, str(tally.stopped))

    def _code(self, error: ProviderError) -> str:
        """What a line says of a request of which nothing can be billed. The vendor's code, unless that means something
        else in a batch's results: a request that is wrong, where it is the account, or nothing at all.
        """
        reason = self._dialect.batch_reason(error.code)
        if isinstance(error, SystemicError):
            return error.code if reason in _OF_THE_ACCOUNT else ACCOUNT_REFUSED
        if isinstance(error, CapacityError):
            return error.code if reason in _OF_ROOM else NOT_ASKED
        return error.code

    def _replies(
        self, requests: Iterator[tuple[str, bytes]], tally: _Tally
    ) -> Iterator[tuple[str, bytes | ProviderError]]:
        """What came of each request, as they come; no more are asked once the tally says to stop."""
        with ThreadPoolExecutor(self._at_once, thread_name_prefix="ask") as threads:
            waiting: set[Future[tuple[str, bytes | ProviderError, bool]]] = set()
            while True:
                if tally.stopped is None:
                    for name, body in islice(requests, max(0, self.room.at_once - len(waiting))):
                        waiting.add(threads.submit(self._asked, name, body))
                if not waiting:
                    return
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for name, found, again in sorted((future.result() for future in done), key=lambda each: each[0]):
                    self.room.answered(again=again)
                    yield name, found

    def _asked(self, name: str, body: bytes) -> tuple[str, bytes | ProviderError, bool]:
        """A result line, or why there is none now; and whether the provider had to be asked again."""
        turns = self._turns()
        try:
            line = turns(self._client.ask, body)
        except RequestRejected as error:
            known = self._dialect.batch_reason(error.code) is not Reason.UNKNOWN
            code = error.code if known else _REFUSED
            return name, self._dialect.error_line(name, code, str(error)), _was_repeated(turns)
        except ProviderError as error:
            return name, error, True
        named = line.replace(b'"custom_id":"%b"' % ASKED, b'"custom_id":"%b"' % name.encode(), 1)
        return name, named, _was_repeated(turns)

    def _turns(self) -> Retrying:
        """Asks until there is an answer, as often as may be, unless one was perhaps billed."""
        return Retrying(
            retry=retry_if_exception(_may_be_asked_soon),
            stop=stop_after_attempt(self._retries + 1),
            wait=_pause,
            reraise=True,
        )

    def _id(self) -> str:
        first = next(self._journals.chunks(self._journal), b"").partition(b"\n")[0]
        mark = "-emulator" if _EMULATOR in first else ""
        return f"{_ID}{mark}:{self._shard.requests}:{self._journal}"


def _may_be_asked_soon(error: BaseException) -> bool:
    return isinstance(error, TransientError | CapacityError) and (error.retry_after_s or 0) <= _WAIT_SECONDS_MAX


def _was_repeated(turns: Retrying) -> bool:
    return bool(turns.statistics["attempt_number"] > 1)


def _pause(state: RetryCallState) -> float:
    """Seconds before asking again: as many as the provider says, else more each time."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_s if isinstance(error, ProviderError) else None
    return _BEFORE_RETRY(state) if asked is None else asked
