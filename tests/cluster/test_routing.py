"""Routing: a message that comes by several rooms is given to each client once; one to a room of a kind carries it."""

from __future__ import annotations

from typing import Literal

import pytest

from velocity_ws.cluster.envelopes import Publication
from velocity_ws.cluster.routing import Arrivals, routes
from velocity_ws.cluster.topics import Topics
from velocity_ws.messages.address import Address
from velocity_ws.messages.outbound import PreparedMessage

NODE = "elevenchars"


def test_who_had_it_is_remembered_for_a_while_and_not_more_than_so_many() -> None:
    now = [0.0]
    clients = {f"r{number}": [f"{number}.{one}" for one in range(30_000)] for number in range(10)}
    arrivals = Arrivals(lambda address: set(clients[next(iter(address.names))]) - address.excluded, lambda: now[0])

    def arrives(number: int, room: str) -> frozenset[str]:
        return arrivals.address_of(NODE, Publication("rooms", (room,), number, (), True, b"{}"))[0].excluded

    assert arrives(1, "r0") == frozenset()
    assert len(arrives(1, "r0")) == 30_000
    assert arrives(0, "r0") == frozenset()  # for one room alone nothing is remembered
    for number in range(2, 10):
        arrives(number, f"r{number}")
    assert sum(len(had) for _, _, had in arrivals._had.values()) <= 130_000
    assert arrives(1, "r1") == frozenset()
    assert len(arrives(9, "r1")) == 30_000
    now[0] = 6.0
    arrives(11, "r1")
    assert len(arrivals._had) == 1


@pytest.mark.parametrize("kind", ["rooms", "users"])
def test_who_is_named_twice_is_sent_to_once(kind: Literal["rooms", "users"]) -> None:
    topics = Topics("velocity")
    sent = list(routes(topics, NODE, Address(kind, ("a", "b", "a")), PreparedMessage(b"{}")))
    assert [topic for topic, _ in sent] == [topics.of("room" if kind == "rooms" else "user", name) for name in "ab"]


@pytest.mark.parametrize(
    ("kind", "name", "number", "is_text", "is_changed"),
    [
        ("rooms", "chat:7", 0, True, True),
        ("rooms", "tea", 0, True, False),
        ("rooms", "chat:7", 5, True, False),  # it came by several rooms
        ("rooms", "chat:7", 0, False, False),
        ("users", "chat:7", 0, True, False),
    ],
)
def test_what_is_sent_to_one_room_of_a_kind_alone_carries_it(
    kind: Literal["rooms", "users"], name: str, number: int, is_text: bool, is_changed: bool
) -> None:
    arrivals = Arrivals(lambda _: (), lambda: 0.0, lambda room: room.startswith("chat:"))
    payload, with_room = b'{"event":"e","data":1}', b'{"event":"e","data":1,"room":"chat:7"}'
    message = arrivals.message_of(Publication(kind, (name,), number, (), is_text, payload, False, "k"))
    assert message.payload == (with_room if is_changed else payload)
    assert (message.is_text, message.volatile, message.key) == (is_text, False, "k")
    again = arrivals.message_of(Publication(kind, (name,), number, (), is_text, with_room, True))
    assert again.payload == with_room
    assert (again.volatile, again.key) == (True, None)
