"""What is judged to be recovered is whole and what it was; every other position has its reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velocity_ws.history.entries import Entry, Stamp
from velocity_ws.history.items import Top
from velocity_ws.history.positions import Position
from velocity_ws.history.recovery import View, judge, view_of

EPOCH = b"epoch1"


def mark(life: int, offset: int) -> bytes:
    return b"%1d%07d" % (life, offset)


def entry(offset: int, life: int = 0, before: int | None = None) -> Entry:
    """An entry of a log; ``before`` is the life of the entry before it."""
    position = Position(EPOCH, offset, 0, mark(life, offset))
    return Entry(Stamp(position, mark(life if before is None else before, offset - 1), 0), b"%d" % offset)


def top(offset: int, evicted: int = 0, *, life: int = 0, revision: int = 0) -> Top:
    return Top(Position(EPOCH, offset, revision, mark(life, offset)), evicted, 0)


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[Entry], int, Top]:
    """A log that was forked at some offset: all entries that are its own, the first that is left, and its end."""
    end = draw(st.integers(0, 12))
    fork = draw(st.integers(0, end))
    evicted = draw(st.integers(0, end))
    first = draw(st.integers(evicted + 1, end + 1))
    lives = [0 if offset <= fork else 1 for offset in range(end + 1)]
    entries = [entry(offset, lives[offset], lives[offset - 1]) for offset in range(1, end + 1)]
    return entries, first, top(end, evicted, life=lives[end])


@given(logs(), st.integers(0, 14), st.integers(0, 1), st.integers(1, 14), st.booleans())
def test_all_or_nothing(log: tuple[list[Entry], int, Top], offset: int, life: int, limit: int, whole: bool) -> None:
    entries, first, end = log
    position = Position(EPOCH, offset, 0, mark(life, offset))
    is_own = offset <= end.position.offset and position.mark == (
        entries[offset - 1].stamp.position.mark
        if offset
        else mark(entries[0].stamp.previous[0] - 48 if entries else 0, 0)
    )
    kept = [each for each in entries if each.stamp.position.offset >= first]
    shown = kept if whole else [each for each in kept if each.stamp.position.offset > offset]
    reason = judge(position, end, view_of(position, end, shown), removed=0, limit=limit)
    missed = [each for each in kept if each.stamp.position.offset > offset]
    if reason is None:
        assert is_own
        assert [each.stamp.position.offset for each in missed] == list(range(offset + 1, end.position.offset + 1))
        assert len(missed) <= limit
    elif reason == "rewound":
        assert not is_own
    elif reason == "evicted":
        assert offset < end.evicted
    elif reason == "expired":
        assert end.evicted <= offset < first - 1
    else:
        assert reason == "too_many"
        assert end.position.offset - offset > limit
    if is_own and offset >= first - 1 and end.position.offset - offset <= limit:
        assert reason is None


@pytest.mark.parametrize(
    ("position", "end", "removed", "reason"),
    [
        (Position(b"other!", 3, 0, mark(0, 3)), top(3), 0, "epoch"),
        (Position(b"other!", 3, 0, mark(0, 3)), top(3, revision=1), 1, "epoch"),
        (Position(EPOCH, 3, 0, mark(0, 3)), top(3, revision=1), 1, "forbidden"),
        (Position(EPOCH, 3, 1, mark(0, 3)), top(3, revision=1), 1, None),
        (Position(EPOCH, 3, 1, mark(0, 3)), top(3, revision=2), 1, None),
        (Position(EPOCH, 3, 3, mark(0, 3)), top(3, revision=2), 1, "rewound"),
        (Position(EPOCH, 4, 0, mark(0, 4)), top(3), 0, "rewound"),
        (Position(EPOCH, 4, 0, mark(0, 4)), top(3, revision=1), 1, "forbidden"),
        (Position(EPOCH, 3, 0, mark(1, 3)), top(3), 0, "rewound"),
    ],
)
def test_positions_of_other_times(position: Position, end: Top, removed: int, reason: str | None) -> None:
    assert judge(position, end, view_of(position, end, []), removed=removed, limit=100) == reason


@pytest.mark.parametrize(
    ("offset", "oldest", "evicted", "reason"),
    [(3, 9, 8, None), (9, 10, 8, None), (3, 10, 8, "expired"), (3, 10, 9, "evicted"), (8, 9, 8, None)],
)
def test_the_newest_stands_for_all_before_it(offset: int, oldest: int, evicted: int, reason: str | None) -> None:
    position = Position(EPOCH, offset, 0, mark(0, offset))
    view = View(oldest, mark(0, offset) if offset >= oldest - 1 else None)
    assert judge(position, top(9, evicted), view, removed=0, limit=1, is_latest=True) == reason


def test_what_nothing_proves_is_not_recovered() -> None:
    position = Position(EPOCH, 3, 0, mark(0, 3))
    assert judge(position, top(9), View(4, None), removed=0, limit=100) == "evicted"


def test_a_range_that_ends_before_the_position_shows_nothing_of_it() -> None:
    position = Position(EPOCH, 7, 0, mark(0, 7))
    assert view_of(position, top(9), [entry(2), entry(3)]) == View(10, None)
