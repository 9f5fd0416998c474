"""Deadlines: one timer for many things that may take equally long. Knows nothing of what they are."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Deadlines"]

T = TypeVar("T")

BATCH = 64
"""Items that are acted upon in one turn of the loop; the rest follows in later turns, so that others have theirs."""


class Deadlines(Generic[T]):
    """Items that each have the same time to finish. To start and stop one costs a dictionary's entry, and no timer.

    Used on one event loop; its owner must not outlive that loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, act: Callable[[T], None]) -> None:
        """
        Args:
            loop: the event loop that the timer runs on.
            seconds: how long each item may take.
            act: called with each item that was not stopped in time.
        """
        self._loop = loop
        self._seconds = seconds
        self._act = act
        self._due: dict[T, float] = {}
        self._is_armed = False

    def __len__(self) -> int:
        return len(self._due)

    def start(self, item: T) -> None:
        """Begin the time of an item; one that is watched already keeps its deadline."""
        if item not in self._due:
            # All items have equally long, so the dictionary's order is that of the deadlines.
            self._due[item] = self._loop.time() + self._seconds
            if not self._is_armed:
                self._arm(self._seconds)

    def stop(self, item: T) -> bool:
        """Stop watching an item; return whether it was watched."""
        return self._due.pop(item, None) is not None

    def act_on_first(self) -> None:
        """Act now on the item that is due first, if any."""
        item = next(iter(self._due), None)
        if item is not None:
            del self._due[item]
            self._act(item)

    def _arm(self, seconds: float) -> None:
        self._is_armed = True
        self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        self._is_armed = False
        now = self._loop.time()
        # Found in one go: each look for the first entry of a dictionary passes over all that were deleted before it.
        first = list(itertools.islice(self._due.items(), BATCH))
        try:
            for item, due in first:
                if due > now:
                    break
                if self._due.get(item) == due:  # acting on another item may have stopped this one
                    del self._due[item]
                    self._act(item)
        finally:  # an item whose act raises costs no other item its deadline
            if self._due and not self._is_armed:
                self._arm(max(0.0, next(iter(self._due.values())) - now))
