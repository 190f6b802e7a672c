"""The physical limit of sending: a file's bytes read, hashed, written and sent over loopback, in one pass, no more."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

_BLOCK = 1 << 20
# Takes connections, one after the other, reads each to its end and says so.
_RECEIVER = """
import socket, sys
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    block = bytearray(1 << 20)
    with server.accept()[0] as connection:
        while connection.recv_into(block):
            pass
        connection.sendall(b"1")
"""


def limit_s(size: int, folder: Path) -> float:
    """How long so many bytes take."""
    with TemporaryDirectory(dir=folder) as name:
        source = Path(name, "source")
        with source.open("wb") as file:
            for _ in range(0, size, _BLOCK):
                file.write(bytes(_BLOCK))
        command = [sys.executable, "-c", _RECEIVER]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as receiver:  # noqa: S603
            assert receiver.stdout is not None
            port = int(receiver.stdout.readline())
            begun = time.perf_counter()
            _pass_on(source, Path(name, "copy"), port)
            return time.perf_counter() - begun


def _pass_on(source: Path, copy: Path, port: int) -> None:
    block = bytearray(_BLOCK)
    digest = hashlib.blake2b()
    with (
        source.open("rb", buffering=0) as read,
        copy.open("wb", buffering=0) as written,
        socket.create_connection(("127.0.0.1", port)) as connection,
    ):
        while read.readinto(block):
            digest.update(block)
            written.write(block)
            connection.sendall(block)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)
