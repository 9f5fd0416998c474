"""velocity-ws with rooms that remember (``kept:7``) and rooms of a kind that do not (``plain:7``).

``--backplane URL`` makes it a node among others.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

from benchmarks.servers.control import run, serve_asgi
from benchmarks.servers.velocity import CLASSES, Velocity
from velocity_ws import Client, History

AT_ONCE = 100
"""Rooms into which a client is put at once."""


class Remembering(Velocity):
    """The same program, with two kinds of rooms into which everybody may come."""

    def __init__(self) -> None:
        super().__init__(ping_interval=0)  # clients that stay for minutes answer no pings
        self._kind = "plain"
        self._filled: list[str] = []
        self._talk: asyncio.Task[int] | None = None
        self._hush = asyncio.Event()
        kept = self._broker.rooms("kept:{name}", history=History(size=1000))
        plain = self._broker.rooms("plain:{name}")

        async def anybody(client: Client, name: str) -> bool:
            return True

        kept.authorize(anybody)
        plain.authorize(anybody)

    async def to_room(self, room: str, data: dict[str, Any]) -> None:
        await super().to_room(f"{self._kind}:{room}", data)

    async def choose(self, kind: str) -> dict[str, Any]:
        """Broadcasts to rooms go to those of this kind from now on."""
        self._kind = kind
        return {}

    async def remember(self, room: str, count: int, text: str) -> dict[str, Any]:
        """Say something in a room, and then so much more; the position between."""
        before = await self._broker.to_room(room).send("news", {"seq": -1, "t": 0, "text": text})
        for number in range(count):
            await self._broker.to_room(room).send("news", {"seq": number, "t": 0, "text": text})
        return {"at": before.at}

    async def talk(self, room: str, per_second: float, text: str) -> dict[str, Any]:
        """Say something in a room again and again, until `hush`."""
        self._hush.clear()
        self._talk = asyncio.create_task(self._say(room, per_second, text))
        return {}

    async def hush(self) -> dict[str, Any]:
        """Say nothing more; how often something was said."""
        self._hush.set()
        return {"each": 0 if self._talk is None else await self._talk}

    async def _say(self, room: str, per_second: float, text: str) -> int:
        number = 0
        start = time.monotonic()
        while not self._hush.is_set():
            data = {"seq": number, "t": time.monotonic_ns(), "text": text}
            await self._broker.to_room(room).send("news", data)
            number += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(start + number / per_second - time.monotonic(), 0)):
                    await self._hush.wait()
        return number

    async def fill(self, kind: str, rooms: int) -> dict[str, Any]:
        """Have the only client be in that many rooms of a kind, and in no other."""
        (client,) = self._broker.get_clients()
        for room in self._filled:
            await self._broker.leave_room(client.id, room)
        self._filled = [f"{kind}:{number}" for number in range(rooms)]
        for first in range(0, rooms, AT_ONCE):
            names = self._filled[first : first + AT_ONCE]
            await asyncio.gather(*[self._broker.join_room(client.id, name) for name in names])
        return {}

    async def facts(self) -> dict[str, Any]:
        """What the node has counted."""
        stats = self._broker.get_stats()
        return {
            "reads": stats.history_reads,
            "recovered": stats.recoveries["recovered"],
            "messages": stats.recovered_messages,
        }


async def main() -> None:
    """Serve until stdin is closed."""
    contestant = Remembering()
    commands = {name: getattr(contestant, name) for name in ("choose", "remember", "talk", "hush", "fill", "facts")}
    await serve_asgi(contestant.app, contestant, lifespan="on", commands=commands, **CLASSES)


if __name__ == "__main__":
    run(main)
