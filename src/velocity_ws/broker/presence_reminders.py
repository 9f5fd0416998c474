"""Reminders: the version of a room is told again and again after it has changed, ever more rarely. Knows no version."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Reminders"]

TICK = 1.0
"""Seconds between two looks at what is due."""
STEPS = (1, 4, 16, 64)
"""Ticks until a room is told, after it has changed or was told before."""
AT_ONCE = 1000
"""Rooms told in one tick."""
MAX_ROOMS = 50_000
"""Rooms that may be due; of more nobody is reminded."""


class Reminders:
    """The rooms of which other nodes are to be reminded. On the broker's loop only."""

    def __init__(self, tell: Callable[[str], bool], over: Callable[[str], None]) -> None:
        """
        Args:
            tell: reminds others of a room; whether it could.
            over: called with a room of which nobody will be reminded any more.
        """
        self._tell = tell
        self._over = over
        self._due: dict[str, tuple[int, int]] = {}
        """Ticks until a room is due, and which of `STEPS` that is."""
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, room: str) -> None:
        """Remind others of a room from the next tick on."""
        if len(self._due) >= MAX_ROOMS and room not in self._due:
            self._over(room)
            return
        self._due[room] = (min(STEPS[0], self._due.get(room, (STEPS[0], 0))[0]), 0)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK, self._tick)

    def stop(self) -> None:
        """Forget all rooms, and stop the timer."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        due: list[str] = []
        for room, (ticks, step) in self._due.items():
            self._due[room] = (ticks - 1, step)
            if ticks <= 1:
                due.append(room)
        for room in due[:AT_ONCE]:
            if not self._tell(room):
                break  # what cannot be told now stays due
            self._told(room)
        self._timer = asyncio.get_running_loop().call_later(TICK, self._tick) if self._due else None

    def _told(self, room: str) -> None:
        step = self._due.pop(room)[1] + 1
        if step < len(STEPS):
            self._due[room] = (STEPS[step], step)
        else:
            self._over(room)
