"""Outboxes: messages waiting for one client, and who waits to send it more.

`Outbox` is the seam; `QueueOutbox` serves any ASGI server. `BoundedOutbox` is what every outbox does with a client that
is too slow. Knows the ASGI ``send`` it was given, no hub and no hook.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from velocity_ws.concurrency.eager import EagerTask, Suspended
from velocity_ws.logs import get_logger
from velocity_ws.messages.outbound import PreparedMessage, encode
from velocity_ws.stats import Counters

__all__ = ["BoundedOutbox", "Outbox", "OutboxOwner", "QueueOutbox"]

log = get_logger("velocity_ws.outbox")

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


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
    def is_joined(self) -> bool:
        """Whether nothing runs here that `join` would wait for."""

    async def join(self) -> None:
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
        "_closing",
        "_counters",
        "_drop",
        "_full",
        "_limit",
        "_missed",
        "_over",
        "_owner",
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
        self._closing: tuple[int, str] | None = None
        self._over = False
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
        if self._closing is not None or self._over:
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
        frame = encode("gap", {"dropped": self._missed})
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


class QueueOutbox(BoundedOutbox):
    """A queue over ASGI's ``send``. A message for an idle connection is sent at once, in the caller's turn.

    The attributes without an underscore are for `fan_out`, which does for many what `offer` does for one.
    """

    queue: deque[PreparedMessage]

    def __init__(self, send: Send, owner: OutboxOwner, counters: Counters, *, limit: int, drop: bool) -> None:
        """
        Args:
            send: the ASGI ``send`` of an accepted connection; the others are those of `BoundedOutbox`.
        """
        super().__init__(deque(), owner, counters, limit=limit, drop=drop)
        self.send = send
        self.is_idle = True  # open, and nothing queued, being sent or to be told
        self.is_disturbed = False  # something else came while a message was being sent at once
        self.sending: PreparedMessage | None = None
        self._writer = EagerTask()
        self.task = self._writer.task

    def offer(self, frame: PreparedMessage) -> bool:
        """Take a message; whether it was queued."""
        if self.is_idle:
            self._send_at_once(frame)
        elif self._closing is not None or self._over:
            self._counters.dropped += 1
            return False
        elif not self._has_room(frame):
            self.is_disturbed = True
            self._refuse()
            return False
        else:
            if self._missed:
                self._append(self._take_gap())
            self._append(frame)
            self._write()
        return not self._over

    def close(self, code: int, reason: str, *, discard: bool = False) -> None:
        """Take nothing more; close the connection after what is queued."""
        if self._closing is None and not self._over:
            self._closing = (code, reason)
            self.is_idle = False
            self.is_disturbed = True
            self._turn_away()
            if discard:
                self._discard()
            self._write()

    async def put(self, frame: PreparedMessage | None, seconds: float) -> bool:
        """Take a message once nothing else waits; whether it was queued."""
        self.is_disturbed = self.is_disturbed or not self.is_idle
        return await super().put(frame, seconds)

    def abort(self) -> None:
        """Stop at once."""
        if not self._over:
            self._finish()
            self._writer.cancel()

    @property
    def is_joined(self) -> bool:
        """Whether the writer has ended."""
        return self.task.done()

    async def join(self) -> None:
        """Wait until the writer has ended."""
        await self._writer.join()

    async def ping(self) -> float | None:
        """``None``: plain ASGI has no ping frames."""
        return None

    def _send_at_once(self, frame: PreparedMessage) -> None:
        self.is_idle = False
        self.sending = frame
        try:
            rest = self._writer.step(self.send(_asgi(frame)))
        except (Exception, asyncio.CancelledError) as error:
            self.fail(error)
        else:
            if rest is None:
                self.done(frame)
            else:
                self.wait_for(rest)

    def done(self, frame: PreparedMessage) -> None:
        """The message was sent at once."""
        self._sent(frame)
        if self.is_disturbed:
            self._write(soon=True)
        else:
            self.is_idle = True

    def wait_for(self, rest: Suspended) -> None:
        """The message is being sent; the writer takes over."""
        self._writer.drive(self._send_queue(rest))

    def fail(self, error: BaseException) -> None:
        """The message could not be sent, so the connection is gone."""
        # Servers report a lost connection in many ways (OSError, RuntimeError, their own); none of them is an error of
        # the application, and the reason reaches it through ``receive``.
        log.debug("the server's send failed", exc_info=error)
        if not self._over:
            self._finish()
            self._owner.outbox_broken()

    @property
    def _is_free(self) -> bool:
        return self.is_idle

    def _has_room(self, frame: PreparedMessage) -> bool:
        waiting = self.queued_bytes + (0 if self.sending is None else self.sending.cost)
        return not waiting or waiting + frame.cost <= self._limit

    def _append(self, frame: PreparedMessage) -> None:
        super()._append(frame)
        self.is_disturbed = True

    def _write(self, *, soon: bool = False) -> None:
        if self.sending is None and not self._writer.is_busy:
            self.is_idle = False
            start = self._writer.drive if soon else self._writer.run
            start(self._send_queue())

    async def _send_queue(self, rest: Suspended | None = None) -> None:
        try:
            if rest is not None and self.sending is not None:
                frame = self.sending
                await rest
                self._sent(frame)
            while self.queue or self._missed or self._waiters:
                if not self.queue and self._missed:
                    self._append(self._take_gap())
                elif not self.queue:
                    self._admit()
                    continue
                frame = self.sending = self.queue.popleft()
                self.queued_bytes -= frame.cost
                await self.send(_asgi(frame))
                self._sent(frame)
            if self._closing is not None and not self._over:
                code, reason = self._closing
                await self.send({"type": "websocket.close", "code": code, "reason": reason})
                self._finish()
            self.is_disturbed = False
            self.is_idle = not self._over
        except (Exception, asyncio.CancelledError) as error:
            if self._over and isinstance(error, asyncio.CancelledError):
                raise
            self.fail(error)

    def _admit(self) -> None:
        """Take the message of who has waited longest."""
        if (turn := self._next_waiter()) is not None:
            waiter, frame = turn
            if frame is not None:
                self._append(frame)
            waiter.set_result(True)

    def _sent(self, frame: PreparedMessage) -> None:
        if self._over:  # aborted meanwhile, and counted as dropped
            return
        self.sending = None
        self._counters.messages_sent += 1
        self._counters.bytes_sent += frame.size

    def _finish(self) -> None:
        self._over = True
        self.is_idle = False
        self.is_disturbed = True
        self._discard()
        if self.sending is not None:
            self._counters.dropped += 1
        self._writer.end()


def _asgi(frame: PreparedMessage) -> dict[str, Any]:
    # A new dict each time: middleware may change the one it gets.
    if frame.is_text:
        return {"type": "websocket.send", "text": frame.text}
    return {"type": "websocket.send", "bytes": frame.payload}
