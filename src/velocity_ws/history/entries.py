"""Entries: the bytes of which a log is made, and how they are read. Knows no engine, nor what an envelope says. Pure.

An entry is an envelope and, behind it, the *stamp* of 40 bytes that the engine gave it. What is published is the same
bytes. An envelope ends just before the content of a last field that has the stamp's size, so that a reader that knows
no stamps sees a whole envelope with one field more.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from velocity_ws.history.positions import POSITION_SIZE, Position, text_of

__all__ = ["STAMP_SIZE", "Entry", "InvalidEntry", "Stamp", "at_of", "pack_stamp", "time_of"]

STAMP_SIZE: Final = 40
"""Bytes: a position, the mark of the entry before, and the time."""
_TIME_AT = POSITION_SIZE + 8


class InvalidEntry(ValueError):
    """Bytes that no engine has stored or published for a log."""


class Stamp(NamedTuple):
    """What the engine says of an entry.

    Attributes:
        position: where one stands who has it.
        previous: the mark of the entry before, or of the log's beginning. In a notice, which is no entry, it is the
            position's own.
        time: when the engine took it, in milliseconds since 1970 by its own clock; never less than that of the entry
            before.
    """

    position: Position
    previous: bytes
    time: int

    @classmethod
    def unpack(cls, data: bytes) -> Stamp:
        """Read 40 bytes; see `pack`.

        Raises:
            InvalidEntry: there are fewer or more.
        """
        if len(data) != STAMP_SIZE:
            raise InvalidEntry(f"a stamp has {STAMP_SIZE} bytes, not {len(data)}")
        return cls(
            Position.unpack(data), data[POSITION_SIZE:_TIME_AT], int.from_bytes(data[_TIME_AT:STAMP_SIZE], "big")
        )

    @property
    def before(self) -> Position:
        """Where one stands who has all before the entry, and not the entry."""
        return self.position._replace(offset=self.position.offset - 1, mark=self.previous)

    def pack(self) -> bytes:
        """The same as 40 bytes: the position, the mark before, and the time (8, in network order)."""
        return pack_stamp(*self.position, self.previous, self.time)


class Entry(NamedTuple):
    """One message of a log.

    Attributes:
        stamp: what the engine says of it.
        envelope: what was appended, without the stamp.
    """

    stamp: Stamp
    envelope: bytes

    @classmethod
    def unpack(cls, data: bytes) -> Entry:
        """Read what was stored or published.

        Raises:
            InvalidEntry: it is too short for a stamp.
        """
        return cls(Stamp.unpack(data[-STAMP_SIZE:]), data[:-STAMP_SIZE])

    def pack(self) -> bytes:
        """What is stored and published."""
        return self.envelope + self.stamp.pack()


_pack = struct.Struct(">6s7s3s8s8sQ").pack


def pack_stamp(epoch: bytes, offset: int, revision: int, mark: bytes, previous: bytes, time: int) -> bytes:
    """The 40 bytes of a stamp, without one: an engine makes one for each entry, and few are ever read."""
    return _pack(epoch, offset.to_bytes(7, "big"), revision.to_bytes(3, "big"), mark, previous, time)


def time_of(packed: bytes) -> int:
    """The time in the 40 bytes of a stamp, or in what ends with them."""
    return int.from_bytes(packed[-8:], "big")


def at_of(stamp: bytes) -> str:
    """The text of the position in the 40 bytes of a stamp, without reading the rest."""
    return text_of(stamp[:POSITION_SIZE])
