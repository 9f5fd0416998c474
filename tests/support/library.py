"""The same bytes read twice: by our class, and by the `websockets` library alone."""

from __future__ import annotations

import asyncio
import codecs
from typing import Any

import uvicorn
from starlette.types import Message
from uvicorn.server import ServerState
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame as LibraryFrame
from websockets.frames import Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.utils import apply_mask

from velocity_ws.messages.frames import COMPRESSED
from velocity_ws.uvicorn import WebSocketProtocol

__all__ = ["MAX_SIZE", "Result", "compressed", "is_refused", "masked", "ours", "theirs"]

MAX_SIZE = 70_000


def masked(frame: LibraryFrame) -> bytes:
    """A frame as a client sends it; always with the same mask, so that what is found can be found again."""
    data = frame.serialize(mask=False)
    header_size = {126: 4, 127: 10}.get(data[1], 2)
    mask = b"\x01\x80\xfe\x37"
    return data[:1] + bytes((data[1] | 0x80,)) + data[2:header_size] + mask + apply_mask(data[header_size:], mask)


def compressed(frame: LibraryFrame) -> bytes:
    """The same, with the bit that says it is deflated."""
    data = masked(frame)
    return bytes((data[0] | COMPRESSED,)) + data[1:]


class Pipe(asyncio.Transport):
    """A transport that goes nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closing = False

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = write_eof = close

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return True

    def pause_reading(self) -> None:
        return

    resume_reading = pause_reading

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        return


REQUEST = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


Result = tuple[list[str | bytes], int | None]


async def ours(chunks: list[bytes], max_size: int = MAX_SIZE) -> Result:
    """What an application gets of some bytes: the messages, and the close code if the connection was ended."""
    messages: list[str | bytes] = []
    codes: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            event: Message = await receive()
            if event["type"] == "websocket.disconnect":
                codes.append(event["code"])
                return
            messages.append(event["text"] if "text" in event else event["bytes"])

    config = uvicorn.Config(
        app, log_config=None, ws_max_size=max_size, ws_per_message_deflate=False, ws_ping_interval=None
    )
    config.load()
    state = ServerState()
    protocol = WebSocketProtocol(config, state, {})
    transport = Pipe()
    protocol.connection_made(transport)
    protocol.data_received(REQUEST)
    while b"\r\n\r\n" not in transport.written:
        await asyncio.sleep(0)
    for chunk in chunks:
        if transport.closing:
            break
        protocol.data_received(chunk)
    while protocol._reader.is_waiting and not transport.closing:
        await asyncio.sleep(0)
    for _ in range(5):
        await asyncio.sleep(0)
    code = codes[0] if codes else None
    protocol.connection_lost(None)
    await asyncio.gather(*state.tasks)
    return messages, code


def theirs(data: bytes) -> Result:
    """The same, by the library alone; only the validity of text is left to its user."""
    conn = ServerProtocol(state=OPEN, max_size=MAX_SIZE)
    messages: list[str | bytes] = []
    parts: list[bytes] = []
    is_text = False
    decoder = codecs.getincrementaldecoder("utf-8")()
    whole = 0
    for at in range(len(data)):
        if data and conn.parser_exc is None and conn.close_rcvd is None:
            conn.receive_data(data[at : at + 1])
        for frame in conn.events_received():
            whole = at + 1
            if not isinstance(frame, LibraryFrame) or frame.opcode in (Opcode.PING, Opcode.PONG):
                continue
            if frame.opcode is Opcode.CLOSE:
                assert conn.close_rcvd is not None
                return messages, conn.close_rcvd.code
            if frame.opcode is not Opcode.CONT:
                parts, is_text = [], frame.opcode is Opcode.TEXT
                decoder.reset()
            parts.append(bytes(frame.data))
            try:
                if is_text:
                    decoder.decode(bytes(frame.data), frame.fin)
            except UnicodeDecodeError:
                return messages, 1007
            if frame.fin:
                message = b"".join(parts)
                messages.append(message.decode() if is_text else message)
        if conn.parser_exc is not None:
            if "incomplete fragmented message" in str(conn.parser_exc) and conn.close_rcvd is not None:
                return messages, conn.close_rcvd.code  # which RFC 6455 allows, and the library does not
            assert conn.close_sent is not None
            return messages, 1002 if is_refused(data[:whole], data[whole : whole + 2]) else conn.close_sent.code
    # What is wrong by its first two bytes is refused by them; the library does so when all of it is there, and looks at
    # how long it is before.
    return messages, 1002 if is_refused(data[:whole], data[whole : whole + 2]) else None


def is_refused(before: bytes, start: bytes, *, deflate: bool = False) -> bool:
    """Whether the library refuses the shortest frame that begins like that, after what came before."""
    if len(start) < 2:
        return False
    conn = ServerProtocol(state=OPEN, max_size=MAX_SIZE)
    if deflate:
        conn.extensions = [PerMessageDeflate(True, True, 15, 15)]
    conn.receive_data(before)
    is_long = start[0] & 0x8 and start[1] & 0x7F > 125
    rest = b"\xfe\x00\x7e" + bytes(4 + 126) if is_long and start[1] & 0x80 else bytes((start[1] & 0x80,)) + bytes(4)
    conn.receive_data(start[:1] + rest)
    return conn.parser_exc is not None and "incomplete fragmented message" not in str(conn.parser_exc)
