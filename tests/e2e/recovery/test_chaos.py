"""Chaos: nodes, clients and the engine fail again and again under load, and nobody misses a message.

Three nodes in processes of their own, 200 clients in 20 rooms, 200 messages a second. Every few seconds something
happens. At the end each client has every message of its rooms once and in order, or was told exactly which it has not.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.support import eventually
from tests.support.dead_network import network
from tests.support.disturbing import Disturbing
from tests.support.engines import ENGINES
from tests.support.remembering import remembering
from tests.support.returning import Page, until_available
from tests.support.say import Say
from tests.support.talking import LOST, Process, Talking

NODES, CLIENTS, ROOMS, RATE = 3, 200, 20, 200
SECONDS = float(os.environ.get("CHAOS_SECONDS", "600"))
"""How long it lasts."""
SEED = int(os.environ.get("CHAOS_SEED", "1"))


class Chaos(Talking):
    """Clients and voices, all the time."""

    def __init__(self, nodes: list[Process], seed: int) -> None:
        super().__init__(nodes, [f"chat:{number}" for number in range(ROOMS)], seed)

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

    async def client_is_cut(self) -> None:
        for page, _ in self._chance.sample(self.members, 20):
            page.cut()


@asynccontextmanager
async def chaos(
    kind: str, directory: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> AsyncIterator[tuple[Chaos, Disturbing]]:
    """Nodes and an engine that remembers on disk, and clients and voices that are there until the end of the block."""
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(remembering(kind, directory, monkeypatch, careful=True))
        assert engine.port is not None
        ways = [await stack.enter_async_context(network(engine.port)) for _ in range(NODES)]
        nodes = [Process(f"{kind}://127.0.0.1:{way.port}") for way in ways]
        for node in nodes:
            stack.callback(node.signal, signal.SIGKILL)
        found = Chaos(nodes, seed)
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
                yield found, Disturbing(engine, ways, nodes, random.Random(seed))
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
    async with chaos(kind, tmp_path, monkeypatch, SEED) as (found, disturbing):
        events = [
            found.client_is_cut, disturbing.node_is_killed, disturbing.node_is_frozen,
            disturbing.connections_are_killed, disturbing.engine_is_frozen, disturbing.engine_is_killed,
            disturbing.node_is_deployed,
        ]  # fmt: skip
        await disturbing.happen(events, SECONDS)
        delivered, told = await found.settles()
        said = sum(found.ledger.log(room).begun for room in found.rooms)
    say(
        f"{kind}, {SECONDS:.0f} s of chaos, seed {SEED}: {dict(disturbing.happened)}; {said} messages were said, "
        f"{delivered} came to {CLIENTS} clients, each once and in order, and {told} were told lost"
    )
    assert told == 0  # as the engine has kept all of them
