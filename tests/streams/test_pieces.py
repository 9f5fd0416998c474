"""Pieces: what is packed is unpacked, what is cut and joined stays the same, and what is none is refused."""

from __future__ import annotations

import json
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velocity_ws.streams.items import End
from velocity_ws.streams.pieces import (
    HEADER_SIZE,
    InvalidPiece,
    Kind,
    Piece,
    join,
    note_of,
    pack,
    pack_end,
    peek,
    unpack,
)

ENDS: list[End] = ["", "done", "cancelled", "error", "lost"]
characters = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5)


def text_piece(text: str, number: int = 0, start: int = 0, end: End = "") -> Piece:
    return Piece(number, start, len(text), "text" if text else "", end, text.encode())


def item_piece(items: list[object], number: int = 0, start: int = 0, end: End = "") -> Piece:
    data = ",".join(json.dumps(item) for item in items).encode()
    return Piece(number, start, len(items), "items" if items else "", end, data)


def byte_piece(data: bytes, number: int = 0, start: int = 0, end: End = "") -> Piece:
    return Piece(number, start, len(data), "bytes" if data else "", end, data)


numbers = st.integers(0, 2**52)
ends = st.sampled_from(ENDS)
wholes = st.one_of(
    st.builds(text_piece, characters, numbers, numbers, ends),
    st.builds(item_piece, st.lists(json_values, min_size=1, max_size=8), numbers, numbers, ends),
    st.builds(byte_piece, st.binary(min_size=1, max_size=40), numbers, numbers, ends),
)
notes = st.binary(min_size=1, max_size=300)
noted = st.builds(lambda piece, note: piece._replace(note=note), wholes, notes)


@given(wholes)
def test_what_is_packed_is_unpacked(piece: Piece) -> None:
    payload = pack(piece)
    assert unpack(payload) == piece
    assert len(payload) == HEADER_SIZE + len(piece.data)


@given(noted)
def test_a_note_is_kept_beside_what_was_said(piece: Piece) -> None:
    payload = pack(piece)
    assert unpack(payload) == piece
    assert note_of(payload) == piece.note
    assert peek(payload) == (piece.number, piece.start, piece.length, piece.end)
    assert note_of(pack(piece._replace(note=b""))) == b""
    nothing = piece._replace(kind="", length=0, data=b"")
    assert unpack(pack(nothing)) == nothing


@given(noted, st.integers(0, 2**20))
def test_a_note_that_is_cut_off_is_none(piece: Piece, at: int) -> None:
    payload = pack(piece)
    cut = payload[: at % (len(payload) - len(piece.data))]
    assert note_of(cut) == b""
    with pytest.raises(InvalidPiece):
        unpack(cut)


@given(noted, notes)
def test_what_is_left_of_a_piece_has_its_note_and_several_together_have_none(piece: Piece, note: bytes) -> None:
    assert piece.after(piece.start + 1).note == piece.until(piece.start + 1).note == piece.note
    behind = piece._replace(number=piece.number + 1, start=piece.stop, note=note)
    assert join([piece, behind]).note == b""
    assert join([piece]) is piece


@given(wholes, st.integers(0, 2**32))
def test_a_piece_that_is_cut_anywhere_and_joined_is_the_same(piece: Piece, seed: int) -> None:
    chance = random.Random(seed)
    places = sorted({piece.start, piece.stop, *(chance.randint(piece.start, piece.stop) for _ in range(4))})
    cuts = [piece.after(start).until(stop) for start, stop in pairwise(places)]
    for cut in cuts:
        assert unpack(pack(cut)) == cut
    assert [(cut.start, cut.stop) for cut in cuts] == list(pairwise(places))
    assert [cut.end for cut in cuts] == ["" for _ in cuts[1:]] + [piece.end]  # only the last one ends
    assert join(cuts) == piece


@given(wholes)
def test_a_reader_that_has_all_of_a_piece_needs_its_end_alone(piece: Piece) -> None:
    assert piece.after(piece.start) is piece
    assert piece.after(0) is piece
    assert piece.until(piece.stop) is piece
    rest = piece.after(piece.stop + 1)
    assert (rest.start, rest.length, rest.data, rest.end) == (piece.stop, 0, b"", piece.end)


def of_nothing(number: int, start: int, end: End = "") -> Piece:
    return Piece(number, start, 0, "", end, b"")


def test_pieces_of_nothing_leave_no_trace() -> None:
    texts = [of_nothing(0, 0), text_piece("é", 1), of_nothing(2, 1), text_piece("𝄞", 3, 1), of_nothing(4, 2, "error")]
    assert join(texts) == text_piece("é𝄞", end="error")
    items = [of_nothing(0, 0), item_piece([1], 1), of_nothing(2, 1), item_piece(["a", None], 3, 1), of_nothing(4, 3)]
    assert join(items) == item_piece([1, "a", None])
    assert join([of_nothing(0, 0), of_nothing(1, 0, "done")]) == of_nothing(0, 0, "done")


@pytest.mark.parametrize("end", ENDS[1:])
def test_an_end_of_others_is_a_piece_of_nothing(end: End) -> None:
    assert unpack(pack_end(7, 100, end)) == Piece(7, 100, 0, "", end, b"")


def packed(kind: Kind, length: int, data: bytes) -> bytes:
    return pack(Piece(1, 2, length, kind, "", data))


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "too short"),
        (pack_end(0, 0, "done")[:-1], "too short"),
        (pack_end(0, 0, "done")[:-1] + b"\x05", "header"),
        (pack_end(0, 0, "done")[:-2] + b"\x04\x00", "header"),
        (pack_end(2**53 + 1, 0, "done"), "header"),
        (pack_end(0, 2**53 + 1, "done"), "header"),
        (packed("text", 0, b"a"), "header"),
        (packed("text", 1, b""), "header"),
        (packed("", 1, b"a"), "no kind"),
        (packed("text", 1, b"\xff"), "not text"),
        (packed("text", 3, b"\xed\xa0\x80"), "not text"),  # half a character
        (packed("text", 1, "é".encode()[:1]), "not text"),
        (packed("text", 2, "é".encode()), "1 and not 2"),
        (packed("items", 1, b"{"), "not items"),
        (packed("items", 1, b"1,"), "not items"),
        (packed("items", 1, b"1],[1"), "not items"),
        (packed("items", 1, b"[" * 100_000), "not items"),
        (packed("items", 1, b"1,2"), "2 and not 1"),
        (packed("bytes", 3, b"12"), "2 and not 3"),
        (pack(Piece(0, 0, 0, "", "", b"", b"note"))[:-1], "note is cut off"),
        (pack_end(0, 0, "done")[:-2] + b"\x80\x00", "note is cut off"),
    ],
)
def test_what_is_no_piece_is_refused(payload: bytes, why: str) -> None:
    with pytest.raises(InvalidPiece, match=why):
        unpack(payload)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_piece_or_refused(payload: bytes) -> None:
    try:
        piece = unpack(payload)
    except InvalidPiece:
        return
    assert pack(piece) == payload
