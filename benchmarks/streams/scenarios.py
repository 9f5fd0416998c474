"""What streams cost, beside messages, a broadcast, and what others have; and what slow readers cost.

The server has a core to itself; the engine and the clients share the others.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from statistics import median

from benchmarks.contestants import Contestant
from benchmarks.process import Child
from benchmarks.scenarios import Figures
from benchmarks.streams.peers import PEERS
from benchmarks.streams.runs import ENGINES, Crowd, Engine, Heard, Run, numbers, together

__all__ = ["BEYOND", "FRAME", "OTHERS", "P99", "RATIO", "SCENARIOS", "TO_BROADCAST", "Scenario"]

RATIO = "relative to a send for each token"
TO_BROADCAST = "relative to a broadcast"
P99 = "p99, ms"
BEYOND = "memory for 1 slow reader, relative to the text and a frame"
OTHERS = "p99 of others, relative to none slow"
FRAME = 256 * 1024
"""Bytes of the largest frame with text that was missed."""
WARM_UP = 30
"""Tokens of each stream before those that are measured."""
LOOK = 0.02
"""Seconds between two looks at the memory of a server."""


def _ratios(mine: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the turns' own ratios."""
    return median([a / b for a, b in zip(mine, theirs, strict=True)])


def _late(found: Sequence[Heard]) -> float:
    return float(sum(heard.figures.late for heard in found))


def _ms(found: Sequence[Heard]) -> float:
    return median([heard.p99 for heard in found]) / 1e3


async def sustained(run: Run) -> Figures:
    """As many streams as messages for each token can keep up with."""
    return await _beside_sends(run, run.sizes.streams, run.sizes.tokens)


