"""Tail: one stream that is read here as it is said, and what a reader gets of it. Knows no engine."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable
from typing import Any, Final, NamedTuple

from velocity_ws.streams.items import End, Summary
from velocity_ws.streams.pieces import Kind, Piece

__all__ = ["Chunk", "Tail"]

KEPT: Final = 64 * 1024
"""Bytes of what was said last that are kept of each stream, for those who read nearly as fast as it is said."""


MOST_MADE: Final = 32
"""Things that are kept of what was made for readers of one stream."""
MADE: Final = 1024 * 1024
"""Bytes of them, unless the last one alone has more."""


class Chunk(NamedTuple):
    """What a reader gets of a stream.

    Attributes:
        kind: of its data; empty where there is none.
        start: how many characters, items, or bytes, came before it.
        stop: how many there are up to its end.
        data: as of `Piece`.
        is_all: whether there was no more at that time.
        end: how the stream has ended, where this is all of it.
        writer: of the stream, where that is of use.
    """

    kind: Kind
    start: int
    stop: int
    data: bytes
    is_all: bool
    end: End
    writer: bytes = b""


class Tail:
    """One stream that is read here as it is said. On the broker's loop only.

    Attributes:
        topic: of the stream.
        writer: of the stream; where the id has another one by now, it was deleted and begun anew.
        is_known: whether it was looked at.
        note: of its last piece (see `pieces`), as far as that was heard.
        length: characters, items, or bytes, that were heard of.
        end: how it has ended.
        error: why it cannot be read any more; ``None`` where it can.
        stale: set where something may have been missed.
        users: how many read, or wait.
        used_at: when one of them did last.
        made: what was made for one reader of what there is, and is the same for others, the last
            things of it; forgotten with the next piece.
    """

    def __init__(self, id_: str) -> None:
        self.id = id_
        self.note = b""
        self.length = self.number = 0
        self.end: End = ""
        self.topic = ""
        self.writer = b""
        self.is_known = False
        self.error: Exception | None = None
        self.stale = asyncio.Event()
        self.used_at = 0.0
        self.users = 0
        self.made: dict[Hashable, Any] = {}
        self._sizes: deque[tuple[Hashable, int]] = deque()
        self._made_size = 0
        self._recent: list[Piece] = []
        self._size = 0
        self._changed = asyncio.Event()

    def take(self, piece: Piece) -> bool:
        """Take the piece that follows; whether it does."""
        if piece.number < self.number or self.end:
            return bool(piece.number)  # a first one may be of a stream that was deleted, and begun anew
        if piece.number != self.number or piece.start != self.length:
            return False
        self.number += 1
        self.length, self.end, self.note = piece.stop, piece.end, piece.note
        if piece.length:
            self._recent.append(piece)
            self._size += len(piece.data)
            while self._size > KEPT and len(self._recent) > 1:
                self._size -= len(self._recent.pop(0).data)
        self.tell()
        return True

    def learn(self, stream: Summary) -> None:
        """Go on from what the engine says of it."""
        self.number, self.length, self.end, self.note = stream.pieces, stream.length, stream.end, stream.note
        self._recent, self._size = [], 0
        self.tell()

    def tell(self) -> None:
        """Wake all who wait: something has changed."""
        self.made.clear()
        self._sizes.clear()
        self._made_size = 0
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def remember(self, key: Hashable, made: Any, size: int) -> None:
        """Keep what was made for one reader, for others; not for any number of places that readers may begin at.

        What was made first is forgotten first: as readers go on, what is kept comes to be that near the end.

        Args:
            key: what it is.
            made: that.
            size: its bytes.
        """
        if key in self.made:
            return
        self.made[key] = made
        self._sizes.append((key, size))
        self._made_size += size
        while len(self._sizes) > MOST_MADE or (self._made_size > MADE and len(self._sizes) > 1):
            first, less = self._sizes.popleft()
            del self.made[first]
            self._made_size -= less

    async def wait(self) -> None:
        """Wait until something changes."""
        await self._changed.wait()

    def kept(self, cursor: int) -> list[Piece] | None:
        """What follows a position, where all of it is kept here."""
        if not self._recent or not self._recent[0].start <= cursor:
            return None
        return [piece.after(cursor) for piece in self._recent if piece.stop > cursor]
