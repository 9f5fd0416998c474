"""Asides: the hooks and sources that run for no connection, as one, for `Lifecycle`. Knows what none of them does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from velocity_ws.broker.lifecycle import Aside

__all__ = ["Asides"]


class Asides:
    """Several of them. On the broker's loop only."""

    def __init__(self, parts: Callable[[], Iterable[Aside]]) -> None:
        """
        Args:
            parts: those that there are now.
        """
        self._parts = parts

    def runs(self, task: asyncio.Task[object] | None) -> bool:
        """See `Aside.runs`."""
        return any(part.runs(task) for part in self._parts())

    async def finish(self, seconds: float, grace: float) -> set[asyncio.Task[None]]:
        """See `Aside.finish`."""
        found = await asyncio.gather(*[part.finish(seconds, grace) for part in self._parts()])
        return set().union(*found)

    def cancel(self) -> None:
        """See `Aside.cancel`."""
        for part in self._parts():
            part.cancel()
