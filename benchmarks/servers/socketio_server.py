"""python-socketio on uvicorn: emit to all, or to a room. Its clients speak Engine.IO over WebSocket.

``--backplane URL`` has its Redis manager share what is emitted.
"""

from __future__ import annotations

from typing import Any

import socketio

from benchmarks.servers.control import option, room_in, run, serve_asgi


class SocketIO:
    """Handlers as in its documentation."""

    def __init__(self) -> None:
        url = option("--backplane")
        options = {"client_manager": socketio.AsyncRedisManager(url)} if url else {}
        self._server = server = socketio.AsyncServer(
            async_mode="asgi", transports=["websocket"], ping_interval=600, **options
        )
        self._sids: set[str] = set()
        self.app = socketio.ASGIApp(server)

        async def connect(sid: str, environ: dict[str, Any]) -> None:
            if room := room_in(environ["QUERY_STRING"]):
                await server.enter_room(sid, room)
            self._sids.add(sid)

        async def disconnect(sid: str, reason: str) -> None:
            self._sids.discard(sid)

        async def echo(sid: str, data: Any) -> None:
            await server.emit("echo", data, to=sid)

        server.on("connect", connect)
        server.on("disconnect", disconnect)
        server.on("echo", echo)

    async def broadcast(self, data: dict[str, Any]) -> None:
        await self._server.emit("news", data)

    async def to_room(self, room: str, data: dict[str, Any]) -> None:
        await self._server.emit("news", data, to=room)

    def connected(self) -> int:
        return len(self._sids)


async def main() -> None:
    """Serve until stdin is closed."""
    contestant = SocketIO()
    await serve_asgi(contestant.app, contestant)


if __name__ == "__main__":
    run(main)
