"""Schedule: what is due is acted upon in the order of its time, in batches, and what is stopped is not kept."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import eventually
from tests.support.clocks import HandClock, looks_often
from velocity_ws.concurrency.schedule import BATCH, GARBAGE, Schedule


@asynccontextmanager
async def schedule(act: Callable[[int], None], clock: Callable[[], float]) -> AsyncIterator[Schedule[int]]:
    """A schedule of numbers, which ends with the block."""
    found: Schedule[int] = Schedule(asyncio.get_running_loop(), clock, act)
    try:
        yield found
    finally:
        found.stop()


async def test_what_is_due_is_acted_upon_in_the_order_of_its_time_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks_often(monkeypatch)
    clock, acted = HandClock(), list[int]()
    async with schedule(acted.append, clock) as due:
        items = random.Random(5).sample(range(1000), 1000)
        for item in items:
            due.start(item, clock.now + 1 + item)
        for item in range(0, 1000, 3):
            due.cancel(item)
            due.cancel(item)
        due.start(500, clock.now + 700.5)  # in place of the time that it had
        clock.advance(600)
        before = [item for item in range(600) if item % 3 and item != 500]
        await eventually(lambda: len(acted) >= len(before))
        assert acted == before
        clock.advance(10**9)
        await eventually(lambda: not len(due))
        after = [item for item in range(600, 1000) if item % 3]
        assert acted == [*before, *[i for i in after if i < 700], 500, *[i for i in after if i >= 700]]


async def test_the_timer_follows_an_item_that_is_due_before_all_others() -> None:
    acted, over = list[int](), asyncio.Event()
    loop = asyncio.get_running_loop()

    def act(item: int) -> None:
        acted.append(item)
        over.set()

    async with schedule(act, loop.time) as due:
        due.start(1, loop.time() + 10**8)
        due.start(2, loop.time() + 3600)
        due.start(3, loop.time() + 0.01)
        await asyncio.wait_for(over.wait(), 30)
        assert acted == [3]
        over.clear()
        due.start(4, loop.time() - 5)  # which is over
        await asyncio.wait_for(over.wait(), 30)
        assert acted == [3, 4]
        assert len(due) == 2


async def test_others_have_their_turn_where_many_are_due_at_once() -> None:
    clock, acted, turns = HandClock(), list[int](), list[int]()
    async with schedule(acted.append, clock) as due:
        for item in range(10 * BATCH):
            due.start(item, clock.now)
        while len(due):
            await asyncio.sleep(0)
            turns.append(len(acted))
        assert acted == list(range(10 * BATCH))
        assert max(after - before for before, after in zip([0, *turns], turns, strict=False)) == BATCH


async def test_one_that_fails_costs_no_other_its_time() -> None:
    loop, failures, acted = asyncio.get_running_loop(), list[object](), list[int]()
    loop.set_exception_handler(lambda _, context: failures.append(context["exception"]))

    def act(item: int) -> None:
        if item == 0:
            raise ValueError(item)
        acted.append(item)
        due.cancel(2)
        due.start(3, clock.now)

    clock = HandClock()
    async with schedule(act, clock) as due:
        for item in range(3):
            due.start(item, clock.now)
        await eventually(lambda: 3 in acted)
        due.stop()
        assert acted[:2] == [1, 3]
        assert [str(failure) for failure in failures] == ["0"]


async def test_what_is_stopped_is_freed_at_once_and_renewing_leaves_no_more_behind_than_there_is() -> None:
    class Thing:
        pass

    loop = asyncio.get_running_loop()
    due: Schedule[object] = Schedule(loop, loop.time, lambda item: None)
    gc.disable()
    try:
        things = [Thing() for _ in range(100)]
        for _ in range(100):
            for thing in things:
                due.start(thing, loop.time() + 10**9)
        assert len(due) == 100
        assert len(due._heap) <= 200 + GARBAGE
        gone = [weakref.ref(thing) for thing in things]
        for thing in things:
            due.cancel(thing)
        del things, thing
        assert not any(ref() for ref in gone)
        assert len(due._heap) <= GARBAGE
    finally:
        gc.enable()
    due.start("last", loop.time() + 10**9)
    due.stop()
    assert (len(due), due._timer) == (0, None)


class Timer:
    """A callback of `Loop`."""

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Loop:
    """A loop whose time is a clock's, and which runs only what is due."""

    def __init__(self, clock: HandClock) -> None:
        self._clock = clock
        self._timers: list[Timer] = []

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(self._clock.now + delay, callback)
        self._timers.append(timer)
        assert len(self.waiting()) == 1, "there is one timer for all"
        return timer

    def call_soon(self, callback: Callable[[], None]) -> Timer:
        return self.call_later(0, callback)

    def waiting(self) -> list[Timer]:
        """The timers that are set."""
        self._timers = [timer for timer in self._timers if not timer.is_cancelled]
        return self._timers

    def advance(self, seconds: float) -> None:
        """Let time pass, and run what becomes due, at its time."""
        until = self._clock.now + seconds
        while due := [timer for timer in self.waiting() if timer.when <= until]:
            self._clock.now = max(self._clock.now, due[0].when)
            self._timers.remove(due[0])
            due[0].callback()
        self._clock.now = until


ITEM = st.integers(0, 9)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("start"), ITEM, st.integers(-5, 30_000)),
        st.tuples(st.just("cancel"), ITEM, st.just(0)),
        st.tuples(st.just("advance"), st.integers(0, 20_000), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_whatever_is_started_and_cancelled_each_item_has_its_time_and_no_other(
    steps: list[tuple[str, int, int]],
) -> None:
    clock = HandClock(0)
    loop = Loop(clock)
    acted, expected = list[tuple[int, float]](), list[tuple[int, float]]()
    due_at: dict[int, float] = {}
    found: Schedule[int] = Schedule(cast("Any", loop), clock, lambda item: acted.append((item, clock.now)))
    for step, item, number in steps:
        if step == "start":
            due_at[item] = clock.now + number
            found.start(item, due_at[item])
        elif step == "cancel":
            due_at.pop(item, None)
            found.cancel(item)
        else:
            before = clock.now
            loop.advance(item)
            over = {each: due for each, due in due_at.items() if due <= clock.now}
            expected += [(each, max(before, due)) for each, due in over.items()]
            due_at = {each: due for each, due in due_at.items() if each not in over}
        assert len(found) == len(due_at)
        assert sorted(acted) == sorted(expected)
        assert bool(loop.waiting()) or not due_at
    assert [due for _, due in acted] == sorted(due for _, due in acted)
