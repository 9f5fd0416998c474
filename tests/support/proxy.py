"""A TCP proxy that can become a black hole: it accepts and reads on, and nothing comes out at either end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

CHUNK = 65536


class Proxy:
    """A way to a port.

    Attributes:
        port: where it listens.
        is_hole: whether connections made from now on, too, lead nowhere.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self.is_hole = False
        self._target = target
        self._ways: set[_Way] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def swallow(self) -> None:
        """Carry nothing more. What is swallowed is gone: connections made before the end of this stay so."""
        self.is_hole = True
        for way in self._ways:
            way.is_hole = True

    def carry(self) -> None:
        """Carry what comes through new connections."""
        self.is_hole = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        way = _Way(self.is_hole)
        self._ways.add(way)
        try:
            await way.run(reader, writer, self._target)
        finally:
            self._ways.discard(way)

    async def close(self) -> None:
        """End all connections."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


class _Way:
    def __init__(self, is_hole: bool) -> None:
        self.is_hole = is_hole

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: int) -> None:
        try:
            there, to_there = await asyncio.open_connection("127.0.0.1", target)
            try:
                copies = [asyncio.create_task(self._copy(*pair)) for pair in ((reader, to_there), (there, writer))]
                try:
                    await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for copy in copies:
                        copy.cancel()
                    await asyncio.wait(copies)
            finally:
                to_there.transport.abort()
        finally:
            writer.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                if not self.is_hole:
                    writer.write(data)
                    await writer.drain()


@asynccontextmanager
async def proxy(target: int) -> AsyncIterator[Proxy]:
    """A proxy to that port, until the end of the block."""
    found = Proxy(target)
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        await found.close()
        await server.wait_closed()
