"""Answers in chaos: nodes and the engine fail again and again, and each reader has what was said, or is told why not.

Three nodes in processes of their own, 100 answers at a time, readers on each node whose connections are cut at random.
Every few seconds something happens. At the end each reader has the text of each answer of its rooms byte for byte, or a
part from its beginning on and an end that says why it is no more: the same for all readers. No answer runs twice.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.support import eventually
from tests.support.answering import Known, Reader, Voice
from tests.support.answers import text
from tests.support.dead_network import network
from tests.support.disturbing import Disturbing, Event
from tests.support.engines import ENGINES
from tests.support.remembering import Remembering, remembering
from tests.support.say import Say
from tests.support.talking import Process

NODES, ROOMS = 3, 10
ANSWERS = int(os.environ.get("STREAM_ANSWERS", "100"))
"""Answers at a time."""
READERS = int(os.environ.get("STREAM_READERS", "24"))
SECONDS = float(os.environ.get("STREAM_CHAOS_SECONDS", "300"))
"""How long it lasts."""
SEED = int(os.environ.get("STREAM_CHAOS_SEED", "1"))
LEASE = 4.0
LONGEST = 120.0
"""Seconds after which an answer that nobody was told the end of is one that is waited for for ever."""


class Answers:
    """Answers, one after the other, and those who read them.

    Attributes:
        readers: all of them.
        rooms: the room of each answer that was asked for, by the ids.
        cancelled: the ids of those that somebody has cancelled.
        is_quiet: whether none is asked for any more.
    """

    def __init__(self, nodes: list[Process], book: Path, chance: random.Random) -> None:
        self.nodes = nodes
        self.voices = [Voice(node) for node in nodes]
        self.rooms: dict[str, str] = {}
        self.cancelled: set[str] = set()
        self.news: dict[str, list[bool]] = {}
        self.is_quiet = False
        self._book = book
        self._chance = chance
        self._ids = itertools.count()
        names = [f"chat:{number}" for number in range(ROOMS)]
        self.names = names
        self.steady = [Reader(f"the reader that stays on node {place}", names) for place in range(len(nodes))]
        restless = [Reader(f"reader {number}", chance.sample(names, 2)) for number in range(READERS)]
        self.readers = [*self.steady, *restless]

    async def reader_is_cut(self) -> None:
        for reader in self._chance.sample(self.readers[len(self.steady) :], READERS // 3):
            reader.cut()

    async def refresh(self) -> None:
        """Let readers lose their connections at random, all the time."""
        while True:
            await asyncio.sleep(self._chance.uniform(0.1, 2))
            self._chance.choice(self.readers[len(self.steady) :]).cut()

    async def ask(self) -> None:
        """Ask for one answer after the other, some of them by two nodes at once; and cancel some."""
        while not self.is_quiet:
            id_, room = f"answer-{next(self._ids)}", self._chance.choice(self.names)
            self.rooms[id_] = room
            voices = self._chance.sample(self.voices, self._chance.choice((1, 1, 2)))
            self.news[id_] = await asyncio.gather(*[voice.insist("begin", [id_, room]) for voice in voices])
            if self._chance.random() < 0.1:
                await asyncio.sleep(self._chance.uniform(0, 5))
                if await self._chance.choice(self.voices).insist("cancel", id_):
                    self.cancelled.add(id_)
            await eventually(partial(self.is_told, id_), within=LONGEST)

    def is_told(self, id_: str) -> bool:
        """Whether some reader knows the end of an answer."""
        return any(id_ in reader.known and reader.known[id_].end is not None for reader in self.readers)

    def missing(self) -> list[str]:
        """Who was not told the end of which answer."""
        return [
            f"{reader.name} has {reader.known[id_].length if id_ in reader.known else 'nothing'} of {id_} in {room}"
            for reader in self.readers
            for id_, room in self.rooms.items()
            if room in reader.rooms and (id_ not in reader.known or reader.known[id_].end is None)
        ]

    async def settles(self) -> Counter[str]:
        """Wait until everybody was told every end, and prove that all were told the same; how they ended."""
        try:
            await eventually(lambda: not self.missing(), within=LONGEST)
        except TimeoutError:
            missing = self.missing()
            known = [await self._known(line) for line in missing[:20]]
            raise AssertionError("\n".join([f"{len(missing)} wait for ever:", *known])) from None
        faults = [fault for reader in self.readers for fault in reader.faults]
        assert not faults, "\n".join([f"{len(faults)} faults", *faults[:20]])
        book = self.book()
        ends: Counter[str] = Counter()
        for id_, room in self.rooms.items():
            found = [reader.known[id_] for reader in self.readers if room in reader.rooms]
            said, end = await self.voices[0].insist("state", id_)
            assert {(known.length, known.end) for known in found} == {(len(said), end)}, id_
            assert text(id_).startswith(said), id_
            self._is_right(id_, said, end, book[id_])
            ends[end] += 1
        return ends

    async def _known(self, line: str) -> str:
        """A line of `missing`, and what each node knows of this answer."""
        words = line.split()
        id_, room = words[-3], words[-1]
        said = [await voice.insist("known", [id_, room]) for voice in self.voices]
        return "\n  ".join([line, *map(str, said)])

    def _is_right(self, id_: str, said: str, end: str, lines: list[tuple[str, int]]) -> None:
        words = [word for word, _ in lines]
        assert words.count("began") <= 1, f"{id_} ran {words.count('began')} times"
        assert self.news[id_].count(True) <= 1, f"{id_} was started {self.news[id_]}"
        if end == "done":
            assert said == text(id_), id_
        elif end == "cancelled":
            assert id_ in self.cancelled, id_
        elif end == "error":
            assert "failed" in words, id_
        else:
            assert end == "lost", end

    def book(self) -> dict[str, list[tuple[str, int]]]:
        """What the programs have done, and their processes, by the ids."""
        found: dict[str, list[tuple[str, int]]] = {id_: [] for id_ in self.rooms}
        for line in self._book.read_text().splitlines():
            word, id_, pid = line.split()
            found[id_].append((word, int(pid)))
        return found

    def lateness(self, ended: dict[int, tuple[Process, float]]) -> list[float]:
        """Seconds from a writer's end to when those were told that it was lost who were on other nodes all the time."""
        book = self.book()
        found: list[float] = []
        for reader in self.readers:
            for id_, known in reader.known.items():
                pid = next((pid for word, pid in book[id_] if word == "began"), 0)
                if known.end == "lost" and pid in ended and _was_there(known, *ended[pid]):
                    found.append(known.ended_at - ended[pid][1])
        return found


