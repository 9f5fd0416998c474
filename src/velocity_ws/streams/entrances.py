"""Entrances: when clients of this node begin to read the streams of a room they came into. Knows no engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from velocity_ws.sessions.hub import Hub
from velocity_ws.sessions.session import Session
from velocity_ws.stream_errors import StreamError
from velocity_ws.streams.asking import Asking
from velocity_ws.streams.following import Following
from velocity_ws.streams.items import End
from velocity_ws.streams.readers import Readers, read_positions

__all__ = ["Entrances"]

MOST_EARLY = 10_000
"""Positions in streams that clients have said, and that are kept while no streams are known."""


class Entrances:
    """The clients of one node that come into rooms, or ask for streams there. On the broker's loop only.

    Attributes:
        waits_for: whether a connection may still say what it has; `said` is called when it has, or has not in time.
    """

    def __init__(self, hub: Hub[Session], readers: Readers, following: Following, asking: Asking) -> None:
        """
        Args:
            hub: the clients of this node.
            readers: who reads.
            following: the streams that they read.
            asking: the streams by their ids.
        """
        self._hub = hub
        self._readers = readers
        self._following = following
        self._asking = asking
        self._postponed: dict[str, list[str]] = {}
        self._early: dict[tuple[str, str], dict[str, int]] = {}
        self._early_size = 0
        self.waits_for: Callable[[Session], bool] = lambda _: False

    def go(self, session: Session, room: str, have: object = None) -> None:
        """Let a client that came into a room by itself read its streams.

        Args:
            session: the client's.
            room: the room.
            have: what it says it has of each.
        """
        if self._hub.came is not None:
            self._readers.go(session, room, read_positions(have))
        elif have and self._early_size < MOST_EARLY:  # there are none, as far as is known by now
            positions = self._early[session.id, room] = read_positions(have)
            self._early_size += len(positions)

    def begin(self, session: Session, room: str) -> None:
        """There are streams, and this client was in a room before: let it read them."""
        self._readers.go(session, room, self._early.pop((session.id, room), {}))

    def let_in(self, session: Session, room: str) -> None:
        """Let a client read the streams of a room that the application has put it into, once it has said what it has.

        Where it has not announced that it will, at once.
        """
        if self._hub.came is None:
            return
        if self.waits_for(session):
            self._postponed.setdefault(session.id, []).append(room)
            if len(self._postponed) > len(self._hub):  # some went before they could say anything
                self._postponed = {id_: rooms for id_, rooms in self._postponed.items() if id_ in self._hub}
        else:
            self._readers.go(session, room, {})

    def said(self, session: Session, data: Mapping[str, Any]) -> None:
        """A client has said what it has, or has said nothing in time."""
        have = read_positions(data.get("streams"))
        for room in self._postponed.pop(session.id, ()):
            self._readers.go(session, room, have)

    def read_from(self, session: Session, room: str, id_: str, cursor: int) -> None:
        """Let a member read a stream of its room from somewhere on, if it is known here."""
        followed = self._following.rooms.get(room)
        copy = None if followed is None else followed.copies.get(id_)
        if copy is not None and self._hub.joined_at(session.id, room) is not None:
            self._readers.read(session, copy, cursor)

    async def find(self, id_: str, room: str) -> tuple[int, End]:
        """How much a stream of a room has said, and how it has ended.

        Raises:
            StreamNotFound: there is no such stream.
            StreamError: it is one of another room.
            StreamGone: it ended so long ago that nothing is kept of it.
            BackplaneUnavailable: the engine did not answer.
        """
        followed = self._following.rooms.get(room)
        copy = None if followed is None else followed.copies.get(id_)
        if copy is not None:
            return copy.length, copy.end
        stream = await self._asking.look(id_)
        if stream.room != room:
            raise StreamError(id_, "is one of another room")
        if followed is not None and not followed.is_over:  # meanwhile
            self._following.found(followed, stream)
        return stream.length, stream.end
