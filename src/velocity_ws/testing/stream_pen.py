"""Pen: one writer of one stream, for tests, and what it says as items for a store. Knows no store."""

from __future__ import annotations

import secrets

from velocity_ws.streams.items import WRITER_SIZE, Append, Begin, Deletion, End, Ending, Renewal, Times
from velocity_ws.streams.pieces import Kind, Piece, pack

__all__ = ["HOUR", "LONG", "Pen"]

HOUR = 3600_000
"""Milliseconds that no test takes."""
LONG = Times(HOUR, HOUR, HOUR)


class Pen:
    """One writer of one stream: what it says, as items for a store.

    Attributes:
        id: of the stream.
        topic: of the stream.
        room: of the stream.
        writer: its own.
        times: how long things last.
        number: of its next piece.
        start: characters, or items, before that one.
    """

    def __init__(self, id_: str, topic: str, room: str = "room", times: Times = LONG) -> None:
        """
        Args:
            id_: of the stream.
            topic: of the stream.
            room: of the stream.
            times: how long things last.
        """
        self.id, self.topic, self.room, self.times = id_, topic, room, times
        self.writer = secrets.token_bytes(WRITER_SIZE)
        self.number = self.start = 0

    def begin(self) -> Begin:
        """What begins the stream."""
        return Begin(self.id, self.topic, self.room, self.writer, self.times)

    def other(self) -> Pen:
        """Another writer of the same id."""
        return Pen(self.id, self.topic, self.room, self.times)

    def say(self, text: str = "", end: End = "", head: bytes = b"head\n") -> Append:
        """The next piece of text."""
        kind: Kind = "text" if text else ""
        return self._next(Piece(self.number, self.start, len(text), kind, end, text.encode()), head)

    def give(self, *items: str, end: End = "", head: bytes = b"") -> Append:
        """The next piece of items, each of them JSON."""
        return self._next(Piece(self.number, self.start, len(items), "items", end, ",".join(items).encode()), head)

    def pack(self, data: bytes = b"", note: bytes = b"", end: End = "") -> Append:
        """The next piece of bytes, with a note."""
        kind: Kind = "bytes" if data else ""
        return self._next(Piece(self.number, self.start, len(data), kind, end, data, note), b"")

    def renew(self, times: Times | None = None) -> Renewal:
        """What says that it lives."""
        return Renewal(self.id, self.topic, self.writer, times or self.times)

    def end(self, end: End = "cancelled", *, is_of_dead: bool = False, head: bytes = b"ended\n") -> Ending:
        """An end that another says."""
        return Ending(self.id, self.topic, end, head, is_of_dead)

    def delete(self) -> Deletion:
        """What asks a store to delete the stream."""
        return Deletion(self.id, self.topic, self.writer)

    def _next(self, piece: Piece, head: bytes) -> Append:
        self.number, self.start = self.number + 1, piece.stop
        return Append(self.id, self.topic, self.writer, pack(piece), head)
