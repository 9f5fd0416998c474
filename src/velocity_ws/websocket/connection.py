"""Connection: one open WebSocket on a transport: what is read, what is written, pings, and how it ends.

Wires the reader, the parser and the writer together. Knows no uvicorn, no ASGI and no broker; its subclasses do.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod

from velocity_ws.close import INVALID_UTF8, LOST, TOO_BIG, TOO_MANY_PINGS, Close
from velocity_ws.concurrency.deadlines import Deadlines
from velocity_ws.delivery.transport_outbox import TransportOutbox
from velocity_ws.limits import RateLimiter
from velocity_ws.messages.frames import TEXT
from velocity_ws.websocket.keepalive import Keepalive
from velocity_ws.websocket.parser_adapter import PONG, ParserAdapter, ParserPool
from velocity_ws.websocket.peer import is_unheard, taken
from velocity_ws.websocket.reader import Reader
from velocity_ws.websocket.unfinished import UnfinishedMessages
from velocity_ws.websocket.writer import Writer

__all__ = ["WebSocketConnection"]

CONTROL_FRAMES = 500
"""Pings and pongs a second that a client may send in the long run; beyond, it is closed (1008)."""
CONTROL_FRAMES_AT_ONCE = 5000
"""The same at once."""
SLOWEST = 1024
"""Bytes a second that a client takes at least, if it has not answered a ping yet, but is slow and not dead."""


class WebSocketConnection(asyncio.Protocol):
    """An open WebSocket, as the event loop sees it.

    Attributes:
        transport: the connection's.
    """

    __slots__ = (
        "_closing", "_controls", "_end", "_held_back", "_keepalive", "_loop", "_outbox", "_parser", "_pinged",
        "_reader", "_writer", "transport",
    )  # fmt: skip

    transport: asyncio.Transport
    _writer: Writer

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        parsers: ParserPool,
        closing: Deadlines[Writer],
        max_size: int,
        unfinished: UnfinishedMessages,
    ) -> None:
        self._loop = loop
        self._closing = closing
        self._parser = ParserAdapter(parsers, max_size)
        self._reader = Reader(self, self._parser, loop, unfinished)
        self._outbox: TransportOutbox | None = None
        self._end: Close | None = None
        self._held_back: list[bytes] | None = None
        self._controls: RateLimiter | None = None
        self._keepalive: Keepalive | None = None  # once it is open, where there are pings
        # The last keepalive ping, until its pong: its payload, and what had gone and come by then.
        self._pinged: tuple[bytes, int, tuple[float, int, int]] | None = None

    # --- for the subclass

    @abstractmethod
    def _deliver(self, opcode: int, content: str | bytes) -> bool:
        """Hand over a message; return whether no more can be taken for now."""

    @abstractmethod
    def _tell_end(self, close: Close) -> None:
        """Say that there are no more messages, and why."""

    @abstractmethod
    def _holds_end(self) -> bool:
        """Whether messages handed over are still to be read and answered; `say_last_words` is called after that."""

    @abstractmethod
    def got_stuck(self) -> None:
        """Nothing is read for now: whether the peer is still there has to be looked at."""

    def _finish(self, close: Close) -> None:
        """Note how the connection ends; only the first call counts."""
        if self._end is None:
            self._end = close
            self._tell_end(close)
            self._writer.wake()

    def _fail(self, code: int, reason: str) -> None:
        """Fail the connection (RFC 6455, section 7.1.7)."""
        self._got_end(Close(code, reason, "server"), self._parser.fail(code, reason))

    def _say_last(self, replies: list[bytes], *, linger: bool) -> None:
        """Write the last frames, after what the client is still to get."""
        if self._outbox is not None:
            self._outbox.flush()
        self._writer.write_all(replies, linger=linger)
        if self._outbox is not None and self._writer.is_paused:
            self._outbox.pause()

    @property
    def _window_bits(self) -> int:
        return 0 if self._parser.window is None else self._parser.window.local_bits

    # --- what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to write to this transport."""
        self.transport = transport  # type: ignore[assignment]
        self._writer = Writer(self.transport, self._parser, self._loop, self._closing)

    def eof_received(self) -> None:
        """The client closes without a close frame, and sends nothing more; the transport closes."""
        self._reader.stop()
        self._writer.close_in_time()
        self._finish(LOST)

    def pause_writing(self) -> None:
        """The transport is above its high-water mark."""
        self._writer.is_paused = True
        if self._outbox is not None:
            self._outbox.pause()

    def resume_writing(self) -> None:
        """The transport has room again."""
        self._writer.resume()
        if self._outbox is not None:
            self._outbox.resume()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """The connection is gone."""
        if self._keepalive is not None:
            self._keepalive.remove(self)
        self._reader.stop()
        self._writer.lost()
        self._finish(LOST)

    # --- what the reader finds

    def got_message(self, opcode: int, payload: bytes) -> bool:
        """Handle a message; return whether no more can be taken for now."""
        if opcode != TEXT:
            return self._deliver(opcode, payload)
        try:
            text = payload.decode()
        except UnicodeDecodeError:
            self._fail(*INVALID_UTF8)
            return False
        return self._deliver(opcode, text)

    def got_frame(self, data: bytes | bytearray) -> bool:
        """Handle a frame that the library has to parse; return whether no more can be taken for now."""
        if (ended := self._parser.receive_close(data)) is not None:
            self._got_end(*ended)
            return False
        parsed = self._parser.receive(data)
        is_full = False
        for opcode, payload in parsed.messages:
            is_full = self.got_message(opcode, payload)
        if parsed.pings or parsed.pongs:
            self._count_control(parsed.pings + len(parsed.pongs))
        for payload in parsed.pongs:
            self._got_pong(payload)
        if parsed.close is None:
            for reply in parsed.replies:
                self._writer.answer_ping(reply)
            return is_full
        self._got_end(parsed.close, parsed.replies)
        return False

    def got_too_long(self) -> None:
        """Fail the connection: a message is longer than allowed."""
        self._fail(*TOO_BIG)

    def got_invalid(self, code: int, reason: str) -> None:
        """Fail the connection: the rest of what comes is not waited for."""
        self._fail(code, reason)

    def _got_end(self, close: Close, replies: list[bytes]) -> None:
        self._reader.stop()
        is_first = self._end is None
        self._finish(close)
        if close.by == "server" and is_first and self._holds_end():
            # What came before the error is answered before the close frame is written.
            self._held_back = replies
            self._writer.close_in_time()
            if not self.transport.is_closing():
                self.transport.pause_reading()  # until then: a flood is not read for as long as that takes
        else:
            self._say_last(replies, linger=close.by == "server")

    def say_last_words(self) -> None:
        """Write what was held back until everything had been read."""
        if self._held_back is not None:
            replies, self._held_back = self._held_back, None
            self._writer.write_all(replies, linger=True)

    def _count_control(self, count: int) -> None:
        if self._controls is None:
            self._controls = RateLimiter(CONTROL_FRAMES, CONTROL_FRAMES_AT_ONCE, self._loop.time)
        for _ in range(count):
            if self._controls.acquire() and self._parser.is_open:
                self._fail(*TOO_MANY_PINGS)

    # --- while nothing is read

    @property
    def is_unread(self) -> bool:
        """Whether messages have to wait, so that nothing is read."""
        return self._reader.is_waiting and not self._reader.is_over

    def probe(self) -> None:
        """Send a pong without a ping, which is not answered (RFC 6455, section 5.5.3)."""
        if self._parser.is_open:
            self._writer.answer_ping(PONG)

    def peer_has_gone(self) -> None:
        """End without an answer, as the peer has gone. What it sent before and was not read is lost."""
        self._reader.stop()
        self._finish(LOST)
        self._writer.abort(even_if_closing=True)

    # --- keepalive

    def ping_is_due(self) -> None:
        """Send a keepalive ping."""
        if self._keepalive is None or not self._parser.is_open or self.transport.is_closing():
            return
        self._pinged = self._writer.pings.send(), taken(self.transport), self._reader.position
        self._reader.has_waited = False
        self._keepalive.pinged(self)

    def _got_pong(self, payload: bytes) -> None:
        self._writer.pong(payload)
        if (
            self._pinged is not None
            and self._keepalive is not None
            and not self._writer.pings.is_waiting(self._pinged[0])
        ):
            self._pinged = None
            self._keepalive.ponged(self)

    def pong_is_late(self) -> None:
        """End the connection, or wait on where the pong may still come."""
        if self._keepalive is None or not self._parser.is_open:
            return
        timeout = self._keepalive.timeout
        if (self._reader.is_waiting or self._reader.has_waited) and not is_unheard(self.transport, timeout):
            # The pong may be among what was not read meanwhile.
            self._reader.has_waited = False
            self._keepalive.pinged(self)
            return
        if self._pinged is not None:
            payload, taken_before, position_before = self._pinged
            so_far, position = taken(self.transport), self._reader.position
            if so_far - taken_before > timeout * SLOWEST or position != position_before:
                # It is still reading what was sent before the ping; or sending, and a pong cannot come within a frame,
                # nor before what it had queued.
                self._pinged = payload, so_far, position
                self._keepalive.pinged(self)
                return
        self._finish(LOST)
        self._writer.peer_is_dead()
