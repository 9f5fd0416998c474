"""Drain: closes a stopping server's connections in small batches, against storms of reconnections. Knows no session."""

from __future__ import annotations

import asyncio
import math
import random
from typing import Protocol

from velocity_ws.logs import get_logger

__all__ = ["Drain", "Draining"]

BATCH = 20
"""Connections that are closed at once, at least."""
INTERVAL = 0.1
"""Seconds between two batches, at least."""
SHARE = 0.7
"""The part of the time in which close frames are sent; the rest is for the answers."""
RETURNS = 200.0
"""Clients that should come back in a second, at most."""
SPREAD = 0.5
"""Seconds over which even a few clients come back: long enough for a server that restarts at once."""
EARLIEST = 0.1
"""Seconds until the first comes back."""

log = get_logger("velocity_ws.uvicorn")


class Draining(Protocol):
    """A connection, as a drain sees it."""

    def go_away(self, retry_after: float, patience: float) -> None:
        """Send a close frame after what is queued. Harmless when the connection is over.

        Args:
            retry_after: seconds after which the client should come back.
            patience: seconds that what runs for it may take before.
        """

    def abort(self) -> None:
        """End now, and what runs for the connection too. Harmless when it is over."""


class Drain:
    """The end of one server's connections, on their event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[Draining] = []
        self._all: list[Draining] = []
        self._end = 0.0
        self._timer: asyncio.Handle | None = None
        self._batch = BATCH
        self._pause = 0.0
        self._spread = 0.0
        self._due = 0.0
        self._has_begun = False
        self._is_on = False

    def add(self, connection: Draining, seconds: float) -> None:
        """Close a connection within a time.

        Connections added in one turn of the loop are spread over the shortest of their times, and those that are left
        at its end are ended at once. A connection added later has the rest of that time.

        Args:
            connection: may be over already.
            seconds: that it may take to close.
        """
        end = self._loop.time() + seconds
        if not self._is_on:
            self._is_on = True
            self._end = end
            self._loop.call_soon(self._begin)
        elif not self._has_begun:
            self._end = min(self._end, end)
        elif self._loop.time() >= self._end:
            connection.abort()
            return
        elif self._timer is None:
            self._timer = self._loop.call_soon(self._next)
        self._waiting.append(connection)
        self._all.append(connection)

    def _begin(self) -> None:
        self._has_begun = True
        seconds = max(0.0, self._end - self._loop.time())
        self._loop.call_at(self._end, self._abort)
        batches = max(1, min(len(self._waiting) // BATCH, int(seconds * SHARE / INTERVAL)))
        self._batch = math.ceil(len(self._waiting) / batches)
        self._pause = seconds * SHARE / batches
        # No longer than this number of clients needs, and not to the end: another server may be up, or this one again.
        self._spread = min(max(len(self._waiting) / RETURNS, SPREAD), seconds)
        self._due = self._loop.time()
        self._next()

    def _next(self) -> None:
        now = self._loop.time()
        # A loop that is too busy to come here in time has several batches to catch up with.
        batches = 1 + int((now - self._due) / self._pause) if self._pause else 1
        self._due += batches * self._pause
        batch, self._waiting = self._waiting[: batches * self._batch], self._waiting[batches * self._batch :]
        left = max(0.0, self._end - now)
        for connection in batch:
            hint = random.uniform(min(EARLIEST, self._spread), self._spread)  # noqa: S311 - no secret
            try:
                connection.go_away(hint, left / 2)
            except Exception:  # one connection never costs another
                log.exception("a connection could not be told to go, and will be cut")
        self._timer = self._loop.call_at(self._due, self._next) if self._waiting else None

    def _abort(self) -> None:
        for connection in self._all:
            try:
                connection.abort()
            except Exception:  # one connection never costs another
                log.exception("a connection could not be cut")
        self._all.clear()
