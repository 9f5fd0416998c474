"""Every store of room logs does what the contract says, on a real engine of its own for each test."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.configured import configured
from tests.support.engines import ENGINES, Engine
from tests.support.redis_servers import order
from velocity_ws.backplane import Backplane, create_backplane
from velocity_ws.history.base import HistoryStore
from velocity_ws.history.items import Log
from velocity_ws.history.memory import MemoryHistory
from velocity_ws.history.redis import RedisHistory
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


class OnRedis(HistoryContract):
    """A store on a server of Redis's kind, which can be killed, stopped, filled and set back."""

    kind: str
    server: Engine

    @pytest_asyncio.fixture(autouse=True)
    async def start(self, tmp_path: Path) -> AsyncIterator[None]:
        self.directory = tmp_path
        async with configured(self.kind, "--dir", str(tmp_path)) as self.server:
            yield

    async def store(self) -> HistoryStore:
        return RedisHistory(self.server.url)

    async def backplane(self) -> Backplane:
        return create_backplane(self.server.url)

    async def kill(self) -> None:
        await self.server.kill()

    async def restart_empty(self) -> None:
        await self.server.restart()

    async def freeze(self) -> None:
        self.server.freeze()

    async def thaw(self) -> None:
        self.server.thaw()

    async def save(self) -> None:
        await order(self.server, "SAVE")

    async def rewind(self) -> None:
        await self.server.restart()  # which loads what was saved

    async def lose_meta(self, log: Log) -> None:
        assert await order(self.server, "DEL", f"{{{log.topic}}}:meta") == 1

    async def lose_entries(self, log: Log) -> None:
        assert await order(self.server, "DEL", f"{{{log.topic}}}:log") == 1

    async def lose_removals(self, log: Log) -> None:
        assert await order(self.server, "DEL", f"{{{log.topic}}}:removals") == 1

    async def fill(self) -> None:
        await order(self.server, "CONFIG", "SET", "maxmemory-policy", "noeviction")
        await order(self.server, "CONFIG", "SET", "maxmemory", "100kb")


class TestValkey(OnRedis):
    kind = "valkey"


@pytest.mark.skipif("redis" not in ENGINES, reason="there is no redis-server")
class TestRedis(OnRedis):
    kind = "redis"
