"""Deadlines: many things that may take equally long, watched by one timer. Knows nothing of what they are."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Deadlines"]

T = TypeVar("T")

BATCH = 64
"""What is acted upon in one loop turn; the rest follows in the next ones, so that others have theirs between."""


class Deadlines(Generic[T]):
    """Things with the same time to finish. Starting and stopping one costs an entry of a dictionary, and no timer.

    One belongs to one event loop, and is to be owned by something that does not outlive it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, act: Callable[[T], None]) -> None:
        """
        Args:
            loop: whose time counts.
            seconds: how long each may take.
            act: called with what has not been stopped by then.
        """
        self._loop = loop
        self._seconds = seconds
        self._act = act
        self._due: dict[T, float] = {}
        self._is_armed = False

    def __len__(self) -> int:
        return len(self._due)

    def start(self, item: T) -> None:
        """Watch something from now on; one that is watched already keeps its deadline."""
        if item not in self._due:
            # All wait equally long, so the dictionary's order is that of the deadlines.
            self._due[item] = self._loop.time() + self._seconds
            if not self._is_armed:
                self._arm(self._seconds)

    def stop(self, item: T) -> bool:
        """Watch it no more; whether it was watched."""
        return self._due.pop(item, None) is not None

    def act_on_first(self) -> None:
        """Act on the one that is due first, now."""
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
                if self._due.get(item) == due:  # what was done for another may have stopped it
                    del self._due[item]
                    self._act(item)
        finally:  # one that raises costs no other its deadline
            if self._due and not self._is_armed:
                self._arm(max(0.0, next(iter(self._due.values())) - now))
