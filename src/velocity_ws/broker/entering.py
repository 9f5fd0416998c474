"""Entering: how clients of this node come into rooms with history. Knows the hub, and not who may be in a room."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Protocol

from velocity_ws.errors import BackplaneUnavailable, BrokerError
from velocity_ws.history.histories import Histories
from velocity_ws.history.recoveries import Entrance, Since
from velocity_ws.history.values import Joined
from velocity_ws.sessions.hub import Hub
from velocity_ws.sessions.moves import told
from velocity_ws.sessions.session import Session

__all__ = ["Entering", "too_far_behind"]


class Settle(Protocol):
    """Is sure that a room is heard into which a client was put, and tells others of one that is new there."""

    def __call__(self, session: Session, room: str, *, is_new: bool) -> Awaitable[None]:
        """Done when messages to the room reach the client."""


class TakeOut(Protocol):
    """Takes a client out of a room."""

    def __call__(self, session: Session, room: str, /) -> asyncio.Future[None] | None:
        """What is done when the hooks are told of it."""


class Entering:
    """The rooms with history, as clients come into them. On the broker's loop only."""

    def __init__(self, hub: Hub[Session], histories: Histories, settle: Settle, take_out: TakeOut) -> None:
        """
        Args:
            hub: the clients of this node.
            histories: what rooms remember.
            settle: is sure that a room is heard.
            take_out: takes a client out of a room.
        """
        self._hub = hub
        self._histories = histories
        self._settle = settle
        self._take_out = take_out

    async def by_client(self, session: Session, room: str, since: Since | None) -> Entrance:
        """Put a client into a room that it asks for. It gets nothing of the room before `follow`.

        Raises:
            BackplaneUnavailable: the engine cannot be asked now; the client is not in the room, if it was not before.
            ClientNotFound: the client has gone meanwhile.
            BrokerError: the hooks that are told of its moves are too far behind.
        """
        entrance = await self._enter(session, room, since, is_needed=True)
        if entrance.hold is not None and entrance.hold.is_over and self._hub.joined_at(session.id, room) is not None:
            # What it was to get is gone with that, and another call has said where it goes on.
            raise BackplaneUnavailable("the client was taken out of the room meanwhile, and put into it again")
        return entrance

    async def by_application(self, session: Session, room: str, since: Since | None) -> Joined:
        """Put a client into a room; where it stands there.

        Raises:
            ClientNotFound: the client has gone meanwhile.
            BrokerError: the hooks that are told of its moves are too far behind.
            BackplaneUnavailable: there is a ``since``, and the engine cannot be asked now; the client is not in the
                room, if it was not before. Without one it is, and gets what is said from the engine's return on.
        """
        try:
            entrance = await self._enter(session, room, since, is_needed=since is not None)
        except BackplaneUnavailable:
            if since is not None:
                raise
            return Joined(room)
        self._histories.entrances.let_in(session, entrance)
        return entrance.joined

    def follow(self, entrance: Entrance) -> None:
        """A client was answered: let it have what follows."""
        self._histories.entrances.go(entrance)

    async def keep_out(self, session: Session, room: str) -> None:
        """Keep that a client was put out of a room: what is said there is not for it now."""
        await self._histories.put_out(session, room)

    async def _enter(self, session: Session, room: str, since: Since | None, *, is_needed: bool) -> Entrance:
        """Put a client into a room; what it is answered.

        Raises:
            BackplaneUnavailable: the engine cannot be asked. Where that is needed, the client is not in the room; else
                it is, and gets what is said there.
        """
        entrances = self._histories.entrances
        if is_needed and not entrances.is_up:
            raise BackplaneUnavailable("there is no connection to the engine")
        if session.moves is not None and session.moves.is_full:
            raise too_far_behind(session)
        is_new = self._hub.join(session.id, room)
        hold = entrances.hold_back(session, room) if is_new else None
        entrance: Entrance | None = None
        try:
            await self._settle(session, room, is_new=is_new)
            entrance = await entrances.enter(session, room, since, hold)
            return entrance
        except BackplaneUnavailable:
            if self._hub.joined_at(session.id, room) is None:  # it was taken out meanwhile, as by a hook: no fault
                return Entrance(Joined(room), None)
            if hold is not None and is_needed and not hold.is_over:  # else it has left, and may have come again
                await told(self._take_out(session, room))
            raise
        finally:
            if entrance is None and hold is not None:  # also where the caller does not wait any more
                entrances.let_in_blind(session, hold)


def too_far_behind(session: Session) -> BrokerError:
    """The error about a client of whose moves the hooks have too many to be told."""
    return BrokerError(
        f"on_join and on_leave hooks are too far behind the moves of client {session.id}: one does not return"
    )
