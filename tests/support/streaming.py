"""What the tests of streams share: rooms to read in, a reader that puts a stream together, sources to wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

from tests.support import DEADLINE, Peer
from velocity_ws import Broker, Client

__all__ = ["ROOM", "Gate", "Reading", "chat", "join", "read", "said"]

ROOM = "chat:7"


def chat(broker: Broker) -> None:
    """Rooms into which everybody may come but who is banned; whose streams only an admin may stop."""
    kind = broker.rooms("chat:{chat_id}")
    broker.rooms("quiet:{chat_id}").authorize(_anybody)

    @broker.authenticate
    async def authenticate(request: Any) -> str | None:
        name: str | None = request.query_params.get("user")
        return name

    kind.authorize(_anybody)

    @kind.on_cancel
    async def may_cancel(client: Client, stream_id: str) -> bool:
        return client.user_id == "admin" and stream_id != "kept"

    @broker.on_connect
    async def welcome(client: Client) -> None:
        if "room" in client.request.query_params:
            await broker.join_room(client.id, client.request.query_params["room"])


async def _anybody(client: Client) -> bool:
    return client.user_id != "banned"


async def join(peer: Peer, room: str = ROOM, streams: dict[str, int] | None = None) -> Any:
    """Have a client join a room; what it is answered."""
    data: dict[str, Any] = {"room": room} if streams is None else {"room": room, "streams": streams}
    answer = await peer.request("join", data)
    assert answer["event"] == "reply", answer
    return answer["data"]


class Reading:
    """What one reader has of a stream; every message has to follow the one before.

    Attributes:
        text: what it has, where it is text.
        items: the same of items.
        end: how the stream has ended, as it was told.
        messages: how many messages it took.
    """

    def __init__(self, id_: str, text: str = "", room: str = ROOM) -> None:
        self.id = id_
        self.room = room
        self.text = text
        self.items: list[Any] = []
        self.end: str | None = None
        self.messages = 0

    def take(self, message: dict[str, Any]) -> None:
        """Take a message of the stream."""
        assert message["event"] == "stream", message
        assert message["room"] == self.room, message
        data = message["data"]
        assert data["id"] == self.id, data
        assert self.end is None, data
        self.messages += 1
        assert data["from"] == (len(self.items) or len(self.text)), (data, len(self.text), len(self.items))
        self.text += data.get("text", "")
        self.items += data.get("items", [])
        self.end = data.get("end")

    async def follow(self, peer: Peer, until: int | None = None) -> Reading:
        """Read on until the stream ends, or until there are so many characters or items."""
        while self.end is None and (until is None or len(self.text) + len(self.items) < until):
            self.take(await peer.receive())
        return self


async def read(peer: Peer, id_: str, room: str = ROOM) -> Reading:
    """Read a stream to its end, in a room where there is no other."""
    return await Reading(id_, room=room).follow(peer)


class Gate:
    """A source that says what it is told to, when it is told to.

    Attributes:
        is_cancelled: set when it got a CancelledError.
    """

    def __init__(self) -> None:
        self._said: asyncio.Queue[Any] = asyncio.Queue()
        self.began = asyncio.Event()
        self.is_cancelled = asyncio.Event()

    def say(self, *said: Any) -> None:
        """Have it say something next."""
        for each in said:
            self._said.put_nowait(each)

    def end(self, error: BaseException | None = None) -> None:
        """Have it end, or raise."""
        self._said.put_nowait(StopAsyncIteration() if error is None else error)

    async def source(self) -> AsyncIterator[Any]:
        """What is to be said."""
        self.began.set()
        try:
            while True:
                said = await self._said.get()
                if isinstance(said, StopAsyncIteration):
                    return
                if isinstance(said, BaseException):
                    raise said
                yield said
        except asyncio.CancelledError:
            self.is_cancelled.set()
            raise

    async def cancelled(self) -> None:
        """Wait until it got a CancelledError."""
        async with asyncio.timeout(DEADLINE):
            await self.is_cancelled.wait()


async def said(parts: Iterable[Any]) -> AsyncIterator[Any]:
    """A source that says these, one after the other."""
    for part in parts:
        yield part
