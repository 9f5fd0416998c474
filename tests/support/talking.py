"""Nodes in processes of their own, clients in rooms with history, and voices that say numbers until each is taken."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.support import eventually
from tests.support.command import kept_port
from tests.support.returning import Ledger, Page, until_available

__all__ = ["LOST", "Process", "Talking"]

ROOT = Path(__file__).parents[2]
LOST = (ConnectionClosed, InvalidHandshake, OSError, TimeoutError, asyncio.IncompleteReadError)
"""What ends a connection, or an attempt at one."""


class Process:
    """A node in a process of its own. It comes back at the same port."""

    def __init__(self, url: str, program: str = "history_app", **environment: str) -> None:
        """
        Args:
            url: of the engine.
            program: what it runs, of `tests.programs`.
            environment: more of what it finds in its environment.
        """
        self.port = kept_port()
        self._program = program
        self._environment = {
            "WS_BACKPLANE_URL": url, "WS_RATE_LIMIT": "0", "WS_DRAIN_TIMEOUT": "3s", **environment
        }  # fmt: skip
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it; returns when it takes connections."""
        command = ["-m", "velocity_ws", "run", f"tests.programs.{self._program}:app", "--port", str(self.port)]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, *command, "--log-level", os.environ.get("NODE_LOG_LEVEL", "error"),
            cwd=ROOT,
            env={**os.environ, **self._environment},
        )  # fmt: skip
        async with asyncio.timeout(60):
            while True:
                assert self._process.returncode is None, "a node ended"
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                await asyncio.sleep(0.05)

    @property
    def pid(self) -> int:
        """That of its process."""
        assert self._process is not None
        return self._process.pid

    def signal(self, number: int) -> None:
        """Send it a signal, where it has been started."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def ended(self) -> int:
        """Wait until it is gone; its status."""
        assert self._process is not None
        return await self._process.wait()


class Talking:
    """Nodes, clients in rooms, and voices.

    Attributes:
        nodes: all of them.
        ledger: what was said to which room with history, and what everyone there was told.
        rooms: those with history.
        voices: the tasks that say something, until it `is_quiet`.
        members: the clients, and the rooms with history that each is in.
        is_quiet: whether nobody is to say anything more.
        is_over: whether nobody is to come back any more.
        waited: seconds that the slowest answer to a voice has taken.
    """

    def __init__(self, nodes: Sequence[Process], rooms: list[str], seed: int) -> None:
        self.nodes = nodes
        self.rooms = rooms
        self.ledger = Ledger(f"seed {seed}")
        self.voices: list[asyncio.Task[None]] = []
        self.members: list[tuple[Page, list[str]]] = []
        self.is_over = self.is_quiet = False
        self.waited = 0.0
        self._chance = random.Random(seed)

    async def speak(self, room: str, rate: float, node: Process | None = None) -> None:
        """Say numbers to a room at a pace, each until it is certain that it is taken; by one node, or by any."""
        voice = Ledger().page(f"voice of {room}")
        log = self.ledger.log(room)
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not self.is_quiet:
            due = max(due + self._chance.expovariate(rate), loop.time() - 1)
            await asyncio.sleep(due - loop.time())
            await self.insist(voice, room, log.begin(), node)
        voice.cut()

    async def insist(self, voice: Page, room: str, number: int, node: Process | None = None) -> None:
        """Say a number, by one node, or by one or another, until it is known where it is."""
        while True:
            try:
                if not voice.is_open:
                    await voice.open(node or self._chance.choice(self.nodes), within=5)
                at = await until_available(partial(self.ask, voice, "publish", [room, number]))
            except LOST:
                voice.cut()
                await asyncio.sleep(0.1)
            else:
                self.ledger.log(room).taken(number, at)
                return

    async def ask(self, voice: Page, event: str, data: object) -> object:
        """Ask as `Page.ask` does, and keep how long the answer took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            return await voice.ask(event, data)
        finally:
            self.waited = max(self.waited, loop.time() - began)

    async def settles(self, *, keeps_all: bool = True) -> tuple[int, int]:
        """Say a last number to every room, and prove what became of all of them; how many came, and were told lost.

        Args:
            keeps_all: whether the engine has kept everything that it ever confirmed.
        """
        self.is_quiet = True
        await asyncio.gather(*self.voices)
        voice = Ledger().page("the last voice")
        for room in self.rooms:
            await self.insist(voice, room, self.ledger.log(room).begin())
        await eventually(lambda: all(self.is_in(page, rooms) for page, rooms in self.members), within=60)
        for room in self.rooms:
            await self.ledger.reaches(room, self.ledger.log(room).begun - 1, within=60)
        for room in self.rooms:
            await self._is_what_the_engine_has(voice, room, keeps_all=keeps_all)
        self.is_over = True
        for page, _ in self.members:
            page.cut()
        voice.cut()
        return self.ledger.proves()

    def stop(self) -> None:
        """End all that was begun, as the test is over, or has failed."""
        self.is_over = self.is_quiet = True  # the latter as `asyncio.wait_for` may swallow a cancellation before 3.12
        for task in self.voices:
            task.cancel()
        for page, _ in self.members:
            page.cut()

    @staticmethod
    def is_in(page: Page, rooms: Sequence[str]) -> bool:
        """Whether a client is in these rooms, as it was told."""
        return all(room in page.trails and page.trails[room].is_in for room in rooms)

    async def _is_what_the_engine_has(self, voice: Page, room: str, *, keeps_all: bool) -> None:
        log, since, found = self.ledger.log(room), None, list[int]()
        while part := await until_available(partial(voice.ask, "history", [room, since]), self._chance):
            found += [number for number, _ in part]
            since = part[-1][1]
        assert sorted(found) == sorted(set(found))
        assert set(found) <= set(range(log.begun))
        log.gone = log.places.keys() - set(found)
        if keeps_all:
            assert len(found) == log.begun
            assert found == sorted(log.places, key=lambda number: log.places[number].offset)
