"""Following: the streams of the rooms that have members here: what is heard of them, missed, and found out by asking.

Knows the engine, and no client: who gets what is for `Readers`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, Protocol

from velocity_ws.cluster.envelopes import StreamPiece
from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.logs import get_logger, quote
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.streams.copies import Copies, StreamCopy
from velocity_ws.streams.items import Query, Summary
from velocity_ws.streams.learning import AGAIN, Learning
from velocity_ws.streams.link import StreamLink
from velocity_ws.streams.pieces import InvalidPiece, Piece, unpack
from velocity_ws.streams.room_streams import RoomStreams

__all__ = ["AGAIN", "PAGE", "Following", "readable"]

log = get_logger("velocity_ws.streams")

PAGE = 1024 * 1024
"""Bytes that are read at once."""


class Gives(Protocol):
    """Gives the members of a room what is said in its streams. On the broker's loop only."""

    def give(self, copy: StreamCopy, piece: Piece, message: PreparedMessage) -> None:
        """Give those who keep up a piece."""

    def known(self, room: RoomStreams) -> None:
        """It is known which streams a room has."""

    def forget(self, room: RoomStreams) -> None:
        """Keep nothing of those who have gone before they got anything."""


class Following:
    """What a node knows of the streams in its rooms. On the broker's loop only.

    Attributes:
        rooms: the rooms that have members here, by their names.
        running: their streams that have not ended.
        copies: what is kept of all of them.
    """

    def __init__(
        self,
        link: StreamLink,
        gives: Gives,
        wait_heard: Callable[[str], Awaitable[bool]],
        *,
        keep: int,
        lease: float,
        clock: Callable[[], float],
    ) -> None:
        """
        Args:
            link: the way to the engine.
            gives: gives the members what is said.
            wait_heard: waits until what is published to a room is heard, for a while; whether it is.
            keep: bytes of what was said that are kept here.
            lease: seconds after which a writer that was not heard may be dead.
            clock: seconds, never going back.
        """
        self.rooms: dict[str, RoomStreams] = {}
        self._link = link
        self._gives = gives
        self._learning = Learning(self, link, wait_heard)
        self.copies = Copies(keep)
        self._lease = lease
        self._clock = clock
        self.running: dict[StreamCopy, None] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_over = False

    # --- life

    def start(self) -> None:
        """Begin to look after what is followed."""
        self._link.on_up.append(self.look_soon)

    async def stop(self) -> None:
        """Follow nothing any more."""
        self._is_over = True
        for room in self.rooms.values():
            room.is_over = True
        self.rooms.clear()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def run(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something until `stop`; nothing after it."""
        task = asyncio.create_task(work, name="velocity-ws streams")
        if self._is_over:
            task.cancel()
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("what was done for streams failed in a way it should not", exc_info=error)

    def open(self, room: str, topic: str) -> RoomStreams:
        """A room has a first member here: find out which streams it has."""
        opened = self.rooms[room] = RoomStreams(room, topic, self._clock())
        self.run(self._learning.learn(opened))
        return opened

    def close(self, room: str) -> None:
        """A room has no member here any more."""
        closed = self.rooms.pop(room, None)
        if closed is not None:
            closed.is_over = True
            for copy in closed.copies.values():
                self.running.pop(copy, None)
                self.copies.let_go(copy)

    def look_soon(self) -> None:
        """Something may have been missed: ask about all streams that have not ended."""
        for copy in self.running:
            copy.heard_at = -self._lease

    def deaf(self, topic: str) -> None:
        """A room was not heard for a while."""
        for room in self.rooms.values():
            if room.topic == topic:
                for copy in room.copies.values():
                    copy.heard_at = -self._lease if copy in self.running else copy.heard_at
                self._learning.look_at({room.room: room})

    def look_for_new(self) -> None:
        """Streams may have begun of which nothing was heard: ask which streams the rooms have."""
        self.look_soon()
        self._learning.look_at(self.rooms)

    # --- what is heard

    def take(self, said: StreamPiece) -> None:
        """Take a piece that another node has published."""
        if said.room is not None:
            self.heard(said.room, said.id, said.payload)

    def heard(self, room: str, id_: str, payload: bytes) -> None:
        """Take a piece of a stream."""
        followed = self.rooms.get(room)
        if followed is None:
            return
        if not followed.is_known:
            followed.heard.add(id_)
            return
        try:
            piece = unpack(payload)
        except InvalidPiece as error:
            log.warning("dropped a piece of stream %s that is none: %s", quote(id_), error)
            return
        copy = followed.copies.get(id_)
        if copy is None:
            copy = self._new(followed, id_)
        self._take(copy, piece)

    def known(self, room: RoomStreams, streams: Sequence[Summary]) -> None:
        """It is known which streams a room has: the newest first."""
        room.is_known = True
        for stream in reversed(streams):
            copy = room.copies.get(stream.id)
            if copy is None:
                self._learned(room, stream)
            elif stream.pieces > copy.number or stream.end != copy.end:  # it was asked for, and has gone on since
                self.missed(room, stream.id)
        self._gives.known(room)
        heard, room.heard = room.heard, set()
        for id_ in heard:
            self.missed(room, id_)

    def missed(self, room: RoomStreams, id_: str) -> None:
        """Something of a stream was missed, be it all that there is."""
        self.repair(room.copies.get(id_) or self._new(room, id_))

    def _new(self, room: RoomStreams, id_: str) -> StreamCopy:
        copy = room.copies[id_] = StreamCopy(id_, room.room, room.topic, self.copies)
        copy.heard_at = self._clock()
        self.running[copy] = None
        return copy

    def _take(self, copy: StreamCopy, piece: Piece) -> None:
        if piece.number < copy.number or copy.end:
            if not piece.number:  # late; or the engine has lost the stream, and its id was begun anew
                self.run(self._look_whether_anew(copy))
            return
        if piece.number > copy.number or piece.start != copy.length:
            self.repair(copy)
            return
        copy.heard_at = self._clock()
        message = copy.heard(piece)
        if copy.end:
            self.running.pop(copy, None)
        self._gives.give(copy, piece, message)

    # --- what is asked

    def found(self, room: RoomStreams, stream: Summary) -> None:
        """The engine was asked about one stream by its id, and has said that it is one of a room."""
        if stream.id in room.copies:
            return
        if room.is_known and self._clock() - stream.age / 1000 >= room.known_since:
            self.missed(room, stream.id)  # those who keep up have nothing of it yet
        else:
            self._learned(room, stream, is_old=True)

    def _learned(self, room: RoomStreams, stream: Summary, *, is_old: bool = False) -> None:
        """The engine has said of a stream that it is one of a room, whose members have not been given anything.

        Args:
            room: the room.
            stream: the stream.
            is_old: whether it is older than those that are known; else it is newer.
        """
        copy = StreamCopy(stream.id, room.room, room.topic, self.copies)
        if is_old:
            room.copies = {stream.id: copy, **room.copies}
        else:
            room.copies[stream.id] = copy
        copy.learn(stream)
        copy.heard_at = self._clock()
        if not copy.end:
            copy.heard_at -= self._lease - stream.left / 1000
            self.running[copy] = None

    def ended(self, stream: Summary) -> None:
        """A stream was ended by this node, which does not hear that."""
        room = self.rooms.get(stream.room)
        copy = None if room is None else room.copies.get(stream.id)
        if copy is not None and not copy.end:
            self.repair(copy)

    def repair(self, copy: StreamCopy) -> None:
        """Something was missed: read it, and give it to those who keep up."""
        copy.is_stale = True
        if not copy.is_repairing:
            copy.is_repairing = True
            copy.repaired.clear()
            self.run(self._read_on(copy))

    async def read_on(self, copy: StreamCopy) -> None:
        """Read what was said and not heard yet, if there is such."""
        self.repair(copy)
        await copy.repaired.wait()

    async def _read_on(self, copy: StreamCopy) -> None:
        try:
            while self.is_followed(copy) and not copy.end:
                copy.is_stale = False
                try:
                    part = await self._link.read(Query(copy.id, copy.topic, copy.length, PAGE))
                except BackplaneUnavailable:
                    await asyncio.sleep(AGAIN)
                    continue
                if not self.is_followed(copy):
                    return
                if part is None or part.stream.is_gone:
                    self.end_here(copy)
                    return
                if not copy.is_of(part.stream):
                    self._begin_anew(copy)
                    return
                before = copy.number
                for piece in readable(copy, part.payloads):
                    self._take_read(copy, piece)
                if part.stream.end and part.stream.length <= copy.length:  # less, where it has lost what was heard
                    copy.number = max(copy.number, part.stream.pieces - 1)  # pieces of nothing may be missing
                    self._take(copy, Piece(copy.number, copy.length, 0, "", part.stream.end, b""))
                if not copy.is_stale and (copy.number >= part.stream.pieces or copy.number == before):
                    return
        finally:
            copy.is_repairing = False
            copy.repaired.set()

    def _take_read(self, copy: StreamCopy, piece: Piece) -> None:
        """Take a piece that was read, before which those without text and items may be missing."""
        if piece.number >= copy.number and piece.start == copy.length and self.is_followed(copy):
            copy.number = piece.number
            self._take(copy, piece)

    async def is_lost(self, id_: str) -> bool:
        """Whether the engine knows nothing of a stream.

        Raises:
            BackplaneUnavailable: it did not answer.
        """
        return await self._link.look(id_) is None

    async def _look_whether_anew(self, copy: StreamCopy) -> None:
        number, end = copy.number, copy.end  # as more may be heard before the answer is
        with contextlib.suppress(BackplaneUnavailable):
            stream = await self._link.look(copy.id)
            room = self.rooms.get(copy.room)
            if stream is None or room is None or room.copies.get(copy.id) is not copy:
                return
            if not copy.is_of(stream) or stream.pieces < number or (end and not stream.end):
                self._begin_anew(copy)

    def _begin_anew(self, copy: StreamCopy) -> None:
        """The engine has lost a stream, and its id is that of another one: it ends, and the other one is followed."""
        if not copy.end:
            self.end_here(copy)
        self.copies.let_go(copy)
        room = self.rooms[copy.room]
        del room.copies[copy.id]
        self.repair(self._new(room, copy.id))

    def end_here(self, copy: StreamCopy) -> None:
        """The engine has lost a stream: those who read it are told that it will not go on."""
        log.warning("the engine knows no more of stream %s, which is lost", quote(copy.id))
        self._take(copy, Piece(copy.number, copy.length, 0, "", "lost", b""))

    def forget(self, room: RoomStreams) -> None:
        """Keep nothing of those who have left a room before they got anything of its streams."""
        if room.waiting:
            self._gives.forget(room)

    def is_followed(self, copy: StreamCopy) -> bool:
        """Whether a copy is still one of a room with members here."""
        room = self.rooms.get(copy.room)
        return room is not None and room.copies.get(copy.id) is copy


def readable(copy: StreamCopy, payloads: Iterable[bytes]) -> list[Piece]:
    """The pieces that an engine has said, up to one that cannot be read."""
    found: list[Piece] = []
    for payload in payloads:
        try:
            found.append(unpack(payload))
        except InvalidPiece as error:
            log.warning("a piece of stream %s cannot be read: %s", quote(copy.id), error)
            break
    return found
