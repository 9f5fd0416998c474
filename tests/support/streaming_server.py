"""A small server of streams that does what it is told to, and what a real one does once in a thousand times.

It speaks what docs/wire.md says of streams, and keeps every message it gets. Knows no client.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.support import eventually

__all__ = ["Streaming", "streaming"]


@dataclass
class Said:
    """A stream: all that was said, and how it has ended."""

    room: str
    data: Any
    end: str | None = None

    def piece(self, id_: str, start: int) -> dict[str, Any]:
        """What there is from a position on."""
        said = self.data[start:]
        end = {"end": self.end} if self.end else {}
        return {"id": id_, "from": start, ("text" if isinstance(said, str) else "items"): said, **end}


class Streaming:
    """The server.

    Attributes:
        url: where it is.
        streams: what was said, by the ids.
        received: what came, of all connections, in order.
        given: the rooms that connections are put into when they have said where they stopped.
        brings: whether who joins gets the streams of the room.
        most: how many characters or items there are at most in one piece.
        deaf: whether what is said now does not reach members.
        mute: whether joins are not answered.
        failures: what the next requests of an event are answered in place of success: the code.
    """

    def __init__(self) -> None:
        self.url = ""
        self.streams: dict[str, Said] = {}
        self.received: list[dict[str, Any]] = []
        self.given: list[str] = []
        self.brings = True
        self.most = 1_000_000
        self.deaf = self.mute = False
        self.failures: dict[str, list[str]] = {}
        self._members: dict[str, set[ServerConnection]] = {}
        self._all: set[ServerConnection] = set()

    # --- what it is told to do

    async def say(self, id_: str, data: Any = "", end: str | None = None, room: str = "tea") -> None:
        """Say more of a stream, which begins with it if there is none; or end it."""
        said = self.streams.setdefault(id_, Said(room, data[:0]))
        start = len(said.data)
        said.data += data
        said.end = end
        if not self.deaf:
            await self.tell(said.piece(id_, start), said.room)

    async def tell(self, piece: dict[str, Any], room: str = "tea") -> None:
        """Send a piece to the members of a room."""
        await self.tell_event("stream", piece, room)

    async def tell_event(self, event: str, data: Any, room: str = "tea", **more: Any) -> None:
        """Send anything to the members of a room."""
        for connection in list(self._members.get(room, ())):
            await _send(connection, {"event": event, "data": data, "room": room, **more})

    async def put_out(self, room: str, reason: str) -> None:
        """Put all members out of a room."""
        for connection in self._members.pop(room):
            await _send(connection, {"event": "left", "data": {"room": room, "reason": reason}})

    async def cut(self) -> None:
        """End all connections without a word."""
        cut = set(self._all)
        for connection in cut:
            connection.transport.abort()
        await eventually(lambda: not cut & self._all)

    async def close(self, code: int) -> None:
        """Close all connections."""
        for connection in list(self._all):
            await connection.close(code)

    def sent(self, event: str) -> list[Any]:
        """The data of all that came with an event."""
        return [message["data"] for message in self.received if message["event"] == event]

    # --- what it does

    async def handle(self, connection: ServerConnection) -> None:
        """Serve a connection until it ends."""
        self._all.add(connection)
        given = list(self.given)
        try:
            async for text in connection:
                message = json.loads(text)
                self.received.append(message)
                for room in given:
                    await self._let_in(connection, room, (message.get("data") or {}).get("streams", {}))
                given.clear()
                if message["event"] == "$ping":
                    await _send(connection, {"event": "$pong", "data": 1})
                else:
                    await self._answer(connection, message)
        except ConnectionClosed:
            pass
        finally:
            self._all.discard(connection)
            for members in self._members.values():
                members.discard(connection)

    async def _let_in(self, connection: ServerConnection, room: str, streams: dict[str, int]) -> None:
        self._members.setdefault(room, set()).add(connection)
        for id_, said in self.streams.items() if self.brings else ():
            if said.room == room:
                await self._send_rest(connection, id_, streams.get(id_, 0))

    async def _send_rest(self, connection: ServerConnection, id_: str, start: int) -> None:
        said = self.streams[id_]
        rest = said.piece(id_, start)
        (kind,) = {"text", "items"} & rest.keys()
        if not rest[kind] and not said.end:
            return
        for at in range(0, max(1, len(rest[kind])), self.most):
            piece = {**rest, "from": start + at, kind: rest[kind][at : at + self.most]}
            if at + self.most < len(rest[kind]):
                piece.pop("end", None)
            await _send(connection, {"event": "stream", "data": piece, "room": said.room})

    async def _answer(self, connection: ServerConnection, message: dict[str, Any]) -> None:
        event: str = message["event"]
        data: dict[str, Any] = message.get("data") or {}
        answer: dict[str, Any] = {"event": "reply", "id": message.get("id"), "data": {}}
        failures = self.failures.get(event)
        if self.mute and event == "join":
            return
        if failures or (event == "stream_read" and data["id"] not in self.streams):
            code = failures.pop(0) if failures else "NOT_FOUND"
            await _send(connection, {**answer, "event": "error", "data": {"code": code, "message": code}})
            return
        if event == "leave":
            self._members[data["room"]].discard(connection)
        await _send(connection, answer)
        if event == "join":
            await self._let_in(connection, data["room"], data.get("streams", {}))
        elif event == "stream_read":
            await self._send_rest(connection, data["id"], data["from"])
        elif event == "stream_cancel":
            await self.say(data["id"], "", "cancelled")


async def _send(connection: ServerConnection, message: dict[str, Any]) -> None:
    await connection.send(json.dumps(message))


@asynccontextmanager
async def streaming() -> AsyncIterator[Streaming]:
    """Such a server, until the end of the block."""
    found = Streaming()
    async with serve(found.handle, "127.0.0.1", 0, close_timeout=0.1) as server:
        found.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/ws"
        yield found
