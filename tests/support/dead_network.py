"""A network that dies without a word: a TCP proxy that carries nothing more one way or both ways, and closes nothing.

What it has taken meanwhile comes late, as packets do that are sent again, or never, as after a change of address.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

__all__ = ["Direction", "Network", "network"]

CHUNK = 65536

Direction = Literal["both", "up", "down"]
"""To the server, to its client, or both."""


class Network:
    """A way to a port.

    Attributes:
        port: where it listens.
        accepted: how many connections there have been.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self.accepted = 0
        self._target = target
        self._dead: frozenset[str] = frozenset()
        self._ways: dict[int, _Way] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def die(self, direction: Direction = "both") -> None:
        """Carry nothing more that way, ends of connections included; new ones are taken and lead nowhere."""
        self._dead = frozenset(("up", "down") if direction == "both" else (direction,))
        for way in self._ways.values():
            way.die(self._dead)

    def die_alone(self, number: int) -> None:
        """Carry nothing more on one connection, both ways: that of this number, from 1; all others live."""
        self._ways[number].die(frozenset(("up", "down")))

    def live(self, *, late: bool = False) -> None:
        """Carry again what new connections bring.

        Args:
            late: what the connections of before have sent meanwhile comes now; else nothing of theirs ever does, and
                neither end is told.
        """
        self._dead = frozenset()
        if late:
            for way in self._ways.values():
                way.live()

    def cut(self) -> None:
        """Abort all connections: both ends are told, and what was on its way is lost."""
        for task in self._tasks:
            task.cancel()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection."""
        self.accepted += 1
        number, way = self.accepted, _Way(self._dead)
        self._ways[number] = way
        task = asyncio.create_task(way.run(reader, writer, self._target))
        task.add_done_callback(lambda _: writer.transport.abort())  # one that is cancelled at once has not begun
        self._tasks.add(task)
        try:
            await asyncio.wait([task])
        finally:
            self._tasks.discard(task)
            del self._ways[number]

    async def close(self) -> None:
        """End all connections."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks))


class _Way:
    def __init__(self, dead: frozenset[str]) -> None:
        self._alive = {"up": asyncio.Event(), "down": asyncio.Event()}
        for direction in {"up", "down"} - dead:
            self._alive[direction].set()

    def die(self, dead: frozenset[str]) -> None:
        for direction in dead:
            self._alive[direction].clear()

    def live(self) -> None:
        for event in self._alive.values():
            event.set()

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: int) -> None:
        try:
            there, to_there = await asyncio.open_connection("127.0.0.1", target)
            try:
                async with asyncio.TaskGroup() as copies:
                    copies.create_task(self._copy("up", reader, to_there))
                    copies.create_task(self._copy("down", there, writer))
            finally:
                to_there.transport.abort()
        except* OSError:
            pass  # one end is gone; that both are told so is what follows
        finally:
            writer.transport.abort()

    async def _copy(self, direction: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        alive = self._alive[direction]
        while True:
            try:
                data = await reader.read(CHUNK)
            except ConnectionResetError:
                data = b""
            await alive.wait()
            if not data:
                raise ConnectionResetError
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def network(target: int) -> AsyncIterator[Network]:
    """A network between a client and that port, until the end of the block."""
    found = Network(target)
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        await found.close()
        await server.wait_closed()
