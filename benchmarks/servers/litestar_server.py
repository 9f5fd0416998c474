"""Litestar's channels plugin on uvicorn, with the memory backend: a subscriber for each socket."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from litestar import Litestar, WebSocket, websocket
from litestar.channels import ChannelsPlugin
from litestar.channels.backends.memory import MemoryChannelsBackend
from litestar.exceptions import WebSocketDisconnect

from benchmarks.servers.control import dumps, room_in, run, serve_asgi

EVERYONE = "everyone"


class LitestarChannels:
    """As in its documentation's "Integrating with websocket handlers"."""

    def __init__(self) -> None:
        self._channels = ChannelsPlugin(backend=MemoryChannelsBackend(), arbitrary_channels_allowed=True)
        self._connected = 0

        @websocket("/ws")
        async def handler(socket: WebSocket[Any, Any, Any], channels: ChannelsPlugin) -> None:
            await socket.accept()
            room = room_in(socket.url.query)
            async with (
                channels.start_subscription([EVERYONE, *([f"room-{room}"] if room else [])]) as subscriber,
                subscriber.run_in_background(socket.send_text),
            ):
                self._connected += 1
                try:
                    while True:
                        data = json.loads(await socket.receive_text())["data"]
                        await socket.send_text(dumps(data, "echo"))
                except WebSocketDisconnect:
                    pass
                finally:
                    self._connected -= 1

        self.app = Litestar([handler], plugins=[self._channels])

    async def broadcast(self, data: dict[str, Any]) -> None:
        await self._channels.wait_published(dumps(data), EVERYONE)
        await asyncio.sleep(0)

    async def to_room(self, room: str, data: dict[str, Any]) -> None:
        await self._channels.wait_published(dumps(data), f"room-{room}")

    def connected(self) -> int:
        return self._connected


async def main() -> None:
    """Serve until stdin is closed."""
    contestant = LitestarChannels()
    await serve_asgi(contestant.app, contestant, lifespan="on")


if __name__ == "__main__":
    run(main)
