"""Numbers: who leaves an engine later than others tells them what they may have missed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection
from typing import Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import eventually
from velocity_ws.backplane.memory import MemoryBackplane
from velocity_ws.cluster import numbers
from velocity_ws.cluster.counts import SentNumbers
from velocity_ws.cluster.envelopes import Heartbeat, Notification
from velocity_ws.cluster.gaps import Gaps
from velocity_ws.cluster.membership import Membership
from velocity_ws.cluster.notes import Notes
from velocity_ws.cluster.numbers import Numbers
from velocity_ws.cluster.rpc import Replies, Rpc
from velocity_ws.cluster.topics import Topics
from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.messages.address import Address
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.stats import Counters

LEASE = 10.0


class Told(Notes):
    """What the others were told; nothing where there is no connection."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.server_id = ""
        self.is_up = True
        self.tries = 0

    async def tell(self, what: str, args: object, until: float | None = None) -> None:
        self.tries += 1
        if not self.is_up:
            raise BackplaneUnavailable("there is no connection")
        self.server_id, counts = msgspec.msgpack.decode(msgspec.msgpack.encode(args))
        self.counts |= counts


async def nobody(*_: object) -> Replies[dict[str, int]]:
    return Replies()


class One:
    """A node's, with others that it hears, or heard."""

    def __init__(self, server_id: str = "") -> None:
        self.now = 0.0
        self.sent = SentNumbers()
        self.told = Told()
        self.counters = Counters()
        gaps = Gaps(Topics("t"), self.counters, lambda *_: None)
        self.topic = gaps.track("room", "x")
        gaps.received(self.topic, "node", 1)
        self.rpc = Rpc(1.0, lambda *_: None)
        self.others = Membership(
            "me", LEASE, True, lambda *_: None, lambda _: None, lambda _: None, lambda: self.now
        )  # fmt: skip
        engine = MemoryBackplane("memory://")
        vars(engine)["server_id"] = server_id
        self.numbers = Numbers(engine, self.sent, gaps, self.rpc, self.told, nobody, self.others.heard_of_all)

    def hears(self, node: str, state: Literal["alive", "bye"] = "alive") -> None:
        self.others.received(node, Heartbeat(state, LEASE))

    async def leaves(self) -> dict[str, int]:
        """What it tells when it has left."""
        self.numbers.left()
        await self.numbers.tell()
        return self.told.counts


@given(st.lists(st.sampled_from("abcdef"), max_size=60), st.integers(0, 60), st.booleans())
async def test_all_that_was_published_since_all_were_heard_is_told(topics: list[str], heard: int, stays: bool) -> None:
    one = One()
    one.hears("a")
    for moment, topic in enumerate(topics):
        one.now = float(moment)
        one.numbers.mark(one.now)
        if moment == heard:
            one.hears("a")
        if stays:
            one.hears("b")
        one.others.expire()  # which makes one of them lost, and no less deaf
        one.sent.next(topic)
    told = await one.leaves()
    assert set(topics[heard if heard < len(topics) else 0 :]) <= told.keys()
    assert all(count == topics.count(topic) for topic, count in told.items())


async def test_nothing_is_told_where_there_is_nobody_or_nothing_in_doubt() -> None:
    one = One()
    one.sent.next("a")
    assert await one.leaves() == {}
    one.numbers.mark(one.now)
    one.hears("a")
    assert await one.leaves() == {}
    one.sent.next("b")
    one.hears("a", "bye")
    assert await one.leaves() == {}


async def test_what_could_not_be_told_is_told_until_it_is_as_it_was_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "AGAIN", 0.001)
    one = One()
    one.hears("a")
    one.sent.next("a")
    one.numbers.left()
    one.told.is_up = False
    telling = asyncio.create_task(one.numbers.tell())
    await eventually(lambda: one.told.tries > 2)
    one.sent.next("a")  # which shows by itself that one is missing before
    one.told.is_up = True
    await telling
    assert one.told.counts == {"a": 1}
    one.told.counts.clear()
    await one.numbers.tell()
    assert one.told.counts == {}


