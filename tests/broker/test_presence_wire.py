"""What nodes tell each other about rooms goes into notes of a bounded size, whatever the names are."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from velocity_ws.broker.presence_parts import ComingParts, version_of_whole
from velocity_ws.broker.presence_wire import (
    Change,
    Info,
    State,
    check_infos,
    in_notes,
    in_pages,
    in_pieces,
)
from velocity_ws.cluster.envelopes import InvalidEnvelope, encode_body

NAMES = st.text(min_size=1, max_size=256).filter(lambda name: not any("\ud800" <= c <= "\udfff" for c in name))
INFOS = st.builds(
    Info, st.integers(1, 2**53), st.sampled_from([b"{}", b'{"name":"Ann"}', b'{"x":"' + b"x" * 2000 + b'"}'])
)
LIMIT = 8192


@given(st.dictionaries(NAMES, st.tuples(st.integers(1, 2**53), st.none() | INFOS), max_size=60))
def test_pieces_hold_everybody_once_and_are_no_larger_than_asked(users: dict[str, Any]) -> None:
    pieces = list(in_pieces(users, lambda user: users[user][0], lambda user: users[user][1], LIMIT))
    assert [user for counts, _ in pieces for user in counts] == list(users)
    for counts, infos in pieces:
        assert counts == {user: users[user][0] for user in counts}
        assert infos == {user: users[user][1] for user in counts if users[user][1] is not None}
        assert len(encode_body((counts, infos))) <= LIMIT


@given(st.lists(st.tuples(NAMES, st.integers(0, 400)), max_size=20, unique_by=lambda room: room[0]))
def test_notes_hold_every_room_once_small_ones_together_and_large_ones_in_parts(rooms: list[tuple[str, int]]) -> None:
    pieces = {
        room: list(in_pieces([f"user{n}" for n in range(size)], lambda _: 1, lambda _: None, LIMIT // 4))
        for room, size in rooms
    }
    notes = list(in_notes([(room, 2**20, pieces[room]) for room, _ in rooms], LIMIT))
    told: dict[str, int] = {}
    coming = ComingParts()
    for note in notes:
        assert len(encode_body(note)) <= LIMIT
        if isinstance(note, State):
            told.update({room: len(note.rooms[room][1]) for room in note.asked})
        else:
            assert version_of_whole(note) == 2**20
            whole = coming.take("node", note)
            assert whole is not False
            if whole is not True:
                assert whole.version == 2**20
                told[note.room] = len(whole.users)
    assert told == dict(rooms)


@given(st.lists(NAMES, max_size=60, unique=True))
def test_pages_hold_every_name_once(names: list[str]) -> None:
    pages = list(in_pages(names, LIMIT))
    assert [name for page in pages for name in page] == names
    assert all(len(encode_body(page)) <= LIMIT for page in pages)


def part(number: int, version: int = 100, parts: int = 3) -> Change:
    """A part of a state."""
    return Change("x", 0, version - parts + number, {f"user{number}": 1}, {}, number, parts)


def test_a_state_is_whole_when_all_of_its_parts_have_come_in_their_order() -> None:
    coming = ComingParts()
    assert coming.take("a", part(2)) is False, "the first is missing"
    assert coming.take("a", part(1)) is True
    assert coming.take("b", part(1)) is True
    assert coming.take("a", part(3)) is False, "the second is missing"
    assert coming.take("a", part(2)) is False, "they are forgotten"
    assert coming.take("b", part(2)) is True
    whole = coming.take("b", part(3))
    assert not isinstance(whole, bool)
    assert (whole.version, whole.users) == (100, {"user1": 1, "user2": 1, "user3": 1})
    assert coming.take("a", part(1, 100)) is True
    assert coming.take("a", part(1, 200)) is True, "a newer one"
    assert coming.take("a", part(2, 100)) is False
    assert coming.take("a", part(1)) is True
    coming.forget("x", "a")
    assert coming.take("a", part(2)) is False


def test_what_says_no_more_than_ever_travels_as_ever() -> None:
    decode: Any = msgspec.msgpack.decode
    assert decode(encode_body(Change("x", 1, 2, {"ann": 1}).wire)) == ["x", 1, 2, {"ann": 1}]
    assert decode(encode_body(State(("x",), {"x": (1, {"ann": 1})}).wire)) == [["x"], {"x": [1, {"ann": 1}]}]
    infos = {"ann": Info(5, b"{}")}
    assert decode(encode_body(Change("x", 1, 2, {"ann": 1}, infos).wire))[4:] == [{"ann": [5, b"{}"]}, 0, 0]


@pytest.mark.parametrize("json", [b"{", b"[]", b"1", b'{"a":NaN}', b"\xff", b'{"a":' * 5000])
def test_what_is_said_of_a_user_is_a_json_object(json: bytes) -> None:
    with pytest.raises(InvalidEnvelope):
        check_infos({"ann": Info(1, b"{}"), "bob": Info(1, json)})


def test_nothing_may_be_said_of_a_user() -> None:
    check_infos({"ann": Info(1), "bob": Info(1, b'{"name":"Bob"}')})
