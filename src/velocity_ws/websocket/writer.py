"""Writer: the outbound side of one connection: ready frames, pings, the closing handshake, and its deadline.

Knows the transport; knows no message and no sender.
"""

from __future__ import annotations

import asyncio

from velocity_ws.close import PING_TIMEOUT
from velocity_ws.concurrency.deadlines import Deadlines
from velocity_ws.websocket.keepalive import Pings
from velocity_ws.websocket.parser_adapter import ParserAdapter

__all__ = ["Writer", "closing_within"]

CLOSE_TIMEOUT = 10.0
"""Seconds until a connection that should be closing is aborted."""
LINGER = 0.5
"""Seconds that a client has to read why its connection is failed, and to close."""
MAX_DISCARDED = 256 * 1024
"""Bytes that such a client may send meanwhile."""


class Writer:
    """Writes to the transport; also the `FrameWriter` of a broker's outbox.

    Attributes:
        transport: the connection's.
        is_paused: whether the transport is above its high-water mark.
        is_lost: whether the connection is gone.
    """

    __slots__ = (
        "_closing",
        "_deadline",
        "_discarded",
        "_loop",
        "_parser",
        "_pings",
        "_pong",
        "_waiter",
        "is_lost",
        "is_paused",
        "transport",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        parser: ParserAdapter,
        loop: asyncio.AbstractEventLoop,
        closing: Deadlines[Writer],
    ) -> None:
        """
        Args:
            transport: the connection's.
            parser: knows whether the closing handshake has begun.
            loop: the connection's.
            closing: of all connections of the loop; see `closing_within`.
        """
        self._closing = closing
        self.transport = transport
        self._parser = parser
        self._loop = loop
        self._waiter: asyncio.Future[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None  # of a client that may still read why it is failed
        self._discarded: int | None = None  # of bytes, once nothing can be written any more
        self._pings: Pings | None = None
        self._pong: bytes | None = None
        self.is_paused = False
        self.is_lost = False

    def write(self, data: bytes) -> None:
        """Write a frame; it is dropped once the connection is closing or gone."""
        if self._discarded is None and not self.transport.is_closing():
            self.transport.write(data)

    def write_all(self, replies: list[bytes], *, linger: bool = False) -> None:
        """Write frames of the library's.

        Args:
            replies: of which an empty one stands for closing the connection.
            linger: whether the client may read them before that, see `linger`.
        """
        for data in replies:
            if data:
                self.write(data)
            elif linger:
                self.linger()
            else:
                self.close_transport()

    def answer_ping(self, pong: bytes) -> None:
        """Write a pong, or keep it until there is room, in place of the one before."""
        if self.is_paused:
            # Only the latest need be answered (RFC 6455, section 5.5.3): a client that reads nothing costs nothing.
            self._pong = pong
        else:
            self.write(pong)

    def resume(self) -> None:
        """The transport has room again."""
        if self._discarded is not None:
            return
        self.is_paused = False
        if self._pong is not None:
            pong, self._pong = self._pong, None
            self.write(pong)
        self.wake()

    async def room(self) -> None:
        """Wait until the transport has room, or is closing."""
        while self.is_paused and not self.transport.is_closing():
            self._waiter = self._waiter or self._loop.create_future()
            await asyncio.shield(self._waiter)  # which others wait for as well

    def wake(self) -> None:
        """Let what waits for room look again."""
        if self._waiter is not None:
            waiter, self._waiter = self._waiter, None
            if not waiter.done():
                waiter.set_result(None)

    # --- the end

    def send_close(self, code: int, reason: str) -> None:
        """Begin the closing handshake, where it has not begun."""
        if self._parser.is_open:
            self.write_all(self._parser.close(code, reason))
            self.close_in_time()

    def close_transport(self) -> None:
        """Close the connection once everything is written, or it takes too long."""
        self.close_in_time()
        self.transport.close()

    def linger(self) -> None:
        """Close for writing, and soon for good.

        To close a socket while there is something that was not read makes the kernel reset the connection, and the
        client may never see the close frame. So what still comes is read, and goes nowhere: `discard`.
        """
        if self.transport.is_closing() or not self.transport.can_write_eof():
            self.close_transport()
            return
        self.is_paused = True  # for good: nothing can be written any more
        self._discarded = 0
        self._closing.stop(self)
        self._deadline = self._loop.call_later(LINGER, self.transport.abort)
        self.transport.write_eof()
        self.transport.resume_reading()

    def discard(self, size: int) -> None:
        """Count bytes that came after the end, and abort where they are too many."""
        if self._discarded is not None:
            self._discarded += size
            if self._discarded > MAX_DISCARDED:
                if self.transport.get_write_buffer_size():
                    self.transport.pause_reading()  # why it is closed has not left yet; its time runs
                else:
                    self.transport.abort()

    def close_in_time(self) -> None:
        """Abort the connection if it has not closed by the deadline."""
        # A peer that does not read keeps ``transport.close()`` waiting for ever.
        if self._deadline is None and not self.is_lost:
            self._closing.start(self)

    def abort(self, *, even_if_closing: bool = False) -> None:
        """End the connection now.

        Args:
            even_if_closing: one that is closing has a deadline of its own, until which its client may read the rest,
                and why it is closed; whether not even that is waited for.
        """
        is_closing = self._discarded is not None or self.transport.is_closing()
        if not self.is_lost and (even_if_closing or not is_closing):
            self.transport.abort()

    def lost(self) -> None:
        """The connection is gone."""
        self.is_lost = True
        self._closing.stop(self)
        if self._deadline is not None:
            self._deadline.cancel()
        if self._pings is not None:
            self._pings.end()
            self._pings = None
        self.wake()

    # --- pings

    async def ping(self) -> float | None:
        """Send a ping; its round trip in seconds, or ``None`` if the connection ended first."""
        if self.is_lost or not self._parser.is_open:
            return None
        waiter: asyncio.Future[float | None] = self._loop.create_future()
        self.pings.send(waiter)
        return await waiter

    @property
    def pings(self) -> Pings:
        """The pings that wait for their pong; most connections have none."""
        if self._pings is None:
            self._pings = Pings(self._loop, self.write)
        return self._pings

    def pong(self, payload: bytes) -> None:
        """A pong has come."""
        if self._pings is not None:
            self._pings.pong(payload)

    def peer_is_dead(self) -> None:
        """Fail the connection, in case the client still reads, and abort it."""
        self.write_all(self._parser.fail(*PING_TIMEOUT))
        self.abort(even_if_closing=True)


def closing_within(loop: asyncio.AbstractEventLoop) -> Deadlines[Writer]:
    """Those of connections that should be closing: one timer, as each connection comes to that."""
    return Deadlines(loop, CLOSE_TIMEOUT, _abort)


def _abort(writer: Writer) -> None:
    writer.transport.abort()
