"""Streams in JetStream do what the contract says, on a real server of their own for each test: on disk, in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import pytest_asyncio

from tests.support.jetstream import StoringNats, storing
from velocity_ws.backplane import Backplane, create_backplane
from velocity_ws.streams.base import StreamStore
from velocity_ws.streams.nats import NatsStreams
from velocity_ws.testing import StreamContract

STREAM = "velocity-streams"


class TestNatsOnDisk(StreamContract):
    storage: Literal["file", "memory"] = "file"
    server: StoringNats

    @pytest_asyncio.fixture(autouse=True)
    async def start(self, tmp_path: Path) -> AsyncIterator[None]:
        async with storing(tmp_path) as self.server:
            yield

    async def store(self, prefix: str) -> StreamStore:
        return NatsStreams(self.server.url, prefix=prefix, storage=self.storage)

    async def backplane(self) -> Backplane:
        return create_backplane(self.server.url)

    async def kill(self) -> None:
        await self.server.kill()

    async def freeze(self) -> None:
        self.server.freeze()

    async def thaw(self) -> None:
        self.server.thaw()

    async def fill(self) -> None:
        await self.server.fill(STREAM)


class TestNatsInMemory(TestNatsOnDisk):
    storage = "memory"
