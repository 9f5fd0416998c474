"""A position is 32 characters that anybody may hold, and nobody makes up; what is none is refused."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from velocity_ws.history.positions import MAX_OFFSET, InvalidPosition, Position, text_of

positions = st.builds(
    Position,
    st.binary(min_size=6, max_size=6),
    st.integers(0, MAX_OFFSET),
    st.integers(0, 2**24 - 1),
    st.binary(min_size=8, max_size=8),
)


@given(positions)
def test_a_position_is_read_back_from_its_text_and_from_its_bytes(position: Position) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", position.at)
    claim = Position.parse(position.at)
    assert claim[:3] == position[:3]
    assert claim.at == position.at == text_of(position.pack())
    assert position.is_behind(position.mark)
    assert claim.is_behind(position.mark)
    assert Position.unpack(position.pack()) == position
    assert len(position.pack()) == 24


@given(positions, positions)
def test_different_positions_have_different_texts(one: Position, other: Position) -> None:
    assert (one.at == other.at) == (one == other)


@given(positions, positions, st.sampled_from([("epoch",), ("offset",), ("revision",), ("mark",), ("offset", "mark")]))
def test_who_changes_a_position_has_none(one: Position, other: Position, fields: tuple[str, ...]) -> None:
    assume(one.mark != other.mark)  # which nobody guesses
    claim = Position.parse(one.at)
    changed = claim._replace(**{field: getattr(Position.parse(other.at), field) for field in fields})
    assert changed.is_behind(one.mark) == (changed == claim)
    assert claim.mark != one.mark


@pytest.mark.parametrize(
    "text",
    ["", "x" * 31, "x" * 33, "x" * 31 + "=", "x" * 31 + "+", "x" * 31 + "\n", "é" * 32, None, 7, b"x" * 32, ["x" * 32]],
)
def test_what_is_no_position_is_refused(text: object) -> None:
    with pytest.raises(InvalidPosition, match="as `at`"):
        Position.parse(text)


def test_an_offset_that_no_engine_counts_to_is_refused() -> None:
    with pytest.raises(InvalidPosition, match="never given"):
        Position.parse(Position(b"epoch!", MAX_OFFSET + 1, 0, b"8 bytes!").at)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidPosition):
        assert Position.parse(text).at == text


def test_what_a_client_says_is_held_against_what_is_known_whenever_it_was_given() -> None:
    known = Position(b"epoch1", 7, 3, b"mark" * 2)
    said = Position.parse(known._replace(revision=1).at)
    assert said.is_at(known)
    assert not said.is_at(known._replace(mark=b"other123"))
    assert not said.is_at(known._replace(offset=8))
    assert known.is_at(known._replace(revision=9))
