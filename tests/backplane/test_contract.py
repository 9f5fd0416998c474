"""Every backplane of the package does what the contract says, on a real engine of its own for each test."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.engines import ENGINES, Engine, engine
from velocity_ws.backplane import Backplane, create_backplane
from velocity_ws.testing import BackplaneContract

_names = itertools.count()


class OnServer(BackplaneContract):
    """A backplane on a server that can be killed and stopped."""

    kind: str
    server: Engine

    @pytest_asyncio.fixture(autouse=True)
    async def start(self) -> AsyncIterator[None]:
        async with engine(self.kind) as self.server:
            yield

    async def backplane(self) -> Backplane:
        return create_backplane(self.server.url)

    async def kill(self) -> None:
        await self.server.kill()

    async def freeze(self) -> None:
        self.server.freeze()

    async def thaw(self) -> None:
        self.server.thaw()


class TestNats(OnServer):
    kind = "nats"


class TestValkey(OnServer):
    kind = "valkey"


@pytest.mark.skipif("redis" not in ENGINES, reason="there is no redis-server")
class TestRedis(OnServer):
    kind = "redis"


class TestMemory(BackplaneContract):
    @pytest.fixture(autouse=True)
    def name(self) -> None:
        self.url = f"memory://contract-{next(_names)}"

    async def backplane(self) -> Backplane:
        return create_backplane(self.url)
