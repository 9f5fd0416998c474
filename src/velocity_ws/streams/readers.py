"""Readers: members of rooms get what is said in their streams: those who keep up at once, others joined, never dropped.

Nothing is queued for a slow reader but how far it is. Knows clients, and no engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.messages.names import MAX_NAME_LENGTH
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.sessions.hub import Hub
from velocity_ws.sessions.session import Session
from velocity_ws.stream_errors import StreamGone
from velocity_ws.streams.copies import StreamCopy
from velocity_ws.streams.finding import Finding
from velocity_ws.streams.following import Following
from velocity_ws.streams.items import MAX_LISTED
from velocity_ws.streams.pieces import Piece
from velocity_ws.streams.room_streams import RoomStreams
from velocity_ws.streams.wire import Frames

__all__ = ["Readers", "read_positions"]

PATIENCE = 30.0
"""Seconds after which it is looked again whether a slow reader is still there."""
AGAIN = 0.5
"""Seconds until the engine is asked again for what a reader is to get."""
OF_ENDED = 1024 * 1024
"""Bytes of streams that have ended that somebody gets who comes into a room; the newest first."""
MOST_UNKNOWN = 100
"""Streams that a client may name which are not known, to be told whether they are lost."""
AT_ONCE = 64
"""Messages that a reader gets in one turn of the loop."""

GiveReady = Callable[[Iterable[Session], PreparedMessage], list[Session]]
"""Gives a message to members for whom nothing waits; the others."""


class _Allowance:
    """What somebody who has come into a room may get of streams that had ended by then.

    Attributes:
        left: bytes.
    """

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = OF_ENDED


class _Reader:
    """A member of a room that has not had all of some streams there.

    Of each room by itself: where it is asked whether it may stay in one, the others go on.

    Attributes:
        session: the member's.
        copies: these streams, and how many characters, or items, it has of each.
        old: those of them that had ended when it came.
        task: gives it what it has not had.
    """

    __slots__ = ("copies", "old", "session", "task")

    def __init__(self, session: Session) -> None:
        self.session = session
        self.copies: dict[StreamCopy, int] = {}
        self.old: dict[StreamCopy, _Allowance] = {}
        self.task: asyncio.Task[Any] | None = None


class Readers:
    """The readers of one node. On the broker's loop only.

    Attributes:
        following: the streams that they read; set once it is there.
        finding: what of them is not kept here; the same.
    """

    following: Following
    finding: Finding

    def __init__(self, hub: Hub[Session], give_ready: GiveReady) -> None:
        """
        Args:
            hub: the clients of this node.
            give_ready: gives a message to members for whom nothing waits.
        """
        self._hub = hub
        self._give_ready = give_ready
        self._readers: dict[tuple[str, str], _Reader] = {}

    # --- who comes

    def came(self, session: Session, room: str) -> None:
        """A client has come into a room: it gets nothing of its streams before `go`, though it was there before."""
        reader = self._readers.get((session.id, room))
        if reader is not None:
            for copy in list(reader.copies):
                self._in_step(reader, copy)
        followed = self.following.rooms.get(room)
        if followed is not None:
            followed.waiting.add(session.id)
            followed.early.pop(session.id, None)  # of an earlier stay

    def go(self, session: Session, room: str, have: Mapping[str, int]) -> None:
        """Let a client have what is said in the streams of a room, and what was said before.

        Args:
            session: the client's.
            room: the room.
            have: the characters, or items, that it has of each stream.
        """
        followed = self.following.rooms.get(room)
        if followed is None or session.id not in followed.waiting:
            return
        if followed.is_known:
            self._begin(followed, session, have)
        else:
            followed.early[session.id] = dict(have)

    def known(self, room: RoomStreams) -> None:
        """See `Gives.known`."""
        early, room.early = room.early, {}
        for session_id, have in early.items():
            session = self._hub.get(session_id)
            if session is not None:
                self._begin(room, session, have)

    def forget(self, room: RoomStreams) -> None:
        """See `Gives.forget`."""
        room.waiting = {id_ for id_ in room.waiting if self._hub.joined_at(id_, room.room) is not None}
        room.early = {id_: have for id_, have in room.early.items() if id_ in room.waiting}

    def read(self, session: Session, copy: StreamCopy, cursor: int) -> None:
        """Let a member have a stream from somewhere on, whatever it has had."""
        self._fall_behind(copy, session, cursor)  # it may be further than what was heard here

    def _begin(self, room: RoomStreams, session: Session, have: Mapping[str, int]) -> None:
        room.waiting.discard(session.id)
        if self._hub.joined_at(session.id, room.room) is None:
            return
        unknown = {id_: length for id_, length in have.items() if length and id_ not in room.copies}
        if 0 < len(unknown) <= MOST_UNKNOWN:
            self.following.run(self._tell_lost(session, room.room, unknown))
        left, allowance = OF_ENDED, _Allowance()
        for copy in reversed(room.copies.values()):
            cursor = have.get(copy.id, 0)
            is_old = bool(copy.end) and copy.id not in have  # what it names it waits for
            if is_old:
                if left < copy.length - cursor:
                    left = 0
                    continue
                left -= max(copy.length - cursor, 0)
            self._fall_behind(copy, session, cursor, allowance if is_old else None)

    async def _tell_lost(self, session: Session, room: str, have: Mapping[str, int]) -> None:
        """A client has something of streams that are not known: tell it of those that the engine has lost."""
        for id_, length in have.items():
            with contextlib.suppress(BackplaneUnavailable):
                if await self.following.is_lost(id_) and self._hub.joined_at(session.id, room) is not None:
                    session.offer(Frames(room, id_).lost(length))

    # --- who reads

    def give(self, copy: StreamCopy, piece: Piece, message: PreparedMessage) -> None:
        """See `Gives.give`."""
        if not piece.length and not piece.end:  # a writer that has begun, and has said nothing yet
            return
        room = self.following.rooms[copy.room]
        ready, held = self._hub.ready_for(copy.room, copy.behind, room.waiting)
        for session in self._give_ready(ready, message):
            self._fall_behind(copy, session, piece.start)
        for session in held:
            self._fall_behind(copy, session, piece.start)

    def _fall_behind(
        self, copy: StreamCopy, session: Session, cursor: int, allowance: _Allowance | None = None
    ) -> None:
        """A member has had no more of a stream than this: it gets the rest as fast as it reads."""
        key = session.id, copy.room
        reader = self._readers.get(key)
        if reader is None:
            reader = self._readers[key] = _Reader(session)
        reader.copies[copy] = cursor
        if allowance is None:
            reader.old.pop(copy, None)
        else:
            reader.old[copy] = allowance
        copy.behind[session.id] = reader
        if reader.task is None:
            reader.task = self.following.run(self._catch_up(reader, copy.room))

    def _in_step(self, reader: _Reader, copy: StreamCopy) -> None:
        """A reader has all of a stream, or reads it no more."""
        reader.copies.pop(copy, None)
        reader.old.pop(copy, None)
        if copy.behind.get(reader.session.id) is reader:
            del copy.behind[reader.session.id]

    async def _catch_up(self, reader: _Reader, room: str) -> None:
        session = reader.session
        try:
            given = 0
            while reader.copies:
                copy = next(iter(reader.copies))
                if not session.is_connected or self._hub.joined_at(session.id, room) is None:
                    self._in_step(reader, copy)
                    continue
                hold = self._hub.hold_of(session.id, room)
                if hold is not None:
                    await hold.wait_over()
                    continue
                outbox = session.outbox
                if outbox is None or not outbox.is_free or given >= AT_ONCE:
                    given = 0
                    with contextlib.suppress(TimeoutError):
                        if not await session.put(None, PATIENCE):
                            await asyncio.sleep(0)  # its connection has ended, of which it hears in a moment
                    continue
                if await self._give_next(reader, copy):
                    given += 1
        finally:
            self._readers.pop((session.id, room), None)
            for copy in list(reader.copies):
                self._in_step(reader, copy)

    async def _give_next(self, reader: _Reader, copy: StreamCopy) -> bool:
        """Give a reader the next message of a stream, or find it first; whether it was given one."""
        cursor = reader.copies[copy]
        if cursor > copy.length:
            await self._look_ahead(reader, copy)
            return False
        allowance = reader.old.get(copy)
        is_spent = allowance is not None and allowance.left <= 0 and not cursor
        if is_spent or (cursor == copy.length and not copy.end):
            self._in_step(reader, copy)
            return False
        found = copy.message(cursor)
        if found is None:
            found = await self._find(reader, copy, cursor)
            if found is None or not self._reads(reader, copy, cursor):
                return False
        message, stop = found
        if allowance is not None:
            allowance.left -= message.size
        reader.session.offer(message)
        reader.copies[copy] = stop
        if stop == copy.length:  # what was said while it was found comes with the next message
            self._in_step(reader, copy)
        return True

    async def _look_ahead(self, reader: _Reader, copy: StreamCopy) -> None:
        """A reader has more than was heard here, as another node has told it; or as it says."""
        cursor = reader.copies[copy]
        if not copy.end:
            await self.following.read_on(copy)
        if reader.copies.get(copy) == cursor:
            reader.copies[copy] = min(cursor, copy.length)

    def _reads(self, reader: _Reader, copy: StreamCopy, cursor: int) -> bool:
        """Whether a reader may still have what was found for it: meanwhile it may have gone, or be held."""
        session = reader.session
        if reader.copies.get(copy) != cursor or not session.is_connected:
            return False
        is_held = self._hub.hold_of(session.id, copy.room) is not None
        return not is_held and self._hub.joined_at(session.id, copy.room) is not None

    async def _find(self, reader: _Reader, copy: StreamCopy, cursor: int) -> tuple[PreparedMessage, int] | None:
        """Find what is not kept here; where it cannot be had now, the other streams of the reader come first."""
        try:
            if await self.finding.filled(copy):
                return copy.message(cursor)
            piece = await self.finding.page(copy, cursor)
        except BackplaneUnavailable:
            piece = None
        except StreamGone:
            self._lost(reader, copy, cursor)
            return None
        if piece is None:
            if copy in reader.copies:
                reader.copies[copy] = reader.copies.pop(copy)
            await asyncio.sleep(AGAIN)
            return None
        return copy.message_of(piece)

    def _lost(self, reader: _Reader, copy: StreamCopy, cursor: int) -> None:
        """What a reader has not had is kept no more: it is told that its stream ends there, if it has any of it."""
        if not copy.end:
            self.following.end_here(copy)
        if self._reads(reader, copy, cursor):
            if cursor or copy not in reader.old:
                reader.session.offer(copy.lost_from(cursor))
            self._in_step(reader, copy)


def read_positions(value: object) -> dict[str, int]:
    """What a client says it has of streams; what is none is left out, and what is more than a room has."""
    if not isinstance(value, dict):
        return {}
    found = (
        (id_, length)
        for id_, length in value.items()
        if isinstance(id_, str) and 0 < len(id_) <= MAX_NAME_LENGTH and "\0" not in id_
        if type(length) is int and length >= 0
    )
    return dict(itertools.islice(found, MAX_LISTED))
