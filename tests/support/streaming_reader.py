"""A reader of one stream who may say that it has any part of it, and keeps what is wrong with what it gets then."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support import DEADLINE

__all__ = ["StreamingReader"]


class StreamingReader:
    """A client that is in a room, or not.

    Attributes:
        text: what it has.
        end: the end, if it was told.
        place: the number of the node where it is, or was last.
        is_in: whether it is in the room.
        faults: what was wrong.
    """

    def __init__(self, id_: str) -> None:
        self.text = ""
        self.end: str | None = None
        self.place = 0
        self.is_in = False
        self.faults: list[str] = []
        self._id = id_
        self._ws: ClientConnection | None = None
        self._reading: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)
        self._asked: dict[int, tuple[str | None, asyncio.Future[None]]] = {}

    def __str__(self) -> str:
        where = f"in the room on node {self.place}" if self.is_in else "elsewhere"
        return f"{where}: {self.text!r}, {self.end}; {self.faults}"

    @property
    def is_open(self) -> bool:
        """Whether it is connected."""
        return self._ws is not None

    async def open(self, port: int, place: int) -> None:
        """Connect to a node."""
        self._ws = await connect(f"ws://127.0.0.1:{port}/ws", proxy=None, compression=None)
        self._reading = asyncio.create_task(self._read(self._ws))
        self.place = place

    def cut(self) -> None:
        """Lose the connection."""
        if self._ws is not None and self._reading is not None:
            self._ws.transport.abort()
            self._reading.cancel()
        self._ws = None
        self.is_in = False

    async def join(self, room: str, text: str) -> None:
        """Join a room, and have so much of the stream."""
        await self._ask("join", {"room": room, "streams": {self._id: len(text)}}, text)
        self.is_in = True

    async def leave(self, room: str) -> None:
        """Leave the room."""
        await self._ask("leave", {"room": room})
        self.is_in = False

    async def read(self, room: str, text: str) -> None:
        """Ask for what follows so much of the stream."""
        await self._ask("stream_read", {"id": self._id, "from": len(text)}, text, room=room)

    async def _ask(self, event: str, data: Any, text: str | None = None, **more: Any) -> None:
        assert self._ws is not None
        number = next(self._numbers)
        future = asyncio.get_running_loop().create_future()
        self._asked[number] = text, future
        await self._ws.send(json.dumps({"event": event, "data": data, "id": number, **more}))
        async with asyncio.timeout(DEADLINE):
            await future

    async def _read(self, ws: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for said in ws:
                self._take(json.loads(said))

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            text, future = self._asked.pop(message["id"])
            if message["event"] != "reply":
                self.faults.append(f"it was answered {message}")
            if text is not None:  # from here on comes what follows that
                self.text, self.end = text, None
            future.set_result(None)
        elif message["event"] == "stream":
            data = message["data"]
            if data["from"] != len(self.text) or self.end is not None:
                self.faults.append(f"behind {self.text!r}, {self.end} there came {data}")
            self.text += data["text"]
            self.end = data.get("end")
