"""Reader: what one connection sent, cut into messages, within a budget for each turn of the loop.

A client that sends more than its share has its socket paused until the next turn, so that no other waits for it.
Knows frames, and the transport only to pause it; the connection says what becomes of what is found.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from velocity_ws.close import CloseCode
from velocity_ws.messages.frames import COMPRESSED
from velocity_ws.websocket.parser import MASKED, TooLong, cut, inflate
from velocity_ws.websocket.parser_adapter import Library
from velocity_ws.websocket.unfinished import Unfinished

__all__ = ["Owner", "Reader"]

TURN = 64
"""What one connection may use up of a loop turn: 1 for a message cut out here, 4 for a frame of the library's."""
SECONDS_PER_TURN = 0.004
"""The same in time, for messages whose handling is expensive."""
MAX_REST = 0.1
"""Seconds at most that a connection which took longer is not read, so that others have their turns."""
BYTES = 4096
"""Bytes of a message that use up as much of a turn as another message does."""
SHORT = 125
"""Bytes of the longest payload whose length stands in the second byte of its frame (RFC 6455, section 5.2)."""
LOOK_FROM = 4096
"""Bytes of a compressed frame that are looked at as soon as they are there: a message that will be far too long is
refused by them."""
LOOK_TO = 64 * 1024
"""Bytes of it at most that are looked at before all of it is there."""
COPIED = 256 * 1024
"""Bytes of what was kept that are copied to be cut: what an event loop reads at once at most."""
EARLY_BYTES = 64 * 1024
"""Bytes a client may send before its handshake is answered."""


class Owner(Protocol):
    """What gets what is read: the connection."""

    @property
    def transport(self) -> asyncio.Transport:
        """Where it is read from."""

    def got_message(self, opcode: int, payload: bytes) -> bool:
        """A message; whether no more can be taken until `Reader.resume`."""

    def got_frame(self, data: bytes | bytearray) -> bool:
        """A frame for the library; the same."""

    def got_too_long(self) -> None:
        """A message is longer than allowed: the connection is to be failed, and its reader stopped."""

    def got_stuck(self) -> None:
        """Nothing is read any more until who gets the messages can take more, which may be never."""

    def got_wrong(self, code: int, reason: str) -> None:
        """What comes is not to be waited for; the same."""


