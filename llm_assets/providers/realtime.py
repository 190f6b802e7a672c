"""A shard answered at once: a client that asks its requests one by one, where others create a batch of them.

What comes back is written to a journal beside the shard's file as it comes. To all others the journal is a batch that
has ended when it was created. Who is killed leaves a shorter one: what it holds counts, and what it lacks is for the
next wave. So at most as many answers are paid twice as were being waited for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from llm_assets.errors import NotThere, ProviderError, RequestRejected, SystemicError
from llm_assets.providers import Client, Dialect
from llm_assets.providers.wire import ASKED
from llm_assets.records import Batch, BatchCounts, BatchPage, BatchState, Reason, Shard

JOURNAL = ".answers.jsonl"
# So many requests without an answer in a row are no accident.
_FAILURES_MAX = 20
_REFUSED = "invalid_request_error"
_ID = "realtime"
_EMULATOR = b"+emulator-"
_TOLD_EVERY = 100


class RealtimeClient:
    """The verbs of a provider for one shard, without a batch.

    `root` is the folder that paths of shards are relative to. A few requests are asked `at_once`. The `retries` of each
    are the SDK's: with pauses that double, or as long as the provider's `retry-after` says. `told` gets the shard's key
    and how many of its requests have come back, now and then.
    """

    def __init__(
        self,
        client: Client,
        dialect: Dialect,
        shard: Shard,
        root: Path,
        *,
        at_once: int,
        retries: int,
        told: Callable[[str, int], None],
    ) -> None:
        self._client, self._dialect, self._shard, self._root = client, dialect, shard, root
        self._at_once, self._retries, self._told = at_once, retries, told
        self.account, self.base_url = client.account, client.base_url

    def stage(self, shard: Path) -> str | None:
        """Nothing goes ahead of the requests."""
        return None

    def find_staged(self, name: str) -> str | None:
        """Nothing did."""
        return None

    def create(self, shard: Path, *, staged: str | None, stamp: str) -> Batch:
        """Ask all requests of the shard, a few at once, until all have come back or the provider is out of order.

        Raises the provider's error when nothing was answered; else what was not is in the journal, with the error.
        """
        journal = self._root / f"{self._shard.path}{JOURNAL}"
        count = 0
        with journal.open("wb") as file:
            for line in self._lines(self._dialect.requests(shard)):
                file.write(line + b"\n")
                file.flush()
                count += 1
                if count % _TOLD_EVERY == 0:
                    self._told(stamp, count)
            os.fsync(file.fileno())
        return self.batch(self._id(journal))

    def ask(self, body: bytes, retries: int = 0) -> bytes:
        """One request."""
        return self._client.ask(body, retries)

    def batch(self, batch_id: str) -> Batch:
        """The journal of this name. NotThere when it is gone."""
        _, requests, path = batch_id.split(":", 2)
        journal = self._root / path
        if not journal.is_file():
            raise NotThere(f"the journal {path} is not in the store any more", code="no_journal")
        with journal.open("rb") as file:
            lines = sum(line.endswith(b"\n") for line in file)  # the last may have been cut
        return Batch(
            batch_id,
            BatchState.ENDED,
            datetime.fromtimestamp(journal.stat().st_mtime, UTC),
            BatchCounts(total=int(requests), succeeded=lines),
            stamp=journal.name.removesuffix(JOURNAL),
            outputs=(path,),
        )

    def batches(self, cursor: str | None = None) -> BatchPage:
        """What a run that was killed left of the shard."""
        journal = self._root / f"{self._shard.path}{JOURNAL}"
        if not journal.is_file() or not journal.stat().st_size:
            return BatchPage((), None)
        return BatchPage((self.batch(self._id(journal)),), None)

    def download(self, batch: Batch, folder: Path) -> list[Path]:
        """The journal."""
        return [self._root / batch.outputs[0]]

    def cancel(self, batch_id: str) -> None:
        """Nothing is under way any more."""

    def forget(self, batch: Batch | None, *, staged: str | None) -> None:
        """The provider keeps nothing."""

    def close(self) -> None:
        """The client that asks is closed by who made it."""

    def _lines(self, requests: Iterator[tuple[str, bytes]]) -> Iterator[bytes]:
        """A result line for each request, as they come; see `create`."""
        unanswered: list[tuple[str, ProviderError]] = []
        some, in_a_row = False, 0
        stopped: ProviderError | None = None
        with ThreadPoolExecutor(self._at_once, thread_name_prefix="ask") as threads:
            waiting: set[Future[tuple[str, bytes | ProviderError]]] = set()
            while True:
                if stopped is None:
                    for name, body in islice(requests, self._at_once - len(waiting)):
                        waiting.add(threads.submit(self._asked, name, body))
                if not waiting:
                    break
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for name, found in sorted((future.result() for future in done), key=lambda each: each[0]):
                    if isinstance(found, bytes):
                        some, in_a_row = True, 0
                        yield found
                        continue
                    unanswered.append((name, found))
                    in_a_row += 1
                    if isinstance(found, SystemicError) or in_a_row >= _FAILURES_MAX:
                        stopped = found
        if unanswered and not some:
            raise stopped or unanswered[-1][1]
        for name, error in unanswered:
            yield self._dialect.error_line(name, error.code, str(error))
        if stopped is not None:
            for name, _ in requests:
                yield self._dialect.error_line(name, stopped.code, str(stopped))

    def _asked(self, name: str, body: bytes) -> tuple[str, bytes | ProviderError]:
        """A result line, or why there is none now."""
        try:
            line = self._client.ask(body, self._retries)
        except RequestRejected as error:
            known = self._dialect.batch_reason(error.code) is not Reason.UNKNOWN
            code = error.code if known else _REFUSED
            return name, self._dialect.error_line(name, code, str(error))
        except ProviderError as error:
            return name, error
        return name, line.replace(b'"custom_id":"%b"' % ASKED, b'"custom_id":"%b"' % name.encode(), 1)

    def _id(self, journal: Path) -> str:
        with journal.open("rb") as file:
            mark = "-emulator" if _EMULATOR in file.readline() else ""
        return f"{_ID}{mark}:{self._shard.requests}:{journal.relative_to(self._root).as_posix()}"
