"""Losses: a range for each room, in the order in which rooms lost something first; no more rooms than can be said."""

from __future__ import annotations

from tests.support.json_values import read
from velocity_ws.delivery.losses import MAX_ROOMS, Losses, LostRange
from velocity_ws.messages.events import encode_lost
from velocity_ws.messages.outbound import PlacedMessage, encode, placed


def message(room: str, number: int) -> PlacedMessage:
    return placed(encode("said").payload, room, str(number), str(number - 1))


def test_each_room_has_one_range() -> None:
    losses = Losses()
    for room, number in (("a", 5), ("b", 1), ("a", 6), ("a", 7), ("b", 2)):
        losses.add(message(room, number))
    assert list(losses) == [LostRange("a", "4", "7", 3), LostRange("b", "0", "2", 2)]
    assert losses.count == 5


def test_a_range_is_told_as_a_gap() -> None:
    told = {"room": "a", "missed": 3, "reason": "dropped", "from": "4", "at": "7"}
    assert read(LostRange("a", "4", "7", 3).encode()) == {"event": "gap", "data": told}


def test_a_gap_that_is_lost_is_part_of_the_range_and_says_why() -> None:
    losses = Losses()
    losses.add(message("a", 5))
    losses.add(encode_lost("a", 3, "evicted", "8", "5"))
    assert list(losses) == [LostRange("a", "4", "8", 4, "evicted")]
    losses.add(encode_lost("a", None, "epoch", "x0", "8"))
    losses.add(message("a", 1))
    assert list(losses) == [LostRange("a", "4", "1", None, "epoch")]
    assert losses.count == 4


def test_of_too_many_rooms_the_first_can_be_told_and_no_others() -> None:
    losses = Losses()
    for _ in range(2):
        told = [losses.add(message(f"room {number}", 1)) for number in range(MAX_ROOMS + 50)]
        assert told == [True] * MAX_ROOMS + [False] * 50
    assert [lost.room for lost in losses] == [f"room {number}" for number in range(MAX_ROOMS)]
    assert losses.count == 2 * MAX_ROOMS
