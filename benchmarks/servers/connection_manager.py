"""The ConnectionManager of FastAPI's documentation, over ``send_text`` or (``--json``) ``send_json``."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from typing import Any

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from benchmarks.servers.control import dumps, run, serve_asgi


class ConnectionManager:
    """As in "WebSockets", "Handling disconnections and multiple clients"."""

    def __init__(self) -> None:
        self.active_connections: list[WebSocket] = []

    async def connect(self, websocket: WebSocket) -> None:
        await websocket.accept()
        self.active_connections.append(websocket)

    def disconnect(self, websocket: WebSocket) -> None:
        self.active_connections.remove(websocket)

    async def broadcast(self, message: str) -> None:
        for connection in self.active_connections:
            await connection.send_text(message)

    async def broadcast_json(self, message: Any) -> None:
        for connection in self.active_connections:
            await connection.send_json(message)


class StarletteLoop:
    """One manager for all, and one for each room."""

    def __init__(self, *, as_json: bool) -> None:
        self._json = as_json
        self._all = ConnectionManager()
        self._rooms: defaultdict[str, ConnectionManager] = defaultdict(ConnectionManager)
        self.app = Starlette(routes=[WebSocketRoute("/ws", self._endpoint)])

    async def _endpoint(self, websocket: WebSocket) -> None:
        await self._all.connect(websocket)
        room = websocket.query_params.get("room")
        if room:
            self._rooms[room].active_connections.append(websocket)
        try:
            while True:
                message = json.loads(await websocket.receive_text())
                await websocket.send_text(json.dumps({"event": "echo", "data": message["data"]}))
        except WebSocketDisconnect:
            self._all.disconnect(websocket)
            if room:
                self._rooms[room].disconnect(websocket)

    async def broadcast(self, data: dict[str, Any]) -> None:
        await self._send(self._all, data)

    async def to_room(self, room: str, data: dict[str, Any]) -> None:
        await self._send(self._rooms[room], data)

    async def _send(self, manager: ConnectionManager, data: dict[str, Any]) -> None:
        if self._json:
            await manager.broadcast_json({"event": "news", "data": data})
        else:
            await manager.broadcast(dumps(data))

    def connected(self) -> int:
        return len(self._all.active_connections)


async def main() -> None:
    """Serve until stdin is closed."""
    contestant = StarletteLoop(as_json="--json" in sys.argv)
    await serve_asgi(contestant.app, contestant)


if __name__ == "__main__":
    run(main)
