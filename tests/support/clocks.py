"""Clocks that a test sets by hand, or that know nothing of what else the machine does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from velocity_ws.streams.memory import MemoryStreams

TURN = 0.05
"""Seconds that a turn of a loop, or a step of one, takes at most; beyond, its process was held up."""


class HandClock:
    """Seconds that pass when the test says so."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have schedules look at their clock every few milliseconds: no loop hears that a test has set one."""
    monkeypatch.setattr("velocity_ws.concurrency.schedule.LONGEST_SLEEP", 0.005)


def knows_no_delay(loop: asyncio.AbstractEventLoop) -> None:
    """Have a loop of asyncio's take time in which its process was held up for none.

    Where a client, its server and the application are on one loop, a busy machine holds up all of them at once. What
    one of them does for the other within a tenth of a second is in time then, as it is on a machine that does nothing
    else; what nobody does is late as ever.
    """
    own: Any = loop
    now, wait = loop.time, own._selector.select
    seen, held_up = now(), 0.0

    def time() -> float:
        nonlocal seen, held_up
        found = now()
        held_up += max(0.0, found - seen - TURN)
        seen = found
        return found - held_up

    def select(timeout: float | None = None) -> Any:
        nonlocal seen, held_up
        time()
        began = seen
        found = wait(timeout)
        seen = now()
        if timeout is not None and seen - began > timeout + TURN:
            # What came meanwhile, or is done by a thread, is to have its turns before the timer that is due.
            held_up += seen - began - max(0.0, timeout - TURN)
        return found

    own.time, own._selector.select = time, select


def keeps_time_of(loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have streams in this process last by the time of a loop, where no engine is given another."""
    make: Any = MemoryStreams.__init__
    monkeypatch.setitem(make.__kwdefaults__, "clock", loop.time)
