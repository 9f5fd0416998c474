"""Parser adapter: the frames that `parser` leaves to the ``websockets`` library. Knows no transport and no loop.

The library is given whole frames only, so between messages it has nothing to remember, and one protocol object of its
serves every connection. A connection keeps it from the first fragment of a message to its last, and once it is closing.
"""

from __future__ import annotations

import codecs
import logging
import zlib
from dataclasses import dataclass, field

from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, SERVER, Protocol

from velocity_ws.close import INVALID_UTF8, TOO_BIG, TOO_MANY_FRAGMENTS, Close
from velocity_ws.logs import get_logger
from velocity_ws.messages.frames import BINARY, COMPRESSED, TEXT
from velocity_ws.websocket.parser import CLOSE_FRAME, close_in, is_too_long, longest_deflated, problem_of

__all__ = ["PONG", "Parsed", "ParserAdapter", "ParserPool", "Window", "ping_frame"]

KIND = 0x7F
"""The bits of a frame's first byte that do not say whether it is the last one of its message."""
MAX_FRAGMENTS = 100_000
"""Frames of one message."""
MAX_EMPTY_FRAGMENTS = 128
"""Frames of one message that carry nothing."""
MAX_SMALL_FRAGMENTS = 1024
"""Frames of one message that may carry less than `SMALL_FRAGMENT` bytes on average."""
SMALL_FRAGMENT = 16
PART = 4096
"""Bytes from which a fragment is kept as it is."""

log = get_logger("velocity_ws.websocket")
# Below that the library would log payloads and headers, tokens among them.
log.setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class Window:
    """What was negotiated for permessage-deflate (RFC 7692), always without context kept between messages.

    Attributes:
        local_bits: of what is sent.
        remote_bits: of what is received.
    """

    local_bits: int
    remote_bits: int


@dataclass(slots=True)
class Parsed:
    """What the library found in some bytes.

    Attributes:
        messages: opcode and payload of each finished message.
        pings: how many pings were answered.
        pongs: the payloads of pongs.
        close: how the connection ends, if it does.
        replies: frames to write; an empty one stands for closing the connection.
    """

    messages: list[tuple[int, bytes]] = field(default_factory=list)
    pings: int = 0
    pongs: list[bytes] = field(default_factory=list)
    close: Close | None = None
    replies: list[bytes] = field(default_factory=list)


class ParserPool:
    """Lends one protocol object of the library to the connections of an event loop."""

    def __init__(self) -> None:
        self._idle: Protocol | None = None

    def take(self, max_size: int, window: Window | None) -> Protocol:
        """A protocol object that is open and between messages. The caller gives it back in that state, or keeps it.

        Args:
            max_size: bytes of the longest message, after decompression.
            window: negotiated for compression, if any.
        """
        conn, self._idle = self._idle or Protocol(SERVER, logger=log), None
        conn.max_message_size = max_size
        conn.extensions = []
        if window is not None:
            # The library's limit is for what was sent too; `ParserAdapter` minds the size of the content.
            conn.max_message_size = longest_deflated(max_size)
            # The arguments say of both sides that they keep no context.
            conn.extensions.append(PerMessageDeflate(True, True, window.remote_bits, window.local_bits))
        return conn

    def give_back(self, conn: Protocol) -> None:
        """Take back a protocol object that is open and between messages."""
        self._idle = conn


