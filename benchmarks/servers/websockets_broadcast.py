"""The `websockets` library's own asyncio server and its ``broadcast()``."""

from __future__ import annotations

import contextlib
import json
import sys
from collections import defaultdict
from typing import Any

from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosedError

from benchmarks.servers.control import control, dumps, listener, room_in, run


class Websockets:
    """Sets of connections, as in its documentation."""

    def __init__(self) -> None:
        self._all: set[ServerConnection] = set()
        self._rooms: defaultdict[str, set[ServerConnection]] = defaultdict(set)

    async def handler(self, websocket: ServerConnection) -> None:
        """One connection."""
        room = room_in(websocket.request.path if websocket.request else "")
        self._all.add(websocket)
        self._rooms[room].add(websocket)
        try:
            with contextlib.suppress(ConnectionClosedError):  # the load leaves without a goodbye
                async for message in websocket:
                    await websocket.send(json.dumps({"event": "echo", "data": json.loads(message)["data"]}))
        finally:
            self._all.remove(websocket)
            self._rooms[room].remove(websocket)

    async def broadcast(self, data: dict[str, Any]) -> None:
        broadcast(self._all, dumps(data))

    async def to_room(self, room: str, data: dict[str, Any]) -> None:
        broadcast(self._rooms[room], dumps(data))

    def connected(self) -> int:
        return len(self._all)


async def main() -> None:
    """Serve until stdin is closed."""
    contestant = Websockets()
    socket_ = listener()
    compression = "deflate" if "--deflate" in sys.argv else None
    async with serve(contestant.handler, sock=socket_, compression=compression, ping_interval=None):
        await control(contestant, socket_.getsockname()[1])


if __name__ == "__main__":
    run(main)
