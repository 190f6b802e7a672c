"""Processes that die at a boundary of what they do: before and after each effect on ledger, store and providers.

No failpoint stands in the project's code. Its effects all go through three edges, and those are watched here: each
commit of the ledger's database, each file of the store, each public method of a provider's client. So a new effect is a
new boundary without anybody having to think of it.
"""

from __future__ import annotations

import inspect
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import wraps
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from threading import Lock
from traceback import walk_stack
from typing import Any, cast

import sqlalchemy as sa

from llm_assets.ledger import Ledger
from llm_assets.platform import Platform, utc_now
from llm_assets.providers import Client, Credentials
from llm_assets.records import ShardLimits
from llm_assets.store import Store
from llm_assets.store.files import Files
from llm_assets_tests.platforms import finish, labels, submit

# Children begin with everything imported and nothing used: they start in milliseconds.
PROCESSES = get_context("forkserver")
_LOADED_LATE = (
    "anthropic",
    "openai.resources",
    "httpcore2",
    "h11",
    "truststore",
    "encodings.idna",
    "genai_prices.data",
)
_CLIENTS = ("llm_assets.providers.anthropic_client", "llm_assets.providers.openai_client")
_DATABASES = ("sqlalchemy.dialects.sqlite", "sqlalchemy.dialects.postgresql.psycopg")
PROCESSES.set_forkserver_preload([__name__, *_LOADED_LATE, *_CLIENTS, *_DATABASES])
# `start` reaps the children of all threads: two threads that ask one child how it ended can both be told nothing.
_CHILDREN = Lock()


_LEDGER = inspect.getsourcefile(Ledger)
_PAUSE, _PAUSES_MAX = timedelta(minutes=20), 8


@dataclass(frozen=True, slots=True)
class Life:
    """What a process is to do: a partition from its documents to its tables.

    `root` is the store's; `die_at` is the number of the boundary at which it kills itself, or how its name begins;
    `later` is how far its clock is ahead; `environment` is what the process that forks it does not have.
    """

    root: Path | str
    url: str
    ledger_url: str
    provider: str
    passed: Path
    die_at: int | str | None = None
    later: timedelta = timedelta()
    environment: Mapping[str, str] = field(default_factory=dict)


def live(life: Life) -> ForkServerProcess:
    """A real process with this life, started."""
    process = PROCESSES.Process(target=_live, args=(life,))
    with _CHILDREN:
        process.start()
    return process


def ended(process: ForkServerProcess, seconds: float) -> int | None:
    """What it ended with; None while it lives after so many seconds."""
    wait([process.sentinel], seconds)
    with _CHILDREN:
        return process.exitcode


def kill(process: ForkServerProcess) -> None:
    """As a power cut ends it."""
    with _CHILDREN:
        process.kill()
    wait([process.sentinel])


def _live(life: Life) -> None:
    os.environ.update(life.environment)
    with life.passed.open("a", buffering=1) as passed:
        boundaries, time = _Boundaries(passed.fileno(), life.die_at), _Time(life.later)
        ledger = Ledger(life.ledger_url, time)
        sa.event.listen(ledger._engine, "commit", lambda _: boundaries.reached(f"ledger.{_verb()}: not committed"))
        credentials = {"anthropic": Credentials("k", life.url), "openai": Credentials("k", f"{life.url}/v1")}
        platform = _WatchedPlatform(_WatchedStore(life.root, boundaries), ledger, credentials, clock=time)
        platform.watch(boundaries)
        enrichment = replace(labels(life.provider), limits=ShardLimits(requests=5, bytes=1_000_000))
        submit(platform, enrichment)
        for _ in range(_PAUSES_MAX):
            with suppress(AssertionError):
                finish(platform, enrichment, steps_max=20)
                break
            time.later += _PAUSE
        else:
            finish(platform, enrichment)
        platform.close()


@dataclass(slots=True)
class _Time:
    """A clock that is ahead, and further where nothing more is due: a claim of the dead is not given up at once."""

    later: timedelta

    def __call__(self) -> datetime:
        return utc_now() + self.later


class _Boundaries:
    """Numbers the boundaries that a process comes to, and ends it at one of them, as a power cut would."""

    def __init__(self, passed: int, die_at: int | str | None) -> None:
        self._passed, self._die_at, self._number = passed, die_at, 0

    def reached(self, name: str) -> None:
        os.write(self._passed, f"{name}\n".encode())
        at = self._die_at
        if name.startswith(at) if isinstance(at, str) else self._number == at:
            os.kill(os.getpid(), signal.SIGKILL)
        self._number += 1


def _verb() -> str:
    """The public method of the ledger that is at work."""
    found = "open"
    for frame, _ in walk_stack(None):
        code = frame.f_code
        if code.co_filename == _LEDGER and not code.co_name.startswith("_"):
            found = code.co_name
    return found


class _WatchedStore(Store):
    def __init__(self, root: Path | str, boundaries: _Boundaries) -> None:
        super().__init__(root)
        self.files = cast(Files, _WatchedFiles(self.files, boundaries))


class _WatchedFiles:
    """Files, whether in a folder or in a bucket, of which each that is written is a boundary."""

    def __init__(self, files: Files, boundaries: _Boundaries) -> None:
        self._files, self._boundaries = files, boundaries

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    @contextmanager
    def writing(self, path: str) -> Iterator[Path]:
        with self._files.writing(path) as temporary:
            yield temporary
            self._boundaries.reached(f"store.{_kind(path)}: written and not in place")
        self._boundaries.reached(f"store.{_kind(path)}: in place")


def _kind(path: str) -> str:
    name = Path(path).name
    if name.startswith("plan-"):
        return "plan"
    return name.split(".")[-2] if "wave-" in path else Path(path).parent.name


class _WatchedPlatform(Platform):
    def watch(self, boundaries: _Boundaries) -> None:
        self._boundaries = boundaries

    def client(self, provider: str, endpoint: str | None) -> Client:
        return cast(Client, _Watched(super().client(provider, endpoint), self._boundaries))


class _Watched:
    """A client whose every public method has a boundary before and one after it."""

    def __init__(self, client: Client, boundaries: _Boundaries) -> None:
        self._client, self._boundaries = client, boundaries

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not callable(found):
            return found

        @wraps(found)
        def watched(*args: Any, **kwargs: Any) -> Any:
            self._boundaries.reached(f"client.{name}: not called")
            result = found(*args, **kwargs)
            self._boundaries.reached(f"client.{name}: answered")
            return result

        return watched
