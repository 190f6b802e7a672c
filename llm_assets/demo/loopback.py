"""Ports and HTTP on this machine."""

from __future__ import annotations

import http.client
import socket

from llm_assets.errors import LLMAssetsError

HOST = "127.0.0.1"
_SECONDS_MAX = 60


def free_port(wished: int) -> int:
    """The wished port when nobody listens there, else any free one."""
    for port in (wished, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise LLMAssetsError("no port is free")


def answers_at(port: int, path: str) -> bool:
    """Whether a GET is answered with a 200."""
    try:
        get(port, path)
    except LLMAssetsError:
        return False
    return True


def get(port: int, path: str) -> bytes:
    """What a GET on this machine is answered with. Raises LLMAssetsError unless that is a 200."""
    return ask(port, "GET", path)


def ask(port: int, method: str, path: str, body: bytes | None = None) -> bytes:
    """What a call on this machine is answered with. Raises LLMAssetsError unless that is a 200."""
    connection = http.client.HTTPConnection(HOST, port, timeout=_SECONDS_MAX)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise LLMAssetsError(f"{method} {path} at port {port} was not answered: {error!r}") from error
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise LLMAssetsError(f"{method} {path} at port {port} was answered with status {response.status}")
    return content
