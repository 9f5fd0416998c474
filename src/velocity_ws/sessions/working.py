"""Working: what handles the messages of one client now. Knows no message, and neither begins nor ends any of it."""

from __future__ import annotations

import asyncio

from velocity_ws.concurrency.eager import EagerTask
from velocity_ws.sessions.buffer import Buffer
from velocity_ws.sessions.concurrent import ConcurrentHandlers

__all__ = ["Working"]


class Working(Buffer):
    """The part of an inbox that says what is being handled. On the broker's loop only.

    Attributes:
        concurrent: the handlers that later messages do not wait for; ``None`` until there is one.
        worker: handles what was sent; ``None`` while nothing is being handled.
    """

    __slots__ = ("concurrent", "worker")

    def __init__(self, bound: int) -> None:
        """
        Args:
            bound: bytes that may wait; above that it is full.
        """
        super().__init__(bound)
        self.concurrent: ConcurrentHandlers | None = None
        self.worker: EagerTask | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being handled."""
        return self.worker is None and (self.concurrent is None or self.concurrent.is_idle)

    @property
    def workers(self) -> list[EagerTask]:
        """All that handle something now."""
        concurrent = [] if self.concurrent is None else self.concurrent.running
        return [*([] if self.worker is None else [self.worker]), *concurrent]

    def runs(self, task: asyncio.Task[object] | None) -> bool:
        """Whether that task handles these messages now."""
        return any(worker.task is task for worker in self.workers)
