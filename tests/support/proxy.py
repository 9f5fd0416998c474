"""A TCP proxy that can become a black hole: it accepts and reads on, and nothing comes out at one end, or at either."""

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
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self._holes = (False, False)
        self._target = target
        self._ways: set[_Way] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def swallow(self, *, there: bool = True, back: bool = True) -> None:
        """Carry nothing more, to the target or from it. What is swallowed is gone: connections made before stay so.

        Args:
            there: what goes to the target.
            back: what comes from it.
        """
        self._holes = (there, back)
        for way in self._ways:
            way.holes = self._holes

    def carry(self) -> None:
        """Carry what comes through new connections."""
        self._holes = (False, False)

    def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection."""
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: writer.transport.abort())  # one that is cancelled at once has not begun

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        way = _Way(self._holes)
        self._ways.add(way)
        try:
            await way.run(reader, writer, self._target)
        finally:
            self._ways.discard(way)

    async def close(self) -> None:
        """End all connections."""
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)


class _Way:
    def __init__(self, holes: tuple[bool, bool]) -> None:
        self.holes = holes

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: int) -> None:
        there, to_there = await asyncio.open_connection("127.0.0.1", target)
        try:
            pairs = ((reader, to_there), (there, writer))
            copies = [asyncio.create_task(self._copy(side, *pair)) for side, pair in enumerate(pairs)]
            try:
                await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for copy in copies:
                    copy.cancel()
                await asyncio.wait(copies)
        finally:
            to_there.transport.abort()

    async def _copy(self, side: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                if not self.holes[side]:
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
