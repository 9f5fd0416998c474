"""Losses: what a client that is too slow did not get, to be told in the order in which it was lost. Knows no transport.

Made when the first message of a room with history is dropped, so that nobody else pays for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from velocity_ws.messages.events import GapMessage, GapReason, encode_lost
from velocity_ws.messages.outbound import PlacedMessage, PreparedMessage

__all__ = ["MAX_ROOMS", "Losses", "LostRange"]

MAX_ROOMS: Final = 100
"""Rooms of which the range is kept; a client that loses something of more is closed, and asks again."""


class LostRange(NamedTuple):
    """What was lost of a room, without a message between that was not.

    Attributes:
        room: the room.
        before: the text of the position before the first message that was lost.
        at: the same of the last one.
        missed: how many there were; ``None`` if that is not known.
        reason: ``dropped``; or why the engine has some of it no more, of which the client could not be told either.
    """

    room: str
    before: str
    at: str
    missed: int | None
    reason: GapReason = "dropped"

    def encode(self) -> PreparedMessage:
        """The ``gap`` that tells of it."""
        return encode_lost(self.room, self.missed, self.reason, self.at, self.before)

    def and_then(self, lost: LostRange) -> LostRange:
        """This range with one that follows it, as one."""
        missed = None if self.missed is None or lost.missed is None else self.missed + lost.missed
        reason = lost.reason if lost.reason == "epoch" or self.reason == "dropped" else self.reason
        return LostRange(self.room, self.before, lost.at, missed, reason)


class Losses:
    """The ranges that were lost of rooms with history, since the client was last told. On the broker's loop only."""

    __slots__ = ("_ranges", "count")

    def __init__(self) -> None:
        self.count = 0  # messages in all ranges
        self._ranges: dict[str, LostRange] = {}

    def __iter__(self) -> Iterator[LostRange]:
        return iter(self._ranges.values())

    def add(self, message: PlacedMessage) -> bool:
        """A message was lost that comes after those that were lost of its room; it may itself tell of a loss.

        Returns:
            Whether the client can be told of it.
        """
        lost = LostRange(message.room, message.before, message.at, 1)
        if isinstance(message, GapMessage):
            lost = lost._replace(missed=message.missed, reason=message.reason)
        found = self._ranges.get(message.room)
        if found is not None:
            self._ranges[message.room] = found.and_then(lost)
        elif len(self._ranges) < MAX_ROOMS:
            self._ranges[message.room] = lost
        else:
            return False
        self.count += 1
        return True
