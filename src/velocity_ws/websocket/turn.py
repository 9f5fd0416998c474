"""Turn: what one connection may use up of a turn of the event loop. Knows no frame and no connection."""

from __future__ import annotations

import time

__all__ = ["BYTES", "TURN", "Turn"]

TURN = 64
"""What one connection may use up of a loop turn: 1 for a message cut out here, 4 for a frame the library parses."""
SECONDS_PER_TURN = 0.004
"""The same in time, for messages whose handling is expensive."""
MAX_REST = 0.1
"""Seconds at most that a connection is not read after it took longer, so that others have their turns."""
BYTES = 4096
"""Bytes of a message that use up as much of a turn as another message does."""


class Turn:
    """The part of a reader that says whether others should have their turn."""

    __slots__ = ("_budget", "_rest", "_turn", "_until")

    def __init__(self) -> None:
        self._budget = TURN
        self._turn = self._until = self._rest = 0.0

    def _begin_turn(self, now: float) -> None:
        self._turn, self._budget, self._until, self._rest = now, TURN, 0.0, 0.0

    def _spend(self, cost: int, size: int) -> bool:
        """Take a cost from the turn's budget; return whether the size was so large that the clock was looked at."""
        self._budget -= cost + size // BYTES
        if size < BYTES:
            return False
        self._watch_time()
        return True

    def _watch_time(self) -> None:
        """Use the budget up where this turn's time is over. That time begins with the first look at the clock."""
        now = time.perf_counter()
        if not self._until:
            self._until = now + SECONDS_PER_TURN
        elif now > self._until:
            # Others have then as much time as this one took: one message alone may take longer than a turn should.
            self._budget, self._rest = 0, min(now - self._until + SECONDS_PER_TURN, MAX_REST)
