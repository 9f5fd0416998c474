"""Stopping: ends responses that stay open when the server stops, which would wait for them. Knows no stream.

A server that is not ours tells an application that it stops when all responses are over. uvicorn keeps that it was
asked to in what handles its signals, where it can be seen before (`uvicorn.Server.handle_exit` and ``should_exit``,
0.30 to 0.54).
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal

__all__ = ["OpenResponse", "OpenResponses", "is_asked_to_stop"]

INTERVAL = 0.2
"""Seconds between two looks whether the server is to stop."""

Why = Literal["", "gone", "stopping"]


class OpenResponse:
    """One response that stays open. On the broker's loop only.

    Attributes:
        why: why it is to end; empty while it is not.
    """

    __slots__ = ("_task", "why")

    def __init__(self, task: asyncio.Task[object]) -> None:
        self._task = task
        self.why: Why = ""

    def end(self, why: Why) -> None:
        """End it: its task is cancelled, and finds the reason here."""
        if not self.why:
            self.why = why
            self._task.cancel()

    def take_back(self) -> bool:
        """Whether a cancellation of its task was `end`; then the task goes on."""
        if self.why:
            self._task.uncancel()
        return bool(self.why)


class OpenResponses:
    """Those of one broker. On its loop only; costs nothing while there are none."""

    def __init__(self, is_running: Callable[[], bool]) -> None:
        """
        Args:
            is_running: whether the broker runs, and is not stopping.
        """
        self._is_running = is_running
        self._open: set[OpenResponse] = set()
        self._watch: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._open)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[OpenResponse]:
        """One more, for as long as the block, in the task that answers it."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a response is answered in a task")
        response = OpenResponse(task)
        self._open.add(response)
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._look(), name="velocity-ws stopping")
        try:
            yield response
        finally:
            self._open.discard(response)

    async def _look(self) -> None:
        while self._open:
            if not self._is_running() or is_asked_to_stop():
                for response in list(self._open):
                    response.end("stopping")
            await asyncio.sleep(INTERVAL)


def is_asked_to_stop() -> bool:
    """Whether the server of this process was asked to stop, as far as can be seen."""
    for number in (signal.SIGTERM, signal.SIGINT):
        server = getattr(signal.getsignal(number), "__self__", None)
        if getattr(server, "should_exit", False) is True:
            return True
    return False