class Reader:
    """The inbound side of one connection.

    Attributes:
        is_over: whether nothing more is read.
        has_waited: whether something had to wait since this was last set to false.
        is_waiting: whether something was read that has to wait, for a turn or for who gets it.
        unfinished: where it is told that there is a part of a message.
    """

    __slots__ = (
        "_budget", "_holds", "_is_full", "_is_open", "_lacks", "_library", "_loop", "_owner", "_rest", "_tail", "_turn",
        "_until", "_was_looked_at", "has_waited", "is_over", "is_waiting", "unfinished",
    )  # fmt: skip

    def __init__(self, owner: Owner, library: Library, loop: asyncio.AbstractEventLoop, unfinished: Unfinished) -> None:
        self.unfinished = unfinished
        self._owner = owner
        self._library = library
        self._loop = loop
        self._tail: bytearray | None = None
        self._lacks = 0
        self._was_looked_at = False
        self._holds = False
        self._turn = 0.0
        self._budget = TURN
        self._until = 0.0
        self._rest = 0.0
        self._is_open = False
        self.is_over = False
        self._is_full = False
        self.has_waited = False
        self.is_waiting = False

    def open(self) -> None:
        """Begin: the handshake is answered. Harmless when it has begun."""
        if self._is_open:
            return
        self._is_open = True
        if self._tail:
            self._wait()

    def stop(self) -> None:
        """Read nothing more: the connection is over."""
        self.is_over = True
        # A closed connection is part of cycles: what it holds would stay until the garbage collector comes by.
        self._tail = None
        self._library.forget()
        if self._holds:
            self._let_go()

    def release(self) -> None:
        """It is over for good: let go of who owned it, so that both are freed at once."""
        self.stop()
        del self._owner

    def feed(self, data: bytes) -> None:
        """Take what was read."""
        if self._tail is None and self._is_open and not self.is_waiting:
            self._consume(data)
            return
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
            if self._library.is_free:
                self._let_go()  # that message is whole; what follows is another one
            self._consume(self._take_tail())
        elif self._was_looked_at or len(self._tail) < LOOK_FROM or not self._look(self._tail, 0, LOOK_TO):
            self._hold()

    def resume(self) -> None:
        """Go on: who gets the messages can take more."""
        if self._is_full and not self.is_over:
            self._is_full = False
            self._loop.call_soon(self._next_turn)

    @property
    def position(self) -> tuple[float, int]:
        """What is another one when something has come."""
        return self._turn, self._library.size_so_far + len(self._tail or b"")

    def _consume(self, data: bytes | bytearray) -> None:
        now = self._loop.time()
        if now != self._turn:
            self._begin_turn(now)
        at, size = 0, len(data)
        if size >= BYTES:
            self._watch_time()
        library, owner = self._library, self._owner
        while at < size:
            found = cut(data, at, library.max_size)
            if isinstance(found, int):
                self._keep(data, at, found)
                return
            end, kind, payload = found
            message = self._message(kind, payload) if kind and library.is_free else None
            is_large = False
            if message is not None:
                is_large = self._spend(1, len(message))
                self._is_full = owner.got_message(kind & ~COMPRESSED, message)
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
        self._is_full = self._owner.got_frame(frame)
        if self._library.is_free:
            self._let_go()
        elif self._library.is_open and not self.is_over:
            self._hold()

    def _spend(self, cost: int, size: int) -> bool:
        """Take something from the turn; whether it is so large that the clock is to be looked at."""
        self._budget -= cost + size // BYTES
        if size < BYTES:
            return False
        self._watch_time()
        return True

    def _is_wrong(self, data: bytes | bytearray, at: int) -> bool:
        """Refuse a frame that is wrong by its first two bytes; whether that was so."""
        problem = self._library.problem_of(data, at)
        if problem is not None:
            self._owner.got_wrong(CloseCode.PROTOCOL_ERROR, problem)
        return problem is not None

    def _keep(self, data: bytes | bytearray, at: int, lacks: int) -> None:
        """Leave the rest for later; so many bytes of its first frame have not come."""
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
            self._hold()

    # --- a part of a message

    @property
    def is_held_up(self) -> bool:
        """Whether it is this side that does not read the rest of a message."""
        return self.is_waiting

    def give_up(self, code: int, reason: str) -> None:
        """The rest of a message is not waited for."""
        self._holds = False
        self._owner.got_wrong(code, reason)

    def _hold(self) -> None:
        self._holds = True
        self.unfinished.hold(self, self._library.size_so_far + len(self._tail or b""))

    def _let_go(self) -> None:
        if self._holds:
            self._holds = False
            self.unfinished.let_go(self)

    def _look(self, data: bytes | bytearray, at: int, end: int) -> bool:
        """Refuse a compressed message that is too long already by what there is of a frame; whether that was so."""
        self._was_looked_at = True
        if not data[at + 1] & MASKED or not self._library.is_too_long(data, at, end):
            return False
        self._owner.got_too_long()
        return True

    def _begin_turn(self, now: float) -> None:
        self._turn, self._budget, self._until, self._rest = now, TURN, 0.0, 0.0

    def _watch_time(self) -> None:
        """Use the budget up where this turn's time is over; it begins with the first look at the clock."""
        now = time.perf_counter()
        if not self._until:
            self._until = now + SECONDS_PER_TURN
        elif now > self._until:
            # Others have then as much time as this one took: one message alone may take longer than a turn should.
            self._budget, self._rest = 0, min(now - self._until + SECONDS_PER_TURN, MAX_REST)

    def _message(self, kind: int, payload: bytes) -> bytes | None:
        """A message's content; ``None`` where the library is to say what is wrong, or there is no more to say."""
        if not kind & COMPRESSED:
            return payload
        library = self._library
        if library.window is None:
            return None
        try:
            return inflate(payload, library.window.remote_bits, library.max_size)
        except TooLong:  # the library would take several copies of it to find the same
            self._owner.got_too_long()
            return None

    def _wait(self) -> None:
        if not self.is_waiting:
            self.is_waiting = self.has_waited = True
            self._pause()
        if self._is_full:
            self._owner.got_stuck()
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
        if not self.is_waiting and not self.is_over and not self._owner.transport.is_closing():
            self._owner.transport.resume_reading()

    def _pause(self) -> None:
        if not self._owner.transport.is_closing():
            self._owner.transport.pause_reading()

    def _take_tail(self) -> bytes | bytearray:
        tail, self._tail = self._tail or b"", None
        self._lacks = 0
        # What holds many messages is cut faster as bytes; a large one is not to be there twice.
        return bytes(tail) if len(tail) <= COPIED else tail
