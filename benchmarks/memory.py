"""``python -m benchmarks.memory``: what connections and rooms take of a server's memory, as a table.

The growth of resident memory is read from outside. It grows by a MiB at a time, so it takes thousands of clients to say
what one takes. It writes no file.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from benchmarks.process import Child, raise_file_limit
from benchmarks.scenarios import texts_of

COMMAND = (sys.executable, "-m", "benchmarks.servers.crowded")
SIZE = 400
"""Bytes of a message."""
AT_ONCE = 100
"""Clients that talk at a time: what they take meanwhile is not theirs when they are silent."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything.

    Attributes:
        clients: how many connect.
        rooms: of each client alone, in all.
        memberships: of all clients, in rooms that all of them are in.
    """

    clients: int
    rooms: int
    memberships: int


FULL = Sizes(5000, 100_000, 1_000_000)
QUICK = Sizes(20, 40, 200)


@dataclass
class Subject:
    """A server with clients."""

    server: Child
    load: Child
    sizes: Sizes
    before: int = 0

    async def connect(self, clients: int, *, deflate: bool) -> None:
        """Have that many clients, all of them new."""
        port = self.server.hello["port"]
        await self.load.ask("connect", port=port, clients=clients, framing="plain", deflate=deflate)
        async with asyncio.timeout(20):
            while (await self.server.ask("status"))["connected"] != clients:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)

    async def memory(self) -> int:
        """Bytes of resident memory."""
        await self.server.ask("status", collect=True)
        return self.server.usage().rss

    async def objects(self) -> int:
        """How many objects the garbage collector goes over."""
        count: int = (await self.server.ask("objects"))["count"]
        return count

    async def row(self, what: str, of: int, doing: Awaitable[object] | None = None) -> None:
        """Do something, and print what it takes for each of so many."""
        if doing is not None:
            self.before = await self.memory()
            await doing
        grown = await self.memory() - self.before
        print(f"| {what} | {of:,} | {grown / of:,.0f} | {grown / 2**20:.0f} |", flush=True)

    async def news(self) -> None:
        """Everybody gets two texts."""
        await self.load.ask("expect")
        await self.server.ask("broadcast", count=2, texts=texts_of(SIZE, 2, 0), per_second=2)
        await self.load.ask("wait", each=2)


@asynccontextmanager
async def subject(sizes: Sizes, *, deflate: bool) -> AsyncIterator[Subject]:
    """A server that has had a client that talked, as what the first one imports is not its own; and none now."""
    options = ("--deflate",) if deflate else ()
    async with (
        Child([*COMMAND, *options], server=True) as server,
        Child([sys.executable, "-m", "benchmarks.load"], server=False) as load,
    ):
        found = Subject(server, load, sizes)
        await found.connect(1, deflate=deflate)
        await load.ask("talk", size=SIZE, at_once=1)
        await found.connect(0, deflate=deflate)
        yield found


async def connections(sizes: Sizes, *, deflate: bool) -> None:
    """What a connection takes, from its handshake on."""
    kind, clients = "with compression" if deflate else "plain", sizes.clients
    async with subject(sizes, deflate=deflate) as found:
        objects = await found.objects()
        await found.row(f"a connection, {kind}", clients, found.connect(clients, deflate=deflate))
        objects = await found.objects() - objects
        await found.news()
        await found.row("the same, after it got two texts", clients)
        await found.load.ask("talk", size=SIZE, at_once=AT_ONCE)
        await found.row("and sent and got one of each kind", clients)
        print(f"| objects for the garbage collector of a connection | {clients:,} | {objects / clients:.1f} | |")


async def rooms(sizes: Sizes) -> None:
    """What it takes to be in rooms."""
    clients = sizes.clients
    own, shared = sizes.rooms // clients, sizes.memberships // clients
    async with subject(sizes, deflate=False) as found:
        await found.connect(clients, deflate=False)
        join = found.server.ask
        await found.row("a client's first room, which others are in", clients, join("join", rooms=1))
        await found.row("its second", clients, join("join", rooms=1))
        await found.row("memberships in rooms that others are in", clients * shared, join("join", rooms=shared))
        await found.row("rooms of one client each", clients * own, join("join", rooms=own, own=True))


async def run(sizes: Sizes) -> None:
    """Measure, and print the table as it grows."""
    print("| | how many | bytes of each | MiB altogether |")
    print("|---|---:|---:|---:|")
    for deflate in (False, True):
        await connections(sizes, deflate=deflate)
    await rooms(sizes)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few clients: whether it works")
    arguments = parser.parse_args()
    raise_file_limit()
    asyncio.run(run(QUICK if arguments.quick else FULL))


if __name__ == "__main__":
    main()
