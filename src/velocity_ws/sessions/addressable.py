"""Addressable: the half of `Session` that hub and client use: sending, rooms, user. Knows no beginning or end."""

from __future__ import annotations

import asyncio
import functools
from datetime import datetime
from typing import Any, Final, Protocol

from velocity_ws.delivery.outbox import Outbox
from velocity_ws.hooks.registry import REFRESH
from velocity_ws.messages.events import encode_left, is_of_rooms, reserved
from velocity_ws.messages.inbound import Malformed, Message, decode
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.sessions.client import Client
from velocity_ws.sessions.context import NodeContext
from velocity_ws.sessions.inbox import Inbox
from velocity_ws.sessions.logins import Login
from velocity_ws.sessions.moves import Moves
from velocity_ws.sessions.pacing import PACED
from velocity_ws.sessions.state import OPEN, SessionState

__all__ = ["NO_ROOMS", "Addressable"]

NO_ROOMS: Final[frozenset[str]] = frozenset()
"""One for all: each further empty one would take 232 bytes of its own."""
MAX_LOST = 16
"""Ranges of a room's messages that a client was too slow for, and that it can have later."""


class ReturningClient(Protocol):
    """A client that may have been connected before. On the broker's loop only."""

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids that it had then, as it has proved."""

    @property
    def token(self) -> str | None:
        """What it proves its ids with the next time, if that is known."""


class Addressable:
    """A member of the hub, and what a `Client` sends by. On the broker's loop only.

    Attributes:
        client: what the application sees of it.
        id: the client's.
        state: where the session stands; only the session changes it.
        outbox: where messages to the client go; ``None`` before it is open and at the end.
        inbox: what the client has sent.
        moves: what the hooks are told of the rooms it joins and leaves; ``None`` until there is something to tell.
        asking: bounds the question whether it may be in a room, for which its messages wait; ``None`` without one.
        returning: what it says of its connections before; ``None`` where it says nothing.
        starts: its places in logs when the application put it into rooms, until it asks for what was before; ``None``
            for one that the engine has yet to say.
        lost: what it did not get of rooms with history, as it was told; see `take_lost`.
        own_rooms: the rooms that it has asked to be in, and how many times it is asking now; ``None`` until it does.
    """

    __slots__ = (
        "_context", "_last_rooms", "asking", "client", "id", "inbox", "lost", "moves", "outbox", "own_rooms",
        "returning", "starts", "state",
    )  # fmt: skip

    inbox: Inbox

    def __init__(self, context: NodeContext[Any], client: Client) -> None:
        self._context = context
        self.state = SessionState.NEW
        self._last_rooms = NO_ROOMS
        self.client = client
        self.id = client.id
        self.outbox: Outbox | None = None
        self.moves: Moves | None = None
        self.asking: asyncio.Timeout | None = None
        self.own_rooms: dict[str, int] | None = None
        self.returning: ReturningClient | None = None
        self.lost: dict[str, list[tuple[str, str]]] | None = None
        self.starts: dict[str, Any] | None = None

    @property
    def is_connected(self) -> bool:
        """Whether messages can still be sent."""
        return self.state is OPEN

    @property
    def user_id(self) -> str | None:
        """The id of the client's user; ``None`` where it has none."""
        return self.client._user_id

    @property
    def login(self) -> Login | None:
        """The client's login, if it ends."""
        return self.client._login

    @property
    def ids(self) -> frozenset[str]:
        """The client's id, and those that it had in earlier connections, as it has proved."""
        return frozenset((self.id,)) if self.returning is None else frozenset((self.id, *self.returning.ids))

    @property
    def token(self) -> str | None:
        """What the client proves its ids with the next time; ``None`` where it has asked for none."""
        return None if self.returning is None else self.returning.token

    @property
    def asks_to_renew(self) -> bool:
        """Whether a ``refresh`` of the client waits, behind a handler that takes long."""
        return self.inbox.has_waiting(REFRESH)

    @property
    def rooms(self) -> frozenset[str]:
        """The rooms the client is in, or was in when it left."""
        if self.state is OPEN:
            return self._context.hub.rooms_of(self.id)
        return self._last_rooms

    @property
    def is_told_of_rooms(self) -> bool:
        """Whether events that tell clients of their rooms are for no application to send. From any thread."""
        return self._context.kinds.tells_of_rooms

    def joined(self, room: str) -> asyncio.Future[None] | None:
        """Tell the hooks, if there are any, that it came into a room; what is done when they are told."""
        if not self._context.dispatcher.tells_moves(room):
            return None
        if self.moves is None:
            self.moves = Moves(self._context, self.client)
        return self.moves.joined(room)

    def left(self, room: str) -> asyncio.Future[None] | None:
        """Tell the hooks that it left a room, if they were told that it came; what is done when they are told."""
        for of_room in (self.lost, self.starts):
            if of_room is not None:
                of_room.pop(room, None)
        return None if self.moves is None else self.moves.left(room)

    def put_out(self, room: str, why: str) -> None:
        """It may not be in a room any more, which it leaves now: end what it does there, and tell it why."""
        if self.inbox.concurrent is not None:
            self.inbox.concurrent.cancel_in(room)
        self.offer(encode_left(room, why))

    def offer(self, message: PreparedMessage) -> bool:
        """Queue a message; false, and counted, where the client is gone or too slow."""
        outbox = self.outbox
        if outbox is None or self.state is not OPEN:
            self._context.counters.dropped += 1
            return False
        if message.size > self._context.warn_size:
            self._context.hints.large(message)
        return outbox.offer(message)

    def outbox_lost(self, room: str, before: str, at: str) -> None:
        """The client is told that it did not get messages of a room with history between two positions."""
        if self.lost is None:
            self.lost = {}
        ranges = self.lost.setdefault(room, [])
        if len(ranges) <= MAX_LOST:
            ranges.append((before, at))

    def take_lost(self, room: str) -> list[tuple[str, str]]:
        """What the client did not get of a room, as it was told: positions, each of before and at the last; more than
        `MAX_LOST`, where there is more than can be had. It is not said twice."""
        return [] if self.lost is None else self.lost.pop(room, [])

    def put_back_lost(self, room: str, ranges: list[tuple[str, str]]) -> None:
        """What `take_lost` has said was not given to the client, which is in the room still: it may ask again."""
        if self.lost is not None and room in self.rooms:
            self.lost[room] = [*ranges, *self.lost.get(room, ())][: MAX_LOST + 1]

    async def put(self, message: PreparedMessage | None, seconds: float) -> bool:
        """Queue a message once nothing else waits for the client, or only wait; false, and counted, where it has gone.

        Raises:
            TimeoutError: it took too long.
        """
        if self.state is not OPEN or self.outbox is None:
            self._context.counters.dropped += message is not None
            return False
        if message is not None and message.size > self._context.warn_size:
            self._context.hints.large(message)
        return await self.outbox.put(message, seconds)

    async def ask(self, question_id: str, question: PreparedMessage, seconds: float) -> Message | Malformed | None:
        """Send a question, and wait for its answer; ``None`` where the client has gone.

        Raises:
            TimeoutError: it did not answer in time, or reads so slowly that the question was dropped.
            BrokerError: too many questions to it are open.
            InvalidNameError: its event is one that only this package sends.
        """
        if is_of_rooms(question) and self.is_told_of_rooms:
            raise reserved()
        if self.state is not OPEN:
            self._context.counters.dropped += 1
            return None
        asks = self.inbox.begin_asking()
        text = await asks.ask(question_id, functools.partial(self.offer, question), seconds)
        if text is None:
            if self.state is OPEN:
                raise TimeoutError
            return None
        pace, size = self._context.pace, len(text)
        if size >= PACED and not pace.take(size):
            await pace.turn(size)
        return decode(text)

    async def ping(self) -> float | None:
        """Round trip of a ping in seconds; ``None`` where the server offers no pings."""
        return None if self.outbox is None else await self.outbox.ping()

    async def set_user(self, user: Any, expires_at: datetime | None) -> None:
        """Make the client another user's, or nobody's."""
        await self._context.set_user(self, user, expires_at)
