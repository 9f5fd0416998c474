"""TransportOutbox: messages written to the transport as ready frames, without a task. Knows no ASGI and no hub.

All messages that a client is given in one turn of the event loop leave in one write at the turn's end: see `Flusher`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol, TypeVar

from velocity_ws.delivery.bounded_outbox import BoundedOutbox
from velocity_ws.delivery.flusher import Flusher
from velocity_ws.delivery.outbox import CLOSING, OPEN, OVER, Outbox, OutboxOwner
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.stats import Counters

__all__ = ["FrameWriter", "TransportOutbox", "push"]


class FrameWriter(Protocol):
    """The connection that an outbox writes frames to. On the broker's loop only."""

    @property
    def transport(self) -> asyncio.WriteTransport:
        """The transport that frames are written to."""

    @property
    def is_paused(self) -> bool:
        """Whether the transport holds more than its high-water mark."""

    def send_close(self, code: int, reason: str) -> None:
        """Begin the closing handshake (RFC 6455, section 7.1.2)."""

    def abort(self) -> None:
        """Abort the connection, unless a closing handshake with its own deadline has begun."""

    async def ping(self) -> float | None:
        """Ping the client; return the round trip in seconds, or ``None`` if the connection ends first."""


class TransportOutbox(BoundedOutbox):
    """Queues messages until the end of the loop turn, or until a slow client's transport has room.

    On the broker's loop only.

    Attributes:
        is_clear: open, and the transport is below its high-water mark: messages leave at the end of the turn.
        burst: bytes queued in one turn that are written before the turn ends.
    """

    __slots__ = ("_flusher", "_window_bits", "_writer", "burst", "is_clear")

    queue: list[PreparedMessage]

    def __init__(
        self,
        writer: FrameWriter,
        owner: OutboxOwner,
        counters: Counters,
        flusher: Flusher,
        *,
        window_bits: int,
        burst: int,
        limit: int,
        drop: bool,
    ) -> None:
        """
        Args:
            writer: the connection.
            flusher: the flusher of the connection's event loop.
            window_bits: the LZ77 window negotiated for permessage-deflate, 9 to 15; 0 for no compression.
            burst: bytes queued in one turn that are written before it ends: the transport's high-water mark.

        The others are those of `BoundedOutbox`.
        """
        super().__init__([], owner, counters, limit=limit, drop=drop)
        self._writer = writer
        self._flusher = flusher
        self._window_bits = window_bits
        self.burst = min(burst, limit)
        self.is_clear = not writer.is_paused

    def offer(self, message: PreparedMessage) -> bool:
        """Take a message; return whether it was queued."""
        if self.is_clear:
            if not self.queue:
                self._flusher.add(self)
            self.queue.append(message)
            self.queued_bytes += message.cost
            if self.queued_bytes > self.burst:
                self.flush()
            return True
        if self._state is not OPEN:
            self._counters.dropped += 1
            return False
        if message.lossy is not None or self._backlog is not None:
            return self._hold(message)
        # The same in fewer steps, as a burst takes these for each message and client.
        if self.queue and self.queued_bytes + message.cost > self._limit:
            self._refuse(message)
            return False
        if self._missed:
            self._append_gaps()
        self.queue.append(message)
        self.queued_bytes += message.cost
        return True

    async def put(self, message: PreparedMessage | None, seconds: float) -> bool:
        """Wait until nothing else is queued, then take a message; return whether it was queued."""
        if message is None and self.is_clear:
            self.flush()  # what is queued only until the end of the turn
            if self._writer.transport.is_closing():
                return False
        return await super().put(message, seconds)

    def close(self, code: int, reason: str, *, discard: bool = False) -> None:
        """Take no more messages, and close the connection once those that are queued have been written."""
        if self._state is OPEN:
            self._state = CLOSING
            self._goodbye = (code, reason)
            self.is_clear = False
            if self._waiters:
                self._turn_away()
            if discard:
                self._discard()
            self.resume()

    def abort(self) -> None:
        """Drop what is queued, and abort the connection."""
        if self._state is not OVER:
            self._state = OVER
            self.is_clear = False
            self._discard()
        self._writer.abort()

    @property
    def has_ended(self) -> bool:
        """Always true, as an outbox of this kind runs no task."""
        return True

    async def wait_ended(self) -> None:
        """Return at once, as an outbox of this kind runs no task."""

    async def ping(self) -> float | None:
        """Ping the client; return the round trip in seconds, or ``None`` if the connection ends first."""
        return await self._writer.ping()

    def pause(self) -> None:
        """Stop writing: the transport is above its high-water mark."""
        self.is_clear = False

    def resume(self) -> None:
        """Write again, as the transport has room; then serve waiters, or close the connection if that was asked for."""
        self.flush()
        while self._backlog is not None and not self._writer.is_paused:
            self._refill()
            self.flush()
        if self.queue or self._state is OVER or self._writer.is_paused:
            return
        if self._missed:
            self._append_gaps()
            self.flush()
        if self._state is OPEN:
            self.is_clear = not self._writer.is_paused
            while self.is_clear and (turn := self._next_waiter()) is not None:
                waiter, message = turn
                waiter.set_result(message is None or self.offer(message))
        else:
            self._state = OVER
            self._writer.send_close(*self._goodbye)

    @property
    def _is_free(self) -> bool:
        return self.is_clear

    def flush(self) -> None:
        """Write queued messages until none is left or the transport is above its high-water mark."""
        queue, writer = self.queue, self._writer
        while queue and not writer.is_paused:
            transport = writer.transport
            if transport.is_closing():
                self._discard()
                return
            if len(queue) == 1:  # by far the most common
                message = queue.pop()
                sent, size, cost, data = 1, message.size, message.cost, message.wire(self._window_bits)
            else:
                chunks = self._chunks()
                sent, data = len(chunks), chunks[0] if len(chunks) == 1 else b"".join(chunks)
                size = sum([message.size for message in queue[:sent]])
                cost = sum([message.cost for message in queue[:sent]])
                del queue[:sent]
            self.queued_bytes -= cost
            self._counters.messages_sent += sent
            self._counters.bytes_sent += size
            transport.write(data)

    def _refill(self) -> None:
        """Move from the backlog to the empty queue what leaves in the next write; the rest can still be replaced."""
        size = 0
        while size < self.burst and (message := self._pop_backlog()) is not None:
            self.queue.append(message)
            size += len(message.wire(self._window_bits))

    def _chunks(self) -> list[bytes]:
        """Build the frames of the first queued messages, up to ``burst`` bytes."""
        chunks, size = [], 0
        for message in self.queue:
            chunk = message.wire(self._window_bits)
            chunks.append(chunk)
            size += len(chunk)
            if size >= self.burst:
                break
        return chunks


class Member(Protocol):
    """A receiver of messages, such as a session. On the broker's loop only."""

    @property
    def outbox(self) -> Outbox | None:
        """The outbox for its messages; ``None`` before it is connected."""

    def offer(self, message: PreparedMessage) -> bool:
        """Take a message; return whether it was queued. Works in every state of the member, connected or not."""


M = TypeVar("M", bound=Member)


def push(members: Iterable[M], message: PreparedMessage, flusher: Flusher) -> tuple[int, list[M]]:
    """Offer a message to every member whose `TransportOutbox` is clear. On the broker's loop only.

    Returns:
        How many members queued the message, and the members that it was not offered to.
    """
    # `offer`, written out: each call in this loop would be paid for every delivery.
    queued, others, cost = 0, [], message.cost
    for member in members:
        outbox = member.outbox
        if outbox.__class__ is not TransportOutbox or not outbox.is_clear:
            others.append(member)
            continue
        queue = outbox.queue
        if not queue:
            if not flusher.waiting:
                flusher.add(outbox)
            else:
                flusher.waiting.append(outbox)
        queue.append(message)
        outbox.queued_bytes += cost
        if outbox.queued_bytes > outbox.burst:
            outbox.flush()
        queued += 1
    return queued, others