class ParserAdapter:
    """What one connection needs of the library: frames parsed, limits of messages kept, the closing handshake.

    Attributes:
        max_size: bytes of the longest message, after decompression.
        window: negotiated for compression, if any.
        is_open: whether no close frame has been sent or received.
        is_free: whether a message may be cut out: it is open, and not in the middle of a fragmented message.
    """

    __slots__ = ("_conn", "_message", "_pool", "is_free", "is_open", "max_size", "window")

    def __init__(self, pool: ParserPool, max_size: int) -> None:
        self._pool = pool
        self._conn: Protocol | None = None
        self._message: _Fragments | None = None
        self.max_size = max_size
        self.window: Window | None = None
        self.is_open = True
        self.is_free = True

    def receive_close(self, frame: bytes | bytearray) -> tuple[Close, list[bytes]] | None:
        """Take a frame that ends an open connection in order: how it ends, and what to write. ``None`` for others."""
        found = close_in(frame) if self.is_open and self._conn is None else None
        if found is None:
            return None
        code, reason, answer = found
        self.is_open = self.is_free = False
        return Close(code, reason, "client"), [answer, b""]

    def receive(self, data: bytes | bytearray) -> Parsed:
        """Parse one whole frame, or bytes that must be refused."""
        conn = self._conn or self._pool.take(self.max_size, self.window)
        if data[0] == CLOSE_FRAME and self._message is not None:
            # A close frame may come between the fragments of a message that is then never finished (RFC 6455, section
            # 5.4); the library takes it for an error.
            self._message = conn.current_size = None
        conn.receive_data(data)
        parsed = Parsed()
        events = conn.events_received()
        for event in events:
            if isinstance(event, Frame):
                self._frame(conn, event, parsed)
        if conn.parser_exc is not None and conn.close_sent is not None:
            parsed.close = Close(conn.close_sent.code, conn.close_sent.reason, "server")
            # The error (by its traceback) and the extension (by zlib's rest) hold what was read, in a cycle with the
            # library's object, which would stay until the garbage collector comes by.
            _forget_traceback(conn.parser_exc)
            conn.extensions = []
        parsed.replies = conn.data_to_send()
        self._keep(conn, is_whole=bool(events))
        return parsed

    @property
    def size_so_far(self) -> int:
        """Bytes of a message that has come in part."""
        return 0 if self._message is None else self._message.size

    def problem_of(self, data: bytes | bytearray, start: int) -> str | None:
        """Why a frame must be refused by its first two bytes; ``None`` where it need not be, or they have not come.

        Args:
            data: what was read.
            start: where the frame begins.
        """
        if len(data) - start < 2 or not self.is_open:
            return None
        return problem_of(data[start], data[start + 1], deflate=self.window is not None, goes_on=not self.is_free)

    def is_too_long(self, data: bytes | bytearray, start: int, end: int) -> bool:
        """Whether a message is too long already by a part of a masked, compressed frame.

        Args:
            data: what was read.
            start: where the frame begins; its header must be there.
            end: where it ends, or what there is of it.
        """
        decompressor = self._decompressor(data[start] & KIND)
        if decompressor is None:
            return False
        return is_too_long(data, start, end, decompressor, self.max_size - self.size_so_far)

    def _decompressor(self, kind: int) -> zlib._Decompress | None:
        """For a look at a frame; ``None`` where it is not compressed, or wrong."""
        if self.window is None or not self.is_open:
            return None
        if self._message is None:
            is_first = kind in (COMPRESSED | TEXT, COMPRESSED | BINARY)
            return zlib.decompressobj(wbits=-self.window.remote_bits) if is_first else None
        extension = None if self._conn is None or kind else self._conn.extensions[0]
        if isinstance(extension, PerMessageDeflate) and extension.decode_cont_data:
            return extension.decoder.copy()
        return None

    def close(self, code: int, reason: str) -> list[bytes]:
        """The frames to write to begin the closing handshake."""
        conn = self._conn or self._pool.take(self.max_size, self.window)
        conn.send_close(code, reason)
        self._keep(conn)
        return conn.data_to_send()

    def fail(self, code: int, reason: str) -> list[bytes]:
        """The frames to write to fail the connection (RFC 6455, section 7.1.7)."""
        conn = self._conn or self._pool.take(self.max_size, self.window)
        conn.fail(code, reason)
        self._keep(conn)
        return conn.data_to_send()

    def forget(self) -> None:
        """Drop what has come of a message: nothing more is read."""
        self._message = None

    def _keep(self, conn: Protocol, *, is_whole: bool = True) -> None:
        self.is_open = conn.state is OPEN
        self.is_free = self.is_open and is_whole and conn.current_size is None
        if self.is_free:
            self._conn = None
            self._pool.give_back(conn)
        else:
            self._conn = conn

    def _frame(self, conn: Protocol, frame: Frame, parsed: Parsed) -> None:
        if frame.opcode is Opcode.PING:
            parsed.pings += 1
        elif frame.opcode is Opcode.PONG:
            parsed.pongs.append(bytes(frame.data))
        elif frame.opcode is Opcode.CLOSE:
            close = conn.close_rcvd
            if close is not None:
                parsed.close = Close(close.code, close.reason, "client")
        elif parsed.close is None:
            self._data(conn, frame, parsed)

    def _data(self, conn: Protocol, frame: Frame, parsed: Parsed) -> None:
        if frame.opcode is not Opcode.CONT:
            if frame.fin and len(frame.data) <= self.max_size:
                parsed.messages.append((int(frame.opcode), bytes(frame.data)))
                return
            self._message = _Fragments(int(frame.opcode))
        message = self._message
        if message is None:
            return
        problem = message.add(frame, self.max_size)
        if problem is not None:
            parsed.close = Close(*problem, "server")
            conn.fail(*problem)
        elif frame.fin:
            self._message = None
            parsed.messages.append((message.opcode, b"".join(message.parts)))


class _Fragments:
    """A message that has come in part."""

    __slots__ = ("_count", "_empty", "_utf8", "opcode", "parts", "size")

    def __init__(self, opcode: int) -> None:
        self.opcode = opcode
        self.parts: list[bytes | bytearray] = [bytearray()]
        self.size = self._count = self._empty = 0
        self._utf8 = codecs.getincrementaldecoder("utf-8")() if opcode == TEXT else None

    def add(self, frame: Frame, max_size: int) -> tuple[int, str] | None:
        """Add a fragment; return code and reason if the connection must be failed."""
        data = frame.data
        if self.size + len(data) > max_size:
            return TOO_BIG
        try:
            if self._utf8 is not None:  # what cannot become valid is refused before its last fragment
                self._utf8.decode(bytes(data), frame.fin)
        except UnicodeDecodeError:
            return INVALID_UTF8
        if len(data) < PART:
            self.parts[-1] += data
        else:  # the library keeps its last frame, so that a copy would be there twice
            self.parts += (bytes(data), bytearray())
        self.size += len(data)
        self._count += 1
        self._empty += not data
        is_crumbs = self._count > MAX_SMALL_FRAGMENTS and self.size < self._count * SMALL_FRAGMENT
        if self._count > MAX_FRAGMENTS or self._empty > MAX_EMPTY_FRAGMENTS or is_crumbs:
            return TOO_MANY_FRAGMENTS
        return None


def _forget_traceback(error: BaseException | None) -> None:
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def ping_frame(payload: bytes) -> bytes:
    """A ping, of up to 125 bytes."""
    return Frame(Opcode.PING, payload).serialize(mask=False)


PONG = Frame(Opcode.PONG, b"").serialize(mask=False)
"""One that answers no ping."""
