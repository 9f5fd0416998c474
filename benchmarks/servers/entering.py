"""velocity-ws as applications have it: who is it, from which page, into a room, and a welcome.

On its own two uvicorn classes, or (``--http``) on its WebSocket class with uvicorn's HTTP class.
"""

from __future__ import annotations

import sys
from typing import Any

from starlette.applications import Starlette
from starlette.requests import HTTPConnection

from benchmarks.connections.visits import ORIGINS, USERS, welcome
from benchmarks.servers.control import run, serve_asgi
from benchmarks.servers.velocity import CLASSES, Echo
from velocity_ws import Broker, Client, Reject, Settings, WebSocketMiddleware


class Entering:
    """An application whose clients have tokens. Its limit of messages is the usual one, of connections there is none.

    Args:
        ping_interval: seconds; by default none, as for the others.
    """

    def __init__(self, ping_interval: float = 0) -> None:
        settings = Settings(_env_file=None, allowed_origins=ORIGINS, max_connections=0, ping_interval=ping_interval)
        self.broker = broker = Broker(settings)
        self.app = WebSocketMiddleware(Starlette(), broker)

        @broker.authenticate
        async def find_user(request: HTTPConnection) -> str:
            if user := USERS.get(request.query_params.get("token", "")):
                return user
            raise Reject("log in", status=401)

        @broker.on_connect
        async def enter(client: Client[str]) -> None:
            room = client.request.query_params["room"]
            await broker.join_room(client.id, room)
            await client.send("welcome", welcome(client.user, room))

        @broker.on("echo")
        async def echo(client: Client, data: Echo) -> None:
            await client.send("echo", data)

    async def broadcast(self, data: dict[str, Any]) -> None:
        await self.broker.broadcast("news", data)

    async def to_room(self, room: str, data: dict[str, Any]) -> None:
        await self.broker.to_room(room).send("news", data)

    def connected(self) -> int:
        return self.broker.get_stats().connected_clients


async def main() -> None:
    """Serve until stdin is closed."""
    contestant = Entering()
    classes = {"ws": CLASSES["ws"]} if "--http" in sys.argv else CLASSES
    await serve_asgi(contestant.app, contestant, lifespan="on", **classes)


if __name__ == "__main__":
    run(main)
