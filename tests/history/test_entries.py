"""An entry is an envelope and its stamp, side by side, and is read as it was written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velocity_ws.history.entries import STAMP_SIZE, Entry, InvalidEntry, Stamp, at_of, pack_stamp, time_of
from velocity_ws.history.positions import Position

stamps = st.builds(
    Stamp,
    st.builds(
        Position,
        st.binary(min_size=6, max_size=6),
        st.integers(0, 2**53),
        st.integers(0, 2**24 - 1),
        st.binary(min_size=8, max_size=8),
    ),
    st.binary(min_size=8, max_size=8),
    st.integers(0, 2**48),
)


@given(stamps, st.binary())
def test_an_entry_is_read_back(stamp: Stamp, envelope: bytes) -> None:
    data = Entry(stamp, envelope).pack()
    assert data.startswith(envelope)
    assert len(data) == len(envelope) + STAMP_SIZE
    assert Entry.unpack(data) == Entry(stamp, envelope)
    assert at_of(data[-STAMP_SIZE:]) == stamp.position.at
    assert time_of(data) == stamp.time


def test_a_number_that_has_no_room_in_a_stamp_is_none_of_another_entry() -> None:
    for offset, revision in ((2**56, 0), (1, 2**24)):
        with pytest.raises(OverflowError):
            pack_stamp(b"epoch.", offset, revision, b"the mark", b"previous", 1)


@given(st.binary(max_size=STAMP_SIZE - 1))
def test_what_is_too_short_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidEntry, match="40 bytes"):
        Entry.unpack(data)


@given(stamps)
def test_the_position_before_an_entry_is_that_of_who_has_the_one_before(stamp: Stamp) -> None:
    if not stamp.position.offset:
        return
    before = Position.parse(stamp.before.at)
    assert (before.epoch, before.offset) == (stamp.position.epoch, stamp.position.offset - 1)
    assert before.revision == stamp.position.revision
    assert before.is_behind(stamp.previous)
