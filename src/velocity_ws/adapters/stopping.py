"""Stopping: when responses that last as long as an answer end, as the server stops. Knows no response."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from velocity_ws.asgi.stopping import INTERVAL, is_asked_to_stop

__all__ = ["last_moment"]


class _Watch:
    """One look at the server for all responses of a loop that have as much time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self.users = 0
        self.moment: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._seconds = seconds
        self._timer = loop.call_later(INTERVAL, self._look)

    def close(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        if is_asked_to_stop():
            self._timer = self._loop.call_later(self._seconds, self.moment.set_result, None)
        else:
            self._timer = self._loop.call_later(INTERVAL, self._look)


_watches: dict[tuple[asyncio.AbstractEventLoop, float], _Watch] = {}


@contextmanager
def last_moment(seconds: float) -> Iterator[asyncio.Future[None]]:
    """What is done when the server of this process was asked to stop so long ago, for as long as the block.

    On any loop; one timer is enough for all of one loop.

    Args:
        seconds: that a response has to end by itself; a little less is given, as a server has begun to count before.
    """
    loop = asyncio.get_running_loop()
    key = (loop, seconds)
    watch = _watches.get(key)
    if watch is None:
        watch = _watches[key] = _Watch(loop, max(0.0, seconds - 2 * INTERVAL))
    watch.users += 1
    try:
        yield watch.moment
    finally:
        watch.users -= 1
        if not watch.users:
            watch.close()
            del _watches[key]
