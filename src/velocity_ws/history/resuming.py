"""Resuming: connections that say where they stopped in rooms that the application puts them into as they connect.

Such a room's messages are held until the connection's first message, which says it, or for a moment. Knows no log.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any

from velocity_ws.concurrency.schedule import Schedule
from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.history.catching_up import CatchingUp
from velocity_ws.history.feeds import Feeds
from velocity_ws.history.positions import InvalidPosition, Position
from velocity_ws.history.recoveries import Entrance, Recoveries, Since, came_at
from velocity_ws.history.values import Joined
from velocity_ws.messages.events import REPLY, encode_joined, encode_session
from velocity_ws.messages.inbound import Malformed, decode, head_of
from velocity_ws.messages.outbound import PreparedMessage, encode
from velocity_ws.sessions.holds import Hold
from velocity_ws.sessions.resume import First, Resume
from velocity_ws.sessions.session import Session
from velocity_ws.sessions.token import seal, unseal

__all__ = ["Resumptions", "Returning"]

PATIENCE = 1.0
"""Seconds after the ``on_connect`` hooks in which a connection may say where it stopped."""
AGAIN = 0.5
"""Seconds until it is tried again, where the engine did not answer."""


class Returning:
    """One connection that has announced that it may say where it stopped. On the broker's loop only.

    Attributes:
        ids: the ids that the client had in earlier connections, as it has proved.
        token: what it proves its ids with the next time; ``None`` where the engine has not said the key yet.
        is_waiting: whether it may still say where it stopped.
    """

    __slots__ = ("_all", "_has_said", "_held", "_is_greeting", "_session", "ids", "is_waiting")

    def __init__(self, all_: Resumptions, session: Session) -> None:
        self._all = all_
        self._session = session
        self.ids: tuple[str, ...] = ()
        self.is_waiting = True
        self._has_said = False
        self._is_greeting = True
        self._held: dict[str, Hold[Session]] = {}

    @property
    def token(self) -> str | None:
        """What the client proves its ids with the next time."""
        return self._all.token_of(self._session.id, self.ids)

    def came(self, entrance: Entrance) -> None:
        """The application has put the client into a room; it is told where it stands, now or when nothing is held."""
        hold = entrance.hold
        if hold is None or hold.is_over:  # it was in the room before, or is not any more, or has come again
            return
        if (self.is_waiting or self._is_greeting) and entrance.joined.recovered is None:
            self._held[hold.room] = hold
        else:
            self._all.enter(self._session, entrance)

    def take(self, hold: Hold[Session]) -> bool:
        """Wait no more for the client to say where it stopped in a room; whether that was waited for."""
        if self._held.get(hold.room) is not hold:
            return False
        del self._held[hold.room]
        return True

    def put_back(self, hold: Hold[Session]) -> None:
        """Wait again, if it is not too late."""
        if self.is_waiting or self._is_greeting:
            self._held[hold.room] = hold
        else:
            self._all.let_go(self._session, hold)

    def takes(self, payload: str | bytes) -> bool:
        """Look at the first message of the connection; whether it says where it stopped."""
        head = head_of(payload) if isinstance(payload, str) and "resume" in payload else None
        if head is not None and head.event == "resume":
            self._has_said = True
            return True
        self.is_waiting = False
        if not self._is_greeting:
            self._let_go()
        return False

    def greeted(self) -> None:
        """The ``on_connect`` hooks have ended, and it was told its token: it is told now where it is."""
        self._is_greeting = False
        if not self.is_waiting:
            self._let_go()

    def late(self) -> None:
        """Its time is over."""
        if not self._has_said:
            self._let_go()

    def _let_go(self) -> None:
        """Hold nothing more: it has not said where it stopped."""
        self.is_waiting = False
        self._all.has_said(self._session, {})
        held, self._held = self._held, {}
        for hold in held.values():
            self._all.let_go(self._session, hold)

    async def said(self, rooms: dict[str, Position]) -> None:
        """It has said where it stopped in some rooms."""
        self.is_waiting = False
        held, self._held = self._held, {}
        asked = []
        for room, hold in held.items():
            if room in rooms:
                asked.append(self._all.recover(self._session, hold, rooms[room]))
            else:
                self._all.let_go(self._session, hold)
        for room, since in rooms.items():  # its time may be over, and what was said since has come before
            if room not in held and room in (self._session.starts or ()):
                asked.append(self._all.recover_late(self._session, room, since))
        await asyncio.gather(*asked)  # together, so that an engine which does not answer is waited for once


class Resumptions:
    """All such connections of a node. On the broker's loop only.

    Attributes:
        key: what clients prove their earlier ids by; ``None`` where the engine has not said it yet.
        on_said: called with what a connection has said first, or with nothing where it has said nothing in time.
        is_up: whether the engine can be asked.
    """

    def __init__(
        self,
        feeds: Feeds,
        recoveries: Recoveries,
        catching_up: CatchingUp,
        left: Callable[[Session], float | None],
        clock: Callable[[], float],
        largest: int,
        ask_again: Callable[[Session, str, Since | None, Hold[Session] | None], Awaitable[Entrance]],
    ) -> None:
        """
        Args:
            feeds: the rooms with history.
            recoveries: says what clients can have of what they missed.
            catching_up: gives it to them.
            left: in how many seconds a client's login ends; ``None`` for never.
            clock: seconds, never going back.
            largest: bytes of the largest message of a client.
            ask_again: says what a client is answered that is in a room already; see `Histories.enter`.
        """
        self._feeds = feeds
        self._recoveries = recoveries
        self._catching_up = catching_up
        self._left = left
        self._clock = clock
        self._largest = largest
        self._ask_again = ask_again
        self._tasks: set[asyncio.Task[None]] = set()
        self._schedule: Schedule[Returning] | None = None
        self.key: bytes | None = None
        self.on_said: list[Callable[[Session, Mapping[str, Any]], None]] = []
        self.is_up = asyncio.Event()

    async def stop(self) -> None:
        """Wait for nobody any more, and try nothing again."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._schedule is not None:
            self._schedule.stop()
            self._schedule = None

    def welcome(self, session: Session, greeting: Coroutine[Any, Any, bool] | None) -> Coroutine[Any, Any, bool] | None:
        """A session opens. Where it has announced that it may say where it stopped, wait for that.

        Args:
            session: the session.
            greeting: the ``on_connect`` hooks, if any, which tell whether all went well.

        Returns:
            What to run in place of the greeting, and tells the same.
        """
        request = session.client.request
        if b"resume=1" not in request.scope["query_string"] or request.query_params.get("resume") != "1":
            return greeting
        returning = session.returning = Returning(self, session)
        session.inbox.first = First(returning.takes, self._largest)
        return self._greet(session, returning, greeting)

    async def _greet(self, session: Session, returning: Returning, greeting: Coroutine[Any, Any, bool] | None) -> bool:
        if greeting is not None and not await greeting:
            return False
        if session.login is None and returning.token is not None:  # else it is told with when the login ends
            session.offer(encode_session(None, returning.token))
        asyncio.get_running_loop().call_soon(returning.greeted)  # when it was told of its login, too
        if returning.is_waiting and session.is_connected:
            if self._schedule is None:
                self._schedule = Schedule(asyncio.get_running_loop(), self._clock, Returning.late)
            self._schedule.start(returning, self._clock() + PATIENCE)
        return True

    def learned(self, key: bytes, sessions: Iterable[Session]) -> None:
        """The engine has said the key: give those their tokens who had none, or one of another key."""
        if self.key != key:
            self.key = key
            for session in sessions:
                if isinstance(session.returning, Returning):
                    session.offer(encode_session(self._left(session), session.token))

    async def resume(self, session: Session, payload: Resume) -> PreparedMessage | None:
        """Handle what a connection says first of where it stopped; what is answered, if it has an ``id``."""
        returning = session.returning
        message = decode(payload.decode())
        if not isinstance(returning, Returning) or isinstance(message, Malformed):
            return None
        if self._schedule is not None:
            self._schedule.cancel(returning)
        data = message.data if isinstance(message.data, dict) else {}
        if self.key is not None and (ids := unseal(self.key, data.get("session"))):
            returning.ids = ids
            session.offer(encode_session(self._left(session), returning.token))
        rooms: dict[str, Position] = {}
        said = data.get("rooms")
        returning.is_waiting = False
        self.has_said(session, data)
        for room, at in said.items() if isinstance(said, dict) else ():
            with contextlib.suppress(InvalidPosition):
                rooms[room] = Position.parse(at)
        await returning.said(rooms)
        return None if message.id is None else encode(REPLY, {}, message.id)

    def waits_for(self, session: Session) -> bool:
        """Whether a connection may still say where it stopped."""
        return isinstance(session.returning, Returning) and session.returning.is_waiting

    def has_said(self, session: Session, data: Mapping[str, Any]) -> None:
        """A connection has said where it stopped, or has not in time."""
        for function in self.on_said:
            function(session, data)

    def token_of(self, client_id: str, ids: tuple[str, ...]) -> str | None:
        """What a client proves its ids with; ``None`` where the engine has not said the key yet."""
        return None if self.key is None else seal(self.key, [*ids, client_id])

    def let_go(self, session: Session, hold: Hold[Session]) -> None:
        """Let a client have what is said in a room, which has not said where it stopped there."""
        cursor: Position | None = hold.cursor
        self.enter(session, Entrance(Joined(hold.room, None if cursor is None else cursor.at), hold))

    def enter(self, session: Session, entrance: Entrance) -> None:
        """Tell a client where it stands in a room, and give it what follows."""
        joined, hold = entrance.joined, entrance.hold
        if hold is not None and hold.is_over:
            return
        if joined.at is not None:
            session.offer(encode_joined(joined.room, joined.at, joined.recovered, joined.reason, joined.missed))
        if hold is not None:
            if joined.recovered is None:
                came_at(session, hold.room, hold.cursor)
            self._catching_up.go(hold, entrance.dropped)

    async def recover(self, session: Session, hold: Hold[Session], since: Position) -> None:
        """Give a client what it missed in a room that it is held in; where the engine is away, as soon as it is not."""
        await self._try(functools.partial(self._recover, session, hold, since))

    async def recover_late(self, session: Session, room: str, since: Position) -> None:
        """Tell a client whether it has what it missed in a room, in which it was not held any more."""
        await self._try(functools.partial(self._recover_late, session, room, since))

    async def _try(self, recover: Callable[[], Awaitable[None]]) -> None:
        """Have a client told; where the engine is away, as soon as it is not."""
        try:
            await recover()
        except BackplaneUnavailable:
            task = asyncio.create_task(self._keep_trying(recover), name="velocity-ws resume")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _keep_trying(self, recover: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(AGAIN)
            await self.is_up.wait()  # and nobody tries meanwhile: all may have come back while it is away
            with contextlib.suppress(BackplaneUnavailable):
                return await recover()

    async def _recover(self, session: Session, hold: Hold[Session], since: Position) -> None:
        feed = self._feeds.of(hold.room)
        if hold.is_over or feed is None:
            return
        joined, hold.cursor = await self._recoveries.decide(session, feed, since)
        self.enter(session, Entrance(joined, hold))

    async def _recover_late(self, session: Session, room: str, since: Position) -> None:
        if session.is_connected and room in (session.starts or ()):  # else it has left, or has asked again itself
            self.enter(session, await self._ask_again(session, room, since, None))
