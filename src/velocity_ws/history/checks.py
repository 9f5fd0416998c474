"""Checks: when it is looked whether a room's last message was lost, which no later one would show. Asks nobody itself.

A room is looked at some seconds after its last message, and ever more rarely while it stays quiet.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable

from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.history.feed import Feed

__all__ = ["Checks"]

FIRST = 10.0
"""Seconds after a room's last message."""
LAST = 300.0
"""Seconds at most between two looks at a quiet room."""
RATE = 2000
"""Rooms a second, at most."""
BATCH = 200
"""Rooms that are asked about at once."""
LEAST_PAUSE = 0.001
"""Seconds between two of these: uvloop does not wait half a millisecond, which is what one room is given."""
AGAIN = 1.0
"""Seconds until it is asked again, where the engine did not answer."""


class Checks:
    """The order in which rooms are looked at. On the broker's loop only."""

    def __init__(self, look: Callable[[list[Feed]], Awaitable[None]], clock: Callable[[], float]) -> None:
        """
        Args:
            look: looks at some rooms; raises `BackplaneUnavailable` where the engine does not answer.
            clock: seconds, never going back; that of the feeds.
        """
        self._look = look
        self._clock = clock
        self._numbers = itertools.count()
        self._line: list[tuple[float, int, Feed]] = []
        self._due: dict[Feed, tuple[float, float]] = {}  # when, and the interval; 0 where it is asked for
        self._changed = asyncio.Event()

    def watch(self, feed: Feed) -> None:
        """Look at a room from now on, in which something was said just now."""
        self._put(feed, self._clock() + FIRST, FIRST)

    def later(self, feed: Feed, seconds: float = 0.0) -> None:
        """Look at a room as soon as its turn comes, or in a while; whatever is heard meanwhile."""
        due = self._clock() + seconds
        known = self._due.get(feed)
        if known is None or known[1] or due < known[0]:
            self._put(feed, due, 0.0)

    def forget(self, feed: Feed) -> None:
        """Look at a room no more."""
        self._due.pop(feed, None)

    async def run(self) -> None:
        """Look at each room when it is due, until cancelled."""
        while True:
            feeds = self._next()
            if not feeds:
                await self._wait()
                continue
            try:
                await self._look(feeds)
            except BackplaneUnavailable:
                for feed in feeds:
                    if feed in self._due:  # and not forgotten meanwhile
                        self.later(feed, AGAIN)
            await asyncio.sleep(max(LEAST_PAUSE, len(feeds) / RATE))

    async def _wait(self) -> None:
        self._changed.clear()
        seconds = None if not self._line else self._line[0][0] - self._clock()
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return

    def _next(self) -> list[Feed]:
        """Those whose turn it is; each is put back for its next one."""
        now, found = self._clock(), list[Feed]()
        while self._line and self._line[0][0] <= now and len(found) < BATCH:
            due, _, feed = heapq.heappop(self._line)
            known = self._due.get(feed)
            if known is None or known[0] != due:  # it is over, or comes at another time
                continue
            interval = known[1]
            if interval and feed.heard_at + FIRST > now:
                self._put(feed, feed.heard_at + FIRST, FIRST)
                continue
            found.append(feed)
            self._put(feed, now + (interval or FIRST), min(2 * interval, LAST) if interval else FIRST)
        return found

    def _put(self, feed: Feed, due: float, interval: float) -> None:
        self._due[feed] = due, interval
        heapq.heappush(self._line, (due, next(self._numbers), feed))
        if self._line[0][2] is feed:
            self._changed.set()
