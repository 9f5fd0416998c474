"""What an engine has confirmed and lost is told to those who have not had it, once, whenever they are reached."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.support.feeds import LOG, Engine, Members, new_feed, settle
from velocity_ws.cluster.rpc import Replies
from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.history.entries import Stamp
from velocity_ws.history.feed import Feed, Gap
from velocity_ws.history.items import Log, Query, Range, Top
from velocity_ws.history.unkept import Unkept


class Nodes:
    """All nodes, and those that are not reached now."""

    def __init__(self) -> None:
        self.all: list[One] = []
        self.away: set[One] = set()
        self.now = 0.0


class One:
    """A node with members of a room. It is what its `Unkept` knows of others, of the engine and of rooms."""

    def __init__(self, nodes: Nodes, engine: Engine) -> None:
        self.nodes = nodes
        self.engine = engine
        self.members = Members()
        self.feed = new_feed(self.members)
        self.by_topic = {LOG.topic: self.feed}
        self.is_up = True
        self.server_id = ""
        self.answer: Callable[[None], Awaitable[Any]]
        self.take: Callable[[str, Any], None]
        self.when_back: Callable[[Feed, bytes, list[tuple[int, bytes]]], None]
        self.unkept = Unkept(self, self.notify, self, self, lambda: nodes.now)  # type: ignore[arg-type]
        nodes.all.append(self)
        settle(self.feed, engine)

    def register(self, _: object, handler: Callable[[None], Awaitable[Any]]) -> None:
        self.answer = handler

    def on_notification(self, _: str, __: object, handler: Callable[[str, Any], None]) -> None:
        self.take = handler

    async def call_all(self, _: object, __: None) -> Replies[Any]:
        return Replies({str(id(node)): await node.answer(None) for node in self.nodes.all if node is not self})

    def notify(self, _: str, args: object) -> None:
        for node in self.nodes.all:
            if node is not self and node not in self.nodes.away:
                node.take("", args)

    async def tops(self, logs: list[Log]) -> list[Top | None]:
        if not self.is_up:
            raise BackplaneUnavailable("it is away")
        return [self.engine.log.top(self.engine.now) for _ in logs]

    async def read(self, query: Query) -> Range:
        return self.engine.log.read(query, self.engine.now)

    def tell(self, feed: Feed, gap: Gap) -> None:
        feed._user.tell(feed, gap)

    def gaps(self) -> int:
        return len([each for each in self.members.got if isinstance(each, Gap)])


def lose(engine: Engine, count: int) -> None:
    """The last entries are gone, as on a replica that takes over."""
    entries = list(engine.log._entries)[:-count]
    engine.log._entries = deque(entries)
    engine.log._offset -= count
    engine.log._mark = Stamp.unpack(entries[-1][-40:]).position.mark


async def test_who_has_heard_less_is_told_by_who_has_appended() -> None:
    engine, nodes = Engine(random.Random(1)), Nodes()
    a, b, c = [One(nodes, engine) for _ in range(3)]
    for number in range(4):
        stamp, payload = engine.append()
        a.unkept.appended(LOG, stamp)
        for node in (a, b, c):
            if node is a or number < 2:
                node.feed.heard(stamp, payload, frozenset())
    nodes.away.add(c)
    a.unkept.down()
    lose(engine, 2)
    b.feed.heard(*engine.append(), frozenset())  # by another node, under one of the numbers that were lost
    a.is_up = False
    with pytest.raises(BackplaneUnavailable):
        await a.unkept.look()
    a.is_up = True
    await a.unkept.look()
    await turn()
    assert (b.gaps(), c.gaps()) == (1, 0)
    nodes.away.clear()
    await a.unkept.ask()  # as it hears others again, and so they it
    await c.unkept.ask()
    assert (b.gaps(), c.gaps()) == (1, 1)
    await a.unkept.look()
    assert (b.gaps(), c.gaps()) == (1, 1), "it is looked for once"


async def test_who_has_heard_less_is_told_by_who_has_heard_more() -> None:
    engine, nodes = Engine(random.Random(1)), Nodes()
    a, b = One(nodes, engine), One(nodes, engine)
    for number in range(3):
        stamp, payload = engine.append()
        a.feed.heard(stamp, payload, frozenset())
        if not number:
            b.feed.heard(stamp, payload, frozenset())
    lose(engine, 2)
    back: list[tuple[Feed, bytes, list[tuple[int, bytes]]]] = []
    a.members.went_back = lambda *found: back.append(found)  # type: ignore[method-assign]
    a.feed.heard(*engine.append(), frozenset())
    settle(a.feed, engine)
    a.when_back(*back[0])
    await turn()
    assert b.gaps() == 1
    assert a.gaps() == 1, "which the feed tells by itself"
    b.notify("", await a.answer(None))
    assert a.gaps() == 1, "who had it is not told once more"


async def test_who_hears_others_again_asks_what_was_lost_lately() -> None:
    engine, nodes = Engine(random.Random(1)), Nodes()
    a, b, c = [One(nodes, engine) for _ in range(3)]
    for _ in range(2):
        stamp, _ = engine.append()
        a.unkept.appended(LOG, stamp)
    nodes.away = {b, c}
    a.unkept.down()
    lose(engine, 1)
    await a.unkept.look()
    await turn()
    await b.unkept.ask()
    nodes.now += 100
    await c.unkept.ask()
    assert (b.gaps(), c.gaps()) == (1, 0)


async def turn() -> None:
    """What many rooms have to say of one turn of the loop is said behind it."""
    await asyncio.sleep(0)


@pytest.mark.parametrize("more", [1, 5, 20])
async def test_whatever_has_come_since_what_was_lost_is_found(more: int) -> None:
    engine, nodes = Engine(random.Random(1)), Nodes()
    a, b = One(nodes, engine), One(nodes, engine)
    for number in range(6):
        stamp, payload = engine.append()
        a.unkept.appended(LOG, stamp)
        if number < 3:
            b.feed.heard(stamp, payload, frozenset())
    a.unkept.down()
    lose(engine, 3)
    for _ in range(more):  # more than the log keeps, at last
        b.feed.heard(*engine.append(), frozenset())
    assert b.gaps() == 0
    await a.unkept.look()
    await turn()
    assert b.gaps() == 1


async def test_what_is_lost_while_it_looks_is_looked_for_next() -> None:
    engine, nodes = Engine(random.Random(1)), Nodes()
    a, b = One(nodes, engine), One(nodes, engine)
    stamp, _ = engine.append()
    a.unkept.appended(LOG, stamp)
    a.unkept.down()
    looking = asyncio.create_task(a.unkept.look())
    stamp, _ = engine.append()
    a.unkept.appended(LOG, stamp)
    await turn()
    a.unkept.down()
    await looking
    lose(engine, 1)
    await a.unkept.look()
    await turn()
    assert b.gaps() == 1


async def test_a_server_that_was_not_away_is_not_asked() -> None:
    engine, nodes = Engine(random.Random(1)), Nodes()
    a = One(nodes, engine)
    a.server_id = "one"
    stamp, _ = engine.append()
    a.unkept.appended(LOG, stamp)
    a.unkept.down()
    a.is_up = False
    await a.unkept.look()
    a.unkept.appended(LOG, stamp)
    a.unkept.down()
    a.server_id = "two"
    with pytest.raises(BackplaneUnavailable):
        await a.unkept.look()


async def test_nobody_is_told_of_what_is_there() -> None:
    engine, nodes = Engine(random.Random(1)), Nodes()
    a, b = One(nodes, engine), One(nodes, engine)
    for _ in range(20):  # more than the log keeps
        stamp, payload = engine.append()
        a.unkept.appended(LOG, stamp)
        a.feed.heard(stamp, payload, frozenset())
    a.unkept.down()
    await a.unkept.look()
    await b.unkept.ask()
    assert (a.gaps(), b.gaps()) == (0, 0)
