"""velocity-ws, on its own uvicorn classes or (``--portable``) on what any ASGI server offers.

``--backplane URL`` makes it a node among others.
"""

from __future__ import annotations

import sys
from typing import Any, TypedDict

from starlette.applications import Starlette

from benchmarks.servers.control import option, run, serve_asgi
from velocity_ws import Broker, Client, Settings, WebSocketMiddleware

CLASSES: dict[str, Any] = {
    "ws": "velocity_ws.uvicorn:WebSocketProtocol",
    "http": "velocity_ws.uvicorn:HTTPProtocol",
}
"""The project's own, as uvicorn's options."""


class Echo(TypedDict):
    """What the echo handler takes; every message is validated against it."""

    seq: int
    text: str


class Velocity:
    """As `velocity_ws.Server` serves it: the middleware is the outermost application."""

    def __init__(self, **options: Any) -> None:
        url = option("--backplane") or "memory://"
        settings = Settings(_env_file=None, rate_limit=0, max_connections=0, backplane_url=url, **options)
        self._broker = broker = Broker(settings)
        self.app = WebSocketMiddleware(Starlette(), broker)

        @broker.on_connect
        async def enter(client: Client) -> None:
            if room := client.request.query_params.get("room"):
                await broker.join_room(client.id, room)

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
    contestant = Velocity()
    await serve_asgi(contestant.app, contestant, lifespan="on", **({} if "--portable" in sys.argv else CLASSES))


if __name__ == "__main__":
    run(main)
