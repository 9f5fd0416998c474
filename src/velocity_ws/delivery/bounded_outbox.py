"""BoundedOutbox: what every outbox does with a client that is too slow, and with callers that wait for room.

Knows no transport, no hub and no hook: subclasses send.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque

from velocity_ws.close import Goodbye
from velocity_ws.delivery.backlog import Backlog
from velocity_ws.delivery.losses import Losses
from velocity_ws.delivery.outbox import OPEN, OutboxOwner, State
from velocity_ws.messages.events import encode_dropped
from velocity_ws.messages.outbound import PlacedMessage, PreparedMessage
from velocity_ws.stats import Counters

__all__ = ["BoundedOutbox"]


class BoundedOutbox(ABC):
    """A queue bounded in bytes, and the policy for messages that do not fit; subclasses send.

    On the broker's loop only.

    Attributes:
        queue: the messages that wait; those in the backlog come after them.
        queued_bytes: the sum of the ``cost`` of all of them, in bytes.
    """

    __slots__ = (
        "_backlog",
        "_counters",
        "_drop",
        "_full",
        "_goodbye",
        "_limit",
        "_losses",
        "_missed",
        "_owner",
        "_state",
        "_waiters",
        "queue",
        "queued_bytes",
    )

    _goodbye: Goodbye
    """What the connection is closed with; set by ``close``."""

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
            queue: an empty queue, of the type that the subclass needs.
            owner: the session, told when the queue is full or the connection broken.
            counters: the totals in which sent and dropped messages are counted.
            limit: bytes that may wait; one larger message is taken if nothing else waits.
            drop: whether a message that does not fit is dropped; if false, the owner is told to close the client.
        """
        self.queue = queue
        self.queued_bytes = 0
        self._backlog: Backlog | None = None  # from the first message with a key that has to wait, until it is empty
        self._owner = owner
        self._counters = counters
        self._limit = limit
        self._drop = drop
        self._missed = 0  # dropped since the client was last told
        self._losses: Losses | None = None  # those of them that are of rooms with history, where there are any
        self._state: State = OPEN
        self._full = False
        self._waiters: dict[asyncio.Future[bool], PreparedMessage | None] | None = None  # most clients never have any

    @property
    def is_free(self) -> bool:
        """Whether the outbox is open and nothing waits, so that the next message leaves at once."""
        return self._is_free

    @property
    @abstractmethod
    def _is_free(self) -> bool:
        """Whether the outbox is open and nothing waits, so that the next message leaves at once."""

    @abstractmethod
    def offer(self, message: PreparedMessage) -> bool:
        """Take a message; return whether it was queued."""

    async def put(self, message: PreparedMessage | None, seconds: float) -> bool:
        """Wait until nothing else is queued, then take a message; return whether it was queued."""
        if self._state is not OPEN:
            self._counters.dropped += message is not None
            return False
        if self._is_free:
            was_queued = message is None or self.offer(message)
            if not self.queue:  # a burst has left; one that sends on and on is not to hold the loop
                await asyncio.sleep(0)
            return was_queued
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if self._waiters is None:
            self._waiters = {}
        self._waiters[waiter] = message
        try:
            await asyncio.wait([waiter], timeout=seconds)
        except asyncio.CancelledError:
            self._counters.dropped += self._withdraw(waiter) and message is not None
            raise
        if not self._withdraw(waiter):
            return waiter.result()
        if message is not None:
            self._refuse(message)
        raise TimeoutError

    def _withdraw(self, waiter: asyncio.Future[bool]) -> bool:
        """Take a waiter out of the line; return whether it was still there."""
        if self._waiters is None or waiter not in self._waiters:
            return False
        del self._waiters[waiter]
        return True

    def _next_waiter(self) -> tuple[asyncio.Future[bool], PreparedMessage | None] | None:
        """Take the waiter that came first out of the line; ``None`` if there is none."""
        if not self._waiters:
            return None
        waiter = next(iter(self._waiters))
        return waiter, self._waiters.pop(waiter)

    def _turn_away(self) -> None:
        """Tell all waiters that their messages were not queued."""
        while (turn := self._next_waiter()) is not None:
            waiter, message = turn
            self._counters.dropped += message is not None
            waiter.set_result(False)

    def _hold(self, message: PreparedMessage, in_flight: int = 0) -> bool:
        """Let a message wait; return whether it does.

        Args:
            message: the message.
            in_flight: bytes that wait and are in the queue no more.
        """
        if message.volatile:
            self._counters.left_out += 1
            return False
        replaced = None
        if self._backlog is not None and message.slot is not None:
            replaced = self._backlog.waiting(message.slot)
        waiting = self.queued_bytes + in_flight - (0 if replaced is None else replaced.cost)
        if waiting and waiting + message.cost > self._limit:
            self._refuse(message)
            return False
        if self._missed:
            self._append_gaps()
        self._append(message)
        if replaced is not None:
            self.queued_bytes -= replaced.cost
            self._counters.replaced += 1
        return True

    def _append(self, message: PreparedMessage) -> None:
        """Add a message to those that wait."""
        if self._backlog is not None:
            self._backlog.add(message)
        elif message.key is not None:
            self._backlog = Backlog()
            self._backlog.add(message)
        else:
            self.queue.append(message)
        self.queued_bytes += message.cost

    def _pop_backlog(self) -> PreparedMessage | None:
        """Take the first message out of the backlog; ``None`` where nothing is in it."""
        if self._backlog is None:
            return None
        message = self._backlog.pop()
        if not self._backlog:
            self._backlog = None
        return message

    def _refuse(self, message: PreparedMessage) -> None:
        """Count a message that does not fit, and tell the owner where the policy asks for it."""
        self._counters.dropped += 1
        if self._drop:
            self._missed += 1
            if isinstance(message, PlacedMessage):
                if self._losses is None:
                    self._losses = Losses()
                if not self._losses.add(message):
                    self._end_slow()  # it cannot be told; when it comes back, it says where it stood
                    return
            if self._missed == 1:
                self._owner.outbox_dropped()
        else:
            self._end_slow()

    def _end_slow(self) -> None:
        """Have the owner close the client, once."""
        if not self._full:
            self._full = True
            self._counters.slow_closes += 1
            self._owner.outbox_full()

    def _append_gaps(self) -> None:
        """Let the client be told what it missed: one ``gap`` for each room with history, one for the rest. Count anew.

        Between the first message of a room that was dropped and the last there is none that was not: before anything is
        taken again, this is called.
        """
        losses, rest = self._losses, self._missed
        self._losses, self._missed = None, 0
        if losses is not None:
            rest -= losses.count
            for lost in losses:
                self._append(lost.encode())
                self._owner.outbox_lost(lost.room, lost.before, lost.at)
        if rest:
            self._append(encode_dropped(rest))

    def _discard(self) -> None:
        """Drop all queued messages, and turn the waiters away."""
        self._counters.dropped += len(self.queue) + (0 if self._backlog is None else len(self._backlog))
        self.queue.clear()
        self._backlog = None
        self.queued_bytes = 0
        self._missed = 0
        self._losses = None
        if self._waiters:
            self._turn_away()
