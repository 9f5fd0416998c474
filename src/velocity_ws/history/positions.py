"""Positions: where in a room's log a client stands, and the opaque text that clients hold of it. Knows no log. Pure.

The mark of an entry stays between the nodes. The text has a *proof* in its place, made of the mark and of all else that
the text says: who changes anything, as to seem to stand behind a removal, has no position any more.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Final, NamedTuple

__all__ = ["MARK_SIZE", "MAX_OFFSET", "POSITION_SIZE", "Claim", "InvalidPosition", "Position", "text_of"]

EPOCH_SIZE: Final = 6
MARK_SIZE: Final = 8
"""Bytes of a mark: 64 bits that nobody guesses, so that nobody makes up a position."""
POSITION_SIZE: Final = 24
"""Bytes of a position; its text has four characters for each three of them."""
MAX_OFFSET: Final = 2**53
"""The largest number that is exact in every engine's scripts."""
_OFFSET_AT, _REVISION_AT, _MARK_AT = 6, 13, 16
_is_text = re.compile(r"[A-Za-z0-9_-]{32}", re.ASCII).fullmatch


class InvalidPosition(ValueError):
    """A text that no server has given as a position; the text of the error says why."""


class Position(NamedTuple):
    """Just behind an entry of a log, or at the beginning of a log that has had none.

    Attributes:
        epoch: 6 bytes that name one life of the log.
        offset: the number of the entry it stands on, from 1 in each epoch; 0 at the beginning.
        revision: how often the log had been cleared, or somebody been removed from the room, when the engine gave it:
            a clock without a time, by which a position from before a removal is known.
        mark: the 8 unguessable bytes of that entry, or of the beginning.
    """

    epoch: bytes
    offset: int
    revision: int
    mark: bytes

    @classmethod
    def unpack(cls, data: bytes) -> Position:
        """Read the first 24 bytes; see `pack`."""
        return cls(
            data[:_OFFSET_AT],
            int.from_bytes(data[_OFFSET_AT:_REVISION_AT], "big"),
            int.from_bytes(data[_REVISION_AT:_MARK_AT], "big"),
            data[_MARK_AT:POSITION_SIZE],
        )

    @staticmethod
    def parse(text: object) -> Claim:
        """Read what a client sends as a position, which may be anything.

        Raises:
            InvalidPosition: it is none.
        """
        if not isinstance(text, str) or not _is_text(text):
            raise InvalidPosition("a position is the text that came as `at`, unchanged")
        position = Claim(*Position.unpack(base64.urlsafe_b64decode(text)))
        if position.offset > MAX_OFFSET:
            raise InvalidPosition("a position with such a number was never given")
        return position

    def pack(self) -> bytes:
        """The same as 24 bytes: epoch, offset (7), revision (3) and mark, numbers in network order."""
        return b"%b%b%b%b" % (self.epoch, self.offset.to_bytes(7, "big"), self.revision.to_bytes(3, "big"), self.mark)

    def is_at(self, other: Position) -> bool:
        """Whether it is the place of a position that is known; when it was given does not matter."""
        return self[:2] == other[:2] and self.is_behind(other.mark)

    def is_behind(self, mark: bytes) -> bool:
        """Whether it is that of the entry, or of the beginning, that has a mark."""
        return self.mark == mark

    @property
    def at(self) -> str:
        """The text that clients hold: 32 characters ``A-Z a-z 0-9 _ -``."""
        return text_of(self.pack())


class Claim(Position):
    """A position as a client says it, with the proof in place of the mark; it is true where `is_behind` says so."""

    __slots__ = ()

    def is_behind(self, mark: bytes) -> bool:
        """See `Position.is_behind`."""
        return self.mark == _proof(Position(self.epoch, self.offset, self.revision, mark).pack())

    @property
    def at(self) -> str:
        """The text that the client has sent."""
        return base64.urlsafe_b64encode(self.pack()).decode("ascii")


def text_of(packed: bytes) -> str:
    """The text of a position, of its 24 bytes."""
    return base64.urlsafe_b64encode(packed[:_MARK_AT] + _proof(packed)).decode("ascii")


def _proof(packed: bytes) -> bytes:
    return hashlib.blake2b(packed, digest_size=MARK_SIZE).digest()
