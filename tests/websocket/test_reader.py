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

from tests.support.library import masked, ours, theirs


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
