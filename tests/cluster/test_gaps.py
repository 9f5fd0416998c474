"""Gaps: clients are told of every loss, whether it shows by what arrives or has to be asked for."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.support import eventually
from velocity_ws.cluster.gaps import Gaps
from velocity_ws.cluster.rpc import Replies
from velocity_ws.cluster.topics import Topics
from velocity_ws.messages.address import Address
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.stats import Counters

NODE = "elevenchars"

TOPICS = Topics("velocity")


class Clients:
    """Those of a node, who are told of gaps."""

    def __init__(self) -> None:
        self.told: list[tuple[Address, Any]] = []
        self.orders = 0
        self.gaps = Gaps(TOPICS, Counters(), self.deliver, self.missed_order)

    def missed_order(self) -> None:
        self.orders += 1

    def deliver(self, address: Address, message: PreparedMessage) -> None:
        self.told.append((address, json.loads(message.payload)["data"]))


def test_a_number_that_is_skipped_is_told_at_once() -> None:
    clients = Clients()
    topic = clients.gaps.track("room", "lobby")
    for number in (4, 5, 8):
        clients.gaps.received(topic, NODE, number)
    assert clients.told == [(Address("rooms", ("lobby",)), {"room": "lobby", "missed": 2})]
    clients.gaps.unsubscribed(topic, False)
    clients.gaps.received(topic, NODE, 20)
    assert len(clients.told) == 1


def test_what_was_told_as_lost_is_not_in_time() -> None:
    clients = Clients()
    topic = clients.gaps.track("room", "lobby")
    assert [clients.gaps.received(topic, NODE, number) for number in (4, 6, 5, 7)] == [True, True, False, True]
    assert [told["missed"] for _, told in clients.told] == [1]


async def test_what_was_missed_for_a_moment_is_asked_for() -> None:
    clients = Clients()
    rooms = [clients.gaps.track("room", name) for name in ("moved", "stayed")]
    for topic in (*rooms, TOPICS.nodes):
        clients.gaps.received(topic, NODE, 1)

    async def ask(asked: tuple[str, ...]) -> Replies[dict[str, int]]:
        clients.gaps.received(rooms[0], NODE, 4)  # overtakes the answer
        return Replies({NODE: dict.fromkeys(asked, 3)})

    running = asyncio.create_task(clients.gaps.run(lambda _: True, ask))
    await asyncio.sleep(0)
    assert clients.told == []
    clients.gaps.missed([rooms[0], TOPICS.nodes])
    assert clients.orders == 1
    await eventually(lambda: clients.told)
    running.cancel()
    assert clients.told == [(Address("rooms", ("moved",)), {"room": "moved", "missed": 2})]


async def test_what_was_missed_while_nothing_was_heard_is_asked_for() -> None:
    clients = Clients()
    counts: dict[str, dict[str, int]] = {}
    topics = [clients.gaps.track("room", name) for name in ("two", "unknown", "none", "deaf")]
    user = clients.gaps.track("user", "ann")
    for topic in (*topics[:3], user):
        clients.gaps.received(topic, NODE, 1)
    clients.gaps.suspect([*topics, user, TOPICS.nodes])
    counts[NODE] = {topics[0]: 3, topics[1]: 0, topics[2]: 1, user: 1}

    async def ask(asked: tuple[str, ...]) -> Replies[dict[str, int]]:
        assert TOPICS.nodes not in asked
        return Replies(counts)

    deaf: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    clients.gaps.suspect_until(topics[3], deaf)
    clients.gaps.suspect_until(topics[3], deaf)
    heard = {*topics[:3], user}
    task = asyncio.create_task(clients.gaps.run(lambda topic: topic in heard, ask))
    await eventually(lambda: len(clients.told) == 3)
    assert [data for _, data in clients.told] == [
        {"room": "two", "missed": 2},
        {"room": "unknown", "missed": None},
        {"room": "none", "missed": 0},
    ]
    heard.add(topics[3])
    deaf.set_result(None)
    await eventually(lambda: len(clients.told) == 4)
    assert clients.told[3] == (Address("rooms", ("deaf",)), {"room": "deaf", "missed": 0})
    task.cancel()
    await asyncio.wait([task])
