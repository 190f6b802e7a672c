"""Everything with an edge, wired once: the store, the ledger, the providers' clients, the clock.

Tests wire their own by giving arguments; nothing is ever patched.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from llm_assets.api_keys import fetched
from llm_assets.errors import LedgerError, ProviderError, SystemicError
from llm_assets.ledger import Ledger
from llm_assets.providers import NAMES, TOO_LARGE, Client, Credentials, Dialect, get_provider
from llm_assets.providers.realtime import RealtimeClient
from llm_assets.records import FailureKind, Mode, Shard
from llm_assets.retries import KIND_OF
from llm_assets.store import Store

# The code of a SystemicError about what was sent with another account than is set now.
OTHER_ACCOUNT = "other_account"


def utc_now() -> datetime:
    """The clock of production."""
    return datetime.now(UTC)


def new_key() -> str:
    """A submission key: 12 hexadecimal digits."""
    return secrets.token_hex(6)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says. Only credentials are secret, and they go nowhere but into a client.

    `root` is the store's folder or s3:// URL, `ledger_url` SQLAlchemy's URL of the ledger.
    """

    root: str
    ledger_url: str
    credentials: Mapping[str, Credentials] = field(repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """LLM_ASSETS_ROOT, LLM_ASSETS_LEDGER_URL, and for each provider NAME_API_KEY (the key, or the ARN of where it
        is kept) and NAME_BASE_URL.

        Raises LedgerError where the store is in a bucket and no ledger is named.
        """
        root = environment.get("LLM_ASSETS_ROOT") or ".llm_assets"
        ledger_url = environment.get("LLM_ASSETS_LEDGER_URL")
        if "://" not in root:
            root = str(Path(root).absolute())
            ledger_url = ledger_url or f"sqlite:///{quote(root)}/ledger.db"
        elif not ledger_url:
            raise LedgerError(
                f"LLM_ASSETS_ROOT is {root}, and no database can be kept in a bucket: set LLM_ASSETS_LEDGER_URL, such "
                "as postgresql+psycopg://user@host/llm_assets, or sqlite:////folder/ledger.db for one machine"
            )
        return cls(
            root=root,
            ledger_url=ledger_url,
            credentials={
                name: Credentials(key, environment.get(f"{name.upper()}_BASE_URL") or None)
                for name in NAMES
                if (key := environment.get(f"{name.upper()}_API_KEY"))
            },
        )

    @property
    def in_use(self) -> bool:
        """Whether anything is kept in the store. Looks, and makes nothing."""
        return not Store(self.root).files.is_empty()


def new_owner() -> str:
    """A name for the owner of claims that nobody else ever has: host, process id, and 16 random digits."""
    return f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(8)}"


def this_process() -> str:
    """A name for this process that no other of this host has: host, process id, and when it started."""
    return process_name(os.getpid())


def process_name(pid: int) -> str:
    """The name of a process of this host; it ends with a slash when there is none, or the system tells no more."""
    return f"{socket.gethostname()}/{pid}/{_started(pid)}"


