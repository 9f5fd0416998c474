"""Reader: what one client sent, cut into messages, within a budget for each turn of the loop. Knows no message's use.

A client that sends more than its share has its socket paused until the next turn, so that no other waits for it.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from velocity_ws.close import wrong_frame
from velocity_ws.messages.frames import COMPRESSED, FIN, TEXT
from velocity_ws.websocket.parser import MASKED, TooLong, apply_mask, cut, inflate
from velocity_ws.websocket.parser_adapter import ParserAdapter
from velocity_ws.websocket.turn import BYTES, Turn
from velocity_ws.websocket.unfinished import UnfinishedMessages

__all__ = ["FrameHandler", "Reader"]

SHORT = 125
"""Bytes of the longest payload whose length stands in the second byte of its frame (RFC 6455, section 5.2)."""
HEADER = 6
"""Bytes of the header of such a frame, with the mask."""
WHOLE_TEXT = FIN | TEXT
"""The first byte of a text message that is one frame, and not compressed."""
LOOK_FROM = 4096
"""Bytes of a compressed frame that are looked at before the rest comes: they may show that it is far too long."""
LOOK_TO = 64 * 1024
"""Bytes of it at most that are looked at before the rest comes."""
COPIED = 256 * 1024
"""Bytes of what was kept that are copied to be cut: what an event loop reads at once at most."""
EARLY_BYTES = 64 * 1024
"""Bytes a client may send before its handshake is answered."""


class FrameHandler(Protocol):
    """The connection, as its reader sees it."""

    @property
    def transport(self) -> asyncio.Transport:
        """The transport that is read from."""

    def got_message(self, opcode: int, payload: bytes) -> bool:
        """Handle a message; return whether no more can be taken until `Reader.resume`."""

    def got_frame(self, data: bytes | bytearray) -> bool:
        """Handle a whole frame that the library has to parse; return the same."""

    def got_too_long(self) -> None:
        """Fail the connection, and stop its reader: a message is longer than allowed."""

    def got_stuck(self) -> None:
        """Nothing is read until more messages can be taken, which may be never."""

    def got_invalid(self, code: int, reason: str) -> None:
        """Fail the connection, and stop its reader: the rest of what comes is not waited for."""


class Reader(Turn):
    """The inbound side of one connection.

    Attributes:
        is_over: whether nothing more is read.
        has_waited: whether something had to wait since this was last set to false.
        is_waiting: whether something was read that has to wait, for a turn or until more messages can be taken.
        unfinished: bounds what this reader holds of a message that has come in part.
    """

    __slots__ = (
        "_connection", "_is_full", "_is_open", "_is_unfinished", "_lacks", "_loop", "_parser", "_shorts", "_tail",
        "_was_looked_at", "has_waited", "is_over", "is_waiting", "unfinished",
    )  # fmt: skip

    def __init__(
        self,
        connection: FrameHandler,
        parser: ParserAdapter,
        loop: asyncio.AbstractEventLoop,
        unfinished: UnfinishedMessages,
    ) -> None:
        super().__init__()
        self.unfinished = unfinished
        self._connection = connection
        self._parser = parser
        self._loop = loop
        self._tail: bytearray | None = None
        self._lacks = self._shorts = 0
        self._is_open = self._is_full = self._is_unfinished = self._was_looked_at = False
        self.is_over = self.is_waiting = self.has_waited = False

    def open(self) -> None:
        """Begin to read: the handshake is answered. Harmless when it has begun."""
        if self._is_open:
            return
        self._is_open = True
        if self._tail:
            self._wait()

    def stop(self) -> None:
        """Read nothing more: the connection is over. Harmless the second time."""
        if self.is_over:
            return
        self.is_over = True
        # A closed connection is part of cycles: what it holds would stay until the garbage collector comes by.
        self._tail = None
        self._parser.forget()
        if self._is_unfinished:
            self._mark_finished()

    def detach(self) -> None:
        """Break the cycle with the connection, after `stop`, so that both are freed at once."""
        del self._connection

    def feed(self, data: bytes) -> None:
        """Take bytes that were read."""
        if self._tail is not None or self.is_waiting or not self._is_open:
            self._add(data)
            return
        parser, size = self._parser, len(data) - HEADER
        if (
            0 <= size <= SHORT
            and data[0] == WHOLE_TEXT
            and data[1] == MASKED | size
            and parser.is_free
            and size <= parser.max_size
        ):
            # One short message, whole: what most reads bring. The loop reads each connection once in a turn, so that is
            # all that this one has of it, and nothing is counted. By `_consume` it takes 0.55 µs more.
            self._shorts += 1
            self._is_full = self._connection.got_message(TEXT, apply_mask(data[HEADER:], data[2:HEADER]))
            if self._is_full and not self.is_over:
                self._wait()
        else:
            self._consume(data)

    def _add(self, data: bytes) -> None:
        """Add to what has to wait, or is unfinished."""
        if self._tail is None:
            self._tail = bytearray()
        self._tail += data
        self._lacks -= len(data)
        if not self._is_open:
            if len(self._tail) > EARLY_BYTES:
                self._pause()
        elif self.is_waiting:
            return
        elif self._lacks <= 0:
            if self._parser.is_free:
                self._mark_finished()  # that message is whole; what follows is another one
            self._consume(self._take_tail())
        elif self._was_looked_at or len(self._tail) < LOOK_FROM or not self._look(self._tail, 0, LOOK_TO):
            self._mark_unfinished()

    def resume(self) -> None:
        """Go on reading: more messages can be taken."""
        if self._is_full and not self.is_over:
            self._is_full = False
            self._loop.call_soon(self._next_turn)

    @property
    def position(self) -> tuple[float, int, int]:
        """The last turn, how many messages came alone, and how much of one is here: it changes when something comes."""
        return self._turn, self._shorts, self._parser.size_so_far + len(self._tail or b"")

    def _consume(self, data: bytes | bytearray) -> None:
        now = self._loop.time()
        if now != self._turn:
            self._begin_turn(now)
        at, size = 0, len(data)
        if size >= BYTES:
            self._watch_time()
        parser, connection = self._parser, self._connection
        while at < size:
            found = cut(data, at, parser.max_size)
            if isinstance(found, int):
                self._keep(data, at, found)
                return
            end, kind, payload = found
            message = self._message(kind, payload) if kind and parser.is_free else None
            is_large = False
            if message is not None:
                is_large = self._spend(1, len(message))
                self._is_full = connection.got_message(kind & ~COMPRESSED, message)
            elif not self.is_over and not (end - at > LOOK_FROM and self._look(data, at, end)):
                is_large = self._spend(4, end - at)
                self._hand_over(data[at:end])
            if self.is_over:
                return
            if is_large or self._budget & 7 == 0:
                self._watch_time()
            at = end
            if self._is_full or self._budget <= 0:
                self._keep(data, at, 0)
                self._wait()
                return

    def _hand_over(self, frame: bytes | bytearray) -> None:
        if frame[1] & 0x7F > SHORT and self._is_wrong(frame, 0):  # the library would look at how long it is first
            return
        self._is_full = self._connection.got_frame(frame)
        if self._parser.is_free:
            self._mark_finished()
        elif self._parser.is_open and not self.is_over:
            self._mark_unfinished()

    def _is_wrong(self, data: bytes | bytearray, at: int) -> bool:
        """Whether a frame is wrong by its first two bytes; the connection is failed then."""
        problem = self._parser.problem_of(data, at)
        if problem is not None:
            self._connection.got_invalid(*wrong_frame(problem))
        return problem is not None

    def _keep(self, data: bytes | bytearray, at: int, lacks: int) -> None:
        """Keep the rest for later; its first frame lacks at least ``lacks`` bytes, or 0 if it may be whole."""
        self._was_looked_at = False
        if lacks:
            if self._is_wrong(data, at):
                return
            if len(data) - at >= LOOK_FROM and self._look(data, at, at + LOOK_TO):
                return
        if at < len(data):
            self._tail = bytearray(memoryview(data)[at:])
            self._lacks = lacks
        if lacks:
            self._mark_unfinished()

    # --- a part of a message

    def fail(self, code: int, reason: str) -> None:
        """Fail the connection: the rest of its message is not waited for."""
        self._is_unfinished = False
        self._connection.got_invalid(code, reason)

    def _mark_unfinished(self) -> None:
        self._is_unfinished = True
        self.unfinished.add(self, self._parser.size_so_far + len(self._tail or b""))

    def _mark_finished(self) -> None:
        if self._is_unfinished:
            self._is_unfinished = False
            self.unfinished.remove(self)

    def _look(self, data: bytes | bytearray, at: int, end: int) -> bool:
        """Whether a compressed message is too long by what there is of a frame; the connection is failed then."""
        self._was_looked_at = True
        if not data[at + 1] & MASKED or not self._parser.is_too_long(data, at, end):
            return False
        self._connection.got_too_long()
        return True

    def _message(self, kind: int, payload: bytes) -> bytes | None:
        """A message's content; ``None`` where the library has to say what is wrong, or the connection has failed."""
        if not kind & COMPRESSED:
            return payload
        parser = self._parser
        if parser.window is None:
            return None
        try:
            return inflate(payload, parser.window.remote_bits, parser.max_size)
        except TooLong:  # the library would take several copies of it to find the same
            self._connection.got_too_long()
            return None

    def _wait(self) -> None:
        if not self.is_waiting:
            self.is_waiting = self.has_waited = True
            self._pause()
        if self._is_full:
            self._connection.got_stuck()
            return
        if self._rest:
            self._loop.call_later(self._rest, self._next_turn)
        else:
            self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        if self.is_over or self._is_full or not self.is_waiting:
            return
        self.is_waiting = False
        self._begin_turn(self._loop.time())
        if self._tail is not None:
            self._consume(self._take_tail())
        if not self.is_waiting and not self.is_over and not self._connection.transport.is_closing():
            self._connection.transport.resume_reading()

    def _pause(self) -> None:
        if not self._connection.transport.is_closing():
            self._connection.transport.pause_reading()

    def _take_tail(self) -> bytes | bytearray:
        tail, self._tail = self._tail or b"", None
        self._lacks = 0
        # What holds many messages is cut faster as bytes; a large one is not to be there twice.
        return bytes(tail) if len(tail) <= COPIED else tail
