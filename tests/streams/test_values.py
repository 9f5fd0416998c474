"""Values: what an application is told of a stream is what its pieces say."""

from __future__ import annotations

import pytest

from velocity_ws.streams.items import End, Summary
from velocity_ws.streams.pieces import Piece
from velocity_ws.streams.values import StreamInfo, StreamState, state_of


def summary(length: int, end: End = "") -> Summary:
    return Summary("a", "velocity.room.chat", "chat", b"w" * 16, 2, length, end, 0, 5)


def test_text_is_put_together() -> None:
    pieces = [Piece(0, 0, 2, "text", "", "é𝄞".encode()), Piece(1, 2, 1, "text", "done", b"!")]
    assert state_of(summary(3, "done"), pieces) == StreamState("a", "chat", "é𝄞!", None, "done")


def test_items_are_decoded() -> None:
    pieces = [Piece(0, 0, 2, "items", "", b'1,{"a":[]}'), Piece(1, 2, 1, "items", "", b"null")]
    assert state_of(summary(3), pieces) == StreamState("a", "chat", None, [1, {"a": []}, None], None)


def test_a_number_that_is_out_of_range_is_the_nearest() -> None:
    data = b'{"a":[1e999,-1e400,7,%b,%b]},1e-999,true' % (b"1" * 30, b"9" * 5000)
    many = float("inf")
    found = [{"a": [many, -many, 7, int("1" * 30), many]}, 0.0, True]
    assert state_of(summary(3), [Piece(0, 0, 3, "items", "", data)]).items == found


@pytest.mark.parametrize("pieces", [[], [Piece(0, 0, 0, "", "lost", b"")]])
def test_a_stream_that_said_nothing_has_no_text_and_no_items(pieces: list[Piece]) -> None:
    assert state_of(summary(0, "lost"), pieces) == StreamState("a", "chat", "", None, "lost")


def test_what_is_told_of_a_stream_without_what_it_says() -> None:
    assert StreamInfo.of(summary(3)) == StreamInfo("a", "chat", 3, None)
    assert StreamInfo.of(summary(3, "cancelled")) == StreamInfo("a", "chat", 3, "cancelled")
