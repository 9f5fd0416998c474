"""Names: any string up to a length is a room, and any valid text of a length is a key."""

from __future__ import annotations

from typing import Any

import pytest

from velocity_ws.errors import InvalidNameError
from velocity_ws.messages.names import validate_key, validate_room, validate_stream_id


@pytest.mark.parametrize("room", ["", "a", "*", ">", "a.b c", "\n\x00", "é" * 256, "\ud800"])
def test_any_string_is_a_room(room: str) -> None:
    assert validate_room(room) is room


@pytest.mark.parametrize("room", ["x" * 257, None, 5, b"room", ["a"]])
def test_no_room(room: Any) -> None:
    with pytest.raises(InvalidNameError, match="at most 256 characters") as caught:
        validate_room(room)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("key", ["a", "cursor:ann", "é" * 256, "\n\x00"])
def test_any_text_is_a_key(key: str) -> None:
    assert validate_key(key) is key


@pytest.mark.parametrize("key", ["", "x" * 257, None, 5, b"key", "\ud800"])
def test_no_key(key: Any) -> None:
    with pytest.raises(InvalidNameError, match=r"1 to 256 characters|valid Unicode") as caught:
        validate_key(key)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("id_", ["a", "answer/42", "é" * 256, "\n"])
def test_any_text_without_a_zero_byte_is_the_id_of_a_stream(id_: str) -> None:
    assert validate_stream_id(id_) is id_


@pytest.mark.parametrize("id_", ["", "x" * 257, None, 5, b"id", "\ud800", "\0fa", "a\0"])
def test_no_id_of_a_stream(id_: Any) -> None:
    with pytest.raises(InvalidNameError, match=r"1 to 256 characters|valid Unicode|no zero byte") as caught:
        validate_stream_id(id_)
    assert len(str(caught.value)) < 200
