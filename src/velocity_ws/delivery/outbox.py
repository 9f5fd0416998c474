"""Outbox: messages that wait for one client, what happens when they are too many, and callers that wait for room.

`Outbox` is the seam; `BoundedOutbox` is what every outbox does with a client that is too slow. Knows no transport,
no hub and no hook.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from enum import Enum, auto
from typing import Final, Protocol

from velocity_ws.close import Goodbye
from velocity_ws.delivery.backlog import Backlog
from velocity_ws.messages.events import encode_dropped
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.stats import Counters

__all__ = ["CLOSING", "OPEN", "OVER", "BoundedOutbox", "Outbox", "OutboxOwner", "State"]


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


OPEN: Final = State.OPEN  # a name of a module is found faster than a member of an enum
CLOSING: Final = State.CLOSING
OVER: Final = State.OVER


class Outbox(Protocol):
    """Holds the messages for one client, bounded in bytes. On the broker's loop only."""

    def offer(self, message: PreparedMessage) -> bool:
        """Take a message; return whether it was queued. Never waits or raises.

        A refused message counts as dropped. A volatile one is left out, and counted, where others wait; one with a key
        replaces, and counts, the one of its event and key that waits.
        """

    async def put(self, message: PreparedMessage | None, seconds: float) -> bool:
        """Wait until nothing else is queued, then take a message. Callers are served in the order in which they came.

        A caller that sends much this way leaves the whole queue to the messages that others offer meanwhile.

        Args:
            message: the message; ``None`` only waits.
            seconds: how long to wait at most.

        Returns:
            Whether it was queued; false, and counted as dropped, if the connection ends first.

        Raises:
            TimeoutError: it took longer than ``seconds``. The message is refused then, as `offer` refuses one.
        """

    def close(self, code: int, reason: str, *, discard: bool = False) -> None:
        """Take no more messages, and close the connection once those that are queued have been sent.

        Args:
            code: the code of the close frame.
            reason: the text of the close frame; at most 123 bytes of UTF-8.
            discard: whether to drop what is queued instead of sending it.
        """

    def abort(self) -> None:
        """End the connection now; what is still queued counts as dropped. Harmless when it has ended already."""

    @property
    def is_free(self) -> bool:
        """Whether it is open and nothing waits, so that the next message leaves at once."""

    @property
    def has_ended(self) -> bool:
        """Whether `wait_ended` would return at once."""

    async def wait_ended(self) -> None:
        """Wait until the outbox is closed or aborted, and nothing of it runs any more."""

    async def ping(self) -> float | None:
        """Ping the client; return the round trip in seconds, or ``None`` if the transport has no pings."""


class OutboxOwner(Protocol):
    """The session that an outbox belongs to, as the outbox reports to it. On the broker's loop only."""

    def outbox_full(self) -> None:
        """The queue is full, and the policy is to disconnect. Called once; the owner should close or abort it."""

    def outbox_dropped(self) -> None:
        """The queue is full, and the policy is to drop. Called for the first message that is dropped in a row."""

    def outbox_broken(self) -> None:
        """The server's ``send`` failed: the connection is gone. Called at most once."""


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
            self._refuse()
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
            self._refuse()
            return False
        if self._missed:
            self._append(self._take_gap())
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

    def _refuse(self) -> None:
        """Count a message that does not fit, and tell the owner where the policy asks for it."""
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
        """Encode the ``gap`` that tells the client how many messages it missed, and count anew."""
        message = encode_dropped(self._missed)
        self._missed = 0
        return message

    def _discard(self) -> None:
        """Drop all queued messages, and turn the waiters away."""
        self._counters.dropped += len(self.queue) + (0 if self._backlog is None else len(self._backlog))
        self.queue.clear()
        self._backlog = None
        self.queued_bytes = 0
        self._missed = 0
        if self._waiters:
            self._turn_away()
