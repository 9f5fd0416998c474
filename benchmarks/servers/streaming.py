"""velocity-ws with streams: `broker.streams`, or a message for each token to a room with history.

``--backplane URL`` makes it a node among others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from benchmarks.servers.control import run, serve_asgi
from benchmarks.servers.remembering import Remembering
from benchmarks.servers.velocity import CLASSES
from benchmarks.streams.sources import Sources
from velocity_ws import Client


class Streaming(Remembering):
    """The same program as for histories, with sources; streams are in the rooms without history."""

    def __init__(self) -> None:
        super().__init__()
        self._sources = Sources()
        self._tasks: list[asyncio.Task[None]] = []
        self._seated = 0

        @self._broker.on_connect
        async def seated(client: Client) -> None:
            self._seated += 1  # the hook before this one has put it into its room

        @self._broker.on_disconnect
        async def gone(client: Client) -> None:
            self._seated -= 1

    def connected(self) -> int:
        return self._seated

    async def prepare(
        self, way: str, run: str, room: str, streams: int, tokens: int, per_second: float, size: int = 0
    ) -> dict[str, Any]:
        """Begin streams whose sources wait for `go`.

        Args:
            way: ``streams``; ``sends``, a message for each token; or ``none``, where nobody hears them.
            run: what the ids of these streams begin with.
            room: what the names of their rooms begin with; the number of the stream follows.
            streams: how many.
            tokens: of each.
            per_second: of each.
            size: of a token; see `tokens_of`.
        """
        self._tasks = []
        self._sources.prepare(streams, tokens, per_second, size)
        for number in range(streams):
            source = self._sources.of(number)
            if way == "streams":
                await self._broker.streams.start(f"{run}{number}", room=f"{room}{number}", source=source)
            else:
                told = self._tell(f"{room}{number}", source) if way == "sends" else self._hear(source)
                self._tasks.append(asyncio.create_task(told))
        return {}

    async def go(self) -> dict[str, Any]:
        """See `Sources.go`. It fails where a message was refused."""
        said = asyncio.create_task(self._sources.go())
        await asyncio.wait([said, *self._tasks], return_when=asyncio.FIRST_EXCEPTION)
        for task in self._tasks:
            if task.done():
                task.result()
        return await said

    async def say(self, room: str, pieces: Sequence[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
        """Send to a room what a stream said there, at the same pace: nanoseconds from the first one, and the data."""
        start = time.monotonic()
        for due, data in pieces:
            await asyncio.sleep(max(0.0, start + due / 1e9 - time.monotonic()))
            await self._broker.to_room(room).send("pieces", data)
        return {}

    async def _tell(self, room: str, source: AsyncIterator[str]) -> None:
        async for token in source:
            await self._broker.to_room(room).send("token", token)
        await self._broker.to_room(room).send("end", None)

    @staticmethod
    async def _hear(source: AsyncIterator[str]) -> None:
        async for _ in source:
            pass


async def main() -> None:
    """Serve until stdin is closed."""
    contestant = Streaming()
    commands = {name: getattr(contestant, name) for name in ("prepare", "go", "say")}
    await serve_asgi(contestant.app, contestant, lifespan="on", commands=commands, **CLASSES)


if __name__ == "__main__":
    run(main)
