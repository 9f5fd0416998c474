"""Authorization: which clients of this node may be in a room, asked when they join and when that may have changed.

Knows the kinds of rooms and the clients of this node; that there are other nodes is for `Revocation` to know.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol

from velocity_ws.broker.questions import MOST_ASKS, MOST_SECONDS, Questions, Round
from velocity_ws.errors import HookError
from velocity_ws.history.recoveries import Entrance, Since
from velocity_ws.hooks.kinds import Kinds
from velocity_ws.hooks.scope import waiting_task
from velocity_ws.sessions.dispatch import Dispatcher
from velocity_ws.sessions.hints import Hints
from velocity_ws.sessions.hub import Hub
from velocity_ws.sessions.permission import Permission, failed, forbidden
from velocity_ws.sessions.session import Session
from velocity_ws.stats import Counters

__all__ = ["Authorization"]

REPORT_TIMEOUT = 5.0
"""Seconds that ``on_error`` hooks have for an ``authorize`` that failed."""


class Moves(Protocol):
    """Puts clients of this node into rooms, and takes them out. On the broker's loop only."""

    async def let_in(self, session: Session, room: str, since: Since | None) -> Entrance | None:
        """Put a client into a room, without a wait before it is in; see `Directory.let_in`."""

    async def keep_out(self, session: Session, room: str) -> None:
        """Keep that a client was put out of a room; see `Directory.keep_out`."""

    def take_out(self, session: Session, room: str) -> object:
        """Take a client out of a room, and have its members and the hooks told."""


class _Joining:
    """A client that asks to come into a room."""

    __slots__ = ("is_stale", "room", "session")

    def __init__(self, session: Session, room: str) -> None:
        self.session = session
        self.room = room
        self.is_stale = False


