"""Spreading: what a node has subscribed to becomes known to the servers of the other nodes. Knows no topic.

Servers that are routed to each other confirm a subscription, and tell the others of it a moment later: what is
published on another one until then is not heard, and nothing shows it. A server tells its subscriptions and passes
messages on by the same connection, in this order (nats-server 2.11 to 2.15). So the server of a node that has answered
a question knows of all that was subscribed to before it was asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from velocity_ws.backplane.base import Backplane
from velocity_ws.limits import RateLimiter

__all__ = ["Spreading"]

PATIENCE = 0.25
"""Seconds in which nodes answer. One that has not is gone, or frozen; its server will have been told by then."""
RATE = 50.0
"""Questions a second, as all nodes answer each of them; what is subscribed to meanwhile shares the next one."""
AT_ONCE = 25
"""The same at once: a client that comes into its rooms one after the other waits for none."""


class Spreading:
    """Waits for it. On the broker's loop only."""

    def __init__(
        self, backplane: Backplane, ask: Callable[[], Awaitable[object]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """
        Args:
            backplane: says whether its server has others to tell.
            ask: asks all other nodes something, and returns when they have answered.
            clock: seconds, never going back.
        """
        self._backplane = backplane
        self._ask = ask
        self._limiter = RateLimiter(RATE, AT_ONCE, clock)

    async def wait(self) -> None:
        """Wait until what was subscribed to is known everywhere: a moment at most, and not at all on one server."""
        if not getattr(self._backplane, "is_routed", False):
            return
        if pause := self._limiter.acquire():
            await asyncio.sleep(pause)
            self._limiter.acquire()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._ask()