def _was_there(known: Known, node: Process, since: float) -> bool:
    return known.node is not node and known.connected_at < since < known.ended_at


@asynccontextmanager
async def answering(
    kind: str, directory: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> AsyncIterator[tuple[Answers, Disturbing]]:
    """Nodes and an engine that keeps on disk what it has, answers and readers, until the end of the block."""
    chance, book = random.Random(seed), directory / "book"
    book.touch()
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(remembering(kind, directory, monkeypatch, careful=True))
        ways = [] if engine.port is None else [await stack.enter_async_context(network(engine.port)) for _ in range(3)]
        urls = [f"{kind}://127.0.0.1:{way.port}" for way in ways] or [f"{engine.url}?store={directory}"] * NODES
        own = {"STREAM_BOOK": str(book), "WS_NODE_LEASE": f"{LEASE}s"}
        nodes = [Process(url, "stream_app", **own) for url in urls]
        for node in nodes:
            stack.callback(node.signal, signal.SIGKILL)
        await asyncio.gather(*[node.start() for node in nodes])
        found = Answers(nodes, book, chance)
        disturbing = Disturbing(engine, ways, nodes, random.Random(seed))
        disturbing.frozen = (LEASE + 1, LEASE + 3)
        tasks: list[asyncio.Task[None]] = []
        try:
            for place, reader in enumerate(found.readers):
                own_nodes = [nodes[place]] if reader in found.steady else nodes
                tasks.append(asyncio.create_task(reader.live(own_nodes, chance, 0.05 if own_nodes != nodes else 0.5)))
            tasks.append(asyncio.create_task(found.refresh()))
            yield found, disturbing
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for each in (*found.readers, *found.voices):
                each.cut()
        for node in nodes:
            node.signal(signal.SIGKILL)
            await node.ended()


def events_of(engine: Remembering, answers: Answers, disturbing: Disturbing) -> list[Event]:
    """What can happen with an engine."""
    events: list[Event] = [
        answers.reader_is_cut, disturbing.node_is_killed, disturbing.node_is_frozen, disturbing.node_is_deployed
    ]  # fmt: skip
    if engine.port is not None:
        events += [disturbing.connections_are_killed, disturbing.engine_is_frozen, disturbing.engine_is_killed]
    return events


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 2 * LONGEST + 300)
@pytest.mark.parametrize("kind", [*[kind for kind in ("valkey", "redis", "nats") if kind in ENGINES], "embedded"])
async def test_everything_fails_and_every_answer_comes_or_says_why_not(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, say: Say
) -> None:
    async with answering(kind, tmp_path, monkeypatch, SEED) as (found, disturbing):
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(ANSWERS):
                group.create_task(found.ask())
            await disturbing.happen(events_of(disturbing.engine, found, disturbing), SECONDS)
            found.is_quiet = True
        ends = await found.settles()
        late = sorted(found.lateness(disturbing.ended))
    returns, messages = (sum(getattr(reader, name) for reader in found.readers) for name in ("returns", "messages"))
    say(
        f"{kind}, {time.monotonic() - began:.0f} s of chaos, seed {SEED}: {dict(disturbing.happened)}; "
        f"{len(found.rooms)} answers ended {dict(ends)}; {len(found.readers)} readers came back {returns} times and "
        f"got {messages} messages; told of {len(late)} losses {late[len(late) // 2] if late else 0:.2f} s (median), "
        f"{late[-1] if late else 0:.2f} s (most) after the writer's end, of a lease of {LEASE:.0f} s"
    )
