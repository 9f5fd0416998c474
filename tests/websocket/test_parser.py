"""The parser: a frame is found or what is lacking is said, and what is too long is refused by its beginning."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame as LibraryFrame
from websockets.frames import Opcode
from websockets.protocol import SERVER, Protocol

from tests.support.library import MAX_SIZE, compressed, is_refused, masked
from velocity_ws.messages.frames import BINARY, COMPRESSED, TEXT, deflate, header
from velocity_ws.websocket.parser import TooLong, close_in, cut, inflate, is_too_long, problem_of


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


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("before", [b"", b"\x01\x80" + bytes(4)], ids=["between messages", "between fragments"])
def test_a_frame_is_refused_by_its_first_two_bytes_where_the_library_refuses_it(before: bytes, deflate: bool) -> None:
    for first in range(256):
        for second in (0x00, 0x7D, 0x7E, 0x7F, 0x80, 0xFD, 0xFE, 0xFF):
            problem = problem_of(first, second, deflate=deflate, goes_on=bool(before))
            refused = is_refused(before, bytes((first, second)), deflate=deflate)
            assert (problem is not None) == refused, (first, second, problem)


CODES = st.integers(0, 0xFFFF) | st.integers(995, 1020) | st.sampled_from([2999, 3000, 3999, 4000, 4999, 5000])
REASONS = st.text(max_size=41).map(str.encode) | st.binary(max_size=123)


@given(st.builds(lambda code, reason: code.to_bytes(2) + reason[:123], CODES, REASONS) | st.binary(max_size=2))
def test_a_close_frame_is_answered_as_the_library_answers_it(payload: bytes) -> None:
    frame = masked(LibraryFrame(Opcode.CLOSE, payload))
    library = Protocol(SERVER)
    library.receive_data(frame)
    found = close_in(frame)
    if library.parser_exc is not None:
        assert found is None
    else:
        assert library.close_rcvd is not None
        code, reason, answer = found or (0, "", b"")
        assert (code, reason) == (library.close_rcvd.code, library.close_rcvd.reason)
        assert [answer, b""] == library.data_to_send()


@given(st.binary(min_size=1, max_size=125), st.sampled_from([0x08, 0xC8, 0x89, 0x8A, 0x81, 0x00]))
def test_no_other_frame_is_taken_for_a_close_frame(payload: bytes, first: int) -> None:
    frame = bytearray(masked(LibraryFrame(Opcode.CLOSE, payload)))
    frame[0] = first
    assert close_in(frame) is None
    assert close_in(bytes((0x88, len(payload))) + payload) is None  # not masked


@given(st.integers(2, 125), st.integers(2, 130))
def test_a_close_frame_that_is_not_whole_is_left_to_the_library(size: int, length: int) -> None:
    frame = masked(LibraryFrame(Opcode.CLOSE, (1000).to_bytes(2) + b"a" * (size - 2)))
    assert (close_in((frame + b"more")[:length]) is not None) == (length == len(frame))
