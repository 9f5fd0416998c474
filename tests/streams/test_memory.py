"""Streams in one process: how long they live, that nothing piles up, and what the clock does to them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from velocity_ws.streams.items import Times
from velocity_ws.streams.memory import MemoryStreams
from velocity_ws.testing.stream_engine import Scribe
from velocity_ws.testing.stream_pen import HOUR, Pen

TIMES = Times(10_000, 60_000, 600_000)
_names = itertools.count()


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def scribe(name: str, clock: Clock) -> AsyncIterator[Scribe]:
    found = Scribe(MemoryStreams(f"memory://{name}", prefix="velocity", clock=clock))
    await found.connect()
    try:
        yield found
    finally:
        await found.store.close()
        found.store.release()


def new_name() -> str:
    return f"streams-life-{next(_names)}"


def pen(times: Times = TIMES) -> Pen:
    return Pen("answer-42", "velocity.room.chat", "chat", times)


async def test_streams_are_gone_with_the_last_store_that_used_them() -> None:
    name, clock, writer = new_name(), Clock(), pen()
    async with scribe(name, clock) as one:
        async with scribe(name, clock) as other:
            await other.begin(writer)
            await other.store.mark()
        assert (await one.seen(writer)).writer == writer.writer
        await one.store.close()
        await one.connect()
        assert await one.store.is_marked()
    async with scribe(name, clock) as after:
        assert await after.look(writer.id) is None
        assert not await after.store.is_marked()


async def test_each_time_is_kept_to_the_millisecond() -> None:
    clock, writer = Clock(), pen()
    async with scribe(new_name(), clock) as one:
        await one.begin(writer)
        await one.append(writer.say("text"))
        clock.now += 9.999
        assert (await one.seen(writer)).left == 1
        clock.now += 0.001
        assert (await one.seen(writer)).left == 0
        clock.now += 59.999
        assert len((await one.read(writer)).payloads) == 1
        clock.now += 0.001
        assert (await one.seen(writer)).is_gone
        assert (await one.read(writer)).payloads == []
        clock.now += 599.999
        assert (await one.seen(writer)).is_gone
        clock.now += 0.001
        assert await one.look(writer.id) is None


async def test_what_ends_early_is_let_go_early() -> None:
    clock, writer = Clock(), pen(TIMES._replace(lease=HOUR))
    async with scribe(new_name(), clock) as one:
        await one.begin(writer)
        await one.append(writer.say("text", "done"))
        engine = one.store._engine  # type: ignore[attr-defined]
        stream = engine.streams[writer.id]
        clock.now += 60
        assert (await one.seen(writer)).end == "done"
        assert (stream.payloads, engine.topics) == ([], {})
        clock.now += 600
        assert await one.store.listed(["velocity.room.other"]) == [[]]
        assert engine.streams == {}


async def test_renewals_do_not_pile_up() -> None:
    clock, writer = Clock(), pen()
    async with scribe(new_name(), clock) as one:
        await one.begin(writer)
        for _ in range(1000):
            clock.now += 3
            assert (await one.renew(writer)).is_taken
        assert len(one.store._engine._dues) <= 2  # type: ignore[attr-defined]


async def test_a_clock_that_is_set_back_changes_nothing() -> None:
    clock, writer = Clock(), pen()
    async with scribe(new_name(), clock) as one:
        await one.begin(writer)
        clock.now -= 3600
        found = await one.seen(writer)
        assert (found.left, found.age) == (10_000, 0)
        assert (await one.append(writer.say("text", "done")))[0].is_taken
