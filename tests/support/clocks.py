"""Clocks that a test sets by hand."""

from __future__ import annotations

import pytest


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
