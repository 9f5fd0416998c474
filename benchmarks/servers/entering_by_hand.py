"""Starlette's loop that does by hand what `benchmarks.servers.entering` has: a page, a token, a room, a welcome.

With ``--no-gc`` garbage is never collected: what looking for it costs while many come is seen from the difference.
"""

from __future__ import annotations

import gc
import json
import sys
from collections import defaultdict
from typing import Any

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from benchmarks.connections.visits import ORIGINS, USERS, welcome
from benchmarks.servers.control import dumps, run, serve_asgi


class ByHand:
    """Rooms in a dict."""

    def __init__(self) -> None:
        self._all: set[WebSocket] = set()
        self._rooms: defaultdict[str, set[WebSocket]] = defaultdict(set)
        self.app = Starlette(routes=[WebSocketRoute("/ws", self._endpoint)])

    async def _endpoint(self, websocket: WebSocket) -> None:
        user = USERS.get(websocket.query_params.get("token", ""))
        if websocket.headers.get("origin") not in ORIGINS or user is None:
            await websocket.close(1008)
            return
        await websocket.accept()
        room = websocket.query_params["room"]
        self._all.add(websocket)
        self._rooms[room].add(websocket)
        try:
            await websocket.send_json({"event": "welcome", "data": welcome(user, room)})
            while True:
                message = json.loads(await websocket.receive_text())
                await websocket.send_text(json.dumps({"event": "echo", "data": message["data"]}))
        except WebSocketDisconnect:
            pass
        finally:
            self._leave(websocket, room)

    def _leave(self, websocket: WebSocket, room: str) -> None:
        self._all.discard(websocket)
        members = self._rooms[room]
        members.discard(websocket)
        if not members:
            del self._rooms[room]

    async def broadcast(self, data: dict[str, Any]) -> None:
        message = dumps(data)
        for websocket in list(self._all):
            await websocket.send_text(message)

    async def to_room(self, room: str, data: dict[str, Any]) -> None:
        message = dumps(data)
        for websocket in list(self._rooms[room]):
            await websocket.send_text(message)

    def connected(self) -> int:
        return len(self._all)


async def main() -> None:
    """Serve until stdin is closed."""
    if "--no-gc" in sys.argv:
        gc.disable()
    contestant = ByHand()
    await serve_asgi(contestant.app, contestant)


if __name__ == "__main__":
    run(main)
