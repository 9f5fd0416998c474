"""``python -m benchmarks.history_memory``: what rooms that remember take of each engine, as a table.

Rooms get messages of 200 bytes by the stores that nodes use; then the engine's memory is read from outside, and its
processor time for being asked for the ends of 2,000 rooms. It writes no file.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import psutil  # type: ignore[import-untyped, unused-ignore]
from redis.asyncio import Redis

from benchmarks.command import selected
from tests.support.engines import ENGINES, Engine, engine
from tests.support.jetstream import storing
from velocity_ws.history.base import HistoryStore
from velocity_ws.history.items import Append, Limits, Log, granted
from velocity_ws.history.nats import NatsHistory
from velocity_ws.history.redis import RedisHistory

LIMITS = Limits(100, 3600_000, 1024 * 1024)
ENVELOPE = b"x" * 200
BATCH = 1000
"""Appends of one call."""
ASKED = 2000
"""Rooms whose ends are asked for in one call."""
SETTLED = 3.0
"""Seconds after which what a server has used for a moment is given back, as far as it will be."""
FULL = ((10_000, (1, 10, 100)), (100_000, (1, 10)))
QUICK = ((50, (1, 3)),)


@dataclass(frozen=True)
class Row:
    """What was measured of one engine.

    Attributes:
        engine: its name.
        rooms: how many there are.
        messages: in each of them.
        memory: bytes of resident memory beyond those of the empty server.
        own: bytes beyond those of the empty server, as it counts them itself; on disk, for one that keeps them there.
        asked: seconds of its processor for being asked for the ends of `ASKED` rooms.
        waited: seconds until they were there.
    """

    engine: str
    rooms: int
    messages: int
    memory: int
    own: int
    asked: float
    waited: float


@dataclass(frozen=True)
class Subject:
    """An engine that runs."""

    server: Engine
    store: HistoryStore
    own: Callable[[], Any]

    @property
    def cpu(self) -> float:
        """Seconds of the processor, by the process's own clock."""
        return time.clock_gettime((~self.server.process.pid << 3) | 2)

    @property
    def rss(self) -> int:
        """Bytes of resident memory."""
        found: int = psutil.Process(self.server.process.pid).memory_info().rss
        return found


@asynccontextmanager
async def on_redis(kind: str) -> AsyncIterator[Subject]:
    """A server of Redis's kind."""
    async with engine(kind) as server, Redis(port=server.port) as redis:

        async def own() -> int:
            return int((await redis.info("memory"))["used_memory"])

        yield Subject(server, RedisHistory(server.url), own)


@asynccontextmanager
async def on_nats(storage: Literal["file", "memory"]) -> AsyncIterator[Subject]:
    """A server of NATS's kind."""
    with tempfile.TemporaryDirectory() as directory:
        async with storing(Path(directory)) as server:

            async def own() -> int:
                files = (path for path in server.directory.rglob("*") if path.is_file())
                return sum(path.stat().st_blocks * 512 for path in files)

            yield Subject(server, NatsHistory(server.url, storage=storage), own)


SUBJECTS: dict[str, Callable[[], Any]] = {
    **{kind: partial(on_redis, kind) for kind in ("valkey", "redis") if kind in ENGINES},
    "nats-disk": partial(on_nats, "file"),
    "nats-memory": partial(on_nats, "memory"),
}


def logs_of(rooms: int) -> list[Log]:
    """As many logs."""
    return [Log(f"velocity.room.chat=3A{number}", LIMITS) for number in range(rooms)]


def batches(logs: Sequence[Log], times: int) -> Iterator[list[Append]]:
    """So that each log gets an append in turn, that many times."""
    for _ in range(times):
        for first in range(0, len(logs), BATCH):
            yield [Append(log, ENVELOPE) for log in logs[first : first + BATCH]]


async def measure(name: str, rooms: int, steps: Sequence[int], settled: float) -> list[Row]:
    """One engine, from empty to the largest of these numbers of messages in each room."""
    rows: list[Row] = []
    async with SUBJECTS[name]() as subject:
        await subject.store.connect(print)
        await asyncio.sleep(settled)
        empty, own, logs, there = subject.rss, await subject.own(), logs_of(rooms), 0
        for step in steps:
            for batch in batches(logs, step - there):
                for result in await subject.store.append(batch):
                    granted(result)
            there = step
            await asyncio.sleep(settled)
            memory, counted = subject.rss - empty, await subject.own() - own
            asked, waited = await ask(subject, logs[:ASKED])
            rows.append(Row(name, rooms, step, memory, counted, asked, waited))
            print(line(rows[-1]), flush=True)
        await subject.store.close()
    return rows


async def ask(subject: Subject, logs: Sequence[Log]) -> tuple[float, float]:
    """The processor time and the time of the middle one of five calls."""
    found: list[tuple[float, float]] = []
    for _ in range(5):
        cpu, begin = subject.cpu, time.perf_counter()
        for result in await subject.store.tops(logs):
            granted(result)
        waited = time.perf_counter() - begin
        await asyncio.sleep(0.05)
        found.append((subject.cpu - cpu, waited))
    return sorted(found)[2]


def line(row: Row) -> str:
    """A row of the table."""
    each = row.rooms * row.messages
    figures = (
        f"{row.memory / row.rooms / 1024:.2f}",
        f"{row.memory / each:.0f}",
        f"{row.own / row.rooms / 1024:.2f}",
        f"{row.memory / 2**20:.0f}",
        f"{row.asked * 1000:.1f}",
        f"{row.waited * 1000:.0f}",
    )
    return f"| {row.engine} | {row.rooms:,} | {row.messages} | {' | '.join(figures)} |"


async def run(names: Sequence[str], sizes: Sequence[tuple[int, Sequence[int]]], settled: float) -> None:
    """Measure, and print the table as it grows."""
    print("| engine | rooms | messages of 200 B in each | RSS a room, KiB | RSS a message, B | own count a room, KiB "
          "| RSS altogether, MiB | ends of 2,000 rooms: engine's CPU, ms | and until they are there, ms |")  # fmt: skip
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for rooms, steps in sizes:
        for name in names:
            await measure(name, rooms, steps, settled)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few rooms: whether it works")
    parser.add_argument("--only", help=f"engines, parted by commas: {', '.join(SUBJECTS)}")
    arguments = parser.parse_args()
    names = selected(arguments.only, list(SUBJECTS))
    asyncio.run(run(names, QUICK if arguments.quick else FULL, 0.1 if arguments.quick else SETTLED))


if __name__ == "__main__":
    main()
