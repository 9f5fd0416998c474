"""The servers that are compared: each an ASGI application, and a way to make it broadcast.

To compare another one, add a class here and name it in `CONTESTANTS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket, WebSocketDisconnect

from velocity_ws import Broker, Settings, WebSocketMiddleware

__all__ = ["BASELINE", "CONTESTANTS", "Contestant"]


class Contestant(Protocol):
    """A server under test. Its endpoint is ``/ws``."""

    app: ASGIApp

    async def broadcast(self, event: str, data: Any) -> None:
        """Send ``{"event", "data"}`` to every client."""

    def connected(self) -> int:
        """How many clients a broadcast would reach now."""


class VelocityServer:
    """As `velocity_ws.Server` serves it: the middleware is the outermost application."""

    def __init__(self) -> None:
        self._broker = Broker(Settings(_env_file=None))
        self.app: ASGIApp = WebSocketMiddleware(Starlette(), self._broker)

    async def broadcast(self, event: str, data: Any) -> None:
        await self._broker.broadcast(event, data)

    def connected(self) -> int:
        return self._broker.get_stats().connected_clients


class VelocityAttached(VelocityServer):
    """As a route of a Starlette application, behind its middleware."""

    def __init__(self) -> None:
        super().__init__()
        app = Starlette()
        self._broker.attach(app)
        self.app = app


class ConnectionManager:
    """As FastAPI's documentation writes it ("WebSockets", "Handling disconnections and multiple clients")."""

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


class StarletteText:
    """The documentation's loop over ``send_text``; the message is encoded once, before it."""

    def __init__(self) -> None:
        self._manager = ConnectionManager()
        self.app: ASGIApp = Starlette(routes=[WebSocketRoute("/ws", self._endpoint)])

    async def _endpoint(self, websocket: WebSocket) -> None:
        await self._manager.connect(websocket)
        try:
            while True:
                await websocket.receive_text()
        except WebSocketDisconnect:
            self._manager.disconnect(websocket)

    async def broadcast(self, event: str, data: Any) -> None:
        await self._manager.broadcast(json.dumps({"event": event, "data": data}, separators=(",", ":")))

    def connected(self) -> int:
        return len(self._manager.active_connections)


class StarletteJson(StarletteText):
    """The same loop over ``send_json``, which encodes for every client."""

    async def broadcast(self, event: str, data: Any) -> None:
        await self._manager.broadcast_json({"event": event, "data": data})


CONTESTANTS: dict[str, Callable[[], Contestant]] = {
    "velocity-ws": VelocityServer,
    "velocity-ws, attached to Starlette": VelocityAttached,
    "Starlette send_text loop": StarletteText,
    "Starlette send_json loop": StarletteJson,
}
BASELINE = "Starlette send_text loop"
"""What the others are compared with."""
