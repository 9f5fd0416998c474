"""What it costs that a room remembers, always beside a room of the same kind that does not, in turns.

Two nodes have the server's core to themselves; a third one, which has no clients, the engine and the clients share the
others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from benchmarks.cluster.scenarios import Side
from benchmarks.process import Child
from benchmarks.scenarios import Figures, texts_of

__all__ = [
    "BEFORE_RATIO", "ENGINES", "FULL", "OTHERS_RATIO", "QUICK", "RATIO", "READS", "SCENARIOS", "Engine", "Run",
    "Scenario", "Sizes", "of_members",
]  # fmt: skip

SIZE = 128
"""Bytes of a message, without its room and its place."""
WARM_UPS = 20
"""Messages before those that are measured."""
PLAIN, KEPT = "plain", "kept"
RATIO = "relative to none"
READS = "reads of the engine"
P99, COST = "p99, µs", "µs a client"
OTHERS = "plain:0"
OTHERS_RATIO = "p99 of others, relative to new ones"
BEFORE_RATIO = "p99 of others, relative to before"


@dataclass(frozen=True)
class Sizes:
    """How much of everything.

    Attributes:
        turns: how often the two kinds of rooms take turns in a round.
        sent: messages in a turn, to a room without members.
        members: members of the rooms that are delivered to, each by itself.
        messages: messages in a turn to each of these rooms.
        per_second: their pace.
        back: clients that come back to one room.
        missed: messages that each of them has missed.
        at_once: how many of them are on their way at a time.
        seconds: over which they come where they are not in a hurry.
        others: members of another room meanwhile.
        other_per_second: messages to that one.
        quiet: rooms that a node has while nothing is said in them.
        idle: seconds for which it is watched then.
    """

    turns: int
    sent: int
    members: tuple[int, ...]
    messages: int
    per_second: float
    back: int
    missed: int
    at_once: int
    seconds: float
    others: int
    other_per_second: float
    quiet: int
    idle: float


FULL = Sizes(4, 2000, (1, 10, 100), 300, 300, 10_000, 10, 100, 5, 20, 100, 10_000, 25)
QUICK = Sizes(2, 20, (1, 3), 5, 200, 20, 3, 5, 0.1, 2, 100, 20, 0.1)

Engine = Literal["redis", "nats", "memory"]
ENGINES: tuple[Engine, ...] = ("redis", "nats", "memory")


@dataclass
class Run:
    """The processes of one engine, started.

    Attributes:
        engine: what is between them.
        sizes: how much.
        sender: a node without clients; with ``memory://`` the only one there is.
        nodes: those with clients.
        load: the clients that come back.
    """

    engine: Engine
    sizes: Sizes
    sender: Child
    nodes: Sequence[Side]
    load: Child

    async def send(self, to: Side, kind: str, count: int, members: int, per_second: float) -> Figures:
        """Have messages sent to the room ``0`` of a kind, wait for the last delivery, check all; what each cost."""
        await self.sender.ask("choose", kind=kind)
        await to.load.ask("expect")
        before = to.child.usage()
        texts = texts_of(SIZE, count, 0)
        sent = await self.sender.ask("broadcast", count=count, texts=texts, rooms=1, per_second=per_second)
        busy = (await to.load.ask("wait", each=count))["busy"]
        used = to.child.usage().total - before.total
        checked = await to.load.ask("check", first=sent["first"], each=count)
        values = {kind: used / count * 1e6, P99: checked["p99"]}
        return Figures(values, checked["deliveries"], checked["faults"], busy, sent["late"])


def _ratios(plain: Sequence[float], kept: Sequence[float]) -> float:
    """The median of the turns' own ratios."""
    return median([mine / theirs for mine, theirs in zip(kept, plain, strict=True)])


async def sending(run: Run) -> Figures:
    """What a message costs the node that sends it, of which no client is in the room."""
    sizes, node = run.sizes, run.nodes[0].child
    texts = texts_of(SIZE, sizes.sent, 0)
    costs: dict[str, list[float]] = {PLAIN: [], KEPT: []}
    for turn in range(sizes.turns + 1):
        count = sizes.sent if turn else WARM_UPS
        for kind, found in costs.items():
            await node.ask("choose", kind=kind)
            before = node.usage()
            await node.ask("broadcast", count=count, texts=texts, rooms=1)
            if turn:
                found.append((node.usage().total - before.total) / count * 1e6)
    plain, kept = costs[PLAIN], costs[KEPT]
    return Figures({RATIO: _ratios(plain, kept), "kept, µs": median(kept), "plain, µs": median(plain)})


async def delivering(run: Run) -> Figures:
    """What a message costs a node that has members of the room, by how many they are."""
    sizes, to = run.sizes, run.nodes[0]
    values: dict[str, float] = {}
    every: list[Figures] = []
    for members in sizes.members:
        costs: dict[str, list[float]] = {PLAIN: [], KEPT: []}
        for turn in range(sizes.turns + 1):
            for kind, found in costs.items():
                await to.connect(members, f"{kind}:0")
                await run.send(to, kind, WARM_UPS, members, sizes.per_second)
                if turn:
                    every.append(await run.send(to, kind, sizes.messages, members, sizes.per_second))
                    found.append(every[-1].values[kind])
        plain, kept = costs[PLAIN], costs[KEPT]
        values[of_members(members)] = _ratios(plain, kept)
        values |= {f"{members}: kept, µs": median(kept), f"{members}: plain, µs": median(plain)}
    return _sum(values, every)


def of_members(members: int) -> str:
    """The column of the ratio for rooms of that many."""
    return f"{members}: {RATIO}"


