"""Every store of streams does what the contract says, on a real engine of its own for each test."""

from __future__ import annotations

import itertools

import pytest

from velocity_ws.backplane import Backplane, create_backplane
from velocity_ws.streams.base import StreamStore
from velocity_ws.streams.memory import MemoryStreams
from velocity_ws.testing import StreamContract

_names = itertools.count()


class TestMemory(StreamContract):
    @pytest.fixture(autouse=True)
    def name(self) -> None:
        self.url = f"memory://streams-{next(_names)}"

    async def store(self, prefix: str) -> StreamStore:
        return MemoryStreams(self.url, prefix=prefix)

    async def backplane(self) -> Backplane:
        return create_backplane(self.url)
