"""Chaos: nodes, clients and the engine fail again and again under load, and nobody misses a message.

Three nodes in processes of their own, 200 clients in 20 rooms, 200 messages a second. Every few seconds something
happens. At the end each client has every message of its rooms once and in order, or was told exactly which it has not.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.support import eventually
from tests.support.dead_network import Network, network
from tests.support.engines import ENGINES
from tests.support.remembering import Remembering, remembering
from tests.support.returning import Page, until_available
from tests.support.say import Say
from tests.support.talking import LOST, Process, Talking

NODES, CLIENTS, ROOMS, RATE = 3, 200, 20, 200
SECONDS = float(os.environ.get("CHAOS_SECONDS", "600"))
"""How long it lasts."""
BETWEEN = 5.0
"""Seconds from one disturbance to the next."""
SEED = int(os.environ.get("CHAOS_SEED", "1"))


class Chaos(Talking):
    """All of it, and what can be done to it."""

    def __init__(self, engine: Remembering, ways: list[Network], nodes: list[Process], seed: int) -> None:
        super().__init__(nodes, [f"chat:{number}" for number in range(ROOMS)], seed)
        self.engine = engine
        self.ways = ways
        self.happened: Counter[str] = Counter()

    async def live(self, page: Page, rooms: list[str]) -> None:
        """Be in rooms, on any node; come back to them whenever the connection is lost."""
        while not self.is_over:
            try:
                await page.open(self._chance.choice(self.nodes), within=5)
                for room in rooms:
                    await until_available(partial(page.join, room), self._chance)
                await page.gone()
            except LOST:
                page.cut()
            await asyncio.sleep(self._chance.uniform(0.05, 0.5))

    # --- what happens

    async def client_is_cut(self) -> None:
        for page, _ in self._chance.sample(self.members, 20):
            page.cut()

    async def node_is_killed(self) -> None:
        node = self._chance.choice(self.nodes)
        node.signal(signal.SIGKILL)
        await node.ended()
        await asyncio.sleep(0.5)
        await node.start()

    async def node_is_frozen(self) -> None:
        node = self._chance.choice(self.nodes)
        node.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(self._chance.uniform(1, 4))
        finally:
            node.signal(signal.SIGCONT)

    async def connections_are_killed(self) -> None:
        for way in self.ways:
            await way.close()

    async def engine_is_frozen(self) -> None:
        self.engine.freeze()
        try:
            await asyncio.sleep(3)
        finally:
            self.engine.thaw()

    async def engine_is_killed(self) -> None:
        await self.engine.kill()
        await asyncio.sleep(self._chance.uniform(0, 1))
        await self.engine.start()

    async def node_is_deployed(self) -> None:
        node = self._chance.choice(self.nodes)
        node.signal(signal.SIGTERM)
        assert await asyncio.wait_for(node.ended(), 30) == 0
        await node.start()

    async def happen(self, seconds: float) -> None:
        """Do one of these now and then, each of them equally often."""
        events: list[Callable[[], Awaitable[None]]] = [
            self.client_is_cut, self.node_is_killed, self.node_is_frozen, self.connections_are_killed,
            self.engine_is_frozen, self.engine_is_killed, self.node_is_deployed,
        ]  # fmt: skip
        end, waiting = time.monotonic() + seconds, list[Callable[[], Awaitable[None]]]()
        while time.monotonic() < end:
            await asyncio.sleep(BETWEEN)
            if not waiting:
                waiting = self._chance.sample(events, len(events))
            event = waiting.pop()
            self.happened[event.__name__] += 1
            await event()


@asynccontextmanager
async def chaos(kind: str, directory: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> AsyncIterator[Chaos]:
    """Nodes and an engine that remembers on disk, and clients and voices that are there until the end of the block."""
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(remembering(kind, directory, monkeypatch, careful=True))
        assert engine.port is not None
        ways = [await stack.enter_async_context(network(engine.port)) for _ in range(NODES)]
        nodes = [Process(f"{kind}://127.0.0.1:{way.port}") for way in ways]
        for node in nodes:
            stack.callback(node.signal, signal.SIGKILL)
        found = Chaos(engine, ways, nodes, seed)
        await asyncio.gather(*[node.start() for node in nodes])
        chance = random.Random(seed)
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                rooms = sorted({found.rooms[number % ROOMS], chance.choice(found.rooms)})
                found.members.append((found.ledger.page(f"page {number}"), rooms))
                group.create_task(found.live(*found.members[-1]))
            await eventually(lambda: all(found.is_in(page, rooms) for page, rooms in found.members), within=60)
            for room in found.rooms * 2:
                found.voices.append(group.create_task(found.speak(room, RATE / ROOMS / 2)))
            try:
                yield found
            finally:
                found.stop()
        for node in nodes:
            node.signal(signal.SIGKILL)
            await node.ended()


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.parametrize("kind", [kind for kind in ("valkey", "redis", "nats") if kind in ENGINES])
async def test_everything_fails_and_nothing_is_lost(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: Say
) -> None:
    async with chaos(kind, tmp_path, monkeypatch, SEED) as found:
        await found.happen(SECONDS)
        delivered, told = await found.settles()
        said = sum(found.ledger.log(room).begun for room in found.rooms)
    say(
        f"{kind}, {SECONDS:.0f} s of chaos, seed {SEED}: {dict(found.happened)}; {said} messages were said, "
        f"{delivered} came to {CLIENTS} clients, each once and in order, and {told} were told lost"
    )
    assert told == 0  # as the engine has kept all of them
