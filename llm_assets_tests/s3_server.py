"""A real S3 server for tests: SeaweedFS with credentials on, an empty prefix for whoever asks; and a wire to it that
breaks.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit
from uuid import uuid4

from obstore.exceptions import BaseError
from obstore.store import S3Store
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from llm_assets_tests.ports import free_port

_PORTS = [f"{role}.port{kind}" for role in ("s3", "filer", "master", "volume") for kind in ("", ".grpc")]
_QUIET = ["-s3", "-s3.config=s3.json", "-dir=data", "-master.telemetry=false"]
_QUIET += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.volumeSizeLimitMB=64", "-volume.max=50"]
_START_SECONDS_MAX = 60
BUCKET = "tables"
OWNER = {"AWS_ACCESS_KEY_ID": "owner", "AWS_SECRET_ACCESS_KEY": "owner-secret"}
READER = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "reader-secret"}
STRANGER = {"AWS_ACCESS_KEY_ID": "stranger", "AWS_SECRET_ACCESS_KEY": "stranger-secret"}


class S3Server:
    """A server that starts with the block. Who asks it needs `environment`, or other keys than OWNER's in it.

    `network` stands before its command, where it is to run in another network than this process.
    """

    def __init__(self, folder: Path, address: str = "127.0.0.1", network: Sequence[str] = ()) -> None:
        self._folder, self._address, self._network = folder.absolute(), address, network
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        ports = {name: free_port() for name in _PORTS}
        self.url = f"http://{self._address}:{ports['s3.port']}"
        identities = [_identity(OWNER, "Admin", "Read", "Write", "List"), _identity(READER, "Read", "List")]
        (self._folder / "s3.json").write_text(json.dumps({"identities": identities}))
        (self._folder / "data").mkdir()
        flags = [f"-ip={self._address}", f"-ip.bind={self._address}"]
        flags += [f"-{name}={port}" for name, port in ports.items()]
        log = self._folder / "log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*self._network, Path(sys.executable).with_name("weed"), "server", *_QUIET, *flags],
                cwd=self._folder,
                stdout=output,
                stderr=output,
            )
        try:
            for attempt in Retrying(
                retry=retry_if_exception_type(BaseError),
                stop=stop_after_delay(_START_SECONDS_MAX),
                wait=wait_fixed(0.2),
            ):
                with attempt:
                    self.objects().put("ready", b"")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to be the buckets' owner."""
        return {"AWS_ENDPOINT_URL_S3": self.url, "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"} | OWNER

    def root(self) -> str:
        """The URL of a prefix without objects."""
        return f"s3://{BUCKET}/{uuid4().hex}"

    def objects(self) -> S3Store:
        """The bucket, for what tests do behind the project's back. It is made by the first object in it."""
        key, secret = OWNER.values()
        return S3Store(
            BUCKET,
            endpoint=self.url,
            region="us-east-1",
            access_key_id=key,
            secret_access_key=secret,
            client_options={"allow_http": True},
        )


@dataclass
class Wire:
    """Between a client and a server. So many of the next connections get `503 Slow Down`; others are cut after so many
    bytes were sent to the server, or came from it.
    """

    url: str
    busy: int = 0
    cut_up: int | None = None
    cut_down: int | None = None
    seen: int = 0
    cuts: int = 0


@contextmanager
def wire(server: str) -> Iterator[Wire]:
    """A wire to the server at this URL, as long as the block lasts."""
    target = urlsplit(server)
    with ExitStack() as stack:
        listening = stack.enter_context(closing(socket.create_server(("127.0.0.1", 0))))
        between = Wire(f"http://127.0.0.1:{listening.getsockname()[1]}")

        def serve() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listening.accept()
                    threading.Thread(target=_carry, args=(between, client, target.hostname, target.port)).start()

        threading.Thread(target=serve, daemon=True).start()
        yield between
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)


_BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


def _carry(between: Wire, client: socket.socket, host: str, port: int) -> None:
    between.seen += 1
    with closing(client), suppress(OSError):
        if between.busy:
            between.busy -= 1
            client.recv(65536)
            head = f"HTTP/1.1 503 Slow Down\r\nContent-Length: {len(_BUSY)}\r\nConnection: close\r\n\r\n"
            client.sendall(head.encode() + _BUSY)
            return
        with closing(socket.create_connection((host, port))) as server:
            up = threading.Thread(target=_copy, args=(client, server, between, "cut_up"))
            up.start()
            _copy(server, client, between, "cut_down")
            up.join()


def _copy(source: socket.socket, target: socket.socket, between: Wire, cut: str) -> None:
    """Until one of them ends, or so many bytes are through: then once, both are cut."""
    passed = 0
    with suppress(OSError):
        while piece := source.recv(65536):
            passed += len(piece)
            limit = getattr(between, cut)
            if limit is not None and passed > limit:
                setattr(between, cut, None)
                between.cuts += 1
                break
            target.sendall(piece)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _identity(keys: dict[str, str], *actions: str) -> dict[str, object]:
    key, secret = keys.values()
    return {"name": key, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": list(actions)}
