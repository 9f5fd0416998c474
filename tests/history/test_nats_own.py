"""What a node has appended to logs on NATS is known for as long as nobody else has written there."""

from __future__ import annotations

from itertools import pairwise

from velocity_ws.history.entries import Stamp
from velocity_ws.history.nats_own import Own
from velocity_ws.history.positions import Position

EPOCH = b"epoch1"


def stamps(first: int, count: int, *, epoch: bytes = EPOCH, salt: int = 0) -> list[Stamp]:
    """Those of contiguous entries; with another salt they have other marks."""
    places = [Position(epoch, offset, 0, b"%d-%06d" % (salt, offset)) for offset in range(first - 1, first + count)]
    return [Stamp(place, before.mark, 1000 + place.offset) for before, place in pairwise(places)]


def added(own: Own, found: list[Stamp], topic: str = "t") -> Position:
    """Add entries, each of as many bytes as its offset; the end of the log then."""
    for stamp in found:
        own.add(topic, stamp, stamp.position.offset)
    return found[-1].position


def test_the_oldest_are_known_in_order_and_those_before_them_no_more() -> None:
    own = Own()
    top = added(own, stamps(1, 10))
    assert own.oldest("t", top, 3, 2) == [(3, 1003), (4, 1004)]
    assert own.oldest("t", top, 9, 5) == [(9, 1009), (10, 1010)]
    assert own.oldest("t", top, 8, 5) == []
    top = added(own, stamps(11, 1))
    assert own.oldest("t", top, 9, 5) == [(9, 1009), (10, 1010), (11, 1011)]
    assert own.oldest("t", top, 12, 5) == []


def test_nothing_is_known_of_a_log_to_which_another_has_appended() -> None:
    own = Own()
    top = added(own, stamps(1, 3))
    assert own.oldest("t", top._replace(offset=4, mark=b"anothers"), 1, 5) == []
    assert own.oldest("t", top._replace(epoch=b"epoch2"), 1, 5) == []
    assert own.oldest("t", top._replace(revision=7), 1, 5) == [(1, 1001), (2, 1002), (3, 1003)]
    top = added(own, stamps(5, 2))
    assert own.oldest("t", top, 1, 5) == []
    assert own.oldest("t", top, 5, 5) == [(5, 1005), (6, 1006)]


def test_nothing_is_known_of_what_was_before_a_log_went_back() -> None:
    own = Own()
    added(own, stamps(1, 5))
    top = added(own, stamps(6, 1, salt=1))
    assert own.oldest("t", top, 1, 9) == []
    assert own.oldest("t", top, 6, 9) == [(6, 1006)]


def test_logs_that_were_appended_to_longest_ago_are_given_up() -> None:
    own = Own(limit=5)
    tops = {topic: added(own, stamps(1, 2), topic) for topic in "abc"}
    assert own.oldest("a", tops["a"], 1, 9) == []
    assert own.oldest("b", tops["b"], 1, 9) == [(1, 1001), (2, 1002)]
    top = added(own, stamps(1, 7), "long")
    assert own.oldest("c", tops["c"], 1, 9) == []
    assert len(own.oldest("long", top, 7, 9)) == 1
