"""QueueOutbox: a bounded queue of messages over ASGI's ``send``, for any server. Knows no hub and no hook."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from velocity_ws.concurrency.eager import EagerTask, Suspended
from velocity_ws.delivery.bounded_outbox import BoundedOutbox
from velocity_ws.delivery.outbox import CLOSING, OPEN, OVER, OutboxOwner
from velocity_ws.logs import get_logger
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.stats import Counters

__all__ = ["QueueOutbox"]

log = get_logger("velocity_ws.delivery")

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class QueueOutbox(BoundedOutbox):
    """A queue over ASGI's ``send``. On the broker's loop only.

    A message for an idle connection is sent at once, in the caller's turn of the loop. The attributes and `done`,
    `wait_for` and `fail` are public for `fan_out`, which does for many outboxes what `offer` does for one.

    Attributes:
        send: the ASGI ``send`` of the connection.
        task: the task that all sends run in.
        sending: the message that is being sent, if any.
        is_idle: open, with nothing queued, being sent, or dropped without the client having been told.
        is_disturbed: something else happened while a message was being sent at once: the writer must look again.
    """

    queue: deque[PreparedMessage]

    def __init__(self, send: Send, owner: OutboxOwner, counters: Counters, *, limit: int, drop: bool) -> None:
        """
        Args:
            send: the ASGI ``send`` of an accepted connection.

        The others are those of `BoundedOutbox`.
        """
        super().__init__(deque(), owner, counters, limit=limit, drop=drop)
        self.send = send
        self.is_idle = True
        self.is_disturbed = False
        self.sending: PreparedMessage | None = None
        self._writer = EagerTask()
        self.task = self._writer.task

    def offer(self, message: PreparedMessage) -> bool:
        """Take a message; return whether it was queued."""
        if self.is_idle:
            self._send_at_once(message)
        elif self._state is not OPEN:
            self._counters.dropped += 1
            return False
        else:
            self.is_disturbed = True
            if not self._hold(message, 0 if self.sending is None else self.sending.cost):
                return False
            self._write()
        return self._state is not OVER

    def close(self, code: int, reason: str, *, discard: bool = False) -> None:
        """Take no more messages, and close the connection once those that are queued have been sent."""
        if self._state is OPEN:
            self._state = CLOSING
            self._goodbye = (code, reason)
            self.is_idle = False
            self.is_disturbed = True
            self._turn_away()
            if discard:
                self._discard()
            self._write()

    async def put(self, message: PreparedMessage | None, seconds: float) -> bool:
        """Wait until nothing else is queued, then take a message; return whether it was queued."""
        self.is_disturbed = self.is_disturbed or not self.is_idle
        return await super().put(message, seconds)

    def abort(self) -> None:
        """Drop what is queued and cancel the send that waits. Harmless when the outbox is over already."""
        if self._state is not OVER:
            self._finish()
            self._writer.cancel()

    @property
    def has_ended(self) -> bool:
        """Whether the task of the sends has ended."""
        return self.task.done()

    async def wait_ended(self) -> None:
        """Wait until the task of the sends has ended."""
        await self._writer.wait_ended()

    async def ping(self) -> float | None:
        """Return ``None``, as plain ASGI has no ping frames."""
        return None

    def _send_at_once(self, message: PreparedMessage) -> None:
        self.is_idle = False
        self.sending = message
        try:
            rest = self._writer.step(self.send(_asgi(message)))
        except (Exception, asyncio.CancelledError) as error:
            self.fail(error)
        else:
            if rest is None:
                self.done(message)
            else:
                self.wait_for(rest)

    def done(self, message: PreparedMessage) -> None:
        """Count a message that was sent at once, and go on with what came meanwhile."""
        self._sent(message)
        if self.is_disturbed:
            self._write(soon=True)
        else:
            self.is_idle = True

    def wait_for(self, rest: Suspended) -> None:
        """Let the task finish a send that has to wait, and then send what is queued."""
        self._writer.drive(self._send_queue(rest))

    def fail(self, error: BaseException) -> None:
        """End the outbox, as the server's ``send`` raised, and tell the owner."""
        # Servers report a lost connection in many ways (OSError, RuntimeError, their own); none of them is an error of
        # the application, and the reason reaches it through ``receive``.
        log.debug("the server's send failed", exc_info=error)
        if self._state is not OVER:
            self._finish()
            self._owner.outbox_broken()

    @property
    def _is_free(self) -> bool:
        return self.is_idle

    def _write(self, *, soon: bool = False) -> None:
        if self.sending is None and not self._writer.is_busy:
            self.is_idle = False
            start = self._writer.drive if soon else self._writer.run
            start(self._send_queue())

    async def _send_queue(self, rest: Suspended | None = None) -> None:
        try:
            if rest is not None and (first := self.sending) is not None:
                await rest
                self._sent(first)
            while self.queue or self._backlog is not None or self._missed or self._waiters:
                message = self.queue.popleft() if self.queue else self._pop_backlog()
                if message is None:
                    self._admit()
                    continue
                self.sending = message
                self.queued_bytes -= message.cost
                await self.send(_asgi(message))
                self._sent(message)
            if self._state is CLOSING:
                code, reason = self._goodbye
                await self.send({"type": "websocket.close", "code": code, "reason": reason})
                self._finish()
            self.is_disturbed = False
            self.is_idle = self._state is OPEN
        except (Exception, asyncio.CancelledError) as error:
            if self._state is OVER and isinstance(error, asyncio.CancelledError):
                raise
            self.fail(error)

    def _admit(self) -> None:
        """Queue what comes after all that waited: what tells of a loss, then the message of the first waiter."""
        if self._missed:
            self._append_gaps()
        elif (turn := self._next_waiter()) is not None:
            waiter, message = turn
            if message is not None:
                self._append(message)
            waiter.set_result(True)

    def _sent(self, message: PreparedMessage) -> None:
        if self._state is OVER:  # aborted meanwhile, and counted as dropped
            return
        self.sending = None
        self._counters.messages_sent += 1
        self._counters.bytes_sent += message.size

    def _finish(self) -> None:
        self._state = OVER
        self.is_idle = False
        self.is_disturbed = True
        self._discard()
        if self.sending is not None:
            self._counters.dropped += 1
        self._writer.end()


def _asgi(message: PreparedMessage) -> dict[str, Any]:
    # A new dict each time: middleware may change the one it gets.
    if message.is_text:
        return {"type": "websocket.send", "text": message.text}
    return {"type": "websocket.send", "bytes": message.payload}
