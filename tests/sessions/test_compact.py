"""A mapping of one entry is to its readers what a dictionary of one entry is, and takes a third of it."""

from __future__ import annotations

import sys

from velocity_ws.sessions.compact import One, with_entry
from velocity_ws.sessions.hub import Hub


class Person:
    """A member of a hub."""

    user_id = None

    def __init__(self, name: str) -> None:
        self.id = name

    def offer(self, message: object) -> bool:
        """Take it."""
        return True


def test_one_entry_reads_like_a_dictionary() -> None:
    one, same = One("a", 1), {"a": 1}
    assert one == same
    assert (len(one), list(one), list(one.values()), list(one.items())) == (1, ["a"], [1], [("a", 1)])
    assert (one["a"], one.get("a"), one.get("b"), one.get("b", 2)) == (1, 1, None, 2)
    assert ("a" in one, "b" in one) == (True, False)
    assert {**one} == dict(one) == {**same}


def test_an_entry_more_makes_a_dictionary_in_the_same_order() -> None:
    one = with_entry(None, "b", 1)
    two = with_entry(one, "a", 2)
    assert with_entry(two, "c", 3) is two
    assert (one, list(two.items())) == ({"b": 1}, [("b", 1), ("a", 2), ("c", 3)])


def test_one_entry_takes_a_third_of_a_dictionary() -> None:
    assert sys.getsizeof(One("a", 1)) < sys.getsizeof({"a": 1}) / 3


def test_all_members_of_a_room_have_one_object_for_its_name() -> None:
    hub: Hub[Person] = Hub()
    for name in ("ann", "bob", "cid"):
        hub.add(Person(name))
        hub.join(name, str(10**9))
    (name,) = hub.rooms()
    assert all(room is name for each in ("ann", "bob", "cid") for room in hub.rooms_of(each))