@dataclass(slots=True)
class Platform:
    """What submission, polling and collection act through.

    `owner` names this platform in claims. `visibility_delay` is how long a batch may be missing from a provider's
    list after it was created; an unknown outcome is not taken for "nothing was created" before. `missing_tolerance` is
    how long what must be there (a batch, its results, some of them) may be missing before it counts as gone. Of a large
    partition `part_requests` are looked at at once, which bounds the memory that it takes. In real time,
    `realtime_requests` are asked at once where an enrichment says nothing else, each again up to `realtime_retries`
    times when the provider has no answer.
    """

    store: Store
    ledger: Ledger
    credentials: Mapping[str, Credentials] = field(repr=False)
    clock: Callable[[], datetime] = utc_now
    new_key: Callable[[], str] = new_key
    owner: str = field(default_factory=new_owner)
    visibility_delay: timedelta = timedelta(minutes=2)
    missing_tolerance: timedelta = timedelta(minutes=15)
    part_requests: int = 100_000
    realtime_requests: int = 16
    realtime_retries: int = 6
    _clients: dict[tuple[str, str | None], Client] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, settings: Settings, clock: Callable[[], datetime] = utc_now) -> Platform:
        """The platform of these settings; makes the store's folder and the ledger's tables if need be.

        Raises LedgerError when the store belongs to another ledger: this one does not know what was paid for it.
        """
        store = Store(settings.root)
        store.files.prepare()
        opened = cls(store, Ledger(settings.ledger_url, clock), settings.credentials, clock=clock)
        found, url = opened.ledger.id, opened.ledger.url
        if (expected := opened.store.ledger_id(found)) != found:
            opened.close()
            raise LedgerError(
                f"the store at {settings.root} belongs to the ledger {expected}, and {url} is the ledger {found}, "
                "which does not know what was paid. Restore that ledger, or name it in LLM_ASSETS_LEDGER_URL; "
                "to begin anew, move the store away"
            )
        return opened

    def close(self) -> None:
        """Give back connections and files."""
        for client in self._clients.values():
            client.close()
        self.ledger.close()

    def missing_for_good(self, shard: Shard, error: ProviderError) -> bool:
        """Write down that something of a shard was not there just now. True when it has been missing for so long that
        it will not come any more.
        """
        since = self.ledger.missing(shard, str(error), forgotten_after=self.missing_tolerance)
        return self.clock() >= since + self.missing_tolerance

    def dialect(self, provider: str, endpoint: str | None) -> Dialect:
        """How this provider's requests and results are written."""
        return get_provider(provider, endpoint).dialect

    def dialect_of(self, shard: Shard) -> Dialect:
        """The dialect that a shard is written in."""
        return self.dialect(shard.provider, shard.endpoint)

    def had_no_room(self, shard: Shard) -> bool:
        """Whether a shard's code says that its provider had no room for it."""
        return (
            shard.code == TOO_LARGE or KIND_OF[self.dialect_of(shard).batch_reason(shard.code)] is FailureKind.CAPACITY
        )

    def request_file(self, shard: Shard) -> str:
        """The file of a shard as it is sent."""
        return shard.path + self.dialect_of(shard).shard_format.suffix

    def client(self, provider: str, endpoint: str | None) -> Client:
        """The client for this provider's account. Raises SystemicError when no key is set, or what keeps it has none;
        TransientError when that does not answer now.
        """
        found = self._clients.get((provider, endpoint))
        if found is None:
            variable = f"{provider.upper()}_API_KEY"
            if provider not in self.credentials:
                raise SystemicError(
                    f"no API key for {provider}: set the environment variable {variable}", code="no_api_key"
                )
            said = self.credentials[provider]
            key = fetched(said.api_key, variable)
            found = get_provider(provider, endpoint).connect(replace(said, api_key=key))
            self._clients[provider, endpoint] = found
        return found

    def sender(self, shard: Shard, at_once: int | None = None) -> Client:
        """The client that sends a shard, in its mode, with the account that is set; in real time so many `at_once`.

        Raises SystemicError when no key is set.
        """
        client = self.client(shard.provider, shard.endpoint)
        if shard.mode is Mode.BATCH:
            return client
        return RealtimeClient(
            client,
            self.dialect_of(shard),
            shard,
            self.store.files.journals,
            at_once=at_once or self.realtime_requests,
            retries=self.realtime_retries,
            told=self.ledger.progress,
        )

    def is_stamped(self, shard: Shard) -> bool:
        """Whether what the provider has of a shard is known by itself, and not by its size and results."""
        return shard.mode is Mode.REALTIME or self.dialect_of(shard).carries_stamp

    def visible_after(self, shard: Shard) -> timedelta:
        """How long what a claim made may stay hidden; what is asked in real time is not looked for."""
        return timedelta() if shard.mode is Mode.REALTIME else self.visibility_delay

    def client_of(self, shard: Shard) -> Client:
        """The client for the account that a shard was sent with. Raises SystemicError when another one is set."""
        client = self.sender(shard)
        if shard.mode is Mode.REALTIME:
            return client  # what it brought lies in the store
        if client.account != shard.account:
            key = f"{shard.provider.upper()}_API_KEY"
            raise SystemicError(
                f"sent with another key or base URL than is set now: set {key} (and _BASE_URL) as they were, or, where "
                "the new key is of the same account, let `llm-assets reconcile --take-over` prove it",
                code=OTHER_ACCOUNT,
            )
        return client


def is_dead(owner: str) -> bool:
    """Whether the process of this name is known to be gone. A process of another host is never known to be."""
    host, pid, started = owner.rsplit("/", 2)
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return _started(int(pid)) != started


def _started(pid: int) -> str:
    """When a process started, in the kernel's ticks; empty where the system does not tell."""
    try:
        # The command's name may hold spaces and parentheses; what follows its last parenthesis does not.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
