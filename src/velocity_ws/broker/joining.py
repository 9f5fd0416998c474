"""Joining: the events ``join`` and ``leave``, by which clients come into rooms and go by themselves. Knows no engine.

They exist where some kind of rooms has an ``authorize``, and the application has no handlers of these names.
"""

from __future__ import annotations

import asyncio
import functools
from typing import Annotated, Any, Protocol

from pydantic import BaseModel, StringConstraints

from velocity_ws.errors import BackplaneUnavailable, ClientError
from velocity_ws.history.positions import InvalidPosition, Position
from velocity_ws.history.recoveries import Entrance, Since
from velocity_ws.hooks.registry import Hooks
from velocity_ws.messages.events import JOINED, encode_left, joined_data
from velocity_ws.messages.inbound import Message
from velocity_ws.messages.names import MAX_NAME_LENGTH
from velocity_ws.sessions.client import Client
from velocity_ws.sessions.followed import Followed
from velocity_ws.sessions.hub import Hub
from velocity_ws.sessions.room_messages import MAY_NOT_BE_IN
from velocity_ws.sessions.session import Session
from velocity_ws.sessions.web_errors import unavailable

__all__ = ["Joining"]

Answer = dict[str, str]


class RoomRequest(BaseModel):
    """The data of ``join`` and ``leave``; more fields are ignored."""

    room: Annotated[str, StringConstraints(max_length=MAX_NAME_LENGTH)]
    since: Any = None
    streams: Any = None


class Admission(Protocol):
    """Decides who may come in. On the broker's loop only."""

    async def admit(self, session: Session, room: str, since: Since | None = None) -> Entrance | None:
        """Put a client into a room, if it may be there; what it is answered, where the room has a history.

        Raises:
            ClientError: it may not.
            BackplaneUnavailable: it may, and the engine that keeps what is said there cannot be asked now.
        """


class TakesOut(Protocol):
    """Takes clients out of rooms. On the broker's loop only."""

    async def leave(self, client_id: str, room: str) -> None:
        """Take a client out of a room; harmless where it is not in it."""

    async def keep_out(self, session: Session, room: str) -> None:
        """Keep that a client was put out of a room."""

    def follow(self, entrance: Entrance) -> None:
        """A client was answered: let it have what follows."""

    def let_read(self, session: Session, room: str, have: object) -> None:
        """A client was answered: let it have the streams of a room, but for what it says it has."""


