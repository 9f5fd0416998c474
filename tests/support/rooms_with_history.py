"""A small server of rooms with history that does what it is told to, and what a real one does once in a thousand times.

It speaks what docs/wire.md says of such rooms, and keeps every message it gets. Knows no client.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.support import eventually

__all__ = ["History", "history"]


class History:
    """The server.

    Attributes:
        url: where it is.
        logs: the messages of each room, the oldest first.
        received: what each connection has sent, in order.
        given: the rooms that connections are put into as they come.
        tokens: whether connections are told one.
        waits: whether connections may say where they stopped before they are put into rooms.
        failures: what the next joins are answered in place of success: the data of `error`.
        lost: why the next joins with a position do not recover.
        dropping: whether what is said now is dropped for those who are there.
        mute: whether joins are not answered, and nobody is put into rooms.
        remembers: whether rooms have history.
        queries: the query of each connection.
    """

    def __init__(self) -> None:
        self.url = ""
        self.logs: dict[str, list[dict[str, Any]]] = {}
        self.received: list[list[dict[str, Any]]] = []
        self.given: list[str] = []
        self.tokens = self.waits = True
        self.failures: list[dict[str, Any]] = []
        self.lost: list[str] = []
        self.dropping = self.mute = False
        self.remembers = True
        self.queries: list[str] = []
        self._numbers = itertools.count(1)
        self._members: dict[str, set[ServerConnection]] = {}
        self._dropped: dict[str, list[dict[str, Any]]] = {}

    # --- what is told to do

    async def say(self, room: str, data: Any, event: str = "said") -> str:
        """Say something in a room; its position."""
        message = {"event": event, "data": data, "room": room, "at": f"{room}-{next(self._numbers)}"}
        self.logs.setdefault(room, []).append(message)
        if self.dropping:
            self._dropped.setdefault(room, []).append(message)
        else:
            await self.tell(message, room)
        return str(message["at"])

    async def tell(self, message: dict[str, Any], room: str | None = None) -> None:
        """Send a message to the members of a room, or to all."""
        members = self._members.get("" if room is None else room, set())
        for connection in list(members):
            await _send(connection, message)

    async def gap(self, room: str, reason: str) -> None:
        """Tell members that something of a room is lost: what was dropped, or all that there was."""
        self.dropping = False
        missed = self._dropped.get(room, [])
        count = len(missed) if reason == "dropped" else None
        data = {"room": room, "reason": reason, "missed": count, "at": self.top(room)}
        if missed:
            data["from"] = self._before(room, missed[0])
        await self.tell({"event": "gap", "data": data}, room)

    async def cut(self) -> None:
        """End all connections without a word."""
        cut = set(self._members.get("", ()))
        for connection in cut:
            connection.transport.abort()
        await eventually(lambda: not cut & self._members.get("", set()))

    def top(self, room: str) -> str:
        """The position behind all that was said in a room."""
        log = self.logs.get(room)
        return str(log[-1]["at"]) if log else f"{room}-0"

    def sent(self, event: str) -> list[Any]:
        """The data of all that came with an event."""
        return [message["data"] for said in self.received for message in said if message["event"] == event]

    # --- what it does

    def _before(self, room: str, message: dict[str, Any]) -> str:
        index = self.logs[room].index(message)
        return str(self.logs[room][index - 1]["at"]) if index else f"{room}-0"

    async def handle(self, connection: ServerConnection) -> None:
        """Serve a connection until it ends."""
        assert connection.request is not None
        self.queries.append(connection.request.path.partition("?")[2])
        number = len(self.received)
        self.received.append([])
        self._members.setdefault("", set()).add(connection)
        held = list(self.given)
        if self.tokens:
            await _send(connection, {"event": "session", "data": {"token": f"token-{number}"}})
        if not self.waits:
            await self._let_in(connection, held, {})
            held = []
        try:
            async for text in connection:
                message = json.loads(text)
                self.received[-1].append(message)
                if held and not self.mute:
                    positions = message["data"]["rooms"] if message["event"] == "resume" else {}
                    await self._let_in(connection, held, positions)
                    held = []
                await self._answer(connection, number, message)
        except ConnectionClosed:
            pass
        finally:
            for members in self._members.values():
                members.discard(connection)

    async def _let_in(self, connection: ServerConnection, rooms: list[str], positions: dict[str, str]) -> None:
        for room in rooms:
            answer, missed = self._enter(room, positions.get(room))
            self._members.setdefault(room, set()).add(connection)
            await _send(connection, {"event": "joined", "data": answer})
            for message in missed:
                await _send(connection, message)

    def _enter(self, room: str, since: str | None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        if not self.remembers:
            return {"room": room}, []
        if since is None:
            return {"room": room, "at": self.top(room)}, []
        if self.lost:
            return {"room": room, "at": self.top(room), "recovered": False, "reason": self.lost.pop(0), "missed": 0}, []
        log = self.logs.get(room, [])
        places = [f"{room}-0", *[message["at"] for message in log]]
        missed = log[places.index(since) :]
        return {"room": room, "at": since, "recovered": True, "missed": len(missed)}, missed

    async def _answer(self, connection: ServerConnection, number: int, message: dict[str, Any]) -> None:
        event: str = message["event"]
        data: dict[str, Any] = message.get("data") or {}
        id_ = message.get("id")
        missed: list[dict[str, Any]] = []
        answer: Any = {}
        if event == "$ping":
            await _send(connection, {"event": "$pong", "data": 1})
            return
        if event in ("join", "resume") and self.mute:
            return
        if event == "resume":
            if data.get("session"):
                token = f"{data['session']}+{number}"
                await _send(connection, {"event": "session", "data": {"token": token}})
        elif event == "join" and self.failures:
            await _send(connection, {"event": "error", "id": id_, "data": self.failures.pop(0)})
            return
        elif event == "join":
            room = data["room"]
            members = self._members.setdefault(room, set())
            answer, missed = self._enter(room, data.get("since"))
            if connection in members and not answer.get("reason"):
                missed = self._dropped.pop(room, [])
                answer |= {"missed": len(missed)}
            members.add(connection)
        elif event == "leave":
            self._members.setdefault(data["room"], set()).discard(connection)
        await _send(connection, {"event": "reply", "id": id_, "data": answer})
        for each in missed:
            await _send(connection, each)


async def _send(connection: ServerConnection, message: dict[str, Any]) -> None:
    await connection.send(json.dumps(message))


@asynccontextmanager
async def history() -> AsyncIterator[History]:
    """Such a server, until the end of the block."""
    found = History()
    async with serve(found.handle, "127.0.0.1", 0, close_timeout=0.1) as server:
        found.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/ws"
        yield found
