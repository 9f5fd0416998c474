"""Servers of Redis's kind: a cluster of them, and whether one works."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest_asyncio
from redis.asyncio import Redis

from tests.support.command import kept_port
from tests.support.configured import configured
from tests.support.engines import Engine
from velocity_ws.backplane import Backplane, create_backplane
from velocity_ws.testing.listener import listening

__all__ = ["OneShard", "cluster", "order", "replicated", "tell", "works"]

SLOTS = 16384


async def works(url: str) -> None:
    async with listening(create_backplane(url), ["a"]) as listener:
        await listener.backplane.publish([("a", b"1")])
        assert await listener.messages(1) == [("a", b"1")]


async def order(server: Engine, *command: str | int) -> Any:
    """Have a server do something, and return what it answers."""
    async with Redis(port=server.port, protocol=2) as redis:
        return await redis.execute_command(*command)  # type: ignore[no-untyped-call]


async def tell(server: Engine, *command: str | int) -> Any:
    """What a server answers to a CLUSTER command."""
    async with Redis(port=server.port) as redis:
        run: Any = redis.execute_command
        return await run("CLUSTER", *command)


@asynccontextmanager
async def cluster(directory: Path, shards: int) -> AsyncIterator[list[Engine]]:
    """So many servers that know each other and share the slots."""
    async with AsyncExitStack() as stack:
        servers, buses = [], []
        for number in range(shards):
            own = directory / str(number)
            own.mkdir()
            buses.append(kept_port())
            options = ("--cluster-enabled", "yes", "--cluster-port", str(buses[-1]), "--dir", str(own))
            servers.append(await stack.enter_async_context(configured("valkey", *options)))
        for number, server in enumerate(servers):
            first, last = SLOTS * number // shards, SLOTS * (number + 1) // shards - 1
            await tell(server, "ADDSLOTSRANGE", first, last)
            if number:
                await tell(server, "MEET", "127.0.0.1", servers[0].port, buses[0])
        async with asyncio.timeout(20):
            for server in servers:
                while "cluster_state:ok" not in str(await tell(server, "INFO")):
                    await asyncio.sleep(0.05)
        yield servers


@asynccontextmanager
async def replicated(directory: Path) -> AsyncIterator[tuple[Engine, Engine]]:
    """A cluster of one shard: its primary and a replica."""
    own, bus = directory / "replica", kept_port()
    own.mkdir()
    options = ("--cluster-enabled", "yes", "--cluster-port", str(bus), "--dir", str(own))
    async with cluster(directory, 1) as (primary,), configured("valkey", *options) as replica:
        me = (await tell(primary, "MYID")).decode()
        await tell(primary, "MEET", "127.0.0.1", replica.port, bus)
        async with asyncio.timeout(20):
            while "cluster_state:ok" not in str(await tell(replica, "INFO")):
                await asyncio.sleep(0.05)
            await tell(replica, "REPLICATE", me)
            async with Redis(port=replica.port) as redis:
                while (await redis.info("replication")).get("master_link_status") != "up":
                    await asyncio.sleep(0.05)
        yield primary, replica


class OneShard:
    """What a contract asks of a suite that runs on a cluster of one shard, of which each test has its own."""

    server: Engine

    @pytest_asyncio.fixture(autouse=True)
    async def start(self, tmp_path: Path) -> AsyncIterator[None]:
        """Have the cluster while the test runs."""
        async with cluster(tmp_path, 1) as (self.server,):
            yield

    @property
    def url(self) -> str:
        """As ``WS_BACKPLANE_URL`` has it."""
        return f"valkey+cluster://127.0.0.1:{self.server.port}"

    async def backplane(self) -> Backplane:
        return create_backplane(self.url)

    async def kill(self) -> None:
        await self.server.kill()

    async def freeze(self) -> None:
        self.server.freeze()

    async def thaw(self) -> None:
        self.server.thaw()
