"""Chaos: nodes, clients and the engine fail again and again under load, and nobody misses a message.

Three nodes in processes of their own, 200 clients in 20 rooms, 200 messages a second. Every few seconds something
happens. At the end each client has every message of its rooms once and in order, or was told exactly which it has not.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.support import eventually
from tests.support.command import kept_port
from tests.support.dead_network import Network, network
from tests.support.engines import ENGINES
from tests.support.remembering import Remembering, remembering
from tests.support.returning import Ledger, Page, until_available
from tests.support.say import Say

ROOT = Path(__file__).parents[3]
NODES, CLIENTS, ROOMS, RATE = 3, 200, 20, 200
SECONDS = float(os.environ.get("CHAOS_SECONDS", "600"))
"""How long it lasts."""
BETWEEN = 5.0
"""Seconds from one disturbance to the next."""
SEED = int(os.environ.get("CHAOS_SEED", "1"))
LOST = (ConnectionClosed, InvalidHandshake, OSError, TimeoutError, asyncio.IncompleteReadError)
"""What ends a connection, or an attempt at one."""


class Process:
    """A node in a process of its own, with a way of its own to the engine. It comes back at the same port."""

    def __init__(self, way: Network, kind: str) -> None:
        self.port = kept_port()
        self.way = way
        self._url = f"{kind}://127.0.0.1:{way.port}"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def is_running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it; returns when it takes connections."""
        command = ["-m", "velocity_ws", "run", "tests.programs.history_app:app", "--port", str(self.port)]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, *command, "--log-level", "error",
            cwd=ROOT,
            env={**os.environ, "WS_BACKPLANE_URL": self._url, "WS_RATE_LIMIT": "0", "WS_DRAIN_TIMEOUT": "3s"},
        )  # fmt: skip
        async with asyncio.timeout(60):
            while True:
                assert self._process.returncode is None, "a node ended"
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                await asyncio.sleep(0.05)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def ended(self) -> int:
        """Wait until it is gone; its status."""
        assert self._process is not None
        return await self._process.wait()


class Chaos:
    """All of it, and what can be done to it."""

    def __init__(self, engine: Remembering, nodes: list[Process], seed: int) -> None:
        self.engine = engine
        self.nodes = nodes
        self.ledger = Ledger(f"seed {seed}")
        self.rooms = [f"chat:{number}" for number in range(ROOMS)]
        self.happened: Counter[str] = Counter()
        self.is_over = self.is_quiet = False
        self.voices: list[asyncio.Task[None]] = []
        self.members: list[tuple[Page, list[str]]] = []
        self._chance = random.Random(seed)

    # --- who speaks and who listens

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

    async def speak(self, room: str, rate: float) -> None:
        """Say numbers to a room at a pace, each until it is certain that it is taken."""
        voice = Ledger().page(f"voice of {room}")
        log = self.ledger.log(room)
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not self.is_quiet:
            due = max(due + self._chance.expovariate(rate), loop.time() - 1)
            await asyncio.sleep(due - loop.time())
            await self.insist(voice, room, log.begin())
        voice.cut()

    async def insist(self, voice: Page, room: str, number: int) -> None:
        """Say a number, on one node or another, until it is known where it is."""
        while True:
            try:
                if not voice.is_open:
                    await voice.open(self._chance.choice(self.nodes), within=5)
                at = await until_available(partial(voice.ask, "publish", [room, number]))
            except LOST:
                voice.cut()
                await asyncio.sleep(0.1)
            else:
                self.ledger.log(room).taken(number, at)
                return

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
        for node in self.nodes:
            await node.way.close()

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

    # --- the end of it

    async def settles(self) -> tuple[int, int]:
        """Say a last number to every room, and prove what became of all of them; how many came, and were told lost."""
        self.is_quiet = True
        await asyncio.gather(*self.voices)
        voice = Ledger().page("the last voice")
        for room in self.rooms:
            await self.insist(voice, room, self.ledger.log(room).begin())
        await eventually(lambda: all(self._is_in(page, rooms) for page, rooms in self.members), within=60)
        for room in self.rooms:
            await self.ledger.reaches(room, self.ledger.log(room).begun - 1, within=60)
        for room in self.rooms:
            await self._is_what_the_engine_has(voice, room)
        self.is_over = True
        for page, _ in self.members:
            page.cut()
        voice.cut()
        return self.ledger.proves()

    @staticmethod
    def _is_in(page: Page, rooms: list[str]) -> bool:
        return all(room in page.trails and page.trails[room].is_in for room in rooms)

    async def _is_what_the_engine_has(self, voice: Page, room: str) -> None:
        log, since, found = self.ledger.log(room), None, []
        while part := await voice.ask("history", [room, since]):
            found += [number for number, _ in part]
            since = part[-1][1]
        assert sorted(found) == list(range(log.begun))
        assert found == sorted(log.places, key=lambda number: log.places[number].offset)


@asynccontextmanager
async def chaos(kind: str, directory: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> AsyncIterator[Chaos]:
    """Nodes and an engine that remembers on disk, and clients and voices that are there until the end of the block."""
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(remembering(kind, directory, monkeypatch, careful=True))
        assert engine.port is not None
        nodes: list[Process] = []
        for _ in range(NODES):
            nodes.append(Process(await stack.enter_async_context(network(engine.port)), kind))
            stack.callback(nodes[-1].signal, signal.SIGKILL)
        found = Chaos(engine, nodes, seed)
        await asyncio.gather(*[node.start() for node in nodes])
        chance = random.Random(seed)
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                rooms = sorted({found.rooms[number % ROOMS], chance.choice(found.rooms)})
                found.members.append((found.ledger.page(f"page {number}"), rooms))
                group.create_task(found.live(*found.members[-1]))
            await eventually(lambda: all(found._is_in(page, rooms) for page, rooms in found.members), within=60)
            for room in found.rooms * 2:
                found.voices.append(group.create_task(found.speak(room, RATE / ROOMS / 2)))
            try:
                yield found
            finally:
                found.is_over = True
                for task in found.voices:
                    task.cancel()
                for page, _ in found.members:
                    page.cut()
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
