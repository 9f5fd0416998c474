"""Deadlines and keepalive: what many connections wait for costs two timers, and each is acted upon in its time."""

from __future__ import annotations

import asyncio

from velocity_ws.concurrency.deadlines import BATCH, Deadlines
from velocity_ws.websocket.keepalive import Keepalive


class Kept:
    """A connection that answers its pings, or does not."""

    def __init__(self, keepalive: Keepalive, *, answers: bool) -> None:
        self.pings = 0
        self.late = asyncio.Event()
        self._keepalive = keepalive
        self._answers = answers
        keepalive.begin(self)

    def ping_is_due(self) -> None:
        self.pings += 1
        self._keepalive.pinged(self)
        if self._answers:
            self._keepalive.heard(self)

    def pong_is_late(self) -> None:
        self.late.set()


async def test_what_is_late_is_acted_upon_in_order_and_what_was_stopped_is_not() -> None:
    acted: list[int] = []
    over = asyncio.Event()

    def act(item: int) -> None:
        acted.append(item)
        if item == 0:
            deadlines.stop(1)
            deadlines.stop(2)
            deadlines.start(2)  # anew, and so behind all others
        elif item == 2:
            over.set()

    deadlines: Deadlines[int] = Deadlines(asyncio.get_running_loop(), 0.05, act)
    for item in range(3 * BATCH):
        deadlines.start(item)
    await asyncio.wait_for(over.wait(), 30)
    assert acted == [0, *range(3, 3 * BATCH), 2]
    assert not len(deadlines)


async def test_one_that_raises_costs_no_other_its_deadline() -> None:
    loop = asyncio.get_running_loop()
    failures: list[object] = []
    over = asyncio.Event()
    loop.set_exception_handler(lambda _, context: failures.append(context["exception"]))

    def act(item: str) -> None:
        if item == "fails":
            raise ValueError(item)
        over.set()

    deadlines: Deadlines[str] = Deadlines(loop, 0.01, act)
    deadlines.start("fails")
    deadlines.start("follows")
    await asyncio.wait_for(over.wait(), 30)
    assert [str(failure) for failure in failures] == ["fails"]


async def test_who_answers_is_pinged_on_and_who_does_not_is_late_once() -> None:
    keepalive = Keepalive(asyncio.get_running_loop(), 0.01, 0.02)
    lively, dead = Kept(keepalive, answers=True), Kept(keepalive, answers=False)
    async with asyncio.timeout(30):
        await dead.late.wait()
        while lively.pings < 5:
            await asyncio.sleep(0)
    assert (dead.pings, lively.late.is_set()) == (1, False)
    keepalive.end(lively)


async def test_without_a_timeout_it_is_pinged_on_though_nothing_answers() -> None:
    keepalive = Keepalive(asyncio.get_running_loop(), 0.01, 0.0)
    silent = Kept(keepalive, answers=False)
    async with asyncio.timeout(30):
        while silent.pings < 3:
            await asyncio.sleep(0)
    assert not silent.late.is_set()
    keepalive.end(silent)


async def test_any_number_of_connections_has_two_timers() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, asyncio.BaseEventLoop)
    before = len(loop._scheduled)  # type: ignore[attr-defined]
    keepalive = Keepalive(loop, 60, 20)
    kept = [Kept(keepalive, answers=True) for _ in range(1000)]
    for each in kept:
        each.ping_is_due()
    assert len(loop._scheduled) - before <= 2  # type: ignore[attr-defined]
    for each in kept:
        keepalive.end(each)
