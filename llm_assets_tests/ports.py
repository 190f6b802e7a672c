"""Ports for servers that tests start: of those that the system gives to nobody by itself.

A port of the system's own choice may be anybody's connection by the time that a server listens there, or comes back to
it after it was killed: tests run side by side.
"""

from __future__ import annotations

import socket
from random import SystemRandom

HOST = "127.0.0.1"
# Below what Linux, macOS and Windows choose from.
_FIRST, _LAST = 15_000, 32_000
_TRIES = 100


def free_port() -> int:
    """A port where nobody listens."""
    random = SystemRandom()
    for _ in range(_TRIES):
        port = random.randint(_FIRST, _LAST)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise OSError(f"no port of {_FIRST} to {_LAST} is free after {_TRIES} tries")
