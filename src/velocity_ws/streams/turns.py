"""Turns: those who want the same thing have it one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Turns"]


class _Queue:
    """Those who want one thing, of whom one has it."""

    __slots__ = ("count", "lock")

    def __init__(self) -> None:
        self.count = 0
        self.lock = asyncio.Lock()


class Turns:
    """Keeps nothing of what nobody wants. On one loop only."""

    __slots__ = ("_queues",)

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}

    def __len__(self) -> int:
        """How many things somebody has, or waits for."""
        return len(self._queues)

    @asynccontextmanager
    async def alone(self, name: str) -> AsyncIterator[None]:
        """Have one thing to oneself; first come, first served.

        Args:
            name: the thing's.
        """
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = _Queue()
        queue.count += 1
        try:
            async with queue.lock:
                yield
        finally:
            queue.count -= 1
            if not queue.count:
                del self._queues[name]
