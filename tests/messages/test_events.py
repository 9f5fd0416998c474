"""Events of our own: errors carry their code, their message and what explains them."""

from __future__ import annotations

import pytest

from tests.support.json_values import read
from velocity_ws.errors import EncodeError
from velocity_ws.messages.events import encode_error


def test_error() -> None:
    frame = encode_error("INVALID_DATA", "no", {"details": [1]}, 7)
    assert read(frame) == {
        "event": "error",
        "id": 7,
        "data": {"code": "INVALID_DATA", "message": "no", "details": [1]},
    }
    assert read(encode_error("A", "b")) == {"event": "error", "data": {"code": "A", "message": "b"}}


def test_details_cannot_replace_code_and_message() -> None:
    data = read(encode_error("A", "b", {"code": "X", "message": "y", "more": 1}))["data"]
    assert data == {"code": "A", "message": "b", "more": 1}


def test_details_have_a_json_form() -> None:
    with pytest.raises(EncodeError):
        encode_error("A", "b", {"details": object()})
