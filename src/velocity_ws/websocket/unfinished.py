"""Unfinished: bounds in time and bytes for messages that have come in part. Knows no connection."""

from __future__ import annotations

import asyncio
from typing import Protocol

from velocity_ws.close import TOO_MUCH_UNFINISHED, slow_message
from velocity_ws.concurrency.deadlines import Deadlines

__all__ = ["MESSAGE_TIMEOUT", "UNFINISHED_SIZE", "UnfinishedMessages", "UnfinishedReader"]

MESSAGE_TIMEOUT = 60.0
"""Seconds that a message may take, where no broker's WS_MESSAGE_TIMEOUT applies."""
UNFINISHED_SIZE = 64 * 1024 * 1024
"""Bytes of all unfinished messages together, where no broker's WS_MAX_UNFINISHED_SIZE applies."""


class UnfinishedReader(Protocol):
    """A reader that holds a part of a message."""

    @property
    def is_waiting(self) -> bool:
        """Whether it is this side that does not read the rest."""

    def fail(self, code: int, reason: str) -> None:
        """Fail the connection: the rest of its message is not waited for."""


class UnfinishedMessages:
    """The readers that hold a part of a message; those whose messages come whole never ask here.

    A message has a time from its first byte to its last, and all of them together a size. Beyond that size the
    connection is failed that has sent nothing for longest, as its rest is least likely to come.

    Attributes:
        size: bytes that are held now.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, limit: int) -> None:
        """
        Args:
            loop: whose time counts.
            seconds: that a message may take.
            limit: bytes of all unfinished messages.
        """
        self._deadlines: Deadlines[UnfinishedReader] = Deadlines(loop, seconds, self._late)
        self._seconds = seconds
        self._limit = limit
        self._sizes: dict[UnfinishedReader, int] = {}
        self.size = 0

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, reader: UnfinishedReader, size: int) -> None:
        """Note how much of its message a reader holds now; the message's time begins with the first call.

        Args:
            reader: may be noted already.
            size: bytes of the message so far.
        """
        self._deadlines.start(reader)
        self.size += size - self._sizes.pop(reader, 0)
        self._sizes[reader] = size  # behind the others
        while self.size > self._limit:
            idlest = next(iter(self._sizes))
            self.remove(idlest)
            idlest.fail(*TOO_MUCH_UNFINISHED)

    def remove(self, reader: UnfinishedReader) -> None:
        """The message is whole, or not waited for. Harmless where there was none."""
        self._deadlines.stop(reader)
        self.size -= self._sizes.pop(reader, 0)

    def _late(self, reader: UnfinishedReader) -> None:
        if reader.is_waiting:
            self._deadlines.start(reader)
            return
        self.remove(reader)
        reader.fail(*slow_message(self._seconds))
