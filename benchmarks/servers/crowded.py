"""velocity-ws with clients that can be put into rooms, and a hook that answers binary messages."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

from benchmarks.servers.control import Commands, run, serve_asgi
from benchmarks.servers.velocity import CLASSES, Velocity
from velocity_ws import Client

AT_ONCE = 1000
"""Clients that are put into rooms before the loop has its turn."""


class Crowded(Velocity):
    """The same program, with more that it can be told."""

    def __init__(self) -> None:
        super().__init__()
        broker = self._broker
        self._rooms = 0

        @broker.on_binary
        async def back(client: Client, data: bytes) -> None:
            await client.send_bytes(data)

    async def join(self, rooms: int, own: bool = False) -> dict[str, Any]:
        """Put each client into that many new rooms, which all are in, or into as many of its own."""
        first, self._rooms = self._rooms, self._rooms + rooms
        for number, client in enumerate(self._broker.get_clients()):
            for room in range(first, first + rooms):
                await self._broker.join_room(client.id, f"room:{room}:{number}" if own else f"room:{room}")
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
        return {}

    async def objects(self) -> dict[str, Any]:
        """How many objects the garbage collector goes over."""
        gc.unfreeze()
        gc.collect()
        return {"count": len(gc.get_objects())}


async def main() -> None:
    """Serve until stdin is closed."""
    contestant = Crowded()
    commands: Commands = {"join": contestant.join, "objects": contestant.objects}
    await serve_asgi(contestant.app, contestant, lifespan="on", commands=commands, **CLASSES)


if __name__ == "__main__":
    run(main)