@pytest.mark.parametrize(("left", "own", "missed"), [("s", "s", 0), ("s", "t", 2), ("", "", 2), ("", "t", 2)])
async def test_who_was_on_the_same_server_has_missed_nothing(left: str, own: str, missed: int) -> None:
    one, other = One(left), One(own)
    one.hears("a")
    for _ in range(3):
        one.sent.next(one.topic)
    told = await one.leaves()
    note = Notification("published", msgspec.Raw(msgspec.msgpack.encode([one.told.server_id, told])))
    other.rpc.notification_received("node", note)
    assert other.counters.backplane_missed == missed


class Parts(MemoryBackplane):
    """An engine of several servers, that follows topics from one to another."""

    is_ordered = False

    def __init__(self) -> None:
        super().__init__("memory://")
        self.on_missed: Callable[[Collection[str]], None] = lambda _: None


class InParts:
    """A node on such an engine, that has heard another one, and what its clients were told."""

    def __init__(self) -> None:
        self.engine, self.told, self.sent = Parts(), Told(), SentNumbers()
        self.missed: list[object] = []
        self.gaps = Gaps(Topics("t"), Counters(), self._deliver)
        self.topic = self.gaps.track("room", "x")
        self.gaps.received(self.topic, "node", 1)
        others = Membership("me", LEASE, True, lambda *_: None, lambda _: None, lambda _: None, lambda: 0.0)
        others.received("node", Heartbeat("alive", LEASE))
        self.rpc = Rpc(1.0, lambda *_: None)
        parts = (self.engine, self.sent, self.gaps, self.rpc, self.told, self._ask, others.heard_of_all)
        self.numbers = Numbers(*parts)

    def _deliver(self, _: Address, message: PreparedMessage) -> None:
        self.missed.append(json.loads(message.payload)["data"]["missed"])

    async def _ask(self, _: object, topics: tuple[str, ...]) -> Replies[dict[str, int]]:
        asyncio.get_running_loop().call_later(0.01, self.gaps.received, self.topic, "node", 2)  # which it overtakes
        return Replies({"node": dict.fromkeys(topics, 3)})


async def test_who_leaves_a_part_of_the_engine_tells_and_asks_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "LATE", 0.05)
    one = InParts()
    running = [asyncio.create_task(one.numbers.run())]
    running.append(asyncio.create_task(one.gaps.run(lambda _: True, one.numbers.ask)))
    await asyncio.sleep(0)
    one.sent.next("a")
    one.engine.on_missed([one.topic])
    await eventually(lambda: one.missed)
    assert one.missed == [1]
    assert one.told.counts == {"a": 1}
    one.sent.next("b")
    one.engine.on_missed([])
    await eventually(lambda: one.told.counts.get("b"))
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    assert one.missed == [1]


async def test_what_is_told_waits_for_what_it_has_overtaken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "LATE", 0.05)
    one = InParts()
    note = Notification("published", msgspec.Raw(msgspec.msgpack.encode(["", {one.topic: 3}])))
    one.rpc.notification_received("node", note)
    one.gaps.received(one.topic, "node", 2)
    await eventually(lambda: one.missed)
    assert one.missed == [1]


def test_who_is_told_tells_clients_what_did_not_come_and_nothing_twice() -> None:
    counters, given_to = Counters(), list[tuple[Address, bytes]]()
    gaps = Gaps(Topics("t"), counters, lambda to, message: given_to.append((to, bytes(message.payload))))
    here, other = gaps.track("room", "x"), gaps.track("room", "y")
    gaps.received(here, "node", 1)
    gaps.told("node", {here: 3, "t.elsewhere": 9})
    gaps.told("node", {here: 3})
    gaps.received(here, "node", 4)
    gaps.told("node", {here: 3})
    assert (counters.backplane_missed, len(given_to)) == (2, 1)
    assert b'"missed":2' in given_to[0][1]
    gaps.told("node", {other: 1})  # of which it is not known whether that was before this node came
    assert b'"missed":null' in given_to[1][1]
    gaps.received(other, "node", 3)
    assert b'"missed":1' in given_to[2][1], "but from then on it is"
    assert given_to[0][0] == Address("rooms", ("x",))
