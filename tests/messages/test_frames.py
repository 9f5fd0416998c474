"""Frames, and the class against the library: the same bytes, however they are cut, mean the same to both."""

from __future__ import annotations

import asyncio
import codecs
import itertools
import zlib
from typing import Any

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Message
from uvicorn.server import ServerState
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame as LibraryFrame
from websockets.frames import Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.utils import apply_mask

from velocity_ws.messages.frames import BINARY, COMPRESSED, DEFLATE_FROM, TEXT, deflate, header
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.uvicorn import WebSocketProtocol
from velocity_ws.websocket.parser import TooLong, cut, inflate, is_too_long, problem_of

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


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, MAX_SIZE])
@pytest.mark.parametrize("is_text", [True, False])
def test_a_frame_is_what_the_library_would_send(size: int, is_text: bool) -> None:
    payload = b"x" * size
    library = LibraryFrame(Opcode.TEXT if is_text else Opcode.BINARY, payload)
    frame = PreparedMessage(payload, is_text)
    assert frame.wire(0) == library.serialize(mask=False)
    assert frame.wire(0) is frame.wire(0)


@given(st.binary(max_size=4000), st.integers(9, 15))
def test_what_is_deflated_can_be_inflated(payload: bytes, window_bits: int) -> None:
    data = deflate(payload, window_bits) + b"\x00\x00\xff\xff"
    assert zlib.decompressobj(wbits=-window_bits).decompress(data) == payload


def test_the_compressed_form_is_made_once_for_each_window_and_only_where_it_is_worth_it() -> None:
    frame = PreparedMessage(b"a" * 1000)
    assert frame.wire(12) is frame.wire(12)
    assert frame.wire(12) is not frame.wire(9)
    assert frame.wire(12)[0] == 0xC1
    assert len(frame.wire(12)) < 50
    small = PreparedMessage(b"a" * (DEFLATE_FROM - 1))
    assert small.wire(12) is small.wire(0)


@given(st.binary(max_size=300), st.sampled_from([TEXT, BINARY]), st.integers(0, 20), st.binary(max_size=20))
def test_cut_finds_a_frame_or_says_what_is_lacking(payload: bytes, opcode: int, start: int, after: bytes) -> None:
    data = masked(LibraryFrame(Opcode(opcode), payload))
    found = cut(b"\xff" * start + data + after, start, MAX_SIZE)
    assert found == (start + len(data), opcode, payload)
    for length in range(len(data)):
        lacks = cut(data[:length], 0, MAX_SIZE)
        assert isinstance(lacks, int)
        assert 0 < lacks <= len(data) - length


def test_what_must_be_refused_is_not_waited_for() -> None:
    for data in (
        header(TEXT, 5),  # not masked
        bytes([0x81, 0xFF]) + (MAX_SIZE + 1).to_bytes(8, "big"),  # too long
        bytes([0x83, 0x85]),  # no known opcode
        bytes([0x8B, 0x85]),
    ):
        assert cut(data, 0, MAX_SIZE) == (len(data), 0, b"")


@given(st.binary(max_size=5000), st.integers(9, 15))
def test_a_compressed_message_is_inflated_up_to_the_limit(payload: bytes, window_bits: int) -> None:
    data = deflate(payload, window_bits)
    frame = bytearray(masked(LibraryFrame(Opcode.TEXT, data)))
    frame[0] |= COMPRESSED
    assert cut(bytes(frame), 0, MAX_SIZE) == (len(frame), TEXT | COMPRESSED, data)
    assert inflate(data, window_bits, len(payload)) == payload
    if payload:
        with pytest.raises(TooLong):
            inflate(data, window_bits, len(payload) - 1)


@given(st.binary(max_size=300), st.integers(1, 300), st.integers(9, 15), st.binary(max_size=50), st.data())
def test_a_message_is_found_too_long_by_its_beginning(
    part: bytes, times: int, window_bits: int, after: bytes, data: st.DataObject
) -> None:
    payload = part * times
    body = deflate(payload, window_bits)
    size = data.draw(st.integers(0, len(body)))
    decompressor = zlib.decompressobj(wbits=-window_bits)
    so_far = decompressor.decompress(body[:size])
    frame = masked(LibraryFrame(Opcode.CONT, body[size:]))
    end = data.draw(st.integers(min(len(frame), 14), len(frame)))
    max_size = data.draw(st.integers(len(so_far), MAX_SIZE))
    if is_too_long(b"before" + frame + after, 6, 6 + end, decompressor, max_size - len(so_far)):
        assert len(payload) > max_size
    elif end == len(frame):
        assert len(payload) <= max_size


def test_what_is_no_deflated_data_is_not_found_too_long() -> None:
    frame = compressed(LibraryFrame(Opcode.TEXT, b"\xff" * 5000))
    assert not is_too_long(frame, 0, len(frame), zlib.decompressobj(wbits=-12), 10)


def test_half_a_mebibyte_of_512_is_refused_by_its_first_kibibytes() -> None:
    compressor = zlib.compressobj(wbits=-15)
    body = b"".join([compressor.compress(bytes(1024 * 1024)) for _ in range(16)]) + compressor.flush()
    frame = compressed(LibraryFrame(Opcode.TEXT, body))
    assert is_too_long(frame, 0, 4096, zlib.decompressobj(wbits=-15), 512 * 1024)
    assert not is_too_long(frame, 0, 4096, zlib.decompressobj(wbits=-15), 16 * 1024 * 1024)


