"""Readers of answers who lose their connections and come back, and the books of what each was told of every answer."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import time
from collections.abc import Sequence
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.answers import text
from tests.support.returning import AGAIN, Denied, Served
from tests.support.talking import LOST

__all__ = ["Known", "Reader", "Voice"]

PATIENCE = 30.0
"""Seconds that anything may take here, on a machine that does other things."""


class Known:
    """What a reader has of an answer.

    Attributes:
        length: characters.
        end: how it has ended, as it was told.
        ended_at: when it was told, in the time of `time.monotonic`.
        connected_at: since when it was connected then.
        node: to which node.
    """

    __slots__ = ("connected_at", "end", "ended_at", "length", "node")

    def __init__(self) -> None:
        self.length = 0
        self.end: str | None = None
        self.ended_at = self.connected_at = 0.0
        self.node: Served | None = None


class _Connection:
    """A WebSocket, and what was asked by it."""

    def __init__(self) -> None:
        self._ws: ClientConnection | None = None
        self._reading: asyncio.Task[None] | None = None
        self._ids = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}

    @property
    def is_open(self) -> bool:
        """Whether it is connected, as far as it knows."""
        return self._reading is not None and not self._reading.done()

    async def open(self, where: Served) -> None:
        """Connect."""
        url = f"ws://127.0.0.1:{where.port}/ws"
        self._ws = await connect(url, proxy=None, open_timeout=5, max_queue=None, max_size=None, compression=None)
        self._reading = asyncio.create_task(self._read(self._ws))

    async def gone(self) -> None:
        """Wait until the connection is over."""
        assert self._reading is not None
        await asyncio.wait([self._reading])

    def cut(self) -> None:
        """Lose the connection, at once."""
        if self._ws is not None and self._reading is not None:
            self._ws.transport.abort()
            self._reading.cancel()

    async def ask(self, event: str, data: Any = None) -> Any:
        """Send a request, and wait for its answer.

        Raises:
            Denied: it is an error.
            ConnectionClosed, ConnectionResetError: the connection ended before.
            TimeoutError: there is no answer.
        """
        assert self._ws is not None
        number = next(self._ids)
        future = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            await self._ws.send(json.dumps({"event": event, "data": data, "id": number}))
            answer = await asyncio.wait_for(future, PATIENCE)
        finally:
            self._asked.pop(number, None)
        if answer["event"] == "error":
            raise Denied(answer["data"])
        return answer["data"]

    def take(self, message: dict[str, Any]) -> None:
        """Take what is no answer."""

    async def _read(self, ws: ClientConnection) -> None:
        try:
            with contextlib.suppress(ConnectionClosed):
                async for said in ws:
                    message = json.loads(said)
                    future = self._asked.get(message.get("id"))
                    if future is not None and not future.done():
                        future.set_result(message)
                    self.take(message)
        finally:
            for future in self._asked.values():
                if not future.done():
                    future.set_exception(ConnectionResetError("it is over"))
                    future.exception()  # which nobody may look at who has stopped waiting


class Reader(_Connection):
    """A client that reads the answers of its rooms, and checks each message of them.

    Attributes:
        name: what reports call it.
        rooms: its rooms.
        known: what it has of each answer, by the ids.
        faults: what was wrong.
        messages: how many messages of answers it got.
        returns: how often it came back.
        node: the one it is on, or was last.
        connected_at: since when.
    """

    def __init__(self, name: str, rooms: Sequence[str]) -> None:
        super().__init__()
        self.name = name
        self.rooms = rooms
        self.known: dict[str, Known] = {}
        self.faults: list[str] = []
        self.messages = self.returns = 0
        self.node: Served | None = None
        self.connected_at = 0.0
        self._room_of: dict[str, str] = {}

    async def live(self, nodes: Sequence[Served], chance: random.Random, pause: float) -> None:
        """Be in the rooms, on any of these nodes; come back whenever the connection is lost."""
        while True:
            with contextlib.suppress(*LOST):
                self.node = chance.choice(nodes)
                await self.open(self.node)
                for room in self.rooms:
                    await self._join(room)
                self.connected_at = time.monotonic()
                await self.gone()
            self.cut()
            self.connected_at = float("inf")
            self.returns += 1
            await asyncio.sleep(chance.uniform(0.02, pause))

    async def _join(self, room: str) -> None:
        while True:
            has = {id_: known.length for id_, known in self.known.items() if self._room_of[id_] == room}
            try:
                await self.ask("join", {"room": room, "streams": has})
            except Denied as denied:
                if denied.code not in AGAIN:
                    raise
                await asyncio.sleep(0.2)
            else:
                return

    def take(self, message: dict[str, Any]) -> None:
        """See `_Connection.take`."""
        if message["event"] != "stream":
            return
        self.messages += 1
        data = message["data"]
        id_, start, said, end = data["id"], data["from"], data["text"], data.get("end")
        known = self.known.setdefault(id_, Known())
        if self._room_of.setdefault(id_, message["room"]) != message["room"]:
            self._fault(id_, f"it comes in {message['room']}, too")
        if start != known.length:
            self._fault(id_, f"it has {known.length} characters, and gets what follows {start}: {end}")
        if text(id_)[start : start + len(said)] != said:
            self._fault(id_, f"this is not what was said behind {start}: {said[:50]!r}")
        if known.end is not None and (said or end != known.end):
            self._fault(id_, f"it had ended as {known.end}, and there comes {said[:50]!r}, {end}")
        known.length = start + len(said)
        if end is not None and known.end is None:
            known.end, known.ended_at = end, time.monotonic()
            known.node, known.connected_at = self.node, self.connected_at

    def _fault(self, id_: str, what: str) -> None:
        self.faults.append(f"{self.name}, {id_}: {what}")


class Voice(_Connection):
    """Asks one node, or another, until it is answered."""

    def __init__(self, node: Served) -> None:
        super().__init__()
        self._node = node
        self._opening = asyncio.Lock()

    async def insist(self, event: str, data: Any) -> Any:
        """Ask, as often as there is no connection, or the node cannot do it now.

        Raises:
            Denied: for another reason.
        """
        while True:
            try:
                async with self._opening:
                    if not self.is_open:
                        await self.open(self._node)
                return await self.ask(event, data)
            except Denied as denied:
                if denied.code not in AGAIN:
                    raise
            except LOST:
                pass
            await asyncio.sleep(0.2)
