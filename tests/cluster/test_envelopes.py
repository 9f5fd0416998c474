"""Envelopes: the bytes of each kind, what is encoded is decoded, and whatever is out of its bounds is foreign."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from velocity_ws.cluster.envelopes import (
    Heartbeat,
    InvalidEnvelope,
    Notification,
    PlainNotification,
    PlainPublication,
    Probe,
    Publication,
    Request,
    Response,
    _origins,
    decode_body,
    decode_header,
    encode_body,
    encode_header,
    encode_unstamped,
)
from velocity_ws.history.entries import Entry, Stamp
from velocity_ws.history.positions import Position

NODE = "elevenchars"
RAW = msgspec.Raw(b"\x92\xa1a\x01")
MARK = st.binary(min_size=8, max_size=8)
HEADER = b"VWS\x01elevenchars\0\0\0\0\0\0\x01\x02"
GOLDEN = {
    b"\x99\xa4post\xa5rooms\x91\xa5lobby\x07\x91\xadelevenchars.c\xc3\xc4\x02{}\xc2\xa0": (
        *(PlainPublication, "rooms", ("lobby",), 7, (f"{NODE}.c",), True, b"{}", False, ""),
    ),
    b"\x99\xa4post\xa3all\x90\0\x90\xc3\xc4\x02{}\xc3\xa0": (PlainPublication, "all", (), 0, (), True, b"{}", True, ""),
    b"\x99\xa4post\xa3all\x90\0\x90\xc3\xc4\x02{}\xc2\xa1k": (
        PlainPublication,
        "all",
        (),
        0,
        (),
        True,
        b"{}",
        False,
        "k",
    ),
    b"\x95\xa4beat\xa5hello\xcb@$\0\0\0\0\0\0\x90\xc3": (Heartbeat, "hello", 10.0, (), True),
    b"\x95\xa4beat\xa7welcome\xcb@$\0\0\0\0\0\0\x91\xabelevenchars\xc3": (Heartbeat, "welcome", 10.0, (NODE,), True),
    b"\x95\xa4beat\xa5alive\xcb@\x04\0\0\0\0\0\0\x90\xc3": (Heartbeat, "alive", 2.5, (), True),
    b"\x95\xa4beat\xa3bye\xcb\0\0\0\0\0\0\0\0\x90\xc3": (Heartbeat, "bye", 0.0, (), True),
    b"\x94\xa3ask\x01\xa5count\x92\xa1a\x01": (Request, 1, "count", RAW),
    b"\x95\xa6answer\x01\xc4\x01\x05\xa0\x02": (Response, 1, b"\x05", "", 2),
    b"\x95\xa6answer\x01\xc4\0\xa2no\0": (Response, 1, b"", "no", 0),
    b"\x93\xa4note\xa8presence\x92\xa1a\x01": (PlainNotification, "presence", RAW),
    b"\x92\xa5probe\x03": (Probe, 3),
}
"""What travels, byte for byte: nodes of two releases meet on one engine, and no name that changes may change it."""


OLDER = {
    b"\x97\xa4post\xa5rooms\x91\xa5lobby\x07\x91\xadelevenchars.c\xc3\xc4\x02{}": Publication(
        "rooms", ("lobby",), 7, (f"{NODE}.c",), True, b"{}"
    ),
}
"""What older nodes send, which have not all fields, and how it is taken."""


class OlderPublication(msgspec.Struct, array_like=True, frozen=True, tag="post"):
    """A message for clients as older nodes know it."""

    kind: str
    names: tuple[str, ...]
    number: int
    excluded: tuple[str, ...]
    is_text: bool
    payload: bytes


@pytest.mark.parametrize(("raw", "body"), OLDER.items())
def test_what_older_nodes_send_is_taken(raw: bytes, body: Publication) -> None:
    assert decode_body(HEADER + raw) == body
    assert (body.is_volatile, body.key) == (False, "")


def test_what_is_new_in_a_message_is_skipped_by_older_nodes() -> None:
    newer = encode_body(PlainPublication("all", (), 0, (), True, b"{}", True, "k"))
    older = msgspec.msgpack.decode(newer, type=OlderPublication)
    assert older == OlderPublication("all", (), 0, (), True, b"{}")


@pytest.mark.parametrize(("raw", "kind_and_fields"), GOLDEN.items())
def test_each_kind_is_encoded_to_the_same_bytes_as_ever(raw: bytes, kind_and_fields: tuple[Any, ...]) -> None:
    kind, *fields = kind_and_fields
    assert encode_body(kind(*fields)) == raw
    body = decode_body(HEADER + raw)
    assert isinstance(body, kind)
    # Once more as it was sent, which is without a position where it has none.
    assert encode_body(kind(*[getattr(body, name) for name in kind.__struct_fields__])) == raw
    assert getattr(body, "position", b"") == b""


def test_the_header_is_encoded_to_the_same_bytes_as_ever() -> None:
    assert encode_header(NODE, 258) == HEADER
    assert decode_header(HEADER) == (NODE, 258)


@given(
    st.sampled_from(["all", "rooms", "users", "clients"]),
    st.lists(st.text(max_size=20), min_size=1).map(tuple),
    st.binary(),
    st.integers(1, 2**48),
    st.data(),
)
def test_what_is_encoded_is_decoded(
    kind: Any, names: tuple[str, ...], payload: bytes, number: int, data: st.DataObject
) -> None:
    names = names[:1] if kind in ("rooms", "users") else names
    names = tuple([f"{NODE}.{number}" for number in range(len(names))]) if kind == "clients" else names
    how = data.draw(st.sampled_from([(False, ""), (True, ""), (False, "a key")]))
    fields = (kind, names, data.draw(st.integers(0, 2**40)), (f"{NODE}.b",), False, payload, *how)
    raw = encode_header(NODE, number) + encode_body(PlainPublication(*fields))
    assert decode_header(raw) == (NODE, number)
    assert decode_body(raw) == Publication(*fields)


positions = st.builds(
    Position, st.binary(min_size=6, max_size=6), st.integers(0, 2**53), st.integers(0, 2**24 - 1), MARK
)
stamps = st.builds(Stamp, positions, MARK, st.integers(0, 2**63))


class EarlierPublication(msgspec.Struct, array_like=True, frozen=True, tag="post"):
    """A message for clients as nodes know it that know no positions."""

    kind: str
    names: tuple[str, ...]
    number: int
    excluded: tuple[str, ...]
    is_text: bool
    payload: bytes
    is_volatile: bool = False
    key: str = ""


class EarlierNotification(msgspec.Struct, array_like=True, frozen=True, tag="note"):
    """What others are told as nodes know it that know no positions."""

    what: str
    args: msgspec.Raw


earlier = msgspec.msgpack.Decoder(EarlierPublication | EarlierNotification)


@given(
    stamps, st.sampled_from([0, 1, 31, 255, 256, 65_535, 65_536, 100_000]), st.lists(st.just(f"{NODE}.c"), max_size=20)
)
def test_what_an_engine_stamps_is_one_envelope(stamp: Stamp, size: int, excluded: list[str]) -> None:
    post = Publication("rooms", ("chat",), 0, tuple(excluded), True, b"x" * size, False, "k")
    data = Entry(stamp, encode_unstamped(NODE, post)).pack()
    assert decode_header(data) == (NODE, 1)
    assert decode_body(data) == msgspec.structs.replace(post, position=stamp.pack())
    as_before = EarlierPublication("rooms", ("chat",), 0, tuple(excluded), True, b"x" * size, False, "k")
    assert earlier.decode(data[len(HEADER) :]) == as_before


@given(stamps)
def test_so_is_a_notice(stamp: Stamp) -> None:
    data = Entry(stamp, encode_unstamped(NODE, Notification("history", RAW))).pack()
    assert decode_header(data) == (NODE, 1)
    assert decode_body(data) == Notification("history", RAW, stamp.pack())
    assert earlier.decode(data[len(HEADER) :]) == EarlierNotification("history", RAW)


@given(st.binary(max_size=200))
def test_any_bytes_are_one_or_foreign(data: bytes) -> None:
    for raw in (data, encode_header(NODE, 1) + data):
        with contextlib.suppress(InvalidEnvelope):  # and nothing else
            decode_header(raw)
            decode_body(raw)


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        (["post", "rooms", ["x" * 257], 0, [], True, b"{}"], "length <= 256"),
        (["post", "rooms", [], 0, [], True, b"{}"], "another number"),
        (["post", "users", ["a", "b"], 0, [], True, b"{}"], "another number"),
        (["post", "rooms", ["x"], -1, [], True, b"{}"], ">= 0"),
        (["post", "rooms", ["x"], 2**60, [], True, b"{}"], "<= "),
        (["post", "rooms", [b"x"], 0, [], True, b"{}"], "Expected `str`"),
        (["post", "rooms", ["x"], 0, ["x" * 257], True, b"{}"], "length <= 256"),
        (["post", "clients", ["x"], 0, [], True, b"{}"], "names what is none"),
        (["post", "all", [], 0, [], True, b"\xff"], "invalid start byte"),
        (["post", "all", [], 0, [], True, b"{}", "yes"], "Expected `bool`"),
        (["post", "all", [], 0, [], True, b"{}", False, "x" * 257], "length <= 256"),
        (["post", "somebody", [], 0, [], True, b""], "Invalid enum"),
        (["post", "all", [], 0, [], True, b"{}", False, "", b"x" * 39], "length >= 40"),
        (["post", "all", [], 0, [], True, b"{}", False, "", b"x" * 41], "length <= 40"),
        (["note", "history", None, b""], "length >= 40"),
        (["note", "history", None, b"x" * 41], "length <= 40"),
        (["beat", "alive", 0.0], "gone at once"),
        (["beat", "alive", -1.0], ">= 0"),
        (["beat", "alive", float("nan")], ">= 0"),
        (["beat", "alive", float("inf")], "<= "),
        (["beat", "welcome", 1.0, ["a b c d e f"]], "regex"),
        (["beat", "welcome", 1.0, [NODE] * 10_001], "length <= 10000"),
        (["beat", "hello", 1.0, [], "yes"], "Expected `bool`"),
        (["ask", -1, "count", "x"], ">= 0"),
        (["ask", 1, "x" * 65, "x"], "length <= 64"),
        (["answer", 1, "text"], "bytes"),
        (["answer", 1, b"", "", -1], ">= 0"),
        (["note", "x" * 65, None], "length <= 64"),
        (["probe", 1.5], "Expected `int`"),
        (["new"], "Invalid value"),
    ],
)
def test_what_is_out_of_its_bounds_is_foreign(shape: list[Any], why: str) -> None:
    with pytest.raises(InvalidEnvelope, match=re.escape(why)):
        decode_body(encode_header(NODE, 1) + msgspec.msgpack.encode(shape))


@pytest.mark.parametrize("origin", ["a b c d e f", "a.b.c.d.e.f", "a>*\r\nSUB  ", "\0" * 11, "elevenchar\n"])
def test_a_sender_has_a_name_that_can_be_part_of_a_topic(origin: str) -> None:
    with pytest.raises(InvalidEnvelope, match="no name"):
        decode_header(encode_header(origin, 1) + b"\xc0")


def test_what_is_remembered_of_senders_is_bounded() -> None:
    for number in range(3000):
        origin = f"{number:011}"
        for _ in range(2):
            assert decode_header(encode_header(origin, 1) + b"\xc0").origin == origin
    assert len(_origins) <= 1000


@pytest.mark.parametrize("number", [0, 2**48 + 1, 2**64 - 1])
def test_a_number_is_one_that_a_sender_comes_to(number: int) -> None:
    with pytest.raises(InvalidEnvelope, match="number"):
        decode_header(encode_header(NODE, number) + b"\xc0")


def test_a_later_version_may_add_to_the_end_of_a_shape() -> None:
    raw = msgspec.msgpack.encode(["beat", "alive", 10.0, [], True, "new", {"more": 1}])
    assert decode_body(encode_header(NODE, 1) + raw) == Heartbeat("alive", 10.0)
