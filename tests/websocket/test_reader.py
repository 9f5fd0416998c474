"""The reader against the library: the same bytes, however they are cut, mean the same to both."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame as LibraryFrame
from websockets.frames import Opcode

from tests.support.library import Pipe, masked, ours, theirs
from velocity_ws.websocket.parser_adapter import ParserAdapter, ParserPool
from velocity_ws.websocket.reader import Reader
from velocity_ws.websocket.unfinished import UnfinishedMessages


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


@settings(max_examples=300, deadline=None)
@given(frames(), st.lists(st.tuples(st.integers(0, 7), st.integers(0, 6), st.integers(0, 255)), max_size=1))
def test_frames_that_come_alone_mean_the_same(sent: list[LibraryFrame], corruption: list[tuple[int, int, int]]) -> None:
    chunks = [bytearray(masked(frame)) for frame in sent]
    for number, at, value in corruption:
        if number < len(chunks) and at < len(chunks[number]):
            chunks[number][at] = value
    assert asyncio.run(ours([bytes(chunk) for chunk in chunks])) == theirs(b"".join(chunks))


@pytest.mark.parametrize("size", [0, 1, 125, 126])
@pytest.mark.parametrize("max_size", [100, 1000])
def test_a_message_that_comes_alone_is_as_long_as_any_may_be(size: int, max_size: int) -> None:
    frame = masked(LibraryFrame(Opcode.TEXT, b"a" * size))
    expected = ([], 1009) if size > max_size else (["a" * size], None)
    assert asyncio.run(ours([frame], max_size)) == expected


class Connection:
    """Takes messages, and has no more room after some."""

    def __init__(self, room: int) -> None:
        self.transport = Pipe()
        self.messages: list[bytes] = []
        self._room = room

    def got_message(self, opcode: int, payload: bytes) -> bool:
        assert opcode == Opcode.TEXT
        self.messages.append(payload)
        return len(self.messages) >= self._room

    def got_frame(self, data: bytes | bytearray) -> bool:
        raise AssertionError(data)

    def got_too_long(self) -> None:
        raise AssertionError

    def got_stuck(self) -> None:
        assert self.messages

    def got_invalid(self, code: int, reason: str) -> None:
        raise AssertionError(code, reason)


async def test_what_comes_alone_is_something_that_has_come_and_waits_like_others() -> None:
    connection = Connection(room=2)
    loop = asyncio.get_running_loop()
    reader = Reader(connection, ParserAdapter(ParserPool(), 1000), loop, UnfinishedMessages(loop, 10.0, 1000))
    reader.open()
    frame = masked(LibraryFrame(Opcode.TEXT, b"hello"))
    positions = [reader.position]
    for _ in range(3):
        reader.feed(frame)
        positions.append(reader.position)
    assert len(set(positions)) == 4
    assert connection.messages == [b"hello"] * 2
    assert reader.is_waiting
    reader.resume()
    await asyncio.sleep(0)
    assert connection.messages == [b"hello"] * 3
