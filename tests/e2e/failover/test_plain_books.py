"""The books of rooms without history find what must never be: each fault, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.support.plain_rooms import Ear, PlainRoom


def room(outcomes: str, got: Sequence[int], gaps: Sequence[int | None] = (), *, node: int = 1) -> PlainRoom:
    """A room in which a voice of node 0 said as much as there are outcomes, by first letters, and one has an ear."""
    found = PlainRoom("plain:1")
    for outcome in outcomes:
        found.became("ann", found.begin("ann", 0), {"p": "published", "r": "refused", "u": "unknown"}[outcome])
    ear = Ear("bob", node)
    for number in got:
        ear.heard("ann", number)
    ear.gaps.extend(gaps)
    found.ears.append(ear)
    return found


@pytest.mark.parametrize(
    ("books", "sums"),
    [
        (room("ppp", [0, 1, 2]), (0, 0)),
        (room("prp", [0, 2]), (0, 0)),
        (room("ppp", [0, 2], [1]), (1, 0)),
        (room("pup", [0, 2], [1]), (1, 0)),
        (room("pup", [0, 1, 2]), (0, 0)),
        (room("pppp", [0, 3], [None]), (2, 1)),
        (room("pppp", [0, 3], [1, 1]), (2, 0)),
        (room("pppp", [0, 1], [0]), (0, 0)),  # what is behind the last one is still on its way
        (room("pru", [0, 1, 2], node=0), (0, 0)),
    ],
)
def test_books_that_add_up_are_balanced(books: PlainRoom, sums: tuple[int, int]) -> None:
    assert books.faults() == []
    assert books.wrong() == []
    assert books.balance() == sums


@pytest.mark.parametrize(
    "books",
    [room("ppp", [0, 2]), room("ppp", [0, 1, 2], [1]), room("ppp", [0, 2], [2]), room("pup", [0, 2], [0])],
)
def test_what_is_lost_and_not_told_is_found(books: PlainRoom) -> None:
    assert len(books.wrong()) == 1


@pytest.mark.parametrize(
    ("books", "what"),
    [
        (room("ppp", [0, 0, 1]), "came behind"),
        (room("ppp", [1, 0, 2]), "came behind"),
        (room("prp", [0, 1, 2]), "refused"),
        (room("ppp", [0, 1, 2, 3]), "never said"),
        (room("ppp", [0, 2], node=0), "of its own node"),
    ],
)
def test_what_must_never_be_is_found(books: PlainRoom, what: str) -> None:
    assert any(what in fault for fault in books.faults())


def test_what_was_told_before_the_books_were_balanced_does_not_count_again() -> None:
    books = room("pppp", [0, 2], [None])
    assert books.balance() == (1, 1)
    books.ears[0].heard("ann", 3)
    assert books.wrong() == []
    books.became("ann", books.begin("ann", 0), "published")
    books.became("ann", books.begin("ann", 0), "published")
    books.ears[0].heard("ann", 5)
    assert len(books.wrong()) == 1
