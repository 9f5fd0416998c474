"""Servers, attackers and victims as processes of their own, told what to do and asked what they saw."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import DEADLINE

__all__ = [
    "MEBIBYTE",
    "SLACK",
    "Besieged",
    "Fight",
    "Program",
    "Silent",
    "besieged",
    "excused",
    "fight",
    "only_limits",
    "started",
]

ROOT = Path(__file__).parents[2]
START = 30.0
"""Seconds that a program may take to start, on a machine that does other things."""
MEBIBYTE = 1024 * 1024


def only_limits(log: list[str]) -> bool:
    """Whether nothing was logged but what limits were reached, each once a minute, however often."""
    return len(log) <= 6 and all("velocity_ws.sessions client" in line and "WS_" in line for line in log)


class Program:
    """A process that is talked to in lines."""

    def __init__(self, process: Process) -> None:
        self.process = process

    async def line(self, *, within: float = DEADLINE) -> str:
        """The next line it prints."""
        assert self.process.stdout is not None
        async with asyncio.timeout(within):
            line = await self.process.stdout.readline()
        assert line, "the program ended"
        return line.decode().strip()

    async def answer(self, *, within: float = DEADLINE) -> Any:
        """The next line it prints, which is JSON."""
        return json.loads(await self.line(within=within))

    def tell(self, line: str = "") -> None:
        """Send it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")


class Besieged(Program):
    """The server under attack.

    Attributes:
        port: where it listens.
        log: what it has logged, complete once it has ended.
    """

    port = 0

    def __init__(self, process: Process) -> None:
        super().__init__(process)
        self.log: list[str] = []

    async def ask(self, line: str = "state", *, within: float = DEADLINE) -> Any:
        """Have it do something; its answer."""
        self.tell(line)
        return await self.answer(within=within)

    async def until(self, condition: Callable[[Any], bool], *, within: float = DEADLINE) -> Any:
        """Wait until its state is like that; the state then."""
        async with asyncio.timeout(within):
            while True:
                state = await self.ask()
                if condition(state):
                    return state
                await asyncio.sleep(0.02)  # the pause between two looks, not the wait


@dataclass(frozen=True)
class Fight:
    """What was seen of an attack beside a victim.

    Attributes:
        before: the server's memory when it began, in bytes.
        attack: what the attacker saw.
        suffered: what the victim saw.
        waited: seconds that the server and the victim waited for a processor meanwhile.
    """

    before: int
    attack: dict[str, Any]
    suffered: dict[str, Any]
    waited: float


def excused(waited: float, most: float) -> float:
    """Milliseconds by which something may be late as others had the processor, so many at most: a fault is more."""
    return min(1000 * waited, most)


async def fight(server: Besieged, victim: Program, attacker: Program, seconds: float) -> Fight:
    """Let an attacker attack for so long, and a victim work meanwhile."""
    waited = (await server.ask())["waited"]
    before = await server.ask("mark")
    victim.tell("begin")
    attacker.tell("begin")
    attack = await attacker.answer(within=seconds + 30)
    victim.tell("end")
    suffered = await victim.answer(within=30)
    waited = (await server.ask())["waited"] - waited
    return Fight(before, attack, suffered, waited + suffered["waited"])


async def _spawn(name: str, *args: object, stderr: int | None) -> Process:
    command = [sys.executable, "-m", f"tests.programs.{name}", *map(str, args)]
    return await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=PIPE, stdout=PIPE, stderr=stderr)


async def _end(process: Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(DEADLINE):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def started(name: str, *args: object) -> AsyncIterator[Program]:
    """An attacker or a victim, ready to be told to begin."""
    process = await _spawn(name, *args, stderr=None)
    program = Program(process)
    try:
        assert await program.line(within=START) == "ready"
        yield program
    finally:
        await _end(process)


@asynccontextmanager
async def besieged(**options: Any) -> AsyncIterator[Besieged]:
    """A server with these settings, and ``loop``. At the end it must have stopped by itself."""
    process = await _spawn("besieged", json.dumps(options), stderr=PIPE)
    server = Besieged(process)
    assert process.stderr is not None

    async def read(log: asyncio.StreamReader) -> None:
        async for line in log:
            server.log.append(line.decode().rstrip())

    reading = asyncio.create_task(read(process.stderr))
    try:
        server.port = int(await server.line(within=START))
        yield server
    finally:
        await _end(process)
        await reading
    assert process.returncode == 0, server.log


SLACK = 1.0
"""Seconds beyond the timeout; a refused one may take that long to read its answer."""


class Silent(asyncio.Protocol):
    """A connection that says no more after its beginning.

    Attributes:
        ended: seconds from its connect to its end, once that has come.
    """

    def __init__(self, beginning: bytes, began: float) -> None:
        """
        Args:
            beginning: what it says.
            began: when it was about to connect; the server may count from a moment long before this is made.
        """
        self._beginning = beginning
        self._began = began
        self.ended: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self._beginning:
            transport.write(self._beginning)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(time.monotonic() - self._began)