def _sum(values: dict[str, float], every: Sequence[Figures]) -> Figures:
    return Figures(
        values,
        sum(figures.deliveries for figures in every),
        sum(figures.faults for figures in every),
        max(figures.busy for figures in every),
        sum(figures.late for figures in every),
    )


async def returning(run: Run) -> Figures:
    """Many clients that come back to one room as fast as they can, and what others notice of it."""
    return await _returning(run, 0.0)


async def spread(run: Run) -> Figures:
    """The same within some seconds, as after a deploy."""
    return await _returning(run, run.sizes.seconds)


async def _returning(run: Run, seconds: float) -> Figures:
    sizes, (first, *_) = run.sizes, run.nodes
    await first.connect(sizes.others, OTHERS)
    await run.sender.ask("choose", kind=PLAIN)
    await run.send(first, PLAIN, WARM_UPS, sizes.others, sizes.other_per_second)
    every = [await run.send(first, PLAIN, sizes.messages, sizes.others, sizes.other_per_second)]
    alone = every[0].values[P99]
    found: dict[bool, list[Figures]] = {False: [], True: []}
    for turn in range(sizes.turns // 2 + 1):
        for is_back, figures in found.items():
            room = f"kept:{turn}{is_back}{seconds:g}"  # of which the nodes have nothing yet
            count = sizes.back if turn else sizes.back // 10
            came = await _come(run, room, is_back=is_back, count=count, seconds=seconds * count / sizes.back)
            every.append(came)
            if turn:
                figures.append(came)

    def each(is_back: bool, column: str) -> list[float]:
        return [figures.values[column] for figures in found[is_back]]

    values = {
        RATIO: _ratios(each(False, COST), each(True, COST)),
        "back, µs a client": median(each(True, COST)),
        "new, µs a client": median(each(False, COST)),
        READS: max(each(True, READS)),
        "p99 of others before, µs": alone,
        "while new ones come, µs": median(each(False, P99)),
        "while they come back, µs": median(each(True, P99)),
        OTHERS_RATIO: _ratios(each(False, P99), each(True, P99)),
        BEFORE_RATIO: median(each(True, P99)) / alone,
    }
    return _sum(values, every)


async def _come(run: Run, room: str, *, is_back: bool, count: int, seconds: float) -> Figures:
    """Have clients come into a room, with what they missed or as new ones, while another room is spoken in."""
    sizes, (others, *rest) = run.sizes, run.nodes
    nodes = [side.child for side in run.nodes]
    at = (await run.sender.ask("remember", room=room, count=sizes.missed, text="x" * SIZE))["at"]
    facts = [await node.ask("facts") for node in nodes]
    await others.load.ask("expect")
    await run.sender.ask("talk", room=OTHERS, per_second=sizes.other_per_second, text="x" * SIZE)
    before = [node.usage() for node in nodes]
    came = await run.load.ask(
        "come",
        ports=[node.hello["port"] for node in nodes],
        count=count,
        at_once=sizes.at_once,
        room=room,
        since=at if is_back else None,
        missed=sizes.missed if is_back else 0,
        seconds=seconds,
    )
    used = sum([node.usage().total - then.total for node, then in zip(nodes, before, strict=True)])
    said = (await run.sender.ask("hush"))["each"]
    await others.load.ask("wait", each=said)
    heard = await others.load.ask("check", first=0, each=said)
    judged = await run.load.ask("judge", missed=sizes.missed if is_back else 0, is_back=is_back)
    counted = [await node.ask("facts") for node in nodes]
    grown = {name: sum([now[name] - then[name] for now, then in zip(counted, facts, strict=True)]) for name in facts[0]}
    await run.load.ask("keep", clients=0)
    await others.until_connected(sizes.others)
    for side in rest:
        await side.until_connected(0)
    missing = count - grown["recovered"] if is_back else 0
    values = {COST: used / count * 1e6, P99: heard["p99"], READS: float(grown["reads"])}
    deliveries = came["deliveries"] + heard["deliveries"]
    return Figures(values, deliveries, came["faults"] + judged["faults"] + heard["faults"] + missing, came["busy"])


async def quiet(run: Run) -> Figures:
    """A node with one client that is in very many rooms, in which nothing is said; it looks whether that is so."""
    sizes, to = run.sizes, run.nodes[0]
    await to.connect(1, "plain:0")
    values: dict[str, float] = {}
    for kind in (PLAIN, KEPT):
        await to.child.ask("fill", kind=kind, rooms=sizes.quiet)
        before = to.child.usage().total
        await asyncio.sleep(sizes.idle)
        values[f"{kind}, ms a second"] = (to.child.usage().total - before) / sizes.idle * 1e3
    return Figures(dict(reversed(values.items())))


@dataclass(frozen=True)
class Scenario:
    """Something that is measured.

    Attributes:
        key: for ``--scenario``.
        title: of its table; ``{…}`` are fields of `Sizes`.
        measure: on started processes.
        engines: where it is measured.
    """

    key: str
    title: str
    measure: Callable[[Run], Awaitable[Figures]]
    engines: tuple[Engine, ...] = ENGINES


SCENARIOS = (
    Scenario("sending", "A message to a room without members, for the node that sends it", sending),
    Scenario("delivering", "A message to a room, for a node with members of it", delivering),
    Scenario(
        "returning",
        "{back:,} clients that come back to one room, with {missed} messages missed by each, beside as many new ones",
        returning,
        ("redis", "nats"),
    ),
    Scenario(
        "spread",
        "{back:,} clients that come back to one room within {seconds:g} s, beside as many new ones",
        spread,
        ("redis", "nats"),
    ),
    Scenario("quiet", "{quiet:,} rooms in which nothing is said, for {idle:g} s", quiet),
)
"""All of them, in the order in which they are measured."""
