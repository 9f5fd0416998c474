"""The ledger of the tests in this room finds what must never be: each fault, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.trails import Log, Trail
from velocity_ws.history.positions import Position

ROOM = "chat:1"


def at(offset: int, epoch: bytes = b"epoch1", mark: bytes = b"m") -> str:
    """A position."""
    return Position(epoch, offset, 0, (mark * 8)[:7] + bytes([offset])).at


def said(count: int, *, not_for: int | None = None) -> Log:
    """A log of so many messages."""
    log = Log(ROOM)
    for number in range(count):
        assert log.begin() == number
        log.taken(number, at(number + 1))
        if number == not_for:
            log.not_for[number] = {"ann"}
    return log


def follow(log: Log, *numbers: int) -> Trail:
    """A client that has joined at the beginning and got these."""
    trail = Trail(log, "ann")
    trail.joined({"room": ROOM, "at": at(0)}, None)
    for number in numbers:
        trail.message(number, at(number + 1))
    return trail


def back(trail: Trail, since: int, missed: int, *numbers: int) -> Trail:
    """The same client, that has come back."""
    trail.away("cut")
    place = at(since)
    trail.joined({"room": ROOM, "at": place, "recovered": True, "missed": missed}, place)
    for number in numbers:
        trail.message(number, at(number + 1))
    return trail


def gap(trail: Trail, begin: int, end: int, missed: int | None, **more: str) -> Trail:
    """The same, once it was told of a gap."""
    trail.gap({"room": ROOM, "from": at(begin), "at": at(end), "missed": missed, "reason": "evicted", **more})
    return trail


@pytest.mark.parametrize(("trail", "sums"), [
    (lambda: follow(said(3), 0, 1, 2), (3, 0)),
    (lambda: back(follow(said(3), 0), 1, 2, 1, 2), (3, 0)),
    (lambda: gap(follow(said(3), 0), 1, 3, 2), (1, 2)),
    (lambda: gap(follow(said(3), 0), 1, 3, None), (1, 2)),
    (lambda: follow(said(3, not_for=1), 0, 2), (2, 0)),
    (lambda: back(follow(said(3), 0, 1, 2), 1, 2, 1, 2), (3, 0)),  # it asked for them again
])  # fmt: skip
def test_what_is_right_is_found_right(trail: Callable[[], Trail], sums: tuple[int, int]) -> None:
    assert trail().proves() == sums


@pytest.mark.parametrize(("trail", "says"), [
    (lambda: follow(said(3), 0, 2), "a hole"),
    (lambda: follow(said(3), 0, 1), "nothing tells that 2"),
    (lambda: follow(said(3), 0, 0, 1, 2), "a repeat"),
    (lambda: follow(said(3), 1, 0, 2), "an inversion"),
    (lambda: back(follow(said(3), 0), 1, 3, 1, 2), "3 missed, and there are 2 at most"),
    (lambda: back(follow(said(3), 0), 1, 2, 2), "a hole"),
    (lambda: gap(follow(said(3), 0), 1, 2, 2), "the gap says 2"),
    (lambda: gap(follow(said(3), 0), 0, 3, 3), "the gap begins at"),
    (lambda: gap(follow(said(3), 0), 1, 3, 2, reason="because"), "another form"),
    (lambda: follow(said(3, not_for=1), 0, 1, 2), "which was not for it"),
    (lambda: follow(said(3, not_for=0), 0, 2), "which was not for it"),
    (lambda: follow(said(4, not_for=1), 0, 3), "nothing tells that 2"),
])  # fmt: skip
def test_what_must_not_be_is_found(trail: Callable[[], Trail], says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        trail().proves()


def test_other_messages_under_an_offset_are_found() -> None:
    trail = follow(said(3), 0)
    trail.message(1, at(2, mark=b"o"))
    with pytest.raises(AssertionError, match="1 is at"):
        trail.proves()


def test_another_life_of_a_log_must_be_told() -> None:
    log = said(3)
    trail = follow(log, 0, 1, 2)
    number = log.begin()
    log.taken(number, at(1, b"epoch2"))
    trail.message(number, at(1, b"epoch2"))
    with pytest.raises(AssertionError, match="another life"):
        trail.proves()


def test_what_comes_to_somebody_who_is_out_is_found() -> None:
    trail = follow(said(3), 0, 1)
    trail.put_out("FORBIDDEN")
    trail.message(2, at(3))
    with pytest.raises(AssertionError, match="not in the room"):
        trail.proves()


def lives(trail: Trail, *, is_back: bool = False) -> Trail:
    """A client that was there when a log began, and came back when all ten of its messages were lost.

    It comes into a life of the log in which nothing is said, and hears of it after the sender has heard of the next.
    """
    log, (first, second, third) = trail.log, (b"epoch1", b"epoch2", b"epoch3")
    trail.joined({"room": ROOM, "at": at(0, first)}, None)
    trail.away("cut")
    for offset in range(1, 11):
        log.taken(log.begin(), at(offset, first))
    number = log.begin()
    log.taken(number, at(1, third))
    came = {"room": ROOM, "at": at(0, second), "recovered": False, "reason": "epoch"}
    trail.joined(came, at(0, first))
    gap(trail, 0, 0, None, **{"from": at(0, second), "at": at(0, third), "reason": "epoch"})
    trail.message(number, at(1, third))
    if is_back:
        trail.joined(came, at(1, third))
    trail.away("cut")
    trail.joined({"room": ROOM, "at": trail.at, "recovered": True, "missed": 0}, trail.at)
    return trail


def test_what_is_lost_is_told_whoever_hears_first_of_which_life_of_a_log() -> None:
    assert lives(Trail(Log(ROOM), "ann")).proves() == (1, 10)


def test_a_life_of_a_log_of_which_its_sender_hears_last_was_there_before() -> None:
    log = Log(ROOM)
    trail = Trail(log, "ann")
    trail.joined({"room": ROOM, "at": at(0)}, None)
    late = log.begin()
    gap(trail, 0, 0, None, at=at(0, b"epoch3"), reason="epoch")
    log.taken(late, at(1, b"epoch2"))
    last = log.begin()
    log.taken(last, at(1, b"epoch3"))
    trail.message(last, at(1, b"epoch3"))
    assert trail.proves() == (1, 1)


def test_who_is_led_back_into_what_is_over_is_found() -> None:
    with pytest.raises(AssertionError, match="led back"):
        lives(Trail(Log(ROOM), "ann"), is_back=True).proves()
