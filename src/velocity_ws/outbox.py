"""Outboxes: messages waiting for one client. `Outbox` is the seam; `QueueOutbox` serves any ASGI server.

Knows the ASGI ``send`` it was given, no hub and no hook.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from velocity_ws.eager import EagerTask, Suspended
from velocity_ws.messages import Frame, encode
from velocity_ws.stats import Counters

__all__ = ["Outbox", "OutboxOwner", "QueueOutbox"]

log = logging.getLogger("velocity_ws.outbox")

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Outbox(Protocol):
    """Takes messages for one client without ever waiting, bounded in bytes. Used on the broker's loop only."""

    def offer(self, frame: Frame) -> bool:
        """Take a message; whether it was queued. Never waits, never raises; a refused one is counted as dropped."""

    def close(self, code: int, reason: str, *, discard: bool = False) -> None:
        """Take nothing more, and close the connection once everything queued is sent (or discarded)."""

    def abort(self) -> None:
        """Stop at once; what is still queued is counted as dropped. Harmless when already over."""

    async def join(self) -> None:
        """Wait until it is over: closed or aborted, nothing left running."""


class OutboxOwner(Protocol):
    """Whoever is told what becomes of an outbox."""

    def outbox_full(self) -> None:
        """The queue is full and the policy is to disconnect. Called once; it should close or abort."""

    def outbox_broken(self) -> None:
        """The server's ``send`` failed, so the connection is gone. Called at most once."""


class QueueOutbox:
    """A queue over ASGI's ``send``. A message for an idle connection is sent at once, in the caller's turn."""

    def __init__(self, send: Send, owner: OutboxOwner, counters: Counters, *, limit: int, drop: bool) -> None:
        """
        Args:
            send: the ASGI ``send`` of an accepted connection.
            owner: told when the queue is full or the connection broken.
            counters: where sent and dropped messages are counted.
            limit: bytes that may wait; a single larger message passes when nothing waits.
            drop: whether a message that does not fit is dropped, rather than the client closed.
        """
        self._send = send
        self._owner = owner
        self._counters = counters
        self._limit = limit
        self._drop = drop
        self._queue: deque[Frame] = deque()
        self._bytes = 0  # of everything queued, the message being sent included
        self._missed = 0  # dropped since the client was last told
        self._sending: Frame | None = None
        self._closing: tuple[int, str] | None = None
        self._over = False
        self._full = False
        self._writer = EagerTask()

    def offer(self, frame: Frame) -> bool:
        """Take a message; whether it was queued."""
        if self._closing is not None or self._over:
            self._counters.dropped += 1
            return False
        if not self._writer.is_busy and not self._missed:
            return self._send_now(frame)
        if self._bytes and self._bytes + (frame.size or 1) > self._limit:
            self._refuse()
            return False
        if self._missed:
            self._append(self._gap())
        self._append(frame)
        self._write()
        return not self._over

    def close(self, code: int, reason: str, *, discard: bool = False) -> None:
        """Take nothing more; close the connection after what is queued."""
        if self._closing is None and not self._over:
            self._closing = (code, reason)
            if discard:
                self._discard_queue()
            self._write()

    def abort(self) -> None:
        """Stop at once."""
        if not self._over:
            self._finish()
            self._writer.cancel()

    async def join(self) -> None:
        """Wait until the writer has ended."""
        await self._writer.join()

    def _refuse(self) -> None:
        self._counters.dropped += 1
        if self._drop:
            self._missed += 1
        elif not self._full:
            self._full = True
            self._counters.slow_closes += 1
            self._owner.outbox_full()

    def _append(self, frame: Frame) -> None:
        self._queue.append(frame)
        self._bytes += frame.size or 1  # so that a queue of empty messages is bounded too

    def _gap(self) -> Frame:
        frame = encode("gap", {"dropped": self._missed})
        self._missed = 0
        return frame

    def _write(self) -> None:
        if not self._writer.is_busy:
            self._writer.run(self._send_queue())

    def _send_now(self, frame: Frame) -> bool:
        # Every delivery to a client that keeps up comes through here: a queue of one, without the queue.
        self._sending = frame
        self._bytes = frame.size or 1
        try:
            rest = self._writer.step(self._send(_asgi(frame)))
        except (Exception, asyncio.CancelledError) as error:
            self._break(error)
            return False
        if rest is None:
            self._sent(frame)
        if rest is not None or self._queue or self._closing is not None:
            self._writer.drive(self._send_queue(rest))
        return True

    async def _send_queue(self, rest: Suspended | None = None) -> None:
        try:
            if rest is not None and self._sending is not None:
                frame = self._sending
                await rest
                self._sent(frame)
            while self._queue or self._missed:
                if not self._queue:
                    self._append(self._gap())
                frame = self._sending = self._queue.popleft()
                await self._send(_asgi(frame))
                self._sent(frame)
            if self._closing is not None and not self._over:
                code, reason = self._closing
                await self._send({"type": "websocket.close", "code": code, "reason": reason})
                self._finish()
        except (Exception, asyncio.CancelledError) as error:
            if self._over and isinstance(error, asyncio.CancelledError):
                raise
            self._break(error)

    def _sent(self, frame: Frame) -> None:
        if self._over:  # aborted meanwhile, and counted as dropped
            return
        counters = self._counters
        counters.messages_sent += 1
        counters.bytes_sent += frame.size
        self._sending = None
        self._bytes -= frame.size or 1

    def _break(self, error: BaseException) -> None:
        # Servers report a lost connection in many ways (OSError, RuntimeError, their own); none of them is an error of
        # the application, and the reason reaches it through ``receive``.
        log.debug("the server's send failed", exc_info=error)
        if not self._over:
            self._finish()
            self._owner.outbox_broken()

    def _finish(self) -> None:
        self._over = True
        self._discard_queue()
        if self._sending is not None:
            self._counters.dropped += 1
        self._writer.end()

    def _discard_queue(self) -> None:
        self._counters.dropped += len(self._queue)
        self._bytes = 0 if self._sending is None else self._sending.size or 1
        self._queue.clear()
        self._missed = 0


def _asgi(frame: Frame) -> dict[str, Any]:
    # A new dict each time: middleware may change the one it gets.
    if frame.is_text:
        return {"type": "websocket.send", "text": frame.text}
    return {"type": "websocket.send", "bytes": frame.payload}
