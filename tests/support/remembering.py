"""Engines that remember what was said to rooms, of every kind, and all that can happen to them."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import kept_port
from tests.support.embedded import servers
from tests.support.engines import ENGINES, Engine
from tests.support.jetstream import STREAM, StoringNats, storing
from tests.support.redis_servers import cluster, order
from velocity_ws.history import memory

__all__ = ["EVERY", "FEW", "NETWORKED", "RACES", "Remembering", "RememberingRedis", "kinds", "races", "remembering"]

FEW = ("memory", "valkey")
"""What every run of the tests has of everything; the others are for `make soak`."""
SIMPLE = (*FEW, "alone")
"""What every run has of what is no race."""
EVERY = (*SIMPLE, *(["redis"] if "redis" in ENGINES else []), "cluster", "nats", "embedded")
NETWORKED = tuple(kind for kind in EVERY if kind in ("valkey", "redis", "nats"))
"""Those that a node reaches by a connection of its own, which can be cut."""
SHORT, LONG = 2, 100
"""How many seeds a race is run with."""

_names = itertools.count()


def kinds(*wanted: str) -> list[Any]:
    """These engines as parameters, those that are not for every run with the mark of long ones."""
    return [pytest.param(kind, marks=() if kind in SIMPLE else pytest.mark.soak) for kind in wanted or EVERY]


def races(*wanted: str) -> list[Any]:
    """Engines and numbers of seeds: few seeds of few engines, and many of every one of these in long runs."""
    chosen = wanted or EVERY
    long = [pytest.param(kind, LONG, marks=[pytest.mark.soak, pytest.mark.timeout(900)]) for kind in chosen]
    return [*[pytest.param(kind, SHORT) for kind in chosen if kind in FEW], *long]


RACES = races()


class Remembering:
    """An engine, and what can happen to it. What a kind cannot suffer skips the test."""

    kind = ""
    url = ""
    port: int | None = None
    nodes = 2
    """How many can share it."""

    def skip(self) -> None:
        """Say that this does not happen to it."""
        pytest.skip(f"this does not happen to {self.kind}")

    def set_clock(self, seconds: float) -> None:
        """Set its clock, where it is that of the nodes."""

    async def kill(self) -> None:
        """End it as if its machine had lost power."""
        self.skip()

    async def start(self) -> None:
        """Start it again, with what it had."""
        self.skip()

    async def restart_empty(self) -> None:
        """Kill it, and start it with nothing."""
        self.skip()

    def freeze(self) -> None:
        """Stop it with its connections open."""
        self.skip()

    def thaw(self) -> None:
        """Let it go on."""

    async def disconnect(self) -> None:
        """End the connections of all nodes."""
        self.skip()

    async def save(self) -> None:
        """Keep what it has, for `rewind`."""
        self.skip()

    async def rewind(self) -> None:
        """Kill it, and start it with what was kept."""

    async def forget(self) -> None:
        """Lose all logs, while it runs and nobody notices."""
        self.skip()

    async def lose_meta(self) -> None:
        """Lose what it knows of logs beside their entries."""
        self.skip()

    async def lose_entries(self) -> None:
        """Lose the entries of logs alone."""
        self.skip()


class _Memory(Remembering):
    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.url = "memory://" if kind == "alone" else f"memory://recovery-{next(_names)}"
        self.nodes = 1 if kind == "alone" else 2

    def set_clock(self, seconds: float) -> None:
        with self._logs.bus.lock:
            self._logs._clock = lambda: time.time() + seconds

    async def forget(self) -> None:
        with self._logs.bus.lock:
            self._logs._logs.clear()
            self._logs._dues.clear()

    @property
    def _logs(self) -> memory._Engine:
        name = self.url.partition("://")[2]
        (found,) = [engine for key, engine in memory._engines.items() if key == name or not name]
        return found


class RememberingRedis(Remembering):
    """It writes each change to a file, as a rule before it answers."""

    def __init__(self, kind: str, directory: Path, *options: str) -> None:
        self.kind = kind
        self.directory = directory / "data"
        self._saved = directory / "saved"
        self.directory.mkdir()
        own = ("--appendonly", "yes", "--dir", str(self.directory), *options)
        self.server = Engine(kind, lambda port: [*ENGINES[kind](port), *own])
        self.server.port = kept_port()  # or a client's connection has it while the server is away
        self.url, self.port = self.server.url, self.server.port

    async def kill(self) -> None:
        await self.server.kill()

    async def start(self) -> None:
        await self.server.start()
        async with asyncio.timeout(60):
            while (await order(self.server, "INFO", "persistence"))["loading"]:
                await asyncio.sleep(0.01)

    async def restart_empty(self) -> None:
        await self.kill()
        shutil.rmtree(self.directory)
        self.directory.mkdir()
        await self.start()

    def freeze(self) -> None:
        self.server.freeze()

    def thaw(self) -> None:
        self.server.thaw()

    async def disconnect(self) -> None:
        for which in ("normal", "pubsub"):
            await order(self.server, "CLIENT", "KILL", "TYPE", which, "SKIPME", "yes")

    async def save(self) -> None:
        self.freeze()
        shutil.copytree(self.directory, self._saved)
        self.thaw()

    async def rewind(self) -> None:
        await self.kill()
        shutil.rmtree(self.directory)
        self._saved.rename(self.directory)
        await self.start()

    async def forget(self) -> None:
        await order(self.server, "FLUSHALL")

    async def lose_meta(self) -> None:
        await self._delete("*:meta")

    async def lose_entries(self) -> None:
        await self._delete("*:log")

    async def _delete(self, pattern: str) -> None:
        found = await order(self.server, "KEYS", pattern)
        assert found
        await order(self.server, "DEL", *[key.decode() for key in found])


class _Cluster(Remembering):
    kind = "cluster"

    def __init__(self, shards: list[Engine]) -> None:
        self.shards = shards
        self.url = f"redis+cluster://127.0.0.1:{shards[0].port}"

    def freeze(self) -> None:
        for shard in self.shards:
            shard.freeze()

    def thaw(self) -> None:
        for shard in self.shards:
            shard.thaw()

    async def disconnect(self) -> None:
        for shard in self.shards:
            for which in ("normal", "pubsub"):
                await order(shard, "CLIENT", "KILL", "TYPE", which, "SKIPME", "yes")

    async def forget(self) -> None:
        for shard in self.shards:
            await order(shard, "FLUSHALL")


class _Nats(Remembering):
    kind = "nats"

    def __init__(self, server: StoringNats) -> None:
        self.server = server
        self.url, self.port = server.url, server.port

    async def kill(self) -> None:
        await self.server.kill()

    async def start(self) -> None:
        await self.server.start()

    async def restart_empty(self) -> None:
        await self.server.restart_empty()

    def freeze(self) -> None:
        self.server.freeze()

    def thaw(self) -> None:
        self.server.thaw()

    async def save(self) -> None:
        self.server.save()

    async def rewind(self) -> None:
        await self.server.rewind()

    async def forget(self) -> None:
        await self.server.ask(f"STREAM.PURGE.{STREAM}")

    async def lose_meta(self) -> None:
        await self.server.purge("velocity+history.s.>")


class _Embedded(Remembering):
    kind = "embedded"

    def __init__(self, directory: Path) -> None:
        self.url = f"embedded://recovery-{next(_names)}"
        self._directory = directory / "velocity-ws"

    async def restart_empty(self) -> None:
        for process in servers(self._directory):
            process.kill()
            await asyncio.to_thread(process.wait)

    def freeze(self) -> None:
        for process in servers(self._directory):
            os.kill(process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for process in servers(self._directory):
            os.kill(process.pid, signal.SIGCONT)


CAREFUL = ("--appendfsync", "always")
"""Options of Redis's kind: by default it answers first where the disk is slow, and a kill loses what it answered."""


@asynccontextmanager
async def remembering(
    kind: str, directory: Path, monkeypatch: pytest.MonkeyPatch, *, careful: bool = False
) -> AsyncIterator[Remembering]:
    """An engine of that kind, until the end of the block.

    Args:
        kind: one of `EVERY`.
        directory: where it may write.
        monkeypatch: of the test.
        careful: whether it loses nothing that it has confirmed when it is killed, where it can be told so.
    """
    if kind in ("memory", "alone"):
        yield _Memory(kind)
    elif kind == "cluster":
        async with cluster(directory, 3) as shards:
            yield _Cluster(shards)
    elif kind == "nats":
        async with storing(directory, kept_port()) as server:
            yield _Nats(server)
    elif kind == "embedded":
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
        yield _Embedded(directory)
    else:
        found = RememberingRedis(kind, directory, *(CAREFUL if careful else ()))
        await found.server.start()
        try:
            yield found
        finally:
            await found.kill()
