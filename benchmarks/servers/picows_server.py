"""picows: a listener for each connection, frames written to its transport. It has no permessage-deflate."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from benchmarks.servers.control import control, dumps, listener, room_in, run


class Picows:
    """Sets of transports."""

    def __init__(self) -> None:
        self.all: set[WSTransport] = set()
        self.rooms: defaultdict[str, set[WSTransport]] = defaultdict(set)

    async def broadcast(self, data: dict[str, Any]) -> None:
        _send(self.all, data)

    async def to_room(self, room: str, data: dict[str, Any]) -> None:
        _send(self.rooms[room], data)

    def connected(self) -> int:
        return len(self.all)


def _send(transports: set[WSTransport], data: dict[str, Any]) -> None:
    message = dumps(data).encode()
    for transport in transports:
        transport.send(WSMsgType.TEXT, message)


class Listener(WSListener):
    """One connection."""

    def __init__(self, server: Picows, room: str) -> None:
        super().__init__()
        self._server = server
        self._room = room

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._server.all.add(transport)
        self._server.rooms[self._room].add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._server.all.discard(transport)
        self._server.rooms[self._room].discard(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        elif frame.msg_type == WSMsgType.TEXT:
            message = json.loads(frame.get_payload_as_utf8_text())
            transport.send(WSMsgType.TEXT, json.dumps({"event": "echo", "data": message["data"]}).encode())


async def main() -> None:
    """Serve until stdin is closed."""
    contestant = Picows()

    def connected(request: WSUpgradeRequest) -> WSListener:
        return Listener(contestant, room_in(request.path))

    socket_ = listener()
    server = await ws_create_server(connected, sock=socket_)
    await control(contestant, socket_.getsockname()[1])
    server.close()


if __name__ == "__main__":
    run(main)
