"""Ending: the last handler and hooks of one session, in time, whatever they do. Knows no transport and no state."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from velocity_ws.close import Close
from velocity_ws.concurrency.portal import end_now
from velocity_ws.sessions.client import Client
from velocity_ws.sessions.context import NodeContext
from velocity_ws.sessions.inbox import Inbox
from velocity_ws.sessions.moves import Moves

__all__ = ["Ending"]

HANDLER_GRACE = 5.0
"""Seconds a running handler has to finish once its client is gone."""
CANCEL_GRACE = 1.0
"""Seconds a cancelled handler has to end before it is left behind."""
HURRIED_GRACE = 0.2
"""What is left of these when the broker has stopped waiting."""
LAST_GRACE = 0.05
"""Seconds that ``on_error`` hooks have for what hooks of an end did not finish in time, when there is none left."""


class Ending:
    """What still runs for a client that has gone. On the broker's loop only."""

    def __init__(self, context: NodeContext[Any], client: Client, *, is_hurried: bool) -> None:
        """
        Args:
            context: of the session.
            client: whose session it is.
            is_hurried: whether there is no time from the start.
        """
        self._context = context
        self._client = client
        self._hurried = asyncio.Event()
        self._timeout: asyncio.Timeout | None = None
        if is_hurried:
            self._hurried.set()

    def hurry(self) -> None:
        """Let nothing that still runs take longer than it must."""
        self._hurried.set()
        if self._timeout is not None:
            end_now(self._timeout)

    async def finish_handling(self, inbox: Inbox, moves: Moves | None) -> None:
        """Wait for the handlers that run, and for the ``on_join`` and ``on_leave`` hooks; what takes too long is
        cancelled. Concurrent handlers have been cancelled already, and have as long to clean up."""
        began = asyncio.get_running_loop().time()
        await self._finish_handlers(inbox, began + HANDLER_GRACE)
        if moves is None:
            return
        left = began + HANDLER_GRACE - asyncio.get_running_loop().time()
        await moves.end(left, HURRIED_GRACE if self._is_hurried else CANCEL_GRACE, self._hurried)
        if not moves.is_over:
            await self._tell(moves.leave_all(LAST_GRACE if self._is_hurried else HURRIED_GRACE), "on_leave")

    async def _finish_handlers(self, inbox: Inbox, until: float) -> None:
        workers = inbox.workers
        if not workers:
            return
        for worker in workers:
            worker.end()
        running: set[asyncio.Task[None]] = {worker.task for worker in workers}
        if not self._is_hurried:
            running = await self._ended_by(running, until)
        if not running:
            return
        inbox.stop(discard=True)
        inbox.cancel()
        _, running = await asyncio.wait(running, timeout=HURRIED_GRACE if self._is_hurried else CANCEL_GRACE)
        for task in running:
            self._context.leave_behind(task, self._client)

    async def _ended_by(self, tasks: set[asyncio.Task[None]], until: float) -> set[asyncio.Task[None]]:
        """Wait for tasks, until some time or as long as there is time; those that still run."""
        loop = asyncio.get_running_loop()
        no_time = loop.create_task(self._hurried.wait())
        while tasks and not self._is_hurried and (left := until - loop.time()) > 0:
            await asyncio.wait([*tasks, no_time], timeout=left, return_when=asyncio.FIRST_COMPLETED)
            tasks = {task for task in tasks if not task.done()}
        no_time.cancel()
        return tasks

    async def tell(self, close: Close) -> None:
        """Run the ``on_disconnect`` hooks."""
        await self._tell(self._context.dispatcher.disconnect(self._client, close), "on_disconnect")

    @property
    def _is_hurried(self) -> bool:
        return self._hurried.is_set()

    async def _tell(self, hooks: Coroutine[Any, Any, None], kind: str) -> None:
        """Run hooks that a client's end has, for so long at most."""
        seconds = HURRIED_GRACE if self._is_hurried else max(self._context.settings.drain_timeout, CANCEL_GRACE)
        try:
            async with asyncio.timeout(seconds) as self._timeout:
                await hooks
        except TimeoutError:
            error = TimeoutError(f"the {kind} hooks took more than {seconds:g} s and were cancelled")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_GRACE if self._is_hurried else HURRIED_GRACE):
                    await self._context.dispatcher.report(self._client, error)
