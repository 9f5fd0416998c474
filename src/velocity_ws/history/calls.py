"""Calls: the tasks of one connection to a store; when one fails or an answer is overdue, the connection has failed.

Knows no store, and not what is called.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from velocity_ws.logs import get_logger

__all__ = ["PATIENCE", "SLICES", "Calls"]

log = get_logger("velocity_ws.history")

PATIENCE = 2
"""Timeouts that a call has until the connection is given up: its answer may be behind much that others asked."""
SLICES = 6
"""Parts into which a timeout is cut: a loop that was held up cannot miss more than one."""
END_INTERVAL = 0.1
"""Seconds after which a task that has not ended is cancelled again; some libraries swallow a cancellation."""

R = TypeVar("R")


class Calls:
    """What runs on a connection. On the broker's loop only."""

    def __init__(self, timeout: float) -> None:
        """
        Args:
            timeout: seconds; a call that has no answer after `PATIENCE` of them is overdue.
        """
        self._timeout = timeout
        self._failed: Callable[[Exception], None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._slices: dict[int, int] = {}
        self._numbers = itertools.count()
        self._idle: asyncio.Future[None] | None = None

    def begin(self, failed: Callable[[Exception], None]) -> None:
        """There is a connection.

        Args:
            failed: called with the error when a task has failed.
        """
        self._failed = failed
        self.start(self._watch())

    async def rest(self) -> None:
        """Wait until those that run are answered, at most as long as one may take. No more must be made."""
        if self._slices:
            self._idle = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._idle], timeout=self._timeout)

    async def end(self) -> None:
        """There is none any more: cancel all that runs, and wait for it."""
        self._failed = None
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks, timeout=END_INTERVAL)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something in a task, until the end of the connection; when it raises, the connection has failed."""
        task = asyncio.create_task(work, name="velocity-ws history")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def answer(self, call: Awaitable[R]) -> R:
        """The answer to a call, which is watched."""
        number = next(self._numbers)
        self._slices[number] = 0
        try:
            return await call
        finally:
            del self._slices[number]
            if not self._slices and self._idle is not None and not self._idle.done():
                self._idle.set_result(None)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        if not isinstance(error, OSError):
            log.error("the connection to the engine failed in a way it should not", exc_info=error)
        if self._failed is not None:
            self._failed(error if isinstance(error, OSError) else ConnectionError(str(error)))

    async def _watch(self) -> None:
        """Watch that each call is answered in time.

        Raises:
            TimeoutError: one was not.
        """
        while True:
            await asyncio.sleep(self._timeout / SLICES)
            for number in self._slices:
                self._slices[number] += 1
                if self._slices[number] > PATIENCE * SLICES:
                    raise TimeoutError(f"it did not answer within {PATIENCE * self._timeout:g} s")
