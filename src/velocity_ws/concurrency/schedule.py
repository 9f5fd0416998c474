"""Schedule: one timer for many things, each with a time of its own. Knows nothing of what they are.

What all has equally long is cheaper in `velocity_ws.concurrency.deadlines`.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Schedule"]

T = TypeVar("T")

BATCH = 64
"""Items that are acted upon in one turn of the loop; the rest follows in later turns, so that others have theirs."""
LONGEST_SLEEP = 3600.0
"""Seconds that the timer is set for at most: loops refuse, or misunderstand, what is years ahead."""
GARBAGE = 64
"""Entries of stopped items that are kept in any case; beyond, as many as there are items."""


class Schedule(Generic[T]):
    """Items that are each due at some time. To start and stop 100,000 of them takes no timer for each.

    Used on one event loop; its owner must `stop` it before that loop ends, or forget it with its loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float], act: Callable[[T], None]) -> None:
        """
        Args:
            loop: the event loop that the timer runs on.
            clock: the time in seconds, never going back, by which items are due.
            act: called with each item that is due. It may start and stop items.
        """
        self._loop = loop
        self._clock = clock
        self._act = act
        self._numbers = itertools.count()
        self._keys: dict[T, tuple[float, int]] = {}
        self._items: dict[int, T] = {}  # by number, so that the heap refers to no item: what was stopped is freed
        self._heap: list[tuple[float, int]] = []
        self._timer: asyncio.Handle | None = None
        self._armed_for = 0.0

    def __len__(self) -> int:
        return len(self._keys)

    def start(self, item: T, due: float) -> None:
        """Make an item due at some time of the clock, in place of the time that it had before, if any."""
        self.cancel(item)
        number = next(self._numbers)
        key = self._keys[item] = (due, number)
        self._items[number] = item
        heapq.heappush(self._heap, key)
        if self._timer is None or due < self._armed_for:
            self._arm()

    def cancel(self, item: T) -> None:
        """Let an item not be due any more; harmless if it was not."""
        key = self._keys.pop(item, None)
        if key is None:
            return
        del self._items[key[1]]
        if len(self._heap) > 2 * len(self._keys) + GARBAGE:
            self._heap = list(self._keys.values())
            heapq.heapify(self._heap)

    def stop(self) -> None:
        """Forget all items, and the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._keys.clear()
        self._items.clear()
        self._heap.clear()

    def _arm(self) -> None:
        """Set the timer for the first item."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        heap, items = self._heap, self._items
        while heap and heap[0][1] not in items:
            heapq.heappop(heap)
        if heap:
            seconds = heap[0][0] - self._clock()
            self._armed_for = heap[0][0]
            if seconds <= 0:
                self._timer = self._loop.call_soon(self._look)
            else:
                self._timer = self._loop.call_later(min(seconds, LONGEST_SLEEP), self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._clock()
        items = self._items
        try:
            for _ in range(BATCH):
                if not self._heap or self._heap[0][0] > now:
                    break
                item = items.pop(heapq.heappop(self._heap)[1], None)
                if item is not None:
                    del self._keys[item]
                    self._act(item)
        finally:  # an item whose act raises costs no other item its time
            self._arm()
