"""Values: what an application gets back from rooms with history. Knows no log and no client. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

from velocity_ws.history.entries import at_of
from velocity_ws.history.recovery import Reason

__all__ = ["Entry", "Joined", "Sent"]


class Sent(int):
    """The result of a send: the number of clients of this process for which it was queued.

    Attributes:
        duplicate: whether it is a message that was sent before with the same ``dedupe``, and was not sent once more.
    """

    duplicate: bool = False
    _stamp: bytes | None = None

    @classmethod
    def of(cls, count: int, stamp: bytes, *, duplicate: bool = False) -> Self:
        """The result of a send to one room with history, of the packed stamp of the message. For this package."""
        sent = cls(count)
        sent._stamp = stamp
        if duplicate:
            sent.duplicate = True
        return sent

    @property
    def at(self) -> str | None:
        """Where the message stands in its room: who has it can come back to just after it.

        ``None`` where it was sent to something else than one room with history.
        """
        return None if self._stamp is None else at_of(self._stamp)


class Joined(NamedTuple):
    """The result of `Broker.join_room`: how a client came into a room.

    Attributes:
        room: the name of the room.
        at: the position where the client stands, from which it goes on; ``None`` in a room without history, or while
            the engine cannot be reached.
        recovered: whether it gets all that it has missed since a position; ``None`` where none was given.
        reason: why it does not: ``evicted``, ``expired``, ``epoch``, ``rewound``, ``too_many`` or ``forbidden``.
        missed: how many messages those are, in order and before any new one; ``None`` where it gets none by recovery.
    """

    room: str
    at: str | None = None
    recovered: bool | None = None
    reason: Reason | None = None
    missed: int | None = None


class Entry(NamedTuple):
    """A message that a room remembers, as ``broker.history(room)`` returns it.

    Attributes:
        event: the name of the event.
        data: what was sent with it, as JSON makes it.
        at: its position; who has it can come back to just after it.
        time: when the engine took it, in seconds since 1970 by the engine's clock.
    """

    event: str
    data: Any
    at: str
    time: float
