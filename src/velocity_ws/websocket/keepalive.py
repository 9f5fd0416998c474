"""Keepalive: when connections are pinged, and when their pong is due, by two timers for all of them.

Knows nothing of a ping. A timer of its own would cost each connection 600 bytes with uvloop.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from velocity_ws.concurrency.deadlines import Deadlines

__all__ = ["Keepalive", "Kept"]


class Kept(Protocol):
    """A connection, as its keepalive sees it."""

    def ping_is_due(self) -> None:
        """Time to ping: says `Keepalive.pinged`, unless it is over."""

    def pong_is_late(self) -> None:
        """The pong has not come in time: ends the connection, or says `Keepalive.pinged` again to wait on."""


class Keepalive:
    """The connections with the same interval and timeout. Used on their event loop only.

    Attributes:
        timeout: seconds that a pong may take; 0 where none is waited for.
        begin: is called with a connection that is open.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, interval: float, timeout: float) -> None:
        """
        Args:
            loop: whose time counts.
            interval: seconds from a connection's beginning, or its last pong, to its next ping; greater than 0.
            timeout: seconds that a pong may take; 0 to wait for none, and to count from ping to ping.
        """
        self.timeout = timeout
        self._pings: Deadlines[Kept] = Deadlines(loop, interval, lambda kept: kept.ping_is_due())
        self.begin = self._pings.start
        self._pongs: Deadlines[Kept] = Deadlines(loop, timeout, lambda kept: kept.pong_is_late())

    def pinged(self, kept: Kept) -> None:
        """It was pinged just now, or its pong is to be waited for once more."""
        (self._pongs if self.timeout else self._pings).start(kept)

    def heard(self, kept: Kept) -> None:
        """Its pong has come."""
        self._pongs.stop(kept)
        self._pings.start(kept)

    def end(self, kept: Kept) -> None:
        """It is gone."""
        if not self._pings.stop(kept):
            self._pongs.stop(kept)
