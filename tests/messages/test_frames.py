"""Frames: what the library would send, compressed once for each window, and only where it is worth it."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame as LibraryFrame
from websockets.frames import Opcode

from tests.support.library import MAX_SIZE
from velocity_ws.messages.frames import DEFLATE_FROM, deflate
from velocity_ws.messages.outbound import PreparedMessage


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
