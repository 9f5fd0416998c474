"""Checks: when each room is looked at, on a clock that is set by hand."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import eventually
from tests.support.clocks import HandClock
from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.history import checks
from velocity_ws.history.checks import BATCH, FIRST, LAST, Checks
from velocity_ws.history.feed import Feed


class Quiet:
    """A room in which nothing is said."""

    def __init__(self, heard_at: float = 0.0) -> None:
        self.heard_at = heard_at


class Looks:
    """Looks at rooms, and notes when."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.checks = Checks(self.look, self.clock)
        self.at: dict[Any, list[float]] = defaultdict(list)
        self.batches: list[int] = []
        self.is_away = False

    async def look(self, feeds: list[Feed]) -> None:
        self.batches.append(len(feeds))
        if self.is_away:
            raise BackplaneUnavailable("away")
        for feed in feeds:
            self.at[feed].append(self.clock.now)

    def pass_(self, seconds: float, step: float = 0.5) -> None:
        """Let time pass, and have looked at what is due meanwhile."""
        for _ in range(int(seconds / step)):
            self.clock.advance(step)
            while feeds := self.checks._next():
                for feed in feeds:
                    self.at[feed].append(self.clock.now)


def room(heard_at: float = 0.0) -> Feed:
    return cast("Feed", Quiet(heard_at))


@asynccontextmanager
async def running(looks: Looks) -> AsyncIterator[None]:
    task = asyncio.create_task(looks.checks.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def test_a_room_is_looked_at_soon_after_its_last_message_then_ever_more_rarely() -> None:
    looks, feed = Looks(), room()
    looks.checks.watch(feed)
    looks.pass_(2000)
    gaps = [later - before for before, later in zip(looks.at[feed], looks.at[feed][1:], strict=False)]
    assert looks.at[feed][0] == 1000 + FIRST
    assert gaps == [10, 20, 40, 80, 160, 300, 300, 300, 300, 300]
    assert gaps[-1] == LAST


def test_what_is_heard_puts_the_look_off() -> None:
    looks, feed = Looks(), room(1000.0)
    looks.checks.watch(feed)
    for _ in range(20):
        looks.pass_(5)
        cast("Quiet", feed).heard_at = looks.clock.now
    assert not looks.at[feed]
    looks.pass_(FIRST)
    assert looks.at[feed] == [looks.clock.now]


def test_what_is_asked_for_is_looked_at_though_something_is_heard_and_as_soon_as_the_soonest() -> None:
    looks, feed = Looks(), room(1000.0)
    looks.checks.watch(feed)
    looks.checks.later(feed, 5.0)
    looks.checks.later(feed, 2.0)
    looks.checks.later(feed, 3.0)
    looks.pass_(6)
    assert looks.at[feed] == [1002.0]


@given(st.lists(st.tuples(st.sampled_from("wlhfp"), st.integers(0, 2)), max_size=40))
def test_no_room_that_is_watched_is_forgotten_and_none_that_is_over_looked_at(steps: list[tuple[str, int]]) -> None:
    looks, rooms = Looks(), [room() for _ in range(3)]
    watched: set[int] = set()
    for step, index in steps:
        feed = rooms[index]
        match step:
            case "w":
                looks.checks.watch(feed)
                watched.add(index)
            case "l":
                looks.checks.later(feed, 1.0)
                watched.add(index)
            case "h":
                cast("Quiet", feed).heard_at = looks.clock.now
            case "f":
                looks.checks.forget(feed)
                watched.discard(index)
            case "p":
                looks.pass_(5, 1)
    begin = looks.clock.now
    looks.pass_(LAST + FIRST, 10)
    for index, feed in enumerate(rooms):
        assert any(at > begin for at in looks.at[feed]) == (index in watched)
    assert len(looks.checks._due) == len(watched)


async def test_many_rooms_are_looked_at_in_batches_and_not_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Looks()
    monkeypatch.setattr(checks, "RATE", 10_000)
    async with running(looks):
        for _ in range(1000):
            looks.checks.later(room())
        begin = asyncio.get_running_loop().time()
        await eventually(lambda: len(looks.at) == 1000)
        assert asyncio.get_running_loop().time() - begin >= 0.08 - 0.002
    assert max(looks.batches) == BATCH


async def test_an_engine_that_is_away_is_asked_again_and_not_about_rooms_that_are_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checks, "AGAIN", 0.0)
    looks, stays, goes = Looks(), room(), room()
    held, asked = asyncio.Event(), asyncio.Event()
    look = looks.look

    async def held_look(feeds: list[Feed]) -> None:
        asked.set()
        await held.wait()
        await look(feeds)

    looks.is_away = True
    looks.checks = Checks(held_look, looks.clock)
    async with running(looks):
        looks.checks.later(stays)
        looks.checks.later(goes)
        await asked.wait()
        looks.checks.forget(goes)
        held.set()
        await eventually(lambda: len(looks.batches) > 1)
        looks.is_away = False
        await eventually(lambda: looks.at[stays])
    assert goes not in looks.at
    assert set(looks.checks._due) == {stays}


def test_a_room_that_is_always_due_is_looked_at_at_a_pace_on_uvloop_too() -> None:
    uvloop = pytest.importorskip("uvloop")  # which does not wait half a millisecond

    async def looked(count: int) -> float:
        looks = Looks()
        feed, enough = room(), asyncio.Event()

        async def look(feeds: list[Feed]) -> None:
            looks.batches.append(len(feeds))
            looks.checks.later(feed)
            if len(looks.batches) == count:
                enough.set()

        looks.checks = Checks(look, looks.clock)
        looks.checks.later(feed)
        began = time.monotonic()
        running = asyncio.create_task(looks.checks.run())
        async with asyncio.timeout(10):
            await enough.wait()
        running.cancel()
        return time.monotonic() - began

    assert uvloop.run(looked(100)) >= 99 / checks.RATE
