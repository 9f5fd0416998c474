"""Keepalive: any number of connections costs two timers, and each is pinged in its time."""

from __future__ import annotations

import asyncio

from velocity_ws.websocket.keepalive import Keepalive


class Kept:
    """A connection that answers its pings, or does not."""

    def __init__(self, keepalive: Keepalive, *, answers: bool) -> None:
        self.pings = 0
        self.late = asyncio.Event()
        self._keepalive = keepalive
        self._answers = answers
        keepalive.add(self)

    def ping_is_due(self) -> None:
        self.pings += 1
        self._keepalive.pinged(self)
        if self._answers:
            self._keepalive.ponged(self)

    def pong_is_late(self) -> None:
        self.late.set()


async def test_who_answers_is_pinged_on_and_who_does_not_is_late_once() -> None:
    keepalive = Keepalive(asyncio.get_running_loop(), 0.01, 0.02)
    lively, dead = Kept(keepalive, answers=True), Kept(keepalive, answers=False)
    async with asyncio.timeout(30):
        await dead.late.wait()
        while lively.pings < 5:
            await asyncio.sleep(0)
    assert (dead.pings, lively.late.is_set()) == (1, False)
    keepalive.remove(lively)


async def test_without_a_timeout_it_is_pinged_on_though_nothing_answers() -> None:
    keepalive = Keepalive(asyncio.get_running_loop(), 0.01, 0.0)
    silent = Kept(keepalive, answers=False)
    async with asyncio.timeout(30):
        while silent.pings < 3:
            await asyncio.sleep(0)
    assert not silent.late.is_set()
    keepalive.remove(silent)


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
        keepalive.remove(each)
