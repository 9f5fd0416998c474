"""ConcurrentHandlers: handlers of one client that its next messages do not wait for. Knows no queue and no socket.

Each has a task of its own, which is never lent again: an application may keep it, and cancel it when it likes. It runs
at once up to its first wait, so that what the client sends next finds it begun.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable
from typing import Any

from velocity_ws.concurrency.eager import EagerTask
from velocity_ws.messages.events import encode_error
from velocity_ws.sessions.context import NodeContext
from velocity_ws.sessions.inbox_owner import InboxOwner
from velocity_ws.sessions.message_handling import ConcurrentCall

__all__ = ["ConcurrentHandlers"]

MAX_RUNNING = 16
"""Handlers of one client that run at once; the messages for further ones wait."""


class ConcurrentHandlers:
    """The concurrent handlers of one client that run, and the messages that wait for one to end.

    On the broker's loop only.

    Attributes:
        running: the workers of those that run, each with the room that its message has named.
    """

    __slots__ = ("_context", "_is_over", "_on_begun", "_on_idle", "_owner", "_waiting", "running")

    def __init__(
        self,
        context: NodeContext[Any],
        owner: InboxOwner,
        on_begun: Callable[[int], None],
        on_idle: Callable[[ConcurrentHandlers], None],
    ) -> None:
        """
        Args:
            context: of the session.
            owner: the session, which answers the client.
            on_begun: called with the size of a message that has waited, when its handler begins.
            on_idle: called with this when none runs any more; it may be called again later.
        """
        self._context = context
        self._owner = owner
        self._on_begun = on_begun
        self._on_idle = on_idle
        self._is_over = False
        self._waiting: deque[tuple[ConcurrentCall, int, contextvars.Context]] = deque()
        self.running: dict[EagerTask, str | None] = {}

    @property
    def is_idle(self) -> bool:
        """Whether none runs, nor waits."""
        return not self.running and not self._waiting

    def put(self, call: ConcurrentCall, size: int) -> bool:
        """Begin a handler, if there is room for it; whether it has to wait, with what counts as ``size`` bytes."""
        if self._is_over:
            return False
        # What its on_connect and on_message hooks have set is there; what it sets is not mixed with what others do.
        variables = contextvars.copy_context()
        if self._waiting or len(self.running) >= MAX_RUNNING:
            self._waiting.append((call, size, variables))
            return True
        self._begin(call, variables)
        return False

    def drop_waiting(self) -> None:
        """Forget the messages that wait."""
        self._waiting.clear()

    def cancel(self) -> None:
        """Cancel what runs, and begin nothing more. The second time it cancels what has gone on."""
        self._is_over = True
        self._waiting.clear()
        for worker in list(self.running):
            worker.cancel()

    def cancel_in(self, room: str) -> None:
        """Cancel those that run for messages that named a room."""
        for worker, named in list(self.running.items()):
            if named == room:
                worker.cancel()

    # --- inside

    def _begin(self, call: ConcurrentCall, variables: contextvars.Context) -> None:
        worker = variables.run(EagerTask)
        self.running[worker] = call.message.room
        try:
            rest = worker.step(self._handle(worker, call))
        except BaseException as error:
            self._context.workers.end(worker)
            if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
                raise
            return
        if rest is None:
            self._context.workers.end(worker)
        else:
            worker.drive(rest)
            worker.end()

    async def _handle(self, worker: EagerTask, call: ConcurrentCall) -> None:
        owner = self._owner
        try:
            answer = await self._context.messages.concurrent(owner.client, call)
            if answer is not None:
                owner.offer(answer)
        except asyncio.CancelledError:
            if not self._is_over and call.message.id is not None:
                owner.offer(encode_error("CANCELLED", "this was cancelled before it was done", None, call.message.id))
            raise
        except Exception as error:
            owner.handling_failed(error)
        finally:
            self._ended(worker)
            del worker  # whose task keeps its cancellation, whose traceback refers to this frame

    def _ended(self, worker: EagerTask) -> None:
        self.running.pop(worker, None)
        if self._waiting:
            # In a turn of its own: many may wait that end at once, and others have their turns between them.
            asyncio.get_running_loop().call_soon(self._begin_next)
        elif not self.running:
            self._on_idle(self)

    def _begin_next(self) -> None:
        if self._waiting and len(self.running) < MAX_RUNNING:
            call, size, variables = self._waiting.popleft()
            self._on_begun(size)
            self._begin(call, variables)
        elif self.is_idle:
            self._on_idle(self)
