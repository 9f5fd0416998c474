"""aiohttp: a set of WebSocketResponses and a loop over it."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from typing import Any

from aiohttp import WSMsgType, web

from benchmarks.servers.control import control, dumps, listener, run


class Aiohttp:
    """As in its documentation's "Graceful shutdown" and FAQ: the application keeps its sockets."""

    def __init__(self) -> None:
        self._all: set[web.WebSocketResponse] = set()
        self._rooms: defaultdict[str, set[web.WebSocketResponse]] = defaultdict(set)

    async def handler(self, request: web.Request) -> web.WebSocketResponse:
        """One connection."""
        websocket = web.WebSocketResponse(compress="--deflate" in sys.argv)
        await websocket.prepare(request)
        room = request.query.get("room", "")
        self._all.add(websocket)
        self._rooms[room].add(websocket)
        try:
            async for message in websocket:
                if message.type == WSMsgType.TEXT:
                    await websocket.send_str(json.dumps({"event": "echo", "data": json.loads(message.data)["data"]}))
        finally:
            self._all.discard(websocket)
            self._rooms[room].discard(websocket)
        return websocket

    async def broadcast(self, data: dict[str, Any]) -> None:
        message = dumps(data)
        for websocket in self._all:
            await websocket.send_str(message)

    async def to_room(self, room: str, data: dict[str, Any]) -> None:
        message = dumps(data)
        for websocket in self._rooms[room]:
            await websocket.send_str(message)

    def connected(self) -> int:
        return len(self._all)


async def main() -> None:
    """Serve until stdin is closed."""
    contestant = Aiohttp()
    app = web.Application()
    app.router.add_get("/ws", contestant.handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    socket_ = listener()
    await web.SockSite(runner, socket_, shutdown_timeout=0.1).start()
    await control(contestant, socket_.getsockname()[1])
    await runner.cleanup()


if __name__ == "__main__":
    run(main)
