"""A cluster of Redis, by any of its nodes: it passes every message to all of them, so that the contract holds as it is.

`redis+cluster://` uses sharded pub/sub instead, which has a connection for each shard, and so no order across topics.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
from contextlib import AsyncExitStack
from pathlib import Path

from tests.support.configured import configured
from tests.support.engines import Engine, engine
from velocity_ws.backplane import Backplane, create_backplane
from velocity_ws.testing import BackplaneContract
from velocity_ws.testing.listener import DEADLINE

SLOTS = 16384


class OnCluster(BackplaneContract):
    """Each backplane is on another node than the one before."""

    def __init__(self, servers: list[Engine]) -> None:
        self.urls = itertools.cycle([server.url for server in servers])

    async def backplane(self) -> Backplane:
        return create_backplane(next(self.urls))


async def command(server: Engine, *words: str | int) -> str:
    """What a server answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(" ".join(str(word) for word in words).encode() + b"\r\n")
    answer = await reader.readline()
    if answer.startswith(b"$"):
        answer = await reader.readexactly(int(answer[1:]))
    writer.close()
    await writer.wait_closed()
    return answer.decode()


async def free_port() -> int:
    """One that a server had, which is gone."""
    async with engine("valkey") as server:
        return server.port


async def started(stack: AsyncExitStack, directory: Path) -> list[Engine]:
    """Three nodes that know each other."""
    servers: list[Engine] = []
    buses = [await free_port() for _ in range(3)]
    for number, bus in enumerate(buses):
        own = directory / str(number)
        own.mkdir()
        # A node that hears nothing of another for half this time makes a new link, which may overtake the old one.
        patient = ("--cluster-node-timeout", "120000")
        options = ("--cluster-enabled", "yes", "--cluster-port", str(bus), "--dir", str(own), *patient)
        servers.append(await stack.enter_async_context(configured("valkey", *options)))
    for number, server in enumerate(servers):
        first, after = SLOTS * number // 3, SLOTS * (number + 1) // 3
        assert "OK" in await command(server, "CLUSTER", "ADDSLOTSRANGE", first, after - 1)
        assert "OK" in await command(servers[0], "CLUSTER", "MEET", "127.0.0.1", server.port, buses[number])
    async with asyncio.timeout(DEADLINE):
        for server in servers:
            while not await reaches_all(server):
                await asyncio.sleep(0.02)  # no event tells
    return servers


async def reaches_all(server: Engine) -> bool:
    """Whether all slots are served, and the node has a link to each other one, which misses what is said before."""
    info = await command(server, "CLUSTER", "INFO")
    nodes = (await command(server, "CLUSTER", "NODES")).splitlines()
    links = [line for line in nodes if " connected" in line and "handshake" not in line]
    return "cluster_state:ok" in info and "cluster_known_nodes:3" in info and len(links) == 3


async def test_the_contract_across_nodes(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        contract = OnCluster(await started(stack, tmp_path))
        tests = [
            test
            for name, test in inspect.getmembers(contract, inspect.iscoroutinefunction)
            if name.startswith("test_") and "engine" not in name  # those that kill it
        ]
        assert len(tests) >= 15
        for test in tests:
            await test()