class Joining:
    """The clients of this node that come into rooms by themselves, and go. On the broker's loop only."""

    def __init__(self, hooks: Hooks, hub: Hub[Session], admission: Admission, rooms: TakesOut, limit: int) -> None:
        """
        Args:
            hooks: where the two events are handled; has the kinds of rooms.
            hub: knows who is in which room.
            admission: decides who may come in.
            rooms: takes them out.
            limit: rooms that a client may be in by its own wish; 0 for no limit.
        """
        self._hooks = hooks
        self._kinds = hooks.kinds
        self._hub = hub
        self._admission = admission
        self._rooms = rooms
        self._limit = limit

    def register(self) -> None:
        """Handle the two events, where the application does not."""

        def is_there() -> bool:
            return self._kinds.has_authorize

        self._hooks.register_built_in("join", self.join, is_there)
        self._hooks.register_built_in("leave", self.leave, is_there)

    async def join(self, client: Client, data: RoomRequest) -> Any:
        """Handle ``join``. A client that is refused while it is in the room is put out of it.

        Raises:
            ClientError: the client may not be in the room, or is in too many; or the engine cannot be asked now, and
                the client is where it was.
        """
        session = self._hub.get(client.id)
        if session is None:  # it has gone, and nobody reads an answer
            return None
        since = self._since(data)
        rooms = self._take_place(session, data.room)
        try:
            entrance = await self._admit(session, data.room, since)
        finally:
            if rooms is not None:
                self._settle_place(session, data.room, rooms)
        if self._hub.joined_at(session.id, data.room) is None:  # it was put out before its answer, and told so
            raise ClientError("FORBIDDEN", MAY_NOT_BE_IN)
        joined = joined_data(data.room) if entrance is None else joined_data(*entrance.joined)
        follow = functools.partial(self._follow, session, data, entrance)
        return Followed(joined, JOINED, session.offer, follow)

    def _follow(self, session: Session, data: RoomRequest, entrance: Entrance | None) -> None:
        """A client was answered."""
        if entrance is not None:
            self._rooms.follow(entrance)
        self._rooms.let_read(session, data.room, data.streams)

    def _since(self, data: RoomRequest) -> Since | None:
        """Where a client stands, as it says.

        Raises:
            ClientError: it is nowhere that a server has said, or it may not look back.
        """
        since, found = data.since, self._kinds.of(data.room)
        if since is None or found is None or found[0].history is None:
            return None
        if since == "start" or (isinstance(since, int) and not isinstance(since, bool)):
            if not found[0].rewind:
                raise ClientError("FORBIDDEN", "this room cannot be looked back into: join it without since")
            if since != "start" and since < 0:
                raise ClientError("INVALID_DATA", "since is not a number of messages")
            return since  # type: ignore[no-any-return]
        try:
            return Position.parse(since)
        except InvalidPosition as error:
            raise ClientError("INVALID_DATA", f"since: {error}") from None

    async def leave(self, client: Client, data: RoomRequest, message: Message) -> Answer | None:
        """Handle ``leave``. A client may leave a room into which the application has put it, if it could ask for it.

        Raises:
            ClientError: no client can ask to be in such a room.
            InvalidParameterError: there is no such room.
        """
        found = self._kinds.of(data.room)
        if found is None or found[0].authorize is None:
            raise ClientError("FORBIDDEN", MAY_NOT_BE_IN)
        found[0].authorize.validate_parameters(found[1])
        await self._rooms.leave(client.id, data.room)
        session = self._hub.get(client.id)
        if message.id is None and session is not None:
            session.offer(encode_left(data.room))
        return {"room": data.room}

    async def _admit(self, session: Session, room: str, since: Since | None) -> Entrance | None:
        """Put a client into a room, if it may be there; ask no longer than it is connected."""
        try:
            async with asyncio.timeout(None) as session.asking:
                return await self._admission.admit(session, room, since)
        except ClientError as refusal:
            if self._asks_about(room) and self._hub.joined_at(session.id, room) is not None:
                session.put_out(room, str(refusal.code))
                await self._rooms.leave(session.id, room)
                await self._rooms.keep_out(session, room)
            raise
        except BackplaneUnavailable:  # which says nothing of whether it may be there
            raise unavailable("what is said in this room cannot be had") from None
        except TimeoutError:
            if session.is_connected:
                raise
            return None
        finally:
            session.asking = None

    def _asks_about(self, room: str) -> bool:
        found = self._kinds.of(room)
        return found is not None and found[0].authorize is not None

    def _take_place(self, session: Session, room: str) -> dict[str, int] | None:
        """Count a room that a client asks for, from before there is an answer.

        Rooms into which the application has put it are not counted. Those in which it is no more, be it that it was
        taken out, are found when there is no place.

        Returns:
            The client's own rooms, if one more was counted.

        Raises:
            ClientError: it is in too many.
        """
        joined_at, limit = self._hub.joined_at, self._limit
        if not limit or joined_at(session.id, room) is not None:
            return None
        rooms = session.own_rooms
        if rooms is None:
            rooms = session.own_rooms = {}
        if len(rooms) >= limit and room not in rooms:
            for name in [name for name, asked in rooms.items() if not asked and joined_at(session.id, name) is None]:
                del rooms[name]
            if len(rooms) >= limit:
                raise ClientError("TOO_MANY_ROOMS", f"you can be in {limit} rooms at once", limit=limit)
        rooms[room] = rooms.get(room, 0) + 1
        return rooms

    def _settle_place(self, session: Session, room: str, rooms: dict[str, int]) -> None:
        """There is an answer: what was refused is not counted."""
        rooms[room] -= 1
        if not rooms[room] and self._hub.joined_at(session.id, room) is None:
            del rooms[room]
