"""Feeds: what is asked of the engine, once for all who wait, and what becomes of it when the room is over meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support import DEADLINE, eventually
from tests.support.holding import HeldHistory
from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.history import feeds as feeds_module
from velocity_ws.history.envelopes import encode_entry
from velocity_ws.history.feed import Feed
from velocity_ws.history.feeds import Feeds
from velocity_ws.history.items import Append, Log
from velocity_ws.history.link import HistoryLink
from velocity_ws.messages.outbound import PreparedMessage, encode, parse
from velocity_ws.retention import Limits
from velocity_ws.stats import Counters

LOG = Log("x.room.chat", Limits(size=10, ttl=60_000, max_bytes=100_000))


class Rig:
    """Feeds, on an engine of this process."""

    def __init__(self) -> None:
        self.store = HeldHistory()
        self.counters = Counters()
        self.link = HistoryLink(self.store, timeout=5.0, queue_size=10**6, counters=self.counters)
        self.got: list[Any] = []
        self.feeds = Feeds(self.link, None, self.give, self.counters, ring=10**6, limit=1000)

    def give(self, room: str, message: PreparedMessage, excluded: frozenset[str]) -> None:
        event, data = parse(message.payload)
        self.got.append(data if event == "said" else (event, data["reason"]))

    def open(self) -> Feed:
        return self.feeds.open("chat", LOG, is_latest=False)

    async def append(self, *numbers: int) -> None:
        """Let somebody else append, whom nobody hears."""
        for number in numbers:
            envelope = encode_entry("a" * 11, "chat", encode("said", number).payload, frozenset())
            await self.link.append(Append(LOG, envelope), lambda _: None)


@asynccontextmanager
async def rig() -> AsyncIterator[Rig]:
    found = Rig()
    await found.link.start(DEADLINE)
    found.feeds.start()
    try:
        yield found
    finally:
        await found.feeds.stop()
        await found.link.stop()


async def test_all_who_wait_for_a_room_are_told_by_one_question() -> None:
    async with rig() as here:
        await here.append(1, 2)
        feed = here.open()
        assert here.feeds.of("chat") is feed is here.open()
        await asyncio.gather(*[here.feeds.opened(feed) for _ in range(100)])
        assert (feed.offset, here.store.calls["tops"], here.store.calls["read"]) == (2, 1, 0)
        await asyncio.gather(*[here.feeds.ranged(feed) for _ in range(100)])
        assert (len(feed.ring.frames), here.store.calls["read"], here.counters.history_reads) == (2, 1, 1)


async def test_an_engine_that_refuses_is_said_to_all_who_wait_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds_module, "WAIT", 0.0)
    async with rig() as here:
        here.store.failing.add("tops")
        feed = here.open()
        results = await asyncio.gather(*[here.feeds.opened(feed) for _ in range(3)], return_exceptions=True)
        assert [type(result) for result in results] == [BackplaneUnavailable] * 3
        assert str(results[0]).startswith("it fails; ")
        assert str(results[0]).count("Catch this") == 1
        here.store.failing.clear()
        await eventually(lambda: feed.is_open)


async def test_what_is_missing_is_read_given_and_counted() -> None:
    async with rig() as here:
        feed = here.open()
        await here.feeds.opened(feed)
        await here.append(1, 2, 3)
        here.feeds.deaf(LOG.topic)
        await eventually(lambda: here.got == [1, 2, 3])
        assert here.counters.repaired == 3
        here.feeds.deaf("another topic")


async def test_who_reads_the_newest_waits_for_what_the_node_has_missed_before_them() -> None:
    async with rig() as here:
        feed = here.open()
        await here.feeds.opened(feed)
        await here.append(*range(1, 31))
        await here.feeds.ranged(feed)
        assert (feed.offset, len(feed.ring.frames)) == (30, 10)
        assert here.got == [("gap", "evicted"), *range(21, 31)]
        assert here.counters.backplane_missed == 20


@pytest.mark.parametrize("wanted", ["top", "range", "rest"])
async def test_an_answer_that_comes_when_the_room_is_over_is_for_nobody(wanted: str) -> None:
    async with rig() as here:
        feed = here.open()
        method = "tops" if wanted == "top" else "read"
        if wanted != "top":
            await here.feeds.opened(feed)
        here.store.hold(method)
        await here.append(1)
        feed.wants_range, feed.wants_rest = wanted == "range", wanted == "rest"
        waiting = asyncio.create_task(here.feeds.opened(feed) if wanted == "top" else here.feeds.ranged(feed))
        here.feeds.ask(feed)
        await eventually(lambda: here.store.calls[method])
        here.feeds.close(LOG.topic)
        other = here.open()
        here.store.let_go(method)
        with pytest.raises(BackplaneUnavailable, match="not kept here"):
            await waiting
        await here.feeds.opened(other)
        assert here.got == []
        assert (other.offset, here.feeds._rings.size) == (1, 0)
        assert feed not in here.feeds._checks._due
        here.feeds.close(LOG.topic)
        assert not here.feeds._checks._due
        assert not here.feeds.by_topic


async def test_a_room_that_is_over_is_not_asked_about_and_nothing_after_the_end() -> None:
    async with rig() as here:
        feed = here.open()
        here.feeds.close(LOG.topic)
        here.feeds.close(LOG.topic)
        with pytest.raises(BackplaneUnavailable, match="not kept here"):
            await here.feeds.opened(feed)
        here.store.hold("tops")
        feed = here.open()
        waiting = asyncio.create_task(here.feeds.opened(feed))
        await eventually(lambda: here.store.calls["tops"])
        await here.feeds.stop()
        with pytest.raises(BackplaneUnavailable, match="stopping"):
            await waiting
        assert here.feeds.of("chat") is None
        assert not here.feeds._steps


async def test_rooms_are_looked_at_when_the_engine_is_reached_again() -> None:
    async with rig() as here:
        feed = here.open()
        await here.feeds.opened(feed)
        await here.append(1)
        here.store.lose()
        await eventually(lambda: here.got == [1])


async def test_what_waits_for_its_turn_is_asked_for() -> None:
    async with rig() as here:
        feed = here.open()
        await here.feeds.opened(feed)
        await here.append(1)
        second = (await here.link.append(
            Append(LOG, encode_entry("a" * 11, "chat", encode("said", 2).payload, frozenset())), lambda _: None
        )).stamp.pack()  # fmt: skip
        feed.heard(second, encode("said", 2).payload, frozenset(), is_own=True)
        assert (here.got, feed.waits) == ([], True)
        here.feeds._checks.later(feed)
        await eventually(lambda: here.got == [1, 2])
