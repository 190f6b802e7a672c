"""The program of a host on which something else listens on loopback: it carries ports of an address there."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress


async def serve(address: str, ports: list[int]) -> None:
    """Until the process is ended."""
    servers = [await asyncio.start_server(_carrier(port), address, port) for port in ports]
    await asyncio.gather(*(server.serve_forever() for server in servers))


def _carrier(port: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(OSError):
            there, back = await asyncio.open_connection("127.0.0.1", port)
            with closing(back):
                await asyncio.gather(_copy(reader, back), _copy(there, writer))

    return carry


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()


if __name__ == "__main__":
    sys.stdin.readline()  # the network is there
    asyncio.run(serve(sys.argv[1], [int(port) for port in sys.argv[2:]]))
