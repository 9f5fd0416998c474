"""TransportOutbox: messages written to the transport as ready frames, without a task. Knows no ASGI and no hub."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from velocity_ws.messages import Frame, encode
from velocity_ws.outbox import OutboxOwner
from velocity_ws.stats import Counters

__all__ = ["TransportOutbox", "Wire"]


class Wire(Protocol):
    """What an outbox needs of the connection it writes to."""

    @property
    def is_paused(self) -> bool:
        """Whether the transport holds more than its high-water mark."""

    def write(self, data: bytes) -> None:
        """Write a frame."""

    def send_close(self, code: int, reason: str) -> None:
        """Begin the closing handshake."""

    def abort(self) -> None:
        """Cut the connection, unless it is closing already."""

    async def ping(self) -> float | None:
        """Round trip of a ping in seconds."""


class TransportOutbox:
    """Writes at once while the transport is below its high-water mark, and queues the shared frames above it."""

    def __init__(
        self, wire: Wire, owner: OutboxOwner, counters: Counters, *, window_bits: int, limit: int, drop: bool
    ) -> None:
        """
        Args:
            wire: the connection.
            owner: told when the queue is full.
            counters: where sent and dropped messages are counted.
            window_bits: negotiated for compression; 0 for none.
            limit: bytes that may wait here; a single larger message passes when nothing waits.
            drop: whether a message that does not fit is dropped, rather than the client closed.
        """
        self._wire = wire
        self._owner = owner
        self._counters = counters
        self._window_bits = window_bits
        self._limit = limit
        self._drop = drop
        self._queue: deque[Frame] = deque()
        self._queued_bytes = 0
        self._missed = 0
        self._closing: tuple[int, str] | None = None
        self._over = False
        self._full = False

    def offer(self, frame: Frame) -> bool:
        """Take a message; whether it was queued."""
        if self._closing is not None or self._over:
            self._counters.dropped += 1
            return False
        if not self._queue and not self._missed and not self._wire.is_paused:
            self._write(frame)
            return True
        if self._queue and self._queued_bytes + frame.size > self._limit:
            self._refuse()
            return False
        if self._missed:
            self._append(encode("gap", {"dropped": self._missed}))
            self._missed = 0
        self._append(frame)
        return True

    def close(self, code: int, reason: str, *, discard: bool = False) -> None:
        """Take nothing more; close the connection after what is queued."""
        if self._closing is None and not self._over:
            self._closing = (code, reason)
            if discard:
                self._discard_queue()
            self.resume()

    def abort(self) -> None:
        """Stop at once."""
        if not self._over:
            self._over = True
            self._discard_queue()
        self._wire.abort()

    async def join(self) -> None:
        """Nothing runs here that could be waited for."""

    async def ping(self) -> float | None:
        """Round trip of a ping in seconds."""
        return await self._wire.ping()

    def resume(self) -> None:
        """Go on writing; called when the transport has room again."""
        while self._queue and not self._wire.is_paused:
            frame = self._queue.popleft()
            self._queued_bytes -= frame.size or 1
            self._write(frame)
        if self._queue or self._over or self._wire.is_paused:
            return
        if self._missed:
            missed, self._missed = self._missed, 0
            self._write(encode("gap", {"dropped": missed}))
        if self._closing is not None:
            self._over = True
            self._wire.send_close(*self._closing)

    def _write(self, frame: Frame) -> None:
        self._wire.write(frame.wire(self._window_bits))
        self._counters.messages_sent += 1
        self._counters.bytes_sent += frame.size

    def _append(self, frame: Frame) -> None:
        self._queue.append(frame)
        self._queued_bytes += frame.size or 1  # so that a queue of empty messages is bounded too

    def _refuse(self) -> None:
        self._counters.dropped += 1
        if self._drop:
            self._missed += 1
        elif not self._full:
            self._full = True
            self._counters.slow_closes += 1
            self._owner.outbox_full()

    def _discard_queue(self) -> None:
        self._counters.dropped += len(self._queue)
        self._queue.clear()
        self._queued_bytes = 0
        self._missed = 0
