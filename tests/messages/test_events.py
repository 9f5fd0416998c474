"""Events of our own: errors carry their code, their message and what explains them."""

from __future__ import annotations

import pytest

from tests.support.json_values import read
from velocity_ws.errors import EncodeError
from velocity_ws.messages.events import (
    encode_dropped,
    encode_error,
    encode_joined,
    encode_lost,
    encode_missed,
    encode_session,
    joined_data,
)


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


def test_what_a_client_is_told_that_came_into_a_room() -> None:
    assert joined_data("chat") == {"room": "chat"}
    assert joined_data("chat", "at") == {"room": "chat", "at": "at"}
    recovered = {"room": "chat", "at": "at", "recovered": True, "missed": 0}
    assert joined_data("chat", "at", True, missed=0) == recovered
    refused = {"room": "chat", "at": "at", "recovered": False, "reason": "evicted"}
    assert joined_data("chat", "at", False, "evicted") == refused
    assert encode_joined("chat").payload == b'{"event":"joined","data":{"room":"chat"}}'
    assert read(encode_joined("chat", "at", True, missed=0)) == {"event": "joined", "data": recovered}


def test_what_is_lost_between_two_positions() -> None:
    dropped = {"room": "chat", "missed": 2, "reason": "dropped", "from": "b", "at": "a"}
    assert read(encode_lost("chat", 2, "dropped", "a", "b")) == {"event": "gap", "data": dropped}
    anew = {"room": "chat", "missed": None, "reason": "epoch", "at": "a"}
    assert read(encode_lost("chat", None, "epoch", "a")) == {"event": "gap", "data": anew}


def test_what_rooms_without_history_are_told_is_as_ever() -> None:
    assert encode_dropped(3).payload == b'{"event":"gap","data":{"dropped":3}}'
    assert encode_missed("chat", None).payload == b'{"event":"gap","data":{"room":"chat","missed":null}}'
    assert encode_missed(None, 2).payload == b'{"event":"gap","data":{"room":null,"missed":2}}'


def test_what_a_session_is_told_of_itself() -> None:
    assert encode_session(None).payload == b'{"event":"session","data":{}}'
    assert encode_session(1.5).payload == b'{"event":"session","data":{"expires_in":1.5}}'
    assert read(encode_session(None, "token"))["data"] == {"token": "token"}
    assert read(encode_session(1.5, "token"))["data"] == {"expires_in": 1.5, "token": "token"}
