"""Watch: looks now and then whether the servers of connections are there, used or not. Knows no command.

A connection that nothing is sent on shows by nothing that its server has stopped, or is a replica by now, which hears
no more what is published.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from velocity_ws.backplane.redis_connection import RedisConnection

__all__ = ["INTERVAL", "Watch"]

INTERVAL = 0.5
"""Seconds between two looks."""


class Watch:
    """One timer for all connections of an engine. On the broker's loop only."""

    def __init__(self, *, gives_up: bool = True) -> None:
        """
        Args:
            gives_up: whether a connection is given up whose server is silent; else what is asked there has a time of
                its own.
        """
        self._gives_up = gives_up
        self._connections: Sequence[RedisConnection] = ()
        self._timer: asyncio.TimerHandle | None = None

    def start(self, connections: Sequence[RedisConnection]) -> None:
        """Look at these from now on; they are open."""
        self.stop()
        self._connections = connections
        self._wait()

    def stop(self) -> None:
        """Look at none any more. Harmless where it looks at none."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(INTERVAL, self._look)

    def _look(self) -> None:
        self._wait()
        for connection in self._connections:
            connection.look(gives_up=self._gives_up)
