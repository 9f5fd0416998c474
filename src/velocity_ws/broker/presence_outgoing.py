"""WaitingNotes: notes that the publisher could not take are given to it when it can, in their order. Knows no room."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from velocity_ws.stats import Counters

__all__ = ["WaitingNotes"]

MAX_WAITING = 512
"""Notes that may wait; what is in those beyond is asked for later."""
FIRST_BACKOFF = 0.02
"""Seconds until the publisher is tried again; doubled each time that it takes none."""
LAST_BACKOFF = 1.0
"""The same at most."""


class WaitingNotes:
    """Notes for other nodes, of which some may wait. On the broker's loop only."""

    def __init__(self, notify: Callable[[str, str, object], bool], counters: Counters) -> None:
        """
        Args:
            notify: gives the publisher a note, its topic, name and content; whether it took it.
            counters: the node's; notes that are not taken at once are counted there.
        """
        self._notify = notify
        self._counters = counters
        self._waiting: deque[tuple[str, str, object]] = deque()
        self._backoff = FIRST_BACKOFF
        self._timer: asyncio.TimerHandle | None = None

    def put(self, topic: str, what: str, args: object, *, goes_on: bool = False) -> bool:
        """Tell other nodes something, now or when the publisher has room; false where too much waits for that.

        Args:
            topic: of the nodes that are told.
            what: the note's name.
            args: its content, which does not change any more.
            goes_on: whether it is of no use without the one before it, which was taken, nor that without it.
        """
        if not self._waiting and self._notify(topic, what, args):
            return True
        self._counters.presence_refused += 1
        if len(self._waiting) >= MAX_WAITING and not goes_on:
            return False
        self._waiting.append((topic, what, args))
        if self._timer is None:
            self._backoff = FIRST_BACKOFF
            self._timer = asyncio.get_running_loop().call_later(self._backoff, self._go_on)
        return True

    def clear(self) -> None:
        """Forget all notes that wait."""
        self._waiting.clear()

    def stop(self) -> None:
        """Forget all notes that wait, and stop the timer."""
        self.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _go_on(self) -> None:
        self._timer = None
        while self._waiting and self._notify(*self._waiting[0]):
            self._waiting.popleft()
            self._backoff = FIRST_BACKOFF / 2
        if self._waiting:
            self._backoff = min(2 * self._backoff, LAST_BACKOFF)
            self._timer = asyncio.get_running_loop().call_later(self._backoff, self._go_on)