async def many(run: Run) -> Figures:
    """More of them. What cannot keep up takes longer: fewer tokens each."""
    return await _beside_sends(run, run.sizes.many, run.sizes.tokens // 2)


async def _beside_sends(run: Run, streams: int, tokens: int) -> Figures:
    """Streams, beside a message for each of the same tokens to a room with history, and the sources without either."""
    sizes = run.sizes
    crowd = Crowd(streams, sizes.readers, tokens, sizes.per_second)
    found: dict[str, list[Heard]] = {"sends": [], "streams": []}
    for turn in range(sizes.turns + 1):
        for way, every in found.items():
            heard = await run.hear(way, crowd if turn else replace(crowd, tokens=WARM_UP))
            if turn:
                every.append(heard)
    alone = await _alone(run, crowd)

    def each(way: str) -> list[float]:
        return [heard.cpu / crowd.said * 1e6 for heard in found[way]]

    ours, theirs = found["streams"], found["sends"]
    seconds = crowd.tokens / crowd.per_second
    values = {
        RATIO: _ratios(each("streams"), each("sends")),
        "streams, µs a token": median(each("streams")),
        "sends, µs a token": median(each("sends")),
        "sources alone, µs": alone / crowd.said * 1e6,
        P99: _ms(ours),
        "of sends": _ms(theirs),
        "of sends, late": _late(theirs),
        "tokens a frame": median([crowd.said * crowd.readers / max(heard.frames, 1) for heard in ours]),
        "engine, relative": _ratios([h.engine for h in ours], [h.engine for h in theirs]) if run.server else 0.0,
        "beginning one, µs": median([heard.begun for heard in ours]) / crowd.streams * 1e6,
        "server busy, %": median([heard.cpu for heard in ours]) / seconds * 100,
    }
    return together(values, [heard.figures for heard in ours], [heard.figures for heard in theirs])


async def _alone(run: Run, crowd: Crowd) -> float:
    """What the sources cost by themselves."""
    await run.prepare("none", crowd, "", "", run.node)
    before = run.node.usage().total
    times = (await run.node.ask("go"))["times"]
    used = run.node.usage().total - before
    await run.load.ask("keep", clients=0)
    await run.check(crowd, times)
    return used


async def wide(run: Run) -> Figures:
    """One stream with many readers, beside what it said, as messages to the same room."""
    sizes, node = run.sizes, run.node
    crowd = Crowd(1, sizes.wide, sizes.wide_tokens, sizes.per_second)
    room = f"plain:wide{next(numbers)}-"
    await run.seat(node, crowd, room)
    ours: list[float] = []
    theirs: list[float] = []
    every: list[Heard] = []
    figures: list[Figures] = []
    for turn in range(2 * sizes.turns + 1):
        part = crowd if turn else replace(crowd, tokens=WARM_UP)
        await run.prepare("streams", part, f"{next(numbers)}-", room, node)
        heard = await run.listen(node, part)
        pieces = (await run.load.ask("pieces"))["pieces"]
        await run.load.ask("expect")
        before = node.usage().total
        await node.ask("say", room=f"{room}0", pieces=pieces)
        busy = (await run.load.ask("wait_ends"))["busy"]
        used = node.usage().total - before
        found = await run.check(part)
        if turn:
            every.append(heard)
            figures += [heard.figures, Figures({}, found["deliveries"], found["faults"], busy)]
            ours.append(heard.cpu / max(heard.frames, 1) * 1e6)
            theirs.append(used / max(found["frames"], 1) * 1e6)
    values = {
        TO_BROADCAST: _ratios(ours, theirs),
        "a stream, µs a frame": median(ours),
        "a broadcast, µs a frame": median(theirs),
        P99: _ms(every),
        "tokens a frame": median([crowd.said * crowd.readers / max(heard.frames, 1) for heard in every]),
    }
    return together(values, figures)


def beside(peer: Contestant) -> Callable[[Run], Awaitable[Figures]]:
    """Streams, beside the same of another on the same engine, in turns."""

    async def measure(run: Run) -> Figures:
        values: dict[str, float] = {}
        every: list[Figures] = []
        others: list[Figures] = []
        async with run.another(peer.command) as other:
            for streams in run.sizes.beside:
                crowd = Crowd(streams, run.sizes.readers, run.sizes.beside_tokens, run.sizes.per_second)
                ours, theirs = await _beside(run, crowd, other, peer.framing)
                delivered = crowd.said * crowd.readers
                values |= {
                    to_peer(streams): _ratios([heard.cpu for heard in ours], [heard.cpu for heard in theirs]),
                    f"{streams}: ours, µs": median([heard.cpu for heard in ours]) / delivered * 1e6,
                    f"{streams}: theirs, µs": median([heard.cpu for heard in theirs]) / delivered * 1e6,
                    f"{streams}: sources alone, µs": await _alone(run, crowd) / delivered * 1e6,
                    f"{streams}: engine": _ratios([h.engine for h in ours], [h.engine for h in theirs]),
                    f"{streams}: {P99}": _ms(ours),
                    f"{streams}: of theirs": _ms(theirs),
                    f"{streams}: theirs, late, %": _late(theirs) / len(theirs) / crowd.said * 100,
                }
                every += [heard.figures for heard in ours]
                others += [heard.figures for heard in theirs]
            await run.load.ask("keep", clients=0)  # before the server of some is gone
        return together(values, every, others)

    return measure


async def _beside(run: Run, crowd: Crowd, other: Child, framing: str) -> tuple[list[Heard], list[Heard]]:
    """Streams, in turns here and there."""
    ours: list[Heard] = []
    theirs: list[Heard] = []
    for turn in range(run.sizes.turns + 1):
        part = crowd if turn else replace(crowd, tokens=WARM_UP)
        heard = await run.hear("streams", part), await run.hear("streams", part, other, framing)
        if turn:
            ours.append(heard[0])
            theirs.append(heard[1])
    return ours, theirs


def to_peer(streams: int) -> str:
    """The column of the ratio for so many streams."""
    return f"{streams}: relative to them"


async def slow(run: Run) -> Figures:
    """What a server keeps for readers that are much slower than the writer, and what others notice of them."""
    sizes = run.sizes
    crowd = Crowd(1, sizes.fast, sizes.lines, sizes.lines_per_second, sizes.line)
    grown: dict[int, int] = {}
    p99: dict[int, float] = {}
    figures: list[Figures] = []
    largest = 0
    for slow_ones in (0, *sizes.slow):
        # What was given back to an allocator would be taken from there the next time.
        async with run.another() as node:
            await run.hear("streams", replace(crowd, tokens=WARM_UP), node)
            room = f"plain:slow{next(numbers)}-"
            await run.seat(node, crowd, room)
            per_second = sizes.line * sizes.lines_per_second / sizes.slower
            port = node.hello["port"]
            await run.load.ask("slow", port=port, clients=slow_ones, room=f"{room}0", per_second=per_second)
            await run.prepare("streams", crowd, f"{next(numbers)}-", room, node)
            async with _peak(node) as peak:
                heard = await run.listen(node, crowd)
            grown[slow_ones], p99[slow_ones] = peak[-1] - peak[0], heard.p99
            rest = await run.load.ask("drain", tokens=crowd.tokens, size=crowd.size)
            largest = max(largest, rest["largest"])
            figures.append(replace(heard.figures, faults=heard.figures.faults + rest["faults"]))
            await run.load.ask("keep", clients=0)
    text = sizes.line * sizes.lines
    several = max(sizes.slow)
    values = {
        BEYOND: (grown[1] - grown[0]) / (text + FRAME),
        OTHERS: p99[several] / p99[0],
        "text, MiB": text / 2**20,
        "grown without, MiB": grown[0] / 2**20,
        "with 1, MiB": grown[1] / 2**20,
        "with several, MiB": grown[several] / 2**20,
        "each of several, frames": (grown[several] - grown[0]) / several / FRAME,
        "largest frame, KiB": largest / 1024,
        "p99 without, ms": p99[0] / 1e3,
        "with several, ms": p99[several] / 1e3,
    }
    return together(values, figures)


@asynccontextmanager
async def _peak(node: Child) -> AsyncIterator[list[int]]:
    """The resident memory of a server at the beginning of the block, and then the most of it, at its end."""
    seen = [node.usage().rss]

    async def look() -> None:
        while True:
            seen.append(max(seen[-1], node.usage().rss))
            await asyncio.sleep(LOOK)

    looking = asyncio.create_task(look())
    try:
        yield seen
    finally:
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking


@dataclass(frozen=True)
class Scenario:
    """Something that is measured.

    Attributes:
        key: for ``--scenario``.
        title: of its table; ``{…}`` are fields of `Sizes`.
        measure: on started processes.
        engines: where it is measured.
        peer: who else is measured.
    """

    key: str
    title: str
    measure: Callable[[Run], Awaitable[Figures]]
    engines: tuple[Engine, ...] = ENGINES
    peer: Contestant | None = None


SCENARIOS = (
    Scenario(
        "sustained", "{streams} streams of {per_second:g} tokens a second, each with {readers} readers", sustained
    ),
    Scenario("many", "{many} streams of {per_second:g} tokens a second, each with {readers} readers", many),
    Scenario("wide", "One stream of {per_second:g} tokens a second with {wide:,} readers", wide),
    *[
        Scenario(
            peer.short,
            f"Streams with {{readers}} readers each beside {peer.name}, by how many they are",
            beside(peer),
            ("redis",),
            peer,
        )
        for peer in PEERS
    ],
    Scenario("slow", "A reader {slower} times slower than the writer", slow),
)
"""All of them, in the order in which they are measured."""
