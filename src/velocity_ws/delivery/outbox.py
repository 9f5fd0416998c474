"""Outbox: messages that wait for one client, bounded in bytes, and the callers that wait to send it more.

`Outbox` is the seam; `BoundedOutbox` is what every outbox does with a client that is too slow. Knows no transport,
no hub and no hook.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from enum import Enum, auto
from typing import Protocol

from velocity_ws.close import APPLICATION_RETURNED, Goodbye
from velocity_ws.messages.events import encode_dropped
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.stats import Counters

__all__ = ["BoundedOutbox", "Outbox", "OutboxOwner", "State"]


class State(Enum):
    """Where an outbox stands. It only goes on:

    =============  ==========  ===================================================================
    from           to          by
    =============  ==========  ===================================================================
    ``OPEN``       ``CLOSING`` ``close``: what is queued is sent, nothing more is taken
    ``OPEN``       ``OVER``    ``abort``, or a send that failed
    ``CLOSING``    ``OVER``    the close frame is sent after all else; ``abort``; a send that failed
    =============  ==========  ===================================================================

    Whether a message that is offered leaves at once is no state of its own: the subclasses keep that as one attribute,
    which the fan-out reads for every delivery.
    """

    OPEN = auto()
    CLOSING = auto()
    OVER = auto()


class Outbox(Protocol):
    """Takes messages for one client without ever waiting, bounded in bytes. Used on the broker's loop only."""

    def offer(self, frame: PreparedMessage) -> bool:
        """Take a message; whether it was queued. Never waits, never raises; a refused one is counted as dropped."""

    async def put(self, frame: PreparedMessage | None, seconds: float) -> bool:
        """Take a message once nothing else waits, first come, first served; without one, wait for that moment only.

        Who sends much leaves the whole queue to what others send meanwhile.

        Returns:
            Whether it was queued; false, and counted as dropped, where the connection ends first.

        Raises:
            TimeoutError: it took longer than so many seconds. The message is refused then, as `offer` refuses one.
        """

    def close(self, code: int, reason: str, *, discard: bool = False) -> None:
        """Take nothing more, and close the connection once everything queued is sent (or discarded)."""

    def abort(self) -> None:
        """Stop at once; what is still queued is counted as dropped. Harmless when already over."""

    @property
    def has_ended(self) -> bool:
        """Whether nothing runs here that `wait_ended` would wait for."""

    async def wait_ended(self) -> None:
        """Wait until it is over: closed or aborted, nothing left running."""

    async def ping(self) -> float | None:
        """Round trip of a ping in seconds; ``None`` where there are no pings."""


class OutboxOwner(Protocol):
    """What is told what becomes of an outbox."""

    def outbox_full(self) -> None:
        """The queue is full and the policy is to disconnect. Called once; it should close or abort."""

    def outbox_dropped(self) -> None:
        """The queue is full and the policy is to drop. Called for the first of the messages that it misses in a row."""

    def outbox_broken(self) -> None:
        """The server's ``send`` failed, so the connection is gone. Called at most once."""


class BoundedOutbox(ABC):
    """A queue bounded in bytes, and what happens to a message that does not fit; how it is sent is its subclass's.

    Attributes:
        queue: the messages that wait.
        queued_bytes: what they cost together.
    """

    __slots__ = (
        "_counters",
        "_drop",
        "_full",
        "_goodbye",
        "_limit",
        "_missed",
        "_owner",
        "_state",
        "_waiters",
        "queue",
        "queued_bytes",
    )

    def __init__(
        self,
        queue: list[PreparedMessage] | deque[PreparedMessage],
        owner: OutboxOwner,
        counters: Counters,
        *,
        limit: int,
        drop: bool,
    ) -> None:
        """
        Args:
            queue: an empty one.
            owner: told when the queue is full or the connection broken.
            counters: where sent and dropped messages are counted.
            limit: bytes that may wait; a single larger message passes when nothing waits.
            drop: whether a message that does not fit is dropped, rather than the client closed.
        """
        self.queue = queue
        self.queued_bytes = 0
        self._owner = owner
        self._counters = counters
        self._limit = limit
        self._drop = drop
        self._missed = 0  # dropped since the client was last told
        self._state = State.OPEN
        self._goodbye: Goodbye = APPLICATION_RETURNED
        self._full = False
        self._waiters: dict[asyncio.Future[bool], PreparedMessage | None] | None = None  # most clients never have any

    @property
    @abstractmethod
    def _is_free(self) -> bool:
        """Whether it is open and nothing waits, so that the next message leaves at once."""

    @abstractmethod
    def offer(self, frame: PreparedMessage) -> bool:
        """Take a message; whether it was queued."""

    async def put(self, frame: PreparedMessage | None, seconds: float) -> bool:
        """Take a message once nothing else waits; whether it was queued."""
        if self._state is not State.OPEN:
            self._counters.dropped += frame is not None
            return False
        if self._is_free:
            was_queued = frame is None or self.offer(frame)
            if not self.queue:  # a burst has left; one that sends on and on is not to hold the loop
                await asyncio.sleep(0)
            return was_queued
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if self._waiters is None:
            self._waiters = {}
        self._waiters[waiter] = frame
        try:
            await asyncio.wait([waiter], timeout=seconds)
        except asyncio.CancelledError:
            self._counters.dropped += self._gives_up(waiter) and frame is not None
            raise
        if not self._gives_up(waiter):
            return waiter.result()
        if frame is not None:
            self._refuse()
        raise TimeoutError

    def _gives_up(self, waiter: asyncio.Future[bool]) -> bool:
        """Let somebody wait no longer; whether it still did."""
        if self._waiters is None or waiter not in self._waiters:
            return False
        del self._waiters[waiter]
        return True

    def _next_waiter(self) -> tuple[asyncio.Future[bool], PreparedMessage | None] | None:
        """Whose turn it is."""
        if not self._waiters:
            return None
        waiter = next(iter(self._waiters))
        return waiter, self._waiters.pop(waiter)

    def _turn_away(self) -> None:
        """It is over for everybody who waits."""
        while (turn := self._next_waiter()) is not None:
            waiter, frame = turn
            self._counters.dropped += frame is not None
            waiter.set_result(False)

    def _append(self, frame: PreparedMessage) -> None:
        """Let a message wait."""
        self.queue.append(frame)
        self.queued_bytes += frame.cost

    def _refuse(self) -> None:
        """Count a message that does not fit, and act on it."""
        self._counters.dropped += 1
        if self._drop:
            self._missed += 1
            if self._missed == 1:
                self._owner.outbox_dropped()
        elif not self._full:
            self._full = True
            self._counters.slow_closes += 1
            self._owner.outbox_full()

    def _take_gap(self) -> PreparedMessage:
        """What tells the client how many messages it missed."""
        frame = encode_dropped(self._missed)
        self._missed = 0
        return frame

    def _discard(self) -> None:
        """Drop what waits."""
        self._counters.dropped += len(self.queue)
        self.queue.clear()
        self.queued_bytes = 0
        self._missed = 0
        if self._waiters:
            self._turn_away()
