"""Logs in JetStream do what the contract says, on a real server of their own for each test: on disk, and in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import pytest
import pytest_asyncio

from tests.support.jetstream import StoringNats, storing
from velocity_ws.backplane import Backplane, create_backplane
from velocity_ws.history.base import HistoryStore
from velocity_ws.history.items import Log
from velocity_ws.history.nats import NatsHistory
from velocity_ws.history.nats_stream import Names
from velocity_ws.testing import HistoryContract


class TestNatsOnDisk(HistoryContract):
    storage: Literal["file", "memory"] = "file"
    names = Names("velocity")
    server: StoringNats

    @pytest_asyncio.fixture(autouse=True)
    async def start(self, tmp_path: Path) -> AsyncIterator[None]:
        async with storing(tmp_path) as self.server:
            yield

    async def store(self) -> HistoryStore:
        return NatsHistory(self.server.url, storage=self.storage)

    async def backplane(self) -> Backplane:
        return create_backplane(self.server.url)

    async def kill(self) -> None:
        await self.server.kill()

    async def restart_empty(self) -> None:
        await self.server.restart_empty()

    async def freeze(self) -> None:
        self.server.freeze()

    async def thaw(self) -> None:
        self.server.thaw()

    async def save(self) -> None:
        self.server.save()

    async def rewind(self) -> None:
        await self.server.rewind()

    async def lose_meta(self, log: Log) -> None:
        assert await self.server.purge(self.names.heads(log.topic))

    async def lose_removals(self, log: Log) -> None:
        assert await self.server.purge(self.names.removals(log.topic))

    async def fill(self) -> None:
        await self.server.fill()


class TestNatsInMemory(TestNatsOnDisk):
    storage = "memory"

    async def restart_empty(self) -> None:
        await self.server.restart()

    async def save(self) -> None:
        pytest.skip("a stream in memory is gone with its server")
