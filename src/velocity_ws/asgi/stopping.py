"""Stopping: ends responses that stay open when the server stops, which would wait for them. Knows no stream.

A server that is not ours tells an application that it stops when all responses are over. uvicorn keeps that it was
asked to in what handles its signals, where it can be seen before (`uvicorn.Server.handle_exit` and ``should_exit``,
0.30 to 0.54).
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal

from starlette.types import Receive

from velocity_ws.concurrency.deadlines import Deadlines
from velocity_ws.logs import get_logger

__all__ = ["OpenResponse", "OpenResponses", "is_asked_to_stop"]

log = get_logger("velocity_ws.asgi")

INTERVAL = 0.2
"""Seconds between two looks whether the server is to stop."""

PATIENCE = 10.0
"""Seconds that a peer has for what is left of a response that is to end; then its connection is cut."""

Why = Literal["", "over", "stopping", "revoked"]


class OpenResponse:
    """One response that stays open. On the broker's loop only.

    Attributes:
        why: why it is to end; empty while it is not.
        error: what has gone wrong, where that is why.
    """

    __slots__ = ("_is_waiting", "_receive", "_task", "error", "why")

    def __init__(self, task: asyncio.Task[object], receive: Receive) -> None:
        self._task = task
        self._receive = receive
        self._is_waiting = False
        self.why: Why = ""
        self.error: Exception | None = None

    def end(self, why: Why, error: Exception | None = None) -> None:
        """End it: `wait` returns."""
        if not self.why:
            self.why, self.error = why, error
            if self._is_waiting:
                self._task.cancel()

    async def wait(self) -> bool:
        """Wait until it is to end; whether its client is still there. In the task that answers it."""
        if self.why:
            return True
        self._is_waiting = True
        try:
            while (await self._receive())["type"] != "http.disconnect":
                pass
        except asyncio.CancelledError:
            if not self.why or self._task.uncancel():  # somebody else wants it to end, too
                raise
            return True
        finally:
            self._is_waiting = False
        return bool(self.why)

    async def finish(self, last: Awaitable[None]) -> None:
        """Send the last of it. Cut the connection of a peer that does not read what comes before that.

        Args:
            last: sends it; given up where the connection is still there after it was to be cut.
        """
        timer = asyncio.get_running_loop().call_later(PATIENCE, self.abort)
        try:
            async with asyncio.timeout(2 * PATIENCE):
                await last
        except TimeoutError:
            log.debug("a peer does not read, and its connection cannot be cut")
        finally:
            timer.cancel()

    def abort(self) -> None:
        """Cut its connection, where that can be seen: a peer that does not read would keep a server for ever.

        uvicorn's `receive` belongs to an object that has the transport (0.30 to 0.54); middleware hides it.
        """
        transport: Any = getattr(getattr(self._receive, "__self__", None), "transport", None)
        if hasattr(transport, "abort"):
            transport.abort()


class OpenResponses:
    """Those of one broker. On its loop only; costs nothing while there are none."""

    def __init__(self, is_running: Callable[[], bool], patience: float) -> None:
        """
        Args:
            is_running: whether the broker runs, and is not stopping.
            patience: seconds after which peers that do not read are cut when the server stops, at most.
        """
        self._is_running = is_running
        # The server may have as long, and has begun to count before this is seen.
        self._patience = max(0.0, patience - 2 * INTERVAL)
        self._open: set[OpenResponse] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lives: dict[float, Deadlines[OpenResponse]] = {}
        self._late: Deadlines[OpenResponse] | None = None
        self._watch: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._open)

    def open(self, receive: Receive, seconds: float) -> OpenResponse:
        """One more, which the task that answers it closes again.

        Args:
            receive: of the request.
            seconds: after which it is ended.
        """
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a response is answered in a task")
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # the broker was started again on another one
            self._loop, self._lives = loop, {}
            self._late = Deadlines(loop, PATIENCE, OpenResponse.abort)
        response = OpenResponse(task, receive)
        self._open.add(response)
        if seconds not in self._lives:
            self._lives[seconds] = Deadlines(loop, seconds, self._end)
        self._lives[seconds].start(response)
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._look(), name="velocity-ws stopping")
        return response

    def close(self, response: OpenResponse) -> None:
        """Forget one that is over."""
        self._open.discard(response)
        for lives in self._lives.values():
            lives.stop(response)
        if self._late is not None:
            self._late.stop(response)

    def _end(self, response: OpenResponse) -> None:
        """End one whose time is over; where it does not end, as its peer does not read, it is cut a little later."""
        response.end("over")
        if self._late is not None:
            self._late.start(response)

    async def _look(self) -> None:
        told: set[OpenResponse] = set()
        while self._open:
            if not self._is_running() or is_asked_to_stop():
                ended = self._open - told
                told |= ended
                for response in ended:
                    response.end("stopping")
                asyncio.get_running_loop().call_later(self._patience, self._abort, ended)
            await asyncio.sleep(INTERVAL)

    @staticmethod
    def _abort(ended: Iterable[OpenResponse]) -> None:
        """Cut those connections that are still there, as their peers do not read; others are not touched by it."""
        if is_asked_to_stop():
            for response in ended:
                response.abort()


def is_asked_to_stop() -> bool:
    """Whether the server of this process was asked to stop, as far as can be seen."""
    for number in (signal.SIGTERM, signal.SIGINT):
        server = getattr(signal.getsignal(number), "__self__", None)
        if getattr(server, "should_exit", False) is True:
            return True
    return False
