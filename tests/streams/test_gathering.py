"""Gathering: however a text is cut, its pieces are that text; items stay items; what is too much is refused whole."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from velocity_ws import EncodeError
from velocity_ws.streams.gathering import Gathering, LargeItem
from velocity_ws.streams.items import End
from velocity_ws.streams.pieces import HEADER_SIZE, Piece, join, unpack

LIMIT = 1024 * 1024
any_text = st.text(st.characters(), max_size=60) | st.text(
    st.sampled_from("aé\ud834\udd1e\U0001d11e\u2028"), max_size=60
)
cuts = st.lists(st.integers(0, 300), max_size=20)


def whole(text: str) -> str:
    """A text in which every half of a character is none."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def parts_of(said: Any, places: Sequence[int]) -> list[Any]:
    """A text, or bytes, cut at some places."""
    edges = sorted({0, len(said), *(place for place in places if place < len(said))})
    return [said[start:stop] for start, stop in pairwise(edges)]


def taken(gathering: Gathering, most: int = 64, end: End = "done") -> list[Piece]:
    """All that waits, as pieces."""
    pieces: list[Piece] = []
    while not gathering.is_empty or (end and not gathering.has_ended):
        pieces.append(unpack(gathering.take(most, end)))
    return pieces


def gathered(said: Sequence[Any], seed: int = 0) -> list[Piece]:
    """The pieces of what is said, some of which are taken in between."""
    chance = random.Random(seed)
    gathering = Gathering(LIMIT, LIMIT)
    pieces: list[Piece] = []
    for each in said:
        assert gathering.add(each) == gathering.waiting
        if chance.random() < 0.5:
            pieces.append(unpack(gathering.take(chance.randint(1, 64))))
    gathering.finish()
    pieces += taken(gathering, chance.randint(1, 64))
    assert (gathering.waiting, gathering.is_empty) == (0, True)
    assert (gathering.number, gathering.length) == (len(pieces), pieces[-1].stop)
    return pieces


def check_order(pieces: list[Piece]) -> None:
    assert [piece.number for piece in pieces] == list(range(len(pieces)))
    stops = [0, *(piece.stop for piece in pieces)]
    assert [piece.start for piece in pieces] == stops[:-1]
    assert [piece.end for piece in pieces] == [""] * (len(pieces) - 1) + ["done"]


# --- text


@given(any_text, cuts, st.integers(0, 2**32))
@example("\U0001d11e".encode("utf-16-le").decode("utf-16-le", "surrogatepass"), [1], 0)
@example("\ud834\udd1e", [1], 0)
@example("\ud834\ud834\udd1e\udd1e", [1, 2, 3], 1)
def test_text_that_is_cut_anywhere_is_the_text(text: str, places: list[int], seed: int) -> None:
    pieces = gathered(parts_of(text, places), seed)
    check_order(pieces)
    assert join(pieces).data.decode() == whole(text)


@given(st.binary(max_size=60) | any_text.map(lambda text: whole(text).encode()), cuts, st.integers(0, 2**32))
def test_bytes_that_are_cut_anywhere_are_their_text(data: bytes, places: list[int], seed: int) -> None:
    pieces = gathered(parts_of(data, places), seed)
    check_order(pieces)
    assert join(pieces).data.decode() == data.decode(errors="replace")


@pytest.mark.parametrize("of_bytes", [bytes, bytearray, memoryview])
def test_all_kinds_of_bytes_are_text(of_bytes: type) -> None:
    assert join(gathered([of_bytes("é".encode()[:1]), of_bytes("é!".encode()[1:])])).data.decode() == "é!"


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (["\ud834"], "\ufffd"),
        (["\ud834", "", "\udd1e"], "\U0001d11e"),
        (["\ud834", b"a"], "\ufffda"),
        (["\udd1e\ud834"], "\ufffd\ufffd"),
        ([b"\xe2\x82"], "\ufffd"),
        ([b"\xe2\x82", "a", b"\xac"], "\ufffda\ufffd"),
        ([b"\xe2\x82", "", b"\xac"], "€"),
        ([b"\xe2", b"", b"\x82\xac"], "€"),
        ([""], ""),
        ([], ""),
    ],
)
def test_half_a_character_waits_for_its_other_half_and_no_longer(said: list[Any], text: str) -> None:
    assert join(gathered(said)).data.decode() == text


def test_line_ends_pass_unchanged() -> None:
    text = "one\r\ntwo\u2028three\u2029\x00four\x85"
    assert join(gathered(parts_of(text, [4, 5, 8]))).data.decode() == text


# --- items

items = st.lists(st.recursive(st.none() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])), st.lists))


@given(items, st.integers(0, 2**32))
def test_items_are_those_that_were_said(said: list[Any], seed: int) -> None:
    pieces = gathered([{"first": 1}, *said], seed)
    check_order(pieces)
    assert json.loads(b"[%b]" % join(pieces).data) == [{"first": 1}, *said]
    assert pieces[-1].stop == 1 + len(said)


