"""Link: a writer is taken for dead where it could have said that it lives, and not as the engine was away."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support import DEADLINE, eventually
from velocity_ws.backplane.base import Lost
from velocity_ws.streams import link as streams_link
from velocity_ws.streams.asking import Asking
from velocity_ws.streams.items import WRITER_SIZE, Begin, Renewal, Times, Written
from velocity_ws.streams.link import StreamLink
from velocity_ws.streams.memory import MemoryStreams

TIMES = Times(10_000, 60_000, 600_000)
_names = itertools.count()


class Store(MemoryStreams):
    """A store in this process.

    Attributes:
        lost: ends the connection.
        now: seconds of its clock.
        is_away: whether it cannot be connected to.
    """

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        super().__init__(f"memory://streams-link-{next(_names)}", clock=lambda: self.now)
        self.lost: Lost = lambda _: None
        self.is_away = False

    async def connect(self, lost: Lost) -> None:
        self.lost = lost
        if self.is_away:
            raise ConnectionError("it is away")
        await super().connect(lost)


class Node:
    """A node that asks about a stream, which another one writes."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.link = StreamLink(store, timeout=DEADLINE)
        self.asking = Asking(self.link, "0" * 11, TIMES, lambda room: f"velocity.room.{room}")
        self._writer = secrets.token_bytes(WRITER_SIZE)

    async def begin(self) -> None:
        await self.link.begin(Begin("a", "velocity.room.chat", "chat", self._writer, TIMES))

    async def renew(self) -> Written:
        (written,) = await self.link.renew([Renewal("a", "velocity.room.chat", self._writer, TIMES)])
        assert isinstance(written, Written)
        return written

    async def end(self) -> str:
        return (await self.asking.look("a")).end

    async def go_away(self, seconds: float) -> None:
        """Have the engine be away for a while."""
        ups: list[None] = []
        self.link.on_up.append(lambda: ups.append(None))
        self.store.now += seconds
        self.store.lost(ConnectionError("it is away"))
        await eventually(lambda: ups)


@asynccontextmanager
async def node() -> AsyncIterator[Node]:
    found = Node(Store())
    await found.link.start(DEADLINE)
    try:
        yield found
    finally:
        await found.link.stop()


async def test_a_writer_whose_lease_is_over_is_dead() -> None:
    async with node() as one:
        await one.begin()
        one.store.now += TIMES.lease / 1000 - 0.001
        assert await one.end() == ""
        one.store.now += 0.001
        assert await one.end() == "lost"


async def test_a_writer_that_could_not_renew_its_lease_has_time_to(monkeypatch: pytest.MonkeyPatch) -> None:
    async with node() as one:
        await one.begin()
        await one.go_away(60)
        assert await one.end() == ""
        assert await one.renew() == Written(is_taken=True)
        one.store.now += TIMES.lease / 1000
        monkeypatch.setattr(streams_link, "GRACE", 0.0)
        await one.go_away(0)
        assert await one.end() == "lost"


async def test_one_that_says_nothing_in_that_time_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_link, "GRACE", 0.2)
    async with node() as one:
        await one.begin()
        await one.go_away(60)
        await eventually(lambda: one.link.is_steady)
        assert await one.end() == "lost"


async def test_a_node_that_comes_with_the_engine_gives_writers_that_time_too() -> None:
    """It cannot tell an engine that was away from everybody from one that it alone did not reach."""
    async with node() as writing:
        await writing.begin()
        store = writing.store
        store.is_away = True
        late = Node(store)
        await late.link.start(0.0)
        try:
            await eventually(lambda: late.link.tries)
            store.now += 60
            store.is_away = False
            await eventually(lambda: late.link.is_up)
            assert await late.end() == ""
        finally:
            await late.link.stop()
