"""TransportOutbox: messages written to the transport as ready frames, without a task. Knows no ASGI and no hub.

What a client is given in one turn of the event loop leaves in one write at the turn's end: `Flusher` does that for all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol, TypeVar

from velocity_ws.delivery.outbox import BoundedOutbox, Outbox, OutboxOwner, State
from velocity_ws.logs import get_logger
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.stats import Counters

__all__ = ["Flusher", "TransportOutbox", "Wire", "push"]

log = get_logger("velocity_ws.delivery")


class Wire(Protocol):
    """What an outbox needs of the connection it writes to."""

    @property
    def transport(self) -> asyncio.WriteTransport:
        """Where frames are written to."""

    @property
    def is_paused(self) -> bool:
        """Whether the transport holds more than its high-water mark."""

    def send_close(self, code: int, reason: str) -> None:
        """Begin the closing handshake."""

    def abort(self) -> None:
        """Cut the connection, unless it is closing already, in a time of its own."""

    async def ping(self) -> float | None:
        """Round trip of a ping in seconds."""


class Flusher:
    """Writes at the end of a loop turn what outboxes were given in it. One for each event loop.

    Attributes:
        waiting: the outboxes that have something to write.
    """

    def __init__(self) -> None:
        self.waiting: list[TransportOutbox] = []

    def add(self, outbox: TransportOutbox) -> None:
        """Flush an outbox at the end of this turn."""
        if not self.waiting:
            asyncio.get_running_loop().call_soon(self.flush)
        self.waiting.append(outbox)

    def flush(self) -> None:
        """Write everything now."""
        waiting, self.waiting = self.waiting, []
        for outbox in waiting:
            try:
                outbox.flush()
            except Exception:  # one connection never costs another
                log.exception("a connection could not be written to, and is cut")
                outbox.abort()


class TransportOutbox(BoundedOutbox):
    """Keeps messages until the end of the loop turn, or as shared frames while the client does not keep up.

    Attributes:
        is_clear: open, and the transport below its high-water mark: what is given leaves at the end of the turn.
        burst: bytes of one turn that do not wait for its end.
    """

    __slots__ = ("_flusher", "_window_bits", "_wire", "burst", "is_clear")

    queue: list[PreparedMessage]

    def __init__(
        self,
        wire: Wire,
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
            wire: the connection.
            flusher: that of the connection's event loop.
            window_bits: negotiated for compression; 0 for none.
            burst: bytes of one turn that are written before its end; the transport's high-water mark.

        The others are those of `BoundedOutbox`.
        """
        super().__init__([], owner, counters, limit=limit, drop=drop)
        self._wire = wire
        self._flusher = flusher
        self._window_bits = window_bits
        self.burst = min(burst, limit)
        self.is_clear = not wire.is_paused

    def offer(self, frame: PreparedMessage) -> bool:
        """Take a message; whether it was queued."""
        if self.is_clear:
            if not self.queue:
                self._flusher.add(self)
            self.queue.append(frame)
            self.queued_bytes += frame.cost
            if self.queued_bytes > self.burst:
                self.flush()
            return True
        if self._state is not State.OPEN:
            self._counters.dropped += 1
            return False
        if self.queue and self.queued_bytes + frame.cost > self._limit:
            self._refuse()
            return False
        if self._missed:
            self._append(self._take_gap())
        self._append(frame)
        return True

    async def put(self, frame: PreparedMessage | None, seconds: float) -> bool:
        """Take a message once nothing else waits; whether it was queued."""
        if frame is None and self.is_clear:
            self.flush()  # what waits for the end of the turn only
            if self._wire.transport.is_closing():
                return False
        return await super().put(frame, seconds)

    def close(self, code: int, reason: str, *, discard: bool = False) -> None:
        """Take nothing more; close the connection after what is queued."""
        if self._state is State.OPEN:
            self._state = State.CLOSING
            self._goodbye = (code, reason)
            self.is_clear = False
            if self._waiters:
                self._turn_away()
            if discard:
                self._discard()
            self.resume()

    def abort(self) -> None:
        """Stop at once."""
        if self._state is not State.OVER:
            self._state = State.OVER
            self.is_clear = False
            self._discard()
        self._wire.abort()

    @property
    def has_ended(self) -> bool:
        """Always: no task runs here."""
        return True

    async def wait_ended(self) -> None:
        """Nothing runs here that could be waited for."""

    async def ping(self) -> float | None:
        """Round trip of a ping in seconds."""
        return await self._wire.ping()

    def pause(self) -> None:
        """Write no more; called when the transport is above its high-water mark."""
        self.is_clear = False

    def resume(self) -> None:
        """Go on writing; called when the transport has room again."""
        self.flush()
        if self.queue or self._state is State.OVER or self._wire.is_paused:
            return
        if self._missed:
            self._append(self._take_gap())
            self.flush()
        if self._state is State.OPEN:
            self.is_clear = not self._wire.is_paused
            while self.is_clear and (turn := self._next_waiter()) is not None:
                waiter, frame = turn
                waiter.set_result(frame is None or self.offer(frame))
        else:
            self._state = State.OVER
            self._wire.send_close(*self._goodbye)

    @property
    def _is_free(self) -> bool:
        return self.is_clear

    def flush(self) -> None:
        """Write what is queued, as far as the transport takes it."""
        queue, wire = self.queue, self._wire
        while queue and not wire.is_paused:
            transport = wire.transport
            if transport.is_closing():
                self._discard()
                return
            if len(queue) == 1:  # by far the most common
                frame = queue.pop()
                sent, size, cost, data = 1, frame.size, frame.cost, frame.wire(self._window_bits)
            else:
                chunks = self._chunks()
                sent, data = len(chunks), chunks[0] if len(chunks) == 1 else b"".join(chunks)
                size = sum([frame.size for frame in queue[:sent]])
                cost = sum([frame.cost for frame in queue[:sent]])
                del queue[:sent]
            self.queued_bytes -= cost
            self._counters.messages_sent += sent
            self._counters.bytes_sent += size
            transport.write(data)

    def _chunks(self) -> list[bytes]:
        """The first of the queued messages as frames, up to a burst of them."""
        chunks, size = [], 0
        for frame in self.queue:
            chunk = frame.wire(self._window_bits)
            chunks.append(chunk)
            size += len(chunk)
            if size >= self.burst:
                break
        return chunks


class Member(Protocol):
    """What has an outbox."""

    @property
    def outbox(self) -> Outbox | None:
        """Where messages for it go; ``None`` before it is connected."""

    def offer(self, frame: PreparedMessage) -> bool:
        """Take a message, whatever state it is in; whether it was queued."""


M = TypeVar("M", bound=Member)


def push(members: Iterable[M], frame: PreparedMessage, flusher: Flusher) -> tuple[int, list[M]]:
    """Offer a frame to every member whose `TransportOutbox` is clear; how many that were, and the other members."""
    # `offer`, written out: each call in this loop would be paid for every delivery.
    queued, others, cost = 0, [], frame.cost
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
        queue.append(frame)
        outbox.queued_bytes += cost
        if outbox.queued_bytes > outbox.burst:
            outbox.flush()
        queued += 1
    return queued, others
