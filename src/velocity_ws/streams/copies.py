"""Copies: what a node knows of the streams of its rooms, and as much of what they said as it may keep ready.

Knows neither engine nor client.
"""

from __future__ import annotations

import asyncio
import bisect

from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.streams.items import End, Summary
from velocity_ws.streams.pieces import Kind, Piece, join
from velocity_ws.streams.wire import Frames

__all__ = ["MESSAGE", "Copies", "StreamCopy"]

MESSAGE = 256 * 1024
"""Bytes of a message by which a reader gets what it has not had."""
_CHUNK = 4 * 1024
"""Bytes from which on what is kept is put together no further."""


class StreamCopy:
    """One stream, as a node knows it. On the broker's loop only.

    Attributes:
        id: the stream's.
        room: the stream's.
        topic: the stream's.
        number: pieces that were heard, and given to those who keep up.
        length: characters, or items, of these.
        end: how it has ended; empty while it has not.
        kind: what it has, as far as that was heard; it may be empty though it has something.
        behind: those who have not had all of this, by their ids.
        heard_at: when it was known last that the writer lives.
        is_large: whether it is known to have more bytes than are kept of one.
        is_repairing: whether it is read what was missed.
        is_stale: whether more may have been missed since that was asked.
        repaired: set when that is done.
        writer: the stream's, by which it is known that its id was begun anew; empty before the engine was asked.
        size: bytes that are kept.
    """

    __slots__ = (
        "_all", "_chunks", "_frame", "_frames", "_starts", "behind", "end", "heard_at", "id", "is_large",
        "is_repairing", "is_stale", "kind", "length", "number", "repaired", "room", "size", "topic", "writer",
    )  # fmt: skip

    def __init__(self, id_: str, room: str, topic: str, all_: Copies) -> None:
        """
        Args:
            id_: the stream's.
            room: the stream's.
            topic: the stream's.
            all_: bounds what is kept.
        """
        self.id = id_
        self.room = room
        self.topic = topic
        self.number = self.length = self.size = 0
        self.end: End = ""
        self.kind: Kind = ""
        self.behind: dict[str, object] = {}
        self.heard_at = 0.0
        self.is_large = self.is_repairing = self.is_stale = False
        self.repaired = asyncio.Event()
        self.writer = b""
        self._all = all_
        self._frames = Frames(room, id_)
        self._chunks: list[Piece] = []
        self._starts: list[int] = []
        self._frame: tuple[int, int, End, PreparedMessage] | None = None

    def learn(self, stream: Summary) -> None:
        """Begin with what the engine says of it, of which nothing is kept here."""
        self.number, self.length, self.end = stream.pieces, stream.length, stream.end
        self.writer = stream.writer

    def is_of(self, stream: Summary) -> bool:
        """Whether it is the stream of which the engine speaks, as far as known, and none of later with its id."""
        self.writer = self.writer or stream.writer
        return self.writer == stream.writer

    def heard(self, piece: Piece) -> PreparedMessage:
        """Take the piece that follows; the message by which those get it who keep up."""
        self.number = piece.number + 1
        self.length = piece.stop
        self.end = piece.end
        self.kind = piece.kind or self.kind
        self._keep(piece)
        return self._frames.of(piece if piece.kind else piece._replace(kind=self.kind))

    @property
    def kept_from(self) -> int:
        """Characters, or items, before the first that is kept."""
        return self._starts[0] if self._starts else self.length

    def message(self, cursor: int) -> tuple[PreparedMessage, int] | None:
        """The next message for a reader that has a number of characters, or items, and what it has then.

        ``None`` where it is not kept.
        """
        if cursor > self.length or (cursor < self.length and cursor < self.kept_from):
            return None
        frame = self._frame
        if frame is not None and frame[:3] == (cursor, self.length, self.end):
            return frame[3], self.length
        message, stop = self.message_of(self._piece(cursor))
        if stop == self.length:  # many may ask for it
            self._frame = cursor, self.length, self.end, message
        self._all.used(self)
        return message, stop

    def message_of(self, piece: Piece) -> tuple[PreparedMessage, int]:
        """The same of a piece that was read for this reader; not of what those who keep up have not had either."""
        piece = piece.until(self.length)
        while True:
            end = self.end if piece.stop == self.length else ""
            message = self._frames.of(piece._replace(end=end, kind=piece.kind or self.kind))
            if message.size <= MESSAGE or piece.length <= 1:
                return message, piece.stop
            piece = piece.until(piece.start + piece.length // 2)  # JSON has up to six bytes for one

    def lost_from(self, cursor: int) -> PreparedMessage:
        """The end for a reader that has a number of characters, or items, where what follows is kept nowhere."""
        return self._frames.lost(cursor)

    def fill(self, pieces: list[Piece]) -> None:
        """Keep what was read of before that which is kept, with nothing between."""
        old = self._chunks
        self._all.let_go(self)
        for piece in [*pieces, *old]:
            self._keep(piece)

    def drop(self) -> None:
        """Keep nothing of what it said."""
        self._chunks, self._starts, self.size, self._frame = [], [], 0, None

    def _piece(self, cursor: int) -> Piece:
        if cursor >= self.length:
            return Piece(self.number, self.length, 0, "", self.end, b"")
        found: list[Piece] = []
        size = 0
        for chunk in self._chunks[bisect.bisect_right(self._starts, cursor) - 1 :]:
            part = chunk if found else chunk.after(cursor)
            size += len(part.data)
            if found and size > MESSAGE - 1024:
                break
            found.append(part)
        return join(found)

    def _keep(self, piece: Piece) -> None:
        if not self._all.limit or not piece.length:
            return
        if self._chunks and len(self._chunks[-1].data) + len(piece.data) <= _CHUNK:
            self._chunks[-1] = join([self._chunks[-1], piece])
        else:
            self._chunks.append(piece)
            self._starts.append(piece.start)
        self.size += len(piece.data)
        self._all.grew(self, len(piece.data))


class Copies:
    """All copies of a node, bounded in bytes of what is kept. On the broker's loop only.

    Attributes:
        limit: bytes; 0 for nothing, where the engine is as near as this.
        size: bytes that are kept.
    """

    def __init__(self, limit: int) -> None:
        """
        Args:
            limit: see the attribute.
        """
        self.limit = limit
        self.size = 0
        self._kept: dict[StreamCopy, None] = {}

    def grew(self, copy: StreamCopy, size: int) -> None:
        """A copy keeps more: where it is too much, those let go that were not used for longest."""
        self.size += size
        self.used(copy)
        while self.size > self.limit and self._kept:
            self.let_go(next(iter(self._kept)))

    def used(self, copy: StreamCopy) -> None:
        """A copy was used."""
        if copy.size:
            self._kept.pop(copy, None)
            self._kept[copy] = None

    def let_go(self, copy: StreamCopy) -> None:
        """Keep nothing of what a stream said."""
        self._kept.pop(copy, None)
        self.size -= copy.size
        copy.drop()
