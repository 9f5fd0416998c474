"""Every store of streams does what the contract says, on a real engine of its own for each test."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.engines import ENGINES, Engine, engine
from tests.support.redis_servers import OneShard, order
from velocity_ws.backplane import Backplane, create_backplane
from velocity_ws.streams.base import StreamStore
from velocity_ws.streams.memory import MemoryStreams
from velocity_ws.streams.redis import RedisStreams
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


class OnRedis(StreamContract):
    """A store on a server of Redis's kind, which can be killed, stopped and filled."""

    kind: str
    server: Engine

    @pytest_asyncio.fixture(autouse=True)
    async def start(self) -> AsyncIterator[None]:
        async with engine(self.kind) as self.server:
            yield

    async def store(self, prefix: str) -> StreamStore:
        return RedisStreams(self.server.url, prefix=prefix)

    async def backplane(self) -> Backplane:
        return create_backplane(self.server.url)

    async def kill(self) -> None:
        await self.server.kill()

    async def freeze(self) -> None:
        self.server.freeze()

    async def thaw(self) -> None:
        self.server.thaw()

    async def fill(self) -> None:
        await order(self.server, "CONFIG", "SET", "maxmemory-policy", "noeviction")
        await order(self.server, "CONFIG", "SET", "maxmemory", "100kb")


class TestValkey(OnRedis):
    kind = "valkey"


@pytest.mark.skipif("redis" not in ENGINES, reason="there is no redis-server")
class TestRedis(OnRedis):
    kind = "redis"


@pytest.mark.soak  # a server takes two seconds to believe that it is a cluster, and each test has its own
class TestOneShard(OneShard, StreamContract):
    """A cluster of one shard, whose topics are channels of it."""

    async def store(self, prefix: str) -> StreamStore:
        return RedisStreams(self.url, prefix=prefix)
