"""Pacing: large messages of all clients take turns of the event loop. Knows no client and no message.

To decode one may take 20 ms in which nothing else runs, and no thread helps, as the decoder holds the interpreter's
lock. So there is one for each turn, of all clients, and between them others have as much time as the last took.
Messages that are not so large share a turn, and leave nobody more time than that.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

from velocity_ws.process.garbage import LARGE, collection_paused

__all__ = ["PACED", "Pace"]

PACED = 8 * 1024
"""Bytes from which a message is paced."""
BYTES_PER_TURN = 64 * 1024
"""Bytes of such messages that are handled in one turn of the loop; or one message, if it alone has more."""
SECONDS_PER_TURN = 0.004
"""Seconds after which a turn with a large one was so long that the next leaves others as much time."""
MAX_REST = 0.1
"""Seconds at most that it leaves them."""
MAX_WAITING = 64 * 1024 * 1024
"""Bytes of such messages that may wait."""


class Pace:
    """The turns of large messages. On the broker's loop only.

    Nothing is collected until the end of a turn in which there was a large one: by then what came of it is gone, unless
    its handler keeps it, and is not looked through.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()
        self._waiting_bytes = 0
        self._used = 0
        self._since = 0.0
        self._rests = False
        self._has_paused = False

    def __del__(self) -> None:
        self._collect()  # its loop was closed within a turn

    def has_room(self, size: int) -> bool:
        """Whether a message of ``size`` bytes may be handled, now or later."""
        return self._waiting_bytes + size <= MAX_WAITING

    def take(self, size: int) -> bool:
        """Count a message of ``size`` bytes if it may be handled now; return whether it may."""
        if self._waiting or self._rests or (self._used and self._used + size > BYTES_PER_TURN):
            return False
        if not self._used:
            self._begin()
        self._count(size)
        return True

    async def turn(self, size: int) -> None:
        """Wait until a message of ``size`` bytes may be handled; the caller must handle it at once."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, size))
        self._waiting_bytes += size
        try:
            await turn
        finally:
            self._waiting_bytes -= size

    def _begin(self) -> None:
        self._since = time.perf_counter()
        asyncio.get_running_loop().call_soon(self._end)

    def _end(self) -> None:
        """A turn is over in which there was one."""
        took = time.perf_counter() - self._since
        was_large = self._has_paused
        self._collect()
        self._used = 0
        if took < SECONDS_PER_TURN or not was_large:
            self._let_go()
        else:
            self._rests = True
            asyncio.get_running_loop().call_later(min(took, MAX_REST), self._let_go)

    def _let_go(self) -> None:
        self._rests = False
        while self._waiting and (not self._used or self._used + self._waiting[0][1] <= BYTES_PER_TURN):
            turn, size = self._waiting.popleft()
            if not turn.done():  # its client may have gone
                turn.set_result(None)
                self._count(size)
        if self._used:
            self._begin()  # behind those that were woken

    def _count(self, size: int) -> None:
        self._used += size
        if size >= LARGE and not self._has_paused:
            self._has_paused = True
            collection_paused.begin()

    def _collect(self) -> None:
        if self._has_paused:
            self._has_paused = False
            collection_paused.end()