def test_what_follows_a_fragment_is_not_taken_for_more_of_it() -> None:
    for size in (50, 100, 5000):
        compressor = zlib.compressobj(level=0, wbits=-12)
        body = compressor.compress(bytes(size)) + compressor.flush(zlib.Z_SYNC_FLUSH)
        more = compressor.compress(b"x") + compressor.flush(zlib.Z_SYNC_FLUSH)
        fragment = compressed(LibraryFrame(Opcode.TEXT, body, fin=False))
        longer = compressed(LibraryFrame(Opcode.TEXT, body + more, fin=False))
        assert len(longer) == len(fragment) + len(more)
        both = fragment + longer[len(fragment) :]
        assert is_too_long(longer, 0, len(longer), zlib.decompressobj(wbits=-12), size)
        assert not is_too_long(both, 0, len(fragment), zlib.decompressobj(wbits=-12), size)


@pytest.mark.parametrize("size", [200_000, 20])
def test_what_follows_a_last_block_is_no_content(size: int) -> None:
    compressor = zlib.compressobj(wbits=-15)
    body = compressor.compress(bytes(size)) + compressor.flush() + b"x" * 70_000
    assert inflate(body, 15, size) == bytes(size)
    frame = compressed(LibraryFrame(Opcode.TEXT, body))
    assert not is_too_long(frame, 0, len(frame), zlib.decompressobj(wbits=-15), size)


def test_what_is_no_deflated_data_is_not_inflated() -> None:
    assert inflate(b"\xff\xff\xff\xff", 12, MAX_SIZE) is None


# --- the class against the library


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


async def ours(chunks: list[bytes]) -> Result:
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

    config = uvicorn.Config(app, ws_max_size=MAX_SIZE, ws_per_message_deflate=False, ws_ping_interval=None)
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


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("before", [b"", b"\x01\x80" + bytes(4)], ids=["between messages", "between fragments"])
def test_a_frame_is_refused_by_its_first_two_bytes_where_the_library_refuses_it(before: bytes, deflate: bool) -> None:
    for first in range(256):
        for second in (0x00, 0x7D, 0x7E, 0x7F, 0x80, 0xFD, 0xFE, 0xFF):
            problem = problem_of(first, second, deflate=deflate, goes_on=bool(before))
            refused = is_refused(before, bytes((first, second)), deflate=deflate)
            assert (problem is not None) == refused, (first, second, problem)


def frames() -> st.SearchStrategy[list[LibraryFrame]]:
    """Frames that a client may send: whole and fragmented messages, with control frames between."""
    control = st.builds(LibraryFrame, st.sampled_from([Opcode.PING, Opcode.PONG]), st.binary(max_size=125))
    text = st.text(max_size=60).map(str.encode)
    whole = st.one_of(
        st.builds(LibraryFrame, st.just(Opcode.TEXT), text),
        st.builds(LibraryFrame, st.just(Opcode.BINARY), st.binary(max_size=300)),
        st.builds(LibraryFrame, st.just(Opcode.TEXT), st.binary(max_size=4)),
        control,
    ).map(lambda frame: [frame])

    @st.composite
    def fragmented(draw: Any) -> list[LibraryFrame]:
        opcode = draw(st.sampled_from([Opcode.TEXT, Opcode.BINARY]))
        payload = draw(text if opcode is Opcode.TEXT else st.binary(max_size=60))
        cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=4)))
        pieces = [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
        result: list[LibraryFrame] = []
        for index, piece in enumerate(pieces):
            result.append(LibraryFrame(Opcode.CONT if index else opcode, piece, fin=index == len(pieces) - 1))
            result += draw(st.lists(control, max_size=1))
        return result

    close = st.sampled_from([b"", b"\x03\xe8", b"\x0f\xa0bye", b"\x03\xed", b"\x03"])
    closes = close.map(lambda payload: [LibraryFrame(Opcode.CLOSE, payload)])
    ending: st.SearchStrategy[list[LibraryFrame]] = st.one_of(st.just([]), closes)
    messages = st.lists(st.one_of(whole, fragmented()), max_size=8).map(lambda lists: list(itertools.chain(*lists)))
    return st.tuples(messages, ending).map(lambda both: both[0] + both[1])


@pytest.mark.parametrize("cut", [1, 2, 6, 10, 30])
def test_a_frame_that_is_wrong_and_too_long_is_wrong_wherever_it_is_cut(cut: int) -> None:
    data = b"\x00\xff" + (2**40).to_bytes(8) + bytes(20)
    assert asyncio.run(ours([data[:cut], data[cut:]])) == ([], 1002)


@settings(max_examples=300, deadline=None)
@given(
    frames(),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=2),
    st.lists(st.integers(0, 2000), max_size=6),
)
def test_the_same_bytes_mean_the_same(
    sent: list[LibraryFrame], corruption: list[tuple[int, int]], cuts: list[int]
) -> None:
    data = bytearray(b"".join(map(masked, sent)))
    for at, value in corruption:
        if at < len(data):
            data[at] = value
    places = sorted({place for place in cuts if place < len(data)})
    chunks = [bytes(data[a:b]) for a, b in zip([0, *places], [*places, len(data)], strict=True)]
    assert asyncio.run(ours(chunks)) == theirs(bytes(data))
