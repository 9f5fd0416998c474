"""Outbound: whatever leaves is JSON, encoded once."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import sys
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from tests.support.json_values import ids, names, read, values
from velocity_ws.errors import EncodeError, InvalidNameError
from velocity_ws.messages.inbound import Message, decode
from velocity_ws.messages.outbound import (
    PlacedMessage,
    PreparedMessage,
    add_room,
    encode,
    encode_bytes,
    make_lossy,
    parse,
    placed,
)


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Point:
    x: int
    label: Any = None


class Author(BaseModel):
    name: str
    joined: dt.datetime


class Post(BaseModel):
    author: Author
    tags: set[str]
    extra: Any = None


JOINED = dt.datetime(2024, 2, 29, 12, 30, tzinfo=dt.UTC)
AUTHOR = Author(name="Ann", joined=JOINED)
AUTHOR_JSON = {"name": "Ann", "joined": "2024-02-29T12:30:00Z"}


@settings(max_examples=150, deadline=None)
@given(names, values)
def test_any_json_parser_reads_what_was_encoded(event: str, data: Any) -> None:
    assert read(encode(event, data)) == {"event": event, "data": data}


@settings(max_examples=100, deadline=None)
@given(names, values, ids)
def test_decode_reads_what_was_encoded(event: str, data: Any, request_id: int | str) -> None:
    message = encode(event, data, request_id)
    assert decode(message.payload) == decode(message.text) == Message(event, data, request_id)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (JOINED, "2024-02-29T12:30:00Z"),
        (dt.date(2024, 2, 29), "2024-02-29"),
        (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (Decimal("1.10"), "1.10"),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        ({7}, [7]),
        (frozenset({7}), [7]),
        ((1, (2,)), [1, [2]]),
        (b"\x00\xff", "AP8="),
        (Point(1, Point(2)), {"x": 1, "label": {"x": 2, "label": None}}),
        (AUTHOR, AUTHOR_JSON),
        (Post(author=AUTHOR, tags={"a"}), {"author": AUTHOR_JSON, "tags": ["a"], "extra": None}),
        (Post(author=AUTHOR, tags=set(), extra=AUTHOR), {"author": AUTHOR_JSON, "tags": [], "extra": AUTHOR_JSON}),
        ([AUTHOR], [AUTHOR_JSON]),
        ({"by": AUTHOR}, {"by": AUTHOR_JSON}),
        (Point(1, AUTHOR), {"x": 1, "label": AUTHOR_JSON}),
        ({1: "a", -2: "b"}, {"1": "a", "-2": "b"}),
        ({UUID(int=1): 1}, {"00000000-0000-0000-0000-000000000001": 1}),
        ({Colour.RED: 1}, {"red": 1}),
        (2**64, 2**64),
        (-(2**200), -(2**200)),
        (float("nan"), None),
        (float("inf"), None),
        ([float("-inf"), 1.5], [None, 1.5]),
        (None, None),
        ("", ""),
        ("\x00\u2028é😀", "\x00\u2028é😀"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_encode(data: object, expected: object) -> None:
    assert read(encode("e", data)) == {"event": "e", "data": expected}


def _list_of_itself() -> object:
    loop: list[object] = []
    loop.append(loop)
    return loop


def _dict_of_itself() -> object:
    loop: dict[str, object] = {}
    loop["loop"] = [loop]
    return loop


def _dataclass_of_itself() -> object:
    loop = Point(1)
    loop.label = loop
    return loop


def _deep() -> object:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    return deep


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(data, id=name)
        for name, data in {
            "object": object(),
            "function": len,
            "class": Point,
            "complex": 1j,
            "nested object": {"a": [object()]},
            "list of itself": _list_of_itself(),
            "dict of itself": _dict_of_itself(),
            "dataclass of itself": _dataclass_of_itself(),
            **({"deep list": _deep()} if sys.version_info < (3, 14) else {}),  # from then on there is no end to it
            "tuple as key": {(1, 2): 3},
            "lone surrogate": "\ud800",
            "lone surrogate in a key": {"\udfff": 1},
            "model with an object": Post(author=AUTHOR, tags=set(), extra=object()),
            "model with a lone surrogate": Post(author=AUTHOR, tags=set(), extra="\ud800"),
            "model of itself": Post(author=AUTHOR, tags=set(), extra=_list_of_itself()),
            "model with bytes that are no text": Post(author=AUTHOR, tags=set(), extra=b"\xff"),
            "huge integer": 10**5000,
        }.items()
    ],
)
def test_what_has_no_json_form_is_refused(data: object) -> None:
    with pytest.raises(EncodeError, match="'price'") as caught:
        encode("price", data)
    assert caught.value.event == "price"
    assert len(str(caught.value)) < 400, "the data itself is not repeated"


@pytest.mark.parametrize("request_id", ["\ud800", 10**5000], ids=["lone surrogate", "huge integer"])
def test_an_id_has_a_json_form_too(request_id: int | str) -> None:
    with pytest.raises(EncodeError):
        encode("reply", None, request_id)


@pytest.mark.parametrize("event", ["", "x" * 257, None, 5, b"bytes", ["a"]])
def test_bad_event_name(event: Any) -> None:
    with pytest.raises(InvalidNameError, match="1 to 256 characters") as caught:
        encode(event, 1)
    assert len(str(caught.value)) < 200


def test_longest_event_name() -> None:
    assert read(encode("é" * 256))["event"] == "é" * 256


def test_data_is_always_there() -> None:
    assert encode("e").payload == b'{"event":"e","data":null}'


@pytest.mark.parametrize("request_id", [0, "", 7, "seven", 2**70])
def test_a_reply_carries_its_id(request_id: int | str) -> None:
    assert read(encode("reply", 1, request_id)) == {"event": "reply", "id": request_id, "data": 1}


def test_what_is_no_reply_carries_none() -> None:
    assert "id" not in read(encode("e", 1))


def test_text_is_decoded_once() -> None:
    message = encode("e", "é")
    assert message.text == '{"event":"e","data":"é"}'
    assert message.text is message.text
    assert message.is_text


def test_size_is_bytes() -> None:
    message = encode("e", "é😀")
    assert message.size == len(message.payload) == len(message.text.encode()) == len(message.text) + 4
    assert PreparedMessage(b"\x00\xff", is_text=False).size == 2


def test_an_encoded_message_does_not_follow_its_data() -> None:
    data = [1]
    message = encode("e", data)
    data.append(2)
    assert read(message)["data"] == [1]


class SafeString(str):
    """As template libraries have it."""

    __slots__ = ()


class OwnDict(dict[str, object]):
    """As frameworks have it."""


def test_subclasses_of_what_json_has_are_sent_as_that() -> None:
    data = OwnDict(text=SafeString("<b>"), inner=[OwnDict(a=1)])
    assert json.loads(encode("x", data).payload)["data"] == {"text": "<b>", "inner": [{"a": 1}]}


ROOMS = st.one_of(names, st.sampled_from(["r", "chat:7", "é", "\ud800", '"', "\\", '"}', "\n"]))


@given(names, values, ROOMS)
def test_a_message_carries_its_room_once_and_last(event: str, data: Any, room: str) -> None:
    message = encode(event, data)
    before = json.loads(message.payload)
    for _ in range(2):
        add_room(message, room)
        after = json.loads(message.payload)
        assert after == {**before, "room": room}
        assert list(after) == ["event", "data", "room"]
        assert message.size == message.cost == len(message.payload)
        assert message.text == message.payload.decode()
        assert message.wire(0).endswith(message.payload)


@pytest.mark.parametrize("room", ["r", "a b", "é"])
@given(st.data())
def test_what_looks_like_a_room_in_the_data_is_none(room: str, draw: st.DataObject) -> None:
    tail = f',"room":{json.dumps(room)}}}'
    texts = st.sampled_from([room, tail, tail[:-1], f"x{tail}"])
    data = draw.draw(st.recursive(texts, lambda inner: st.one_of(st.fixed_dictionaries({"x": inner, "room": texts}))))
    message = encode("e", data)
    add_room(message, room)
    assert json.loads(message.payload) == {"event": "e", "data": data, "room": room}


@pytest.mark.parametrize("payload", [b"{}", b"", b"[]", b'{"other":1}', b'{"event":'])
def test_what_is_no_message_of_ours_stays_as_it_is(payload: bytes) -> None:
    for message in (PreparedMessage(payload), encode_bytes(payload), encode_bytes(b'{"event":"e","data":1}')):
        before = message.payload
        add_room(message, "r")
        assert message.payload is before


@given(names)
def test_a_message_replaces_one_of_its_event_and_key(event: str) -> None:
    message = encode(event, 1)
    assert message.slot is None
    make_lossy(message, volatile=False, key="k")
    assert message.slot == (event, "k", None)


def test_a_binary_message_replaces_none_that_has_an_event() -> None:
    message = PreparedMessage(b"{}", is_text=False)
    make_lossy(message, volatile=False, key="k")
    assert message.slot == (None, "k", None)


def test_a_message_is_lossy_in_one_way() -> None:
    message = encode("e")
    with pytest.raises(TypeError, match="either volatile=True or a key"):
        make_lossy(message, volatile=True, key="k")
    make_lossy(message, volatile=True, key=None)
    assert (message.volatile, message.key, message.slot) == (True, None, None)


# --- messages of rooms with history


@settings(max_examples=100, deadline=None)
@given(names, values, st.text(max_size=256))
def test_a_placed_message_says_its_room_and_where_it_stands(event: str, data: Any, room: str) -> None:
    message = placed(encode(event, data).payload, room, "a-position_", "the one before")
    assert read(message) == {"event": event, "data": data, "room": room, "at": "a-position_"}
    assert (message.room, message.at, message.before) == (room, "a-position_", "the one before")
    assert (message.size, message.slot, message.lossy) == (len(message.payload), None, None)


def test_a_placed_message_with_a_key_replaces_one_of_its_room() -> None:
    message = placed(encode("moved", 1).payload, "chat", "at", "before", "ann")
    assert message.slot == ("moved", "ann", "chat")
    assert read(message) == {"event": "moved", "data": 1, "room": "chat", "at": "at"}
    other = encode("moved", 2)
    make_lossy(other, volatile=False, key="ann")
    add_room(other, "chat")
    assert message.slot == other.slot


def test_other_messages_are_no_larger_for_it() -> None:
    assert not hasattr(PreparedMessage(b"{}"), "at")
    assert set(PlacedMessage.__slots__).isdisjoint(PreparedMessage.__slots__)


@settings(max_examples=100, deadline=None)
@given(names, values)
def test_what_was_sent_can_be_read_again(event: str, data: Any) -> None:
    assert parse(encode(event, data).payload) == (event, data)
    carried = encode(event, data)
    add_room(carried, "chat")
    assert parse(carried.payload) == (event, data)


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"[]", b'{"data":1}', b'{"event":1}', b'{"event":"x","y":"\xff"}', b"[" * 10**6]
)
def test_what_no_node_has_sent_is_no_message(payload: bytes) -> None:
    with pytest.raises(ValueError, match="no message"):
        parse(payload)
