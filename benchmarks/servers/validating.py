"""velocity-ws with an echo whose annotation is a TypedDict, or (``--model``) a pydantic model of the same fields."""

from __future__ import annotations

import sys
from typing import Any

from pydantic import BaseModel
from starlette.applications import Starlette

from benchmarks.servers.control import run, serve_asgi
from benchmarks.servers.velocity import CLASSES, Echo
from velocity_ws import Broker, Client, Settings, WebSocketMiddleware


class EchoModel(BaseModel):
    """The fields of `Echo`."""

    seq: int
    text: str


class Validating:
    """An application with one handler."""

    def __init__(self, *, by_model: bool) -> None:
        settings = Settings(_env_file=None, rate_limit=0, max_connections=0, ping_interval=0)
        self._broker = broker = Broker(settings)
        self.app = WebSocketMiddleware(Starlette(), broker)
        if by_model:

            @broker.on("echo")
            async def echo_model(client: Client, data: EchoModel) -> None:
                await client.send("echo", data)

        else:

            @broker.on("echo")
            async def echo(client: Client, data: Echo) -> None:
                await client.send("echo", data)

    async def broadcast(self, data: dict[str, Any]) -> None:
        await self._broker.broadcast("news", data)

    async def to_room(self, room: str, data: dict[str, Any]) -> None:
        await self._broker.to_room(room).send("news", data)

    def connected(self) -> int:
        return self._broker.get_stats().connected_clients


async def main() -> None:
    """Serve until stdin is closed."""
    contestant = Validating(by_model="--model" in sys.argv)
    await serve_asgi(contestant.app, contestant, lifespan="on", **CLASSES)


if __name__ == "__main__":
    run(main)
