"""The processes of one engine, and one run of streams on them: what it cost, and whether every text was right."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.process import Child
from benchmarks.scenarios import Figures
from benchmarks.streams.peers import SERVER
from tests.support.engines import Engine as Server

__all__ = ["ENGINES", "FULL", "QUICK", "Crowd", "Engine", "Heard", "Run", "Sizes", "together"]

Engine = Literal["redis", "nats", "memory"]
ENGINES: tuple[Engine, ...] = ("redis", "nats", "memory")
SETTLED = 0.5
"""Seconds until readers whose answer has begun are subscribed as well."""
numbers = itertools.count()
"""Of runs: streams of one never meet those of another."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything.

    Attributes:
        turns: how often what is compared takes turns in a round.
        readers: of each stream.
        per_second: tokens of each stream a second.
        tokens: of each stream, in a turn.
        streams: how many there are, where a message for each token can keep up.
        many: how many more than that.
        wide: readers of one stream.
        wide_tokens: of it.
        beside: streams beside those of others: so many that most can keep up, and more.
        beside_tokens: of each of them.
        line: characters of a token of a log.
        lines: of it, each with one token.
        lines_per_second: their pace.
        fast: readers of it.
        slow: readers of it that are so many times slower than the writer, beside the others, one or several.
        slower: how many times.
    """

    turns: int
    readers: int
    per_second: float
    tokens: int
    streams: int
    many: int
    wide: int
    wide_tokens: int
    beside: tuple[int, ...]
    beside_tokens: int
    line: int
    lines: int
    lines_per_second: float
    fast: int
    slow: tuple[int, ...]
    slower: int


FULL = Sizes(2, 5, 150, 600, 50, 200, 1000, 450, (10, 50), 300, 8192, 1200, 250, 5, (1, 10), 100)
QUICK = Sizes(1, 2, 150, 20, 2, 4, 6, 20, (1, 2), 20, 8192, 100, 250, 2, (1,), 100)


@dataclass(frozen=True)
class Crowd:
    """Streams, and their readers.

    Attributes:
        streams: how many.
        readers: of each.
        tokens: of each stream.
        per_second: their pace.
        size: see `tokens_of`.
    """

    streams: int
    readers: int
    tokens: int
    per_second: float
    size: int = 0

    @property
    def said(self) -> int:
        """Tokens in all."""
        return self.streams * self.tokens


@dataclass(frozen=True)
class Heard:
    """What one run cost. Processor time is in seconds, other times in microseconds.

    Attributes:
        cpu: of the server.
        engine: of the engine.
        begun: of the server, for beginning the streams.
        frames: that came to readers.
        p50: from a token's source to its reader.
        p99: the same.
        figures: what was checked.
    """

    cpu: float
    engine: float
    begun: float
    frames: int
    p50: float
    p99: float
    figures: Figures


@dataclass
class Run:
    """The processes of one engine, started.

    Attributes:
        engine: what keeps the streams.
        sizes: how much.
        node: the server.
        load: its clients.
        server: the engine's, where it has one.
        backplane: what tells a server of the engine.
    """

    engine: Engine
    sizes: Sizes
    node: Child
    load: Child
    server: Server | None = None
    backplane: Sequence[str] = field(default_factory=tuple)

    @asynccontextmanager
    async def another(self, command: Sequence[str] = SERVER) -> AsyncIterator[Child]:
        """A server of its own, for what the one that is there may not have gone through before."""
        async with AsyncExitStack() as stack:
            yield await stack.enter_async_context(Child([*command, *self.backplane], server=True))

    def engine_cpu(self) -> float:
        """Seconds that the engine has used so far; 0 where it is in the server."""
        return 0.0 if self.server is None else time.clock_gettime((~self.server.process.pid << 3) | 2)

    async def hear(self, way: str, crowd: Crowd, node: Child | None = None, framing: str = "plain") -> Heard:
        """Have streams said to new readers, and wait for the last of their ends; see `Streaming.prepare` for ways."""
        node = node or self.node
        run = f"{next(numbers)}-"
        if framing == "sse":
            await self.prepare(way, crowd, run, run, node)
            await self.seat(node, crowd, run, framing)
            await asyncio.sleep(SETTLED)
            return await self.listen(node, crowd)
        room = f"kept:{run}" if way == "sends" else f"plain:{run}"
        await self.seat(node, crowd, room, framing)
        begun = await self.prepare(way, crowd, run, room, node)
        return await self.listen(node, crowd, begun)

    async def seat(self, node: Child, crowd: Crowd, room: str, framing: str = "plain") -> None:
        """Have readers in the rooms of the streams, in place of others that there were."""
        await self.load.ask("keep", clients=0)
        await self.load.ask(
            "connect",
            port=node.hello["port"],
            clients=crowd.streams * crowd.readers,
            framing=framing,
            deflate=False,
            rooms=crowd.streams,
            room=room,
        )
        if framing == "plain":
            async with asyncio.timeout(20):
                while (await node.ask("status"))["connected"] != crowd.streams * crowd.readers:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

    async def prepare(self, way: str, crowd: Crowd, run: str, room: str, node: Child) -> float:
        """Begin streams; the processor time of it."""
        before = node.usage().total
        await node.ask(
            "prepare",
            way=way,
            run=run,
            room=room,
            streams=crowd.streams,
            tokens=crowd.tokens,
            per_second=crowd.per_second,
            size=crowd.size,
        )
        return node.usage().total - before

    async def listen(self, node: Child, crowd: Crowd, begun: float = 0.0) -> Heard:
        """Let the sources say what they have to readers that are there."""
        await self.load.ask("expect")
        before, engine = node.usage(), self.engine_cpu()
        said = await node.ask("go")
        busy = (await self.load.ask("wait_ends"))["busy"]
        used, of_engine = node.usage().total - before.total, self.engine_cpu() - engine
        found = await self.check(crowd, said["times"])
        figures = Figures({}, found["deliveries"], found["faults"], busy, said["late"])
        return Heard(used, of_engine, begun, found["frames"], found["p50"], found["p99"], figures)

    async def check(self, crowd: Crowd, times: str = "") -> dict[str, Any]:
        """See `Listening.check`."""
        return await self.load.ask("check", streams=crowd.streams, tokens=crowd.tokens, size=crowd.size, times=times)


def together(values: dict[str, float], ours: Sequence[Figures], theirs: Sequence[Figures] = ()) -> Figures:
    """Values of several runs, and what was checked in all of them; late counts where it is ours."""
    every = [*ours, *theirs]
    return Figures(
        values,
        sum(figures.deliveries for figures in every),
        sum(figures.faults for figures in every),
        max(figures.busy for figures in every),
        sum(figures.late for figures in ours),
    )
