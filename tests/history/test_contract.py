"""Every store of room logs does what the contract says, on a real engine of its own for each test."""

from __future__ import annotations

import itertools

import pytest

from velocity_ws.backplane import Backplane, create_backplane
from velocity_ws.history.base import HistoryStore
from velocity_ws.history.memory import MemoryHistory
from velocity_ws.testing import HistoryContract

_names = itertools.count()


class TestMemory(HistoryContract):
    @pytest.fixture(autouse=True)
    def name(self) -> None:
        self.url = f"memory://history-{next(_names)}"
        self.time = 1_800_000_000.0

    async def store(self) -> HistoryStore:
        return MemoryHistory(self.url, clock=lambda: self.time)

    async def backplane(self) -> Backplane:
        return create_backplane(self.url)

    async def pass_time(self, milliseconds: int) -> None:
        self.time += milliseconds / 1000
