"""A broker of this process whose rooms remember, on an engine that a test counts the calls of, holds, and lets fail."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from starlette.requests import HTTPConnection

from tests.support import DEADLINE, settings
from tests.support.local import LocalTransport
from velocity_ws import Broker, Client, History
from velocity_ws.asgi.admission import Admission
from velocity_ws.asgi.app import serve_client
from velocity_ws.close import Close
from velocity_ws.history.histories import Histories
from velocity_ws.history.items import Append, Appended, Log, Lookup, Query, Range, Refused, Removal, Top
from velocity_ws.history.memory import MemoryHistory
from velocity_ws.sessions.session import Session

ROOM = "chat:7"
_numbers = itertools.count(1)


class HeldHistory(MemoryHistory):
    """The engine of this process, in front of which calls wait, or fail, where a test says so.

    Attributes:
        calls: how often each method was called.
        failing: the methods that fail, as those of an engine that refuses all.
    """

    append_now = None  # type: ignore[assignment] # it is waited for, as an engine is

    def __init__(self, url: str | None = None, clock: Callable[[], float] = time.time) -> None:
        super().__init__(f"memory://held-{next(_numbers)}" if url is None else url, clock)
        self.calls: Counter[str] = Counter()
        self.failing: set[str] = set()
        self._gates: dict[str, asyncio.Event] = {}
        self._answers: dict[str, asyncio.Event] = {}
        self._lost: Callable[[Exception], None] | None = None

    def hold(self, name: str) -> None:
        """Let calls of a method wait from now on."""
        self._gates[name] = asyncio.Event()

    def hold_answers(self, name: str) -> None:
        """Let answers of `tops` or `read` wait from now on, which may be old when they come."""
        self._answers[name] = asyncio.Event()

    def let_go(self, name: str) -> None:
        """Let those go on that wait, and all that come."""
        for gates in (self._gates, self._answers):
            if name in gates:
                gates.pop(name).set()

    def forget(self) -> None:
        """Lose all logs, while nobody notices."""
        engine = self._connected()
        engine._logs.clear()
        engine._dues.clear()

    def lose(self) -> None:
        """Lose the connection; another one cannot be made while ``connect`` is failing."""
        assert self._lost is not None
        self._lost(ConnectionError("it is gone"))

    async def _pass(self, name: str) -> None:
        self.calls[name] += 1
        if name in self._gates:
            await self._gates[name].wait()
        if name in self.failing:
            raise ConnectionError("it fails") if name == "connect" else Refused("engine", "it fails")

    async def _answered(self, name: str) -> None:
        if name in self._answers:
            await self._answers[name].wait()

    async def connect(self, lost: Callable[[Exception], None]) -> None:
        await self._pass("connect")
        self._lost = lost
        await super().connect(lost)

    async def append(self, appends: Sequence[Append]) -> list[Appended | Refused]:
        await self._pass("append")
        return await super().append(appends)

    async def tops(self, logs: Sequence[Log]) -> list[Top | Refused]:
        await self._pass("tops")
        found = await super().tops(logs)
        await self._answered("tops")
        return found

    async def read(self, queries: Sequence[Query]) -> list[Range | Refused]:
        await self._pass("read")
        found = await super().read(queries)
        await self._answered("read")
        return found

    async def remove(self, removals: Sequence[Removal]) -> list[Top | Refused]:
        await self._pass("remove")
        return await super().remove(removals)

    async def removed(self, lookups: Sequence[Lookup]) -> list[int]:
        await self._pass("removed")
        return await super().removed(lookups)

    async def secret(self, name: str) -> bytes:
        await self._pass("secret")
        return await super().secret(name)

    async def keep(self, name: str, value: bytes) -> None:
        await self._pass("keep")
        await super().keep(name, value)


class Guest:
    """A client of this process."""

    def __init__(self, transport: LocalTransport, session: Session) -> None:
        self.transport = transport
        self.session = session

    async def say(self, event: str, data: Any = None, **more: Any) -> None:
        """Send a message."""
        await self.transport.up.put(msgspec.json.encode({"event": event, "data": data, **more}).decode())

    async def take(self) -> Any:
        """The next message."""
        async with asyncio.timeout(DEADLINE):
            taken = await self.transport.take()
        assert not isinstance(taken, Close), taken
        return msgspec.json.decode(taken)

    async def expect(self, event: str) -> Any:
        """The data of the next message, which is of an event."""
        message = await self.take()
        assert message["event"] == event, message
        return message["data"]

    async def join(self, room: str = ROOM, since: Any = None) -> Any:
        """What is answered to a join: the data, or that of an error."""
        await self.say("join", {"room": room} if since is None else {"room": room, "since": since}, id=1)
        message = await self.take()
        assert message.get("id") == 1, message
        return message["data"]

    async def reads(self, count: int) -> list[Any]:
        """The data of the messages that come next."""
        return [await self.expect("said") for _ in range(count)]


class House:
    """A broker with rooms that remember, and its engine."""

    def __init__(self, broker: Broker, store: HeldHistory) -> None:
        self.broker = broker
        self.store = store
        self.admission = Admission(broker.node)

    @property
    def histories(self) -> Histories:
        """What its rooms remember."""
        assert self.broker.node.histories is not None
        return self.broker.node.histories

    @asynccontextmanager
    async def guest(self, query: str = "") -> AsyncIterator[Guest]:
        """A client that connects."""
        scope = {"type": "http", "path": "/", "query_string": query.encode(), "headers": [(b"host", b"x")]}
        transport = LocalTransport()
        task = asyncio.create_task(serve_client(self.broker.node, self.admission, HTTPConnection(scope), transport))
        assert await transport.answer is None
        try:
            yield Guest(transport, transport.session)
        finally:
            transport.hang_up(Close(1000, "", "client"))
            await task

    async def say(self, *data: Any, room: str = ROOM) -> str:
        """Send messages to a room; the position of the last."""
        sent = None
        for each in data:
            sent = await self.broker.to_room(room).send("said", each)
        assert sent is not None
        assert sent.at is not None
        return sent.at


def open_to_all(broker: Broker) -> None:
    """Rooms that remember ten messages, ones that remember the newest, ones to look back into, and ones that do not."""

    async def anybody(client: Client, room: str) -> bool:
        return not (client.request.query_params.get("user") == "banned" and room == ROOM)

    for kind in (
        broker.rooms("chat:{name}", history=History(size=10, ttl="1m")),
        broker.rooms("price:{name}", history=History(mode="latest", ttl="1m")),
        broker.rooms("open:{name}", history=History(size=10, ttl="1m"), rewind=True),
        broker.rooms("plain:{name}"),
    ):
        kind.authorize(anybody)


@asynccontextmanager
async def house(
    monkeypatch: pytest.MonkeyPatch,
    prepare: Callable[[Broker], None] = open_to_all,
    *,
    clock: Callable[[], float] = time.time,
    store: HeldHistory | None = None,
    timeout: str = "5s",
    **values: Any,
) -> AsyncIterator[House]:
    """A broker that runs, alone, with an engine that the test has at hand."""
    found = HeldHistory(clock=clock) if store is None else store
    monkeypatch.setattr("velocity_ws.broker.wiring.create_history", lambda _url: found)
    broker = Broker(settings(backplane_timeout=timeout, **values))
    prepare(broker)
    async with broker:
        yield House(broker, found)
