"""Descriptors left: connections are refused before none is left, although few of them are looked at."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from velocity_ws.uvicorn.descriptors_left import MANY, MOST_UNSEEN, RESERVE, DescriptorsLeft

MOST = 4096


class Connection(asyncio.BaseTransport):
    """A connection with a descriptor; it counts how often it is looked at."""

    def __init__(self, number: int | None) -> None:
        super().__init__()
        self.looks = 0
        self._number = number

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Of the socket alone."""
        self.looks += name == "socket"
        return default if self._number is None else self

    def fileno(self) -> int:
        """The socket's."""
        return -1 if self._number is None else self._number


@pytest.fixture(autouse=True)
def _limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velocity_ws.uvicorn.descriptors_left.most_open", lambda: MOST)


def test_no_connection_gets_one_of_the_reserve() -> None:
    left = DescriptorsLeft()
    taken = [number for number in range(10, MOST) if left.are_there(Connection(number))]
    assert taken == list(range(10, MOST - RESERVE))


def test_while_many_are_left_one_connection_of_sixteen_is_looked_at() -> None:
    left = DescriptorsLeft()
    connections = [Connection(10) for _ in range(160)]
    assert all(left.are_there(each) for each in connections)
    assert sum(each.looks for each in connections) == 160 // (MOST_UNSEEN + 1)


def test_each_connection_is_looked_at_where_few_are_left() -> None:
    left = DescriptorsLeft()
    few = [Connection(MOST - RESERVE - number) for number in range(1, MANY)]
    assert all(left.are_there(each) for each in few)
    assert all(each.looks == 1 for each in few)
    full = [Connection(MOST - RESERVE) for _ in range(50)]
    assert not any(left.are_there(each) for each in full)
    assert left.are_there(few[0])  # some have gone


def test_the_reserve_is_kept_although_an_application_opens_files_meanwhile() -> None:
    left = DescriptorsLeft()
    number = 10
    while left.are_there(Connection(number)):
        number += RESERVE  # the connection's, and 31 files
    assert number < MOST


def test_a_transport_without_a_socket_is_let_in() -> None:
    assert DescriptorsLeft().are_there(Connection(None))
