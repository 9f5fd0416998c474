"""Gaps: every loss between two messages that arrive shows, what is kept is bounded, and clients are told."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.support import eventually
from velocity_ws.cluster.gaps import Gaps, ReceivedNumbers, SentNumbers
from velocity_ws.cluster.rpc import Replies
from velocity_ws.cluster.topics import Topics
from velocity_ws.messages.address import Address
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.stats import Counters

NODE = "elevenchars"


@given(st.lists(st.booleans(), max_size=50), st.lists(st.booleans(), max_size=20))
def test_every_loss_between_two_that_arrive_shows(arrives: list[bool], after: list[bool]) -> None:
    sent, heard = SentNumbers(), ReceivedNumbers()
    missed = lost = 0
    is_known = False
    for comes in arrives:
        number = sent.next("t")
        if comes:
            shows = heard.received("t", NODE, number)
            lost_here, lost = lost, 0
            if not is_known:  # before the first there is nothing to compare with
                assert shows == (None if lost_here else 0)
                missed += lost_here
                is_known = True
            else:
                assert shows == lost_here
                missed += lost_here
        else:
            lost += 1
    settled = heard.settle("t", NODE, sent.count("t"))
    if is_known:
        assert settled == lost
        assert missed + lost == arrives.count(False)
        assert heard.settle("t", NODE, sent.count("t")) == 0
    else:
        assert settled == (None if arrives else 0)
    for _ in after:
        assert heard.received("t", NODE, sent.next("t")) in (0, lost)


def test_a_sender_that_has_forgotten_shows_no_loss() -> None:
    heard = ReceivedNumbers()
    assert [heard.received("t", NODE, number) for number in (5, 6, 1, 2, 4)] == [None, 0, 0, 0, 1]


def test_what_is_kept_is_bounded() -> None:
    heard, sent = ReceivedNumbers(), SentNumbers()
    for number in range(3000):
        heard.received("t", f"script {number}", 1)
    assert heard.received("t", "script 0", 5) is None  # forgotten
    assert heard.received("t", "script 2999", 3) == 1
    for number in range(99_999):
        sent.next(f"topic {number}")
    sent.next("topic 0")  # is used, and so kept
    for number in range(2):
        sent.next(f"another {number}")
    assert (sent.count("topic 0"), sent.count("topic 1"), sent.count("another 1")) == (2, 0, 1)


def test_who_is_heard_is_not_forgotten_for_those_who_are_not() -> None:
    heard = ReceivedNumbers()
    heard.received("t", NODE, 1)
    for number in range(3000):
        heard.received("t", f"script {number}", 1)
        heard.received("t", NODE, number + 2)
    assert heard.received("t", NODE, 3003) == 1
    assert heard.settle("t", "script 0", 1) is None


def test_a_sender_that_has_forgotten_cannot_say_what_was_missed() -> None:
    heard = ReceivedNumbers()
    heard.received("t", NODE, 5)
    assert heard.settle("t", NODE, 2) is None


def test_a_topic_that_is_left_is_forgotten() -> None:
    heard = ReceivedNumbers()
    heard.received("t", NODE, 1)
    heard.forget("t")
    assert heard.received("t", NODE, 9) is None


TOPICS = Topics("velocity")


class Clients:
    """Those of a node, who are told of gaps."""

    def __init__(self) -> None:
        self.told: list[tuple[Address, Any]] = []
        self.gaps = Gaps(TOPICS, Counters(), self.deliver)

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
