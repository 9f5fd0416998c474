"""A NATS server that stores, in a directory of its own, and what an administrator can do to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import nats.errors

from tests.support import DEADLINE
from tests.support.command import kept_port
from tests.support.engines import ENGINES, Engine

__all__ = ["STREAM", "StoringNats", "routed", "storing"]

STREAM = "velocity-history"
ROUTES = 4
"""Connections between two servers: three for accounts, which each use one of them, and one for the server's own."""


class StoringNats(Engine):
    """A server with JetStream. It comes back on the same port, with what it has on disk.

    Attributes:
        name: what it calls itself, where it is one of several; else empty.
        monitor: the port at which it tells what it does, where it is one of several; else 0.
        directory: what it stores in.
    """

    def __init__(self, directory: Path, *options: str, name: str = "") -> None:
        self.monitor = kept_port() if name else 0
        options = (*(("-n", name, "-m", str(self.monitor)) if name else ()), *options)
        super().__init__("nats", lambda port: [*ENGINES["nats"](port), "-js", "-sd", str(self.directory), *options])
        self.name = name
        self.directory = directory / "store"
        self._saved = directory / "saved"

    async def restart_empty(self) -> None:
        """Kill it, and start it again without what it had."""
        await self.kill()
        shutil.rmtree(self.directory)
        await self.start()

    def save(self) -> None:
        """Keep what is on its disk now, for `rewind`."""
        self.freeze()
        shutil.copytree(self.directory, self._saved)
        self.thaw()

    async def rewind(self) -> None:
        """Kill it, and start it again with what was kept."""
        await self.kill()
        shutil.rmtree(self.directory)
        self._saved.rename(self.directory)
        await self.start()

    async def ask(self, name: str, body: object = None) -> dict[str, Any]:
        """What the server answers to a request about streams."""
        client = await nats.connect(self.url)
        try:
            said = b"" if body is None else json.dumps(body).encode()
            answer = await client.request(f"$JS.API.{name}", said, timeout=DEADLINE)
        finally:
            await client.close()
        found: dict[str, Any] = json.loads(answer.data)
        assert "error" not in found, found
        return found

    async def clients(self) -> int:
        """How many connections of clients it has, where it is one of several; 0 where it has ended."""
        return await self._count("connections")

    async def knows(self, count: int) -> None:
        """Wait until it has all of its connections to that many others; some are made anew at first."""
        async with asyncio.timeout(60):
            while await self._count("routes") < ROUTES * count:
                await asyncio.sleep(0.05)

    async def _count(self, what: str) -> int:
        def look() -> int:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.monitor}/varz", timeout=5) as answer:
                count: int = json.load(answer)[what]
                return count

        try:
            return await asyncio.to_thread(look)
        except OSError:
            return 0

    async def leader(self, stream: str = STREAM) -> str:
        """The name of the server that leads a stream; empty where none does."""
        found = (await self.ask(f"STREAM.INFO.{stream}"))["cluster"].get("leader", "")
        return str(found)

    async def caught_up(self, stream: str = STREAM) -> None:
        """Wait until all servers that keep a stream have what its leader has."""
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(nats.errors.Error, AssertionError, OSError):
                    cluster = (await self.ask(f"STREAM.INFO.{stream}"))["cluster"]
                    if all(each["current"] and not each.get("offline") for each in cluster["replicas"]):
                        return
                await asyncio.sleep(0.05)

    async def purge(self, subject: str, stream: str = STREAM) -> int:
        """Take out of a stream what is at these subjects; how many messages it was."""
        found = await self.ask(f"STREAM.PURGE.{stream}", {"filter": subject})
        count: int = found["purged"]
        return count

    async def fill(self, stream: str = STREAM) -> None:
        """Let a stream take nothing more."""
        info = await self.ask(f"STREAM.INFO.{stream}")
        await self.ask(f"STREAM.UPDATE.{stream}", {**info["config"], "max_bytes": info["state"]["bytes"]})


@asynccontextmanager
async def storing(directory: Path, port: int | None = None) -> AsyncIterator[StoringNats]:
    """A server that stores, until the end of the block; by default on any port that is free."""
    server = StoringNats(directory)
    server.port = port or server.port
    await server.start()
    try:
        yield server
    finally:
        server.thaw() if server.process.returncode is None else None
        await server.kill()
        await asyncio.to_thread(shutil.rmtree, server.directory)


@asynccontextmanager
async def routed(directory: Path, count: int = 3) -> AsyncIterator[list[StoringNats]]:
    """A cluster of servers that store, once it has a leader; until the end of the block."""
    ports = [kept_port() for _ in range(count)]
    routes = ",".join(f"nats://127.0.0.1:{port}" for port in ports)
    servers = []
    for number, port in enumerate(ports):
        options = ("-cluster_name", "three", "-cluster", f"nats://127.0.0.1:{port}", "-routes", routes)
        servers.append(StoringNats(directory / str(number), *options, name=f"s{number}"))
        servers[-1].port = kept_port()
    try:
        for server in servers:
            await server.start()
        async with asyncio.timeout(60):
            for server in servers:
                while not await _has_leader(server):
                    await asyncio.sleep(0.05)
                await server.knows(count - 1)
        yield servers
    finally:
        for server in servers:
            await server.kill()


async def _has_leader(server: StoringNats) -> bool:
    """Whether a server of a cluster answers for JetStream, and so the cluster is one."""
    client = await nats.connect(server.url)
    try:
        answer = await client.request("$JS.API.STREAM.NAMES", b"", timeout=1)
    except nats.errors.Error:
        return False
    finally:
        await client.close()
    return "error" not in json.loads(answer.data)