def test_behind_an_item_text_is_one_too() -> None:
    gathering = Gathering(LIMIT, LIMIT)
    gathering.add({"type": "start"})
    gathering.add("text")
    with pytest.raises(TypeError, match="this one has items"):
        gathering.add(b"bytes")
    assert join(taken(gathering)).data == b'{"type":"start"},"text"'


def test_behind_text_there_are_no_items() -> None:
    gathering = Gathering(LIMIT, LIMIT)
    gathering.add("")
    with pytest.raises(TypeError, match="this one has text"):
        gathering.add({"an": "item"})
    gathering.add(None)
    gathering.add("text")
    assert join(taken(gathering)).data == b"text"


def test_an_item_without_a_json_form_settles_nothing() -> None:
    gathering = Gathering(LIMIT, LIMIT)
    with pytest.raises(EncodeError):
        gathering.add({object()})
    gathering.add("text")
    assert gathering.kind == "text"


# --- limits


@given(st.lists(any_text | st.binary(max_size=20), max_size=12), st.integers(0, 80))
def test_what_is_too_much_is_refused_whole(said: list[Any], limit: int) -> None:
    bounded, kept = Gathering(limit, LIMIT), list[Any]()
    for each in said:
        free = Gathering(LIMIT, LIMIT)
        for every in [*kept, each]:
            free.add(every)
        if free.size > limit:
            with pytest.raises(OverflowError):
                bounded.add(each)
        else:
            bounded.add(each)
            kept.append(each)
    free = Gathering(LIMIT, LIMIT)
    for every in kept:
        free.add(every)
    assert bounded.size == free.size
    assert join(taken(bounded)) == join(taken(free))


def test_a_long_write_beyond_the_limit_leaves_nothing_of_it() -> None:
    gathering = Gathering(100_000, LIMIT)
    gathering.add("\ud834")
    with pytest.raises(OverflowError):
        gathering.add("\udd1e" + "x" * 99_997)
    assert (gathering.size, gathering.waiting, gathering.is_empty) == (0, 0, True)
    gathering.add("\udd1e" + "x" * 99_996)
    assert gathering.size == 100_000
    with pytest.raises(OverflowError):
        gathering.add("x")
    assert join(taken(gathering)).length == 99_997


def test_half_a_character_for_which_there_is_no_room_is_left_out() -> None:
    gathering = Gathering(4, LIMIT)
    gathering.add(b"ab\xe2\x82")
    gathering.finish()
    assert join(taken(gathering)).data == b"ab"
    gathering = Gathering(2, LIMIT)
    gathering.add("ab\ud834")
    gathering.finish()
    assert join(taken(gathering)).data == b"ab"


def test_an_item_beyond_the_limit_is_refused() -> None:
    gathering = Gathering(10, LIMIT)
    with pytest.raises(OverflowError):
        gathering.add(["123456789"])
    gathering.add("1234567890")
    assert gathering.size == 10


def test_an_item_that_is_too_large_is_refused_and_text_is_cut() -> None:
    gathering = Gathering(LIMIT, 10)
    with pytest.raises(LargeItem):
        gathering.add(["1234567"])
    gathering.add(["123456"])
    assert join(taken(gathering)).data == b'["123456"]'
    gathering = Gathering(LIMIT, 10)
    gathering.add("1234567890a")
    assert gathering.size == 11


# --- pieces


def test_a_piece_has_no_more_than_it_may_but_for_one_part_alone() -> None:
    gathering = Gathering(LIMIT, LIMIT)
    gathering.add("é" * 20_000)
    for _ in range(100):
        gathering.add("0123456789")
    sizes = [len(gathering.take(20_000)) - HEADER_SIZE for _ in range(4)]
    assert sizes == [16_384, 16_384, 8_232, 0]
    gathering = Gathering(LIMIT, LIMIT)
    gathering.add(["x" * 1000])
    gathering.add(1)
    assert [piece.length for piece in taken(gathering, 100, "")] == [1, 1]


def test_an_end_waits_for_all_that_was_said() -> None:
    gathering = Gathering(LIMIT, LIMIT)
    gathering.add("x" * 10)
    gathering.add("y" * 10)
    assert (unpack(gathering.take(10, "done")).end, gathering.has_ended) == ("", False)
    assert (unpack(gathering.take(10, "done")).end, gathering.has_ended) == ("done", True)


def test_nothing_was_said_is_a_piece_too() -> None:
    gathering = Gathering(LIMIT, LIMIT)
    assert unpack(gathering.take(10)) == Piece(0, 0, 0, "", "", b"")
    assert unpack(gathering.take(10, "done")) == Piece(1, 0, 0, "", "done", b"")


@pytest.mark.parametrize("said", ["\n", 7])
def test_much_that_was_said_in_little_takes_little_more_than_its_bytes(said: Any) -> None:
    gathering = Gathering(LIMIT, LIMIT)
    for _ in range(100_000):
        assert gathering.add(said) == gathering.waiting
    assert len(gathering._parts) < 2000
    pieces = taken(gathering, 40 * 1024)
    assert join(pieces).length == 100_000
    assert (gathering.waiting, len(pieces) < 10) == (0, True)