class Authorization:
    """Who may be in the rooms whose kind has an ``authorize``. On the broker's loop only.

    An answer counts as long as nothing has changed since it was asked for: `reauthorize` and `user_changed` have what
    is being asked, for joins too, asked again. Members who are asked about stay members, but what is said in the room
    is held until there is an answer. Then they get it in order, before anything newer; or they are out.

    Attributes:
        on_reauthorize: called with the room and the user, ``None`` for any, when it is to be asked again about them: of
            those who read a room and are no members.
    """

    def __init__(
        self,
        kinds: Kinds,
        hub: Hub[Session],
        dispatcher: Dispatcher,
        moves: Moves,
        counters: Counters,
        hints: Hints,
        limit: int,
    ) -> None:
        """
        Args:
            kinds: the kinds of rooms.
            hub: the clients of this node.
            dispatcher: calls the hooks.
            moves: puts them into rooms.
            counters: where what is lost is counted.
            hints: told of rooms that nobody can join.
            limit: bytes that are held for one member in one room.
        """
        self._kinds = kinds
        self._hub = hub
        self._dispatcher = dispatcher
        self._hints = hints
        self._moves = moves
        self._joining: set[_Joining] = set()
        self._asking: set[asyncio.Task[object] | None] = set()  # the tasks in which a hook is asked now
        self._when_used: Callable[[], object] | None = None
        self.on_reauthorize: list[Callable[[str | None, str | None], object]] = []
        self._questions = Questions(hub, counters, limit, self._ask, moves.take_out, self._report, moves.keep_out)

    def when_used(self, function: Callable[[], object]) -> None:
        """Have a function called, once, when there may be members to ask about: now, or at the first question."""
        self._when_used = function
        if self._kinds.has_authorize:
            self._use()

    def _use(self) -> None:
        function, self._when_used = self._when_used, None
        if function is not None:
            function()

    def applies_to(self, room: str) -> bool:
        """Whether a room is of a kind that has an ``authorize``."""
        found = self._kinds.of(room)
        return found is not None and found[0].authorize is not None

    # --- joins

    async def ask(self, session: Session, room: str) -> None:
        """Ask whether a client may be in a room now. From the moment it returns, that may have changed.

        Raises:
            ClientError: it may not. The code is ``FORBIDDEN``, or that of the hook's own `ClientError`; where it failed
                or took over 5 s, which ``on_error`` is told, ``INTERNAL_ERROR``.
        """
        await self._accept(session, await self._ask(session, room))

    async def admit(self, session: Session, room: str, since: Since | None = None) -> Entrance | None:
        """Put a client into a room that it asks for, if it may be there by an answer that nothing has made old.

        Args:
            session: the client's.
            room: the room.
            since: where it stands in the room's log, as it says.

        Returns:
            What it is answered, where the room has a history.

        Raises:
            ClientError: it may not, as for `ask`; or something changed again and again.
            BackplaneUnavailable: it may, and the engine that keeps what is said there cannot be asked now.
            ClientNotFound: it has gone meanwhile.
            BrokerError: the hooks that are told of its moves are too far behind.
        """
        joining = _Joining(session, room)
        self._joining.add(joining)
        try:
            await self._accept(session, await self._ask_until_current(joining))
        finally:
            self._joining.discard(joining)
        return await self._moves.let_in(session, room, since)

    async def _ask_until_current(self, joining: _Joining) -> Permission:
        clock = asyncio.get_running_loop().time
        until, asked = clock() + MOST_SECONDS, 0
        while True:
            joining.is_stale = False
            answer = await self._ask(joining.session, joining.room)
            asked += 1
            if not joining.is_stale:
                return answer
            if asked >= MOST_ASKS and clock() >= until:
                return Permission(failed())

    async def _accept(self, session: Session, answer: Permission) -> None:
        """Raise what an answer refuses, once the application was told of a failure."""
        if answer.refusal is None:
            return
        if answer.failure is not None:
            await self._report(session, answer)
        try:
            raise answer.refusal
        finally:
            del answer  # or the exception would refer to itself by way of this frame

    # --- members

    def refuse_inside(self, call: str) -> None:
        """Refuse a call that waits until members were asked about, where it is made by an ``authorize`` that is asked.

        Raises:
            HookError: it is, and would wait for its own answer.
        """
        if self._asking and not self._asking.isdisjoint((asyncio.current_task(), waiting_task())):
            raise HookError(
                f"an authorize called {call}, which waits for the answer of this very authorize: "
                "call it before or after that, or in a task of its own"
            )

    async def user_changed(self, session: Session) -> None:
        """A client is another user's, or nobody's: ask about all its rooms, which are held without a wait before that.

        Returns when there is an answer for each.
        """
        if not self._kinds.has_authorize:
            return
        for joining in self._joining:
            joining.is_stale = joining.is_stale or joining.session is session
        rooms = [room for room in self._hub.rooms_of(session.id) if self.applies_to(room)]
        await self._questions.put([(session, room) for room in rooms], is_urgent=True).wait()

    def user_removed(self, user_id: str, room: str) -> None:
        """A user is taken out of a room: its clients that are on their way into it are asked about again."""
        for joining in self._joining:
            if (joining.room, joining.session.user_id) == (room, user_id):
                joining.is_stale = True

    def reauthorize(self, room: str | None = None, user_id: str | None = None) -> Round:
        """Ask about the members of rooms, who are held from now on.

        Args:
            room: only those of this room.
            user_id: only those of this user.

        Returns:
            Is over when there is an answer for each of them.
        """
        if not self._kinds.has_authorize:
            return Round()
        self._use()
        for function in self.on_reauthorize:
            function(room, user_id)
        for joining in self._joining:
            if room in (None, joining.room) and user_id in (None, joining.session.user_id):
                joining.is_stale = True
        return self._questions.put(self._members(room, user_id), is_urgent=False)

    def _members(self, room: str | None, user_id: str | None) -> Iterator[tuple[Session, str]]:
        if user_id is not None:
            for session in self._hub.user_members(user_id):
                for name in self._hub.rooms_of(session.id):
                    if room in (None, name) and self.applies_to(name):
                        yield session, name
            return
        for name in self._hub.rooms() if room is None else [room]:
            if self.applies_to(name):
                for session in self._hub.room_members(name):
                    yield session, name

    # --- the end

    async def stop(self) -> None:
        """Ask nothing more, when the last client has gone."""
        await self._questions.stop()

    def abandon(self) -> None:
        """Forget all of it: its loop was closed."""
        self._questions.abandon()
        self._joining.clear()

    # --- the hook

    async def _ask(self, session: Session, room: str) -> Permission:
        found = self._kinds.of(room)
        hook = None if found is None else found[0].authorize
        if found is None or hook is None:
            self._hints.cannot_join(room, None if found is None else found[0].pattern.text)
            return Permission(forbidden())
        self._use()
        task = asyncio.current_task()
        self._asking.add(task)
        try:
            return await self._dispatcher.authorize(hook, session.client, room, found[1])
        finally:
            self._asking.discard(task)

    async def _report(self, session: Session, answer: Permission) -> None:
        if answer.failure is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REPORT_TIMEOUT):
                    await self._dispatcher.report(session.client, answer.failure, answer.hook)
