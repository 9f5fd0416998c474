"""Logs in one process: how long they live, what the clock does to them, and that several loops share them."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from velocity_ws.history import memory_log
from velocity_ws.history.items import KEY_TTL, Limits, Log, Lookup, Query, Removal, granted
from velocity_ws.history.memory import MemoryHistory
from velocity_ws.history.memory_log import LEAST_PAUSE
from velocity_ws.testing.history_engine import Keeper

LOG = Log("velocity.room.chat", Limits(100, 60_000, 1024))
SAME = b"s" * 16
_names = itertools.count()


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def keeper(name: str, clock: Clock | None = None) -> AsyncIterator[Keeper]:
    found = Keeper(MemoryHistory(f"memory://{name}", clock or Clock()))
    await found.connect()
    try:
        yield found
    finally:
        await found.store.close()
        found.store.release()


def new_name() -> str:
    return f"life-{next(_names)}"


async def test_logs_are_gone_with_the_last_that_used_them() -> None:
    name = new_name()
    async with keeper(name) as one:
        async with keeper(name) as other:
            await other.append(LOG, b"1")
        (entry,) = (await one.read(LOG)).entries
        await one.store.close()
        await one.connect()
        assert (await one.read(LOG)).entries == [entry]
    async with keeper(name) as after:
        top = await after.top(LOG)
        assert (top.position.offset, top.position.epoch == entry.stamp.position.epoch) == (0, False)


async def test_names_do_not_meet() -> None:
    async with keeper(new_name()) as one, keeper(new_name()) as other:
        await one.append(LOG, b"1")
        assert (await other.read(LOG)).entries == []


async def test_a_top_is_known_for_its_time_after_the_last_call() -> None:
    clock = Clock()
    async with keeper(new_name(), clock) as one:
        position = (await one.top(LOG)).position
        for _ in range(3):
            clock.now += LOG.limits.meta_ttl / 1000 - 1
            assert (await one.top(LOG)).position == position
        clock.now += LOG.limits.meta_ttl / 1000 + 1
        assert (await one.top(LOG)).position.epoch != position.epoch


async def test_what_nobody_asks_for_is_let_go() -> None:
    clock = Clock()
    async with keeper(new_name(), clock) as one:
        await one.append(LOG, b"x" * 1000)
        log = one.store._engine._logs[LOG.topic]  # type: ignore[attr-defined]
        assert len(log._entries) == 1
        clock.now += 2 * max(LOG.limits.ttl, LEAST_PAUSE) / 1000
        await one.top(Log("velocity.room.other", LOG.limits))
        assert len(log._entries) == 0
        clock.now += 2 * LOG.limits.meta_ttl / 1000
        await one.store.removed([Lookup(LOG, "ann")])
        assert not one.store._engine._logs  # type: ignore[attr-defined]


async def test_a_clock_that_is_set_back_changes_nothing() -> None:
    clock = Clock()
    async with keeper(new_name(), clock) as one:
        (first,) = await one.append(LOG, b"1")
        clock.now -= 3600
        (second,) = await one.append(LOG, b"2")
        assert second.stamp.time == first.stamp.time
        found = await one.read(LOG)
        assert (found.entries, found.top.time) == ([first, second], first.stamp.time)
        clock.now += 3600 + LOG.limits.ttl / 1000
        assert (await one.read(LOG)).entries == []


async def test_an_entry_is_gone_when_it_is_as_old_as_it_may_be() -> None:
    clock = Clock()
    async with keeper(new_name(), clock) as one:
        (entry,) = await one.append(LOG, b"1")
        clock.now += LOG.limits.ttl / 1000 - 0.001
        assert (await one.read(LOG)).entries == [entry]
        clock.now += 0.001
        assert (await one.read(LOG)).entries == []


async def test_what_is_too_old_is_let_go_by_the_next_append() -> None:
    clock = Clock()
    async with keeper(new_name(), clock) as one:
        await one.append(LOG, b"1", b"2")
        clock.now += LOG.limits.ttl / 1000
        await one.append(LOG, b"3")
        assert len(one.store._engine._logs[LOG.topic]._entries) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("new", [LOG.limits, LOG.limits._replace(ttl=2 * LOG.limits.ttl)])
async def test_what_was_too_old_when_the_log_became_full_is_not_evicted(new: Limits) -> None:
    clock, log = Clock(), LOG._replace(limits=new._replace(size=2))
    async with keeper(new_name(), clock) as one:
        await one.append(LOG, b"1", b"2")
        clock.now += LOG.limits.ttl / 1000
        await one.append(log, b"3", b"4")
        assert (await one.top(log)).evicted == 0
        await one.append(log, b"5")
        found = await one.read(log)
        assert (found.top.evicted, [entry.envelope for entry in found.entries]) == (3, [b"4", b"5"])


async def test_a_key_is_forgotten_after_its_time() -> None:
    clock = Clock()
    async with keeper(new_name(), clock) as one:
        await one.append_once(LOG, b"1", "key", SAME)
        clock.now += KEY_TTL - 0.001
        assert (await one.append_once(LOG, b"1", "key", SAME)).is_duplicate
        clock.now += 0.002
        again = await one.append_once(LOG, b"1", "key", b"other" * 3 + b".")
        assert (again.is_duplicate, again.stamp.position.offset) == (False, 2)


async def test_a_removal_is_known_as_long_as_the_top() -> None:
    clock = Clock()
    async with keeper(new_name(), clock) as one:
        await one.store.remove([Removal(LOG, "ann")])
        for _ in range(3):
            clock.now += LOG.limits.meta_ttl / 1000 - 1
            await one.top(LOG)
        assert await one.store.removed([Lookup(LOG, "ann")]) == [1]


async def test_many_removals_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_log, "MAX_REMOVED", 3)
    async with keeper(new_name()) as one:
        await one.store.remove([Removal(LOG, user) for user in "abacde"])
        assert await one.store.removed([Lookup(LOG, user) for user in "abcdex"]) == [3, 3, 4, 5, 6, 3]


async def test_a_long_log_is_read_from_any_place() -> None:
    async with keeper(new_name()) as one:
        entries = await one.append(LOG, *(b"%d" % number for number in range(150)))
        for after in (0, 49, 50, 51, 100, 149, 150, 400):
            expected = [entry for entry in entries[50:] if entry.stamp.position.offset > after]
            for limit in (1, 7, 100, 1000):
                forward, back = await one.store.read([Query(LOG, after, limit), Query(LOG, after, limit, newest=True)])
                assert granted(forward).entries == expected[:limit]
                assert granted(back).entries == expected[-limit:]


async def test_brokers_on_several_loops_share_a_log() -> None:
    name = new_name()

    async def write() -> None:
        async with keeper(name) as one:
            for number in range(200):
                await one.append(LOG, b"%d" % number)

    async with keeper(name) as one:
        threads = [threading.Thread(target=lambda: asyncio.run(write())) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        found = await one.read(LOG)
        assert found.top.position.offset == 800
        assert [entry.stamp.position.offset for entry in found.entries] == list(range(701, 801))
