"""Tail: pieces are taken in order and once, what was said last is kept, and who waits is woken."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import DEADLINE
from velocity_ws.streams.items import WRITER_SIZE, Summary
from velocity_ws.streams.pieces import Piece, join
from velocity_ws.streams.tail import KEPT, MADE, MOST_MADE, Tail


def piece(number: int, start: int, data: bytes, *, is_end: bool = False) -> Piece:
    return Piece(number, start, len(data), "bytes" if data else "", "done" if is_end else "", data, b"note")


def pieces_of(parts: list[bytes], *, is_closed: bool = False) -> list[Piece]:
    found: list[Piece] = []
    for number, part in enumerate(parts):
        is_end = is_closed and number == len(parts) - 1
        found.append(piece(number, sum(map(len, parts[:number])), part, is_end=is_end))
    return found


@given(st.lists(st.binary(max_size=9), min_size=1, max_size=9), st.booleans(), st.randoms())
def test_pieces_are_taken_in_order_and_once(parts: list[bytes], is_closed: bool, chance: object) -> None:
    pieces = pieces_of(parts, is_closed=is_closed)
    tail = Tail("a")
    for number, each in enumerate(pieces):
        for later in pieces[number + 1 :]:
            assert not tail.take(later)  # before it there is a hole
        assert tail.number == number
        assert tail.take(each)
        assert number == 0 or tail.take(each)
        assert (tail.number, tail.length, tail.note) == (number + 1, each.stop, b"note")
    whole = b"".join(parts)
    assert tail.end == ("done" if is_closed else "")
    for cursor in range(len(whole)):
        kept = tail.kept(cursor)
        assert kept is not None
        assert join(kept).data == whole[cursor:]


def test_one_that_does_not_begin_where_the_last_ended_is_not_taken() -> None:
    tail = Tail("a")
    assert tail.take(piece(0, 0, b"ab"))
    assert not tail.take(piece(1, 3, b"c"))
    assert not tail.take(piece(1, 1, b"c"))
    assert tail.length == 2


def test_a_first_piece_behind_others_may_be_of_a_stream_that_was_begun_anew() -> None:
    tail = Tail("a")
    tail.take(piece(0, 0, b"ab"))
    tail.take(piece(1, 2, b"cd", is_end=True))
    assert tail.take(piece(1, 2, b"cd", is_end=True))
    assert not tail.take(piece(0, 0, b"new"))
    assert (tail.length, tail.end) == (4, "done")


@given(st.lists(st.integers(1, KEPT // 2), min_size=1, max_size=12))
def test_no_more_is_kept_than_its_bound_of_what_was_said_last(sizes: list[int]) -> None:
    tail = Tail("a")
    pieces = pieces_of([bytes([number]) * size for number, size in enumerate(sizes)])
    for each in pieces:
        tail.take(each)
    whole = b"".join(each.data for each in pieces)
    kept = next(cursor for cursor in (each.start for each in pieces) if tail.kept(cursor) is not None)
    assert len(whole) - kept <= max(KEPT, sizes[-1])
    got = tail.kept(kept)
    assert got is not None
    assert join(got).data == whole[kept:]
    assert kept == 0 or tail.kept(kept - 1) is None


def test_one_piece_that_is_larger_than_the_bound_is_kept() -> None:
    tail = Tail("a")
    tail.take(piece(0, 0, b"x" * (KEPT + 1)))
    assert tail.kept(0) is not None
    tail.take(piece(1, KEPT + 1, b"y"))
    assert tail.kept(0) is None
    assert tail.kept(KEPT + 1) is not None


async def test_who_waits_is_woken_by_each_change() -> None:
    tail = Tail("a")
    for change in (lambda: tail.take(piece(0, 0, b"a")), lambda: tail.take(piece(1, 1, b"")), tail.tell):
        waiting = [asyncio.create_task(tail.wait()) for _ in range(3)]
        await asyncio.sleep(0)  # they wait now
        assert not any(task.done() for task in waiting)
        change()
        async with asyncio.timeout(DEADLINE):
            await asyncio.gather(*waiting)


def test_what_the_engine_says_takes_the_place_of_what_was_heard() -> None:
    tail = Tail("a")
    tail.take(piece(0, 0, b"ab"))
    tail.learn(Summary("a", "t", "", b"w" * WRITER_SIZE, 5, 20, "lost", 0, 0, note=b"n"))
    assert (tail.number, tail.length, tail.end, tail.note) == (5, 20, "lost", b"n")
    assert tail.kept(0) is None
    assert tail.kept(2) is None


@pytest.mark.parametrize("count", [1, MOST_MADE, 10 * MOST_MADE])
def test_what_was_made_is_kept_until_the_next_piece_and_not_without_bound(count: int) -> None:
    tail = Tail("a")
    for number in range(count):
        tail.remember(number, "made", 4)
        assert tail.made[number] == "made"
    assert len(tail.made) <= MOST_MADE
    tail.take(piece(0, 0, b"a"))
    assert not tail.made


@pytest.mark.parametrize("size", [MADE // 2, MADE // 5, MADE + 1])
def test_of_what_was_made_the_last_is_kept_and_no_more_bytes_than_the_bound(size: int) -> None:
    tail = Tail("a")
    for _ in range(2):
        for number in range(20):
            for _ in range(2):
                tail.remember(number, "made", size)
            assert list(tail.made) == list(range(max(0, number + 1 - max(1, MADE // size)), number + 1))
        tail.tell()
        assert not tail.made
