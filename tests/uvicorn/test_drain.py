"""Drain: who is told to go when, on a clock of the test's own."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import pytest

from velocity_ws.uvicorn.drain import BATCH, SHARE, Drain


class Clock:
    """The part of an event loop that a drain uses; time passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._numbers = itertools.count()
        self._due: list[tuple[float, int, Callable[..., Any], tuple[Any, ...]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, action: Callable[..., Any], *args: Any) -> asyncio.Handle:
        heapq.heappush(self._due, (when, next(self._numbers), action, args))
        return cast("asyncio.Handle", object())

    def call_later(self, delay: float, action: Callable[..., Any], *args: Any) -> asyncio.Handle:
        return self.call_at(self.now + delay, action, *args)

    def call_soon(self, action: Callable[..., Any], *args: Any) -> asyncio.Handle:
        return self.call_at(self.now, action, *args)

    def run(self, seconds: float) -> None:
        """Let so much time pass, and do what is due in it."""
        until = self.now + seconds
        while self._due and self._due[0][0] <= until:
            when, _, action, args = heapq.heappop(self._due)
            self.now = max(self.now, when)
            action(*args)
        self.now = until


class Connection:
    """Remembers what it was told, and when."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.told: list[tuple[float, float]] = []
        self.cuts: list[float] = []

    def go_away(self, retry_after: float, patience: float) -> None:
        self.told.append((self._clock.now, retry_after))

    def abort(self) -> None:
        self.cuts.append(self._clock.now)


def drained(clock: Clock, count: int, seconds: float) -> list[Connection]:
    """So many connections that have been added to a drain of their own."""
    drain = Drain(cast("asyncio.AbstractEventLoop", clock))
    connections = [Connection(clock) for _ in range(count)]
    for connection in connections:
        drain.add(connection, seconds)
    return connections


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.5, 2.0, 10.0])
@pytest.mark.parametrize("count", [1, BATCH - 1, BATCH, BATCH + 1, 50, 1000, 10_000])
def test_everyone_is_told_once_in_batches_and_cut_at_the_end(count: int, seconds: float) -> None:
    clock = Clock()
    start = clock.now
    connections = drained(clock, count, seconds)
    assert not any(connection.told for connection in connections)
    clock.run(seconds + 1)
    assert [len(connection.told) for connection in connections] == [1] * count
    assert {tuple(connection.cuts) for connection in connections} == {(start + seconds,)}
    times = [connection.told[0][0] for connection in connections]
    assert times == sorted(times)
    assert times[0] == start
    assert times[-1] <= start + SHARE * seconds + 1e-6
    sizes = list(Counter(times).values())
    assert min(sizes[:-1], default=BATCH) >= BATCH
    assert sizes[-1] <= max(sizes)


def test_many_are_spread_over_the_time_there_is() -> None:
    clock = Clock()
    start = clock.now
    connections = drained(clock, 1000, 10.0)
    clock.run(11)
    times = sorted({connection.told[0][0] for connection in connections})
    assert len(times) == 1000 // BATCH
    assert times[-1] > start + 0.9 * SHARE * 10
    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert max(pauses) < 2 * min(pauses)


def test_batches_grow_where_there_is_little_time() -> None:
    """The loop is left alone between two batches, whatever there is to do."""
    clock = Clock()
    connections = drained(clock, 10_000, 2.0)
    clock.run(3)
    times = sorted({connection.told[0][0] for connection in connections})
    assert min(after - before for before, after in itertools.pairwise(times)) > 0.0999
    assert times[-1] - times[0] > 0.9 * SHARE * 2


def test_a_loop_too_busy_for_it_catches_up() -> None:
    clock = Clock()
    start = clock.now
    connections = drained(clock, 1000, 10.0)
    clock.run(0)
    for _ in range(60):  # the loop comes back only now and then
        clock.now += 0.5
        clock.run(0)
        told = [connection for connection in connections if connection.told]
        assert len(told) >= min(1000, 1000 * (clock.now - start) / (SHARE * 10) - BATCH)
    times = sorted({connection.told[0][0] for connection in connections})
    assert times[-1] <= start + SHARE * 10 + 0.5
    assert len(times) > 10


@pytest.mark.parametrize(
    ("count", "seconds", "spread"),
    [(1, 10.0, 0.5), (50, 10.0, 0.5), (1000, 10.0, 5.0), (10_000, 10.0, 10.0), (1, 0.2, 0.2)],
)
def test_those_told_to_go_come_back_over_the_time_that_so_many_need(count: int, seconds: float, spread: float) -> None:
    clock = Clock()
    connections = drained(clock, count, seconds)
    clock.run(seconds + 1)
    hints = [connection.told[0][1] for connection in connections]
    assert min(hints) >= 0.1
    assert max(hints) <= spread
    if count >= 50:
        assert max(hints) > 0.7 * spread
        assert len({f"{hint:.3f}" for hint in hints}) > min(0.7 * count, 200)
    # No second has more than a fair share of those who come back.
    returns = Counter(int(connection.told[0][0] + hint) for connection, hint in zip(connections, hints, strict=True))
    assert max(returns.values()) < max(2 * 200, 2 * count / (SHARE * seconds))


def test_those_added_together_share_the_shortest_of_their_times() -> None:
    clock = Clock()
    start = clock.now
    drain = Drain(cast("asyncio.AbstractEventLoop", clock))
    connections = [Connection(clock) for _ in range(300)]
    for number, connection in enumerate(connections):
        drain.add(connection, (10.0, 2.0, 5.0)[number % 3])
    clock.run(20)
    assert {tuple(connection.cuts) for connection in connections} == {(start + 2,)}
    assert all(len(connection.told) == 1 for connection in connections)
    assert max(connection.told[0][0] for connection in connections) <= start + SHARE * 2 + 1e-6


def test_one_added_while_it_goes_on_is_told_too() -> None:
    clock = Clock()
    start = clock.now
    drain = Drain(cast("asyncio.AbstractEventLoop", clock))
    connections = [Connection(clock) for _ in range(100)]
    for connection in connections:
        drain.add(connection, 2.0)
    clock.run(0.1)
    late = Connection(clock)
    drain.add(late, 10.0)
    clock.run(1.7)
    later = Connection(clock)
    drain.add(later, 10.0)
    clock.run(20)
    for connection in (late, later):
        assert len(connection.told) == 1
        assert connection.cuts == [start + 2]


def test_what_one_connection_raises_costs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Connection):
        def go_away(self, retry_after: float, patience: float) -> None:
            raise ValueError("broken on purpose")

        def abort(self) -> None:
            super().abort()
            raise ValueError("broken on purpose")

    clock = Clock()
    drain = Drain(cast("asyncio.AbstractEventLoop", clock))
    connections = [Broken(clock), *[Connection(clock) for _ in range(50)]]
    for connection in connections:
        drain.add(connection, 2.0)
    with caplog.at_level(logging.ERROR):
        clock.run(3)
    assert [len(connection.told) for connection in connections] == [0] + [1] * 50
    assert all(connection.cuts for connection in connections)
    assert len(caplog.records) == 2


async def test_it_runs_on_a_real_loop() -> None:
    loop = asyncio.get_running_loop()
    drain = Drain(loop)
    done = asyncio.Event()
    told: list[float] = []
    cut: list[float] = []

    class Real:
        def go_away(self, retry_after: float, patience: float) -> None:
            told.append(loop.time())

        def abort(self) -> None:
            cut.append(loop.time())
            done.set()

    start = loop.time()
    for _ in range(60):
        drain.add(Real(), 0.5)
    async with asyncio.timeout(10):
        await done.wait()
    assert len(told) == len(cut) == 60
    assert len(set(told)) >= 3
    assert told[-1] < cut[0]
    assert cut[0] >= start + 0.5
