"""Unfinished: messages of which a part has come, of all connections: how long and how much. Knows no connection."""

from __future__ import annotations

import asyncio
from typing import Protocol

from velocity_ws.close import CloseCode
from velocity_ws.concurrency.deadlines import Deadlines

__all__ = ["MESSAGE_TIMEOUT", "UNFINISHED_SIZE", "Holder", "Unfinished"]

MESSAGE_TIMEOUT = 60.0
"""Seconds for a message of an application that has no WS_MESSAGE_TIMEOUT."""
UNFINISHED_SIZE = 64 * 1024 * 1024
"""Bytes of all of them in such a one."""


class Holder(Protocol):
    """Who has a part of a message."""

    @property
    def is_held_up(self) -> bool:
        """Whether it is this side that does not read the rest."""

    def give_up(self, code: int, reason: str) -> None:
        """The rest is not waited for."""


class Unfinished:
    """Connections that hold a part of a message. Nothing of it is asked where messages come whole.

    Each has so many seconds from its first byte to its last, and all together so many bytes: beyond, the one goes that
    has sent nothing for longest, as its rest is least likely to come.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, limit: int) -> None:
        """
        Args:
            loop: whose time counts.
            seconds: that a message may take.
            limit: bytes of all of them.
        """
        self._deadlines: Deadlines[Holder] = Deadlines(loop, seconds, self._late)
        self._seconds = seconds
        self._limit = limit
        self._sizes: dict[Holder, int] = {}
        self.size = 0

    def __len__(self) -> int:
        return len(self._sizes)

    def hold(self, holder: Holder, size: int) -> None:
        """There are so many bytes of a message now; its time begins where there were none."""
        self._deadlines.start(holder)
        self.size += size - self._sizes.pop(holder, 0)
        self._sizes[holder] = size  # behind the others
        while self.size > self._limit:
            idlest = next(iter(self._sizes))
            self.let_go(idlest)
            idlest.give_up(CloseCode.TRY_AGAIN_LATER, "too much is unfinished of all messages")

    def let_go(self, holder: Holder) -> None:
        """It is whole, or given up; harmless where there was none."""
        self._deadlines.stop(holder)
        self.size -= self._sizes.pop(holder, 0)

    def _late(self, holder: Holder) -> None:
        if holder.is_held_up:
            self._deadlines.start(holder)
            return
        self.let_go(holder)
        holder.give_up(CloseCode.POLICY_VIOLATION, f"a message took more than {self._seconds:g} s to come")
