"""NATS fails over: three routed servers, of which one after another goes, asked to or killed, as nodes talk."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from pathlib import Path

import nats.errors
import pytest

from tests.support.failing_over import FAILOVERS, NODES, Failover, Mend, failing_over
from tests.support.jetstream import StoringNats, routed
from tests.support.say import Say

pytestmark = [pytest.mark.soak, pytest.mark.timeout(60 + 60 * FAILOVERS)]
ASKED_FOR = 2.0
"""Seconds after which every node hears again, where the server says that it goes."""


class Servers:
    """Three of them, and what happens to them."""

    def __init__(self, servers: list[StoringNats]) -> None:
        self.servers = servers
        self.elections: list[float] = []
        """Seconds without a leader, each time that it was killed."""

    @property
    def urls(self) -> list[str]:
        """What each node is given: the same servers, another one first."""
        places = [f"127.0.0.1:{server.port}" for server in self.servers]
        return [f"nats://{','.join(places[who:] + places[:who])}?replicas=3" for who in range(NODES)]

    async def leader(self) -> StoringNats:
        """The server that leads the stream of the logs, once one does."""
        alive = [server for server in self.servers if server.process.returncode is None]
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(nats.errors.Error, AssertionError):
                    name = await alive[0].leader()
                    for server in alive:
                        if server.name == name:
                            return server
                await asyncio.sleep(0.05)

    async def another(self) -> StoringNats:
        """The one with most nodes that does not."""
        leader = await self.leader()
        counts = {server.name: await server.clients() for server in self.servers}
        return max((server for server in self.servers if server is not leader), key=lambda each: counts[each.name])

    async def leader_is_asked_to_go(self) -> Mend:
        return await self._asked(await self.leader())

    async def another_is_asked_to_go(self) -> Mend:
        return await self._asked(await self.another())

    async def leader_is_killed(self) -> Mend:
        mend, began = await self._killed(await self.leader()), time.monotonic()
        await self.leader()
        self.elections.append(time.monotonic() - began)
        return mend

    async def another_is_killed(self) -> Mend:
        return await self._killed(await self.another())

    async def _asked(self, server: StoringNats) -> Mend:
        """Lame duck mode, as a rolling update begins with it; then the end, after which it comes back."""
        server.process.send_signal(signal.SIGUSR2)

        async def mend() -> None:
            assert await server.clients() == 0, "a node has not left"
            await server.kill()  # it goes by itself ten seconds after that it was asked to
            await self._comes_back(server)

        return mend

    async def _killed(self, server: StoringNats) -> Mend:
        await server.kill()

        async def mend() -> None:
            await self._comes_back(server)

        return mend

    async def _comes_back(self, server: StoringNats) -> None:
        await server.start()
        await server.knows(len(self.servers) - 1)
        await server.caught_up()


async def fails_over(directory: Path, say: Say, how: str) -> list[Failover]:
    """What so many failovers cost that are of a kind."""
    async with routed(directory) as each:
        servers = Servers(each)
        async with failing_over(servers.urls) as found:
            disturbances = {
                "asked": [servers.leader_is_asked_to_go, servers.another_is_asked_to_go],
                "killed": [servers.leader_is_killed, servers.another_is_killed],
            }
            await found.fails_over(disturbances[how])
            delivered, told = await found.ends()
    say(f"NATS, {FAILOVERS} failovers, {how}; with history {delivered} came, and {told} were told lost\n{found}")
    if servers.elections:
        say(f"  without a leader for {', '.join(f'{seconds:.1f}' for seconds in servers.elections)} s")
    assert told == 0
    return found.failovers


async def test_servers_that_are_asked_to_go(tmp_path: Path, say: Say) -> None:
    for each in await fails_over(tmp_path, say, "asked"):
        assert max(each.plain, each.chat) < ASKED_FOR, each


async def test_servers_that_are_killed(tmp_path: Path, say: Say) -> None:
    await fails_over(tmp_path, say, "killed")
