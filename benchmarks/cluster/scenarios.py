"""What is measured across nodes: one process sends, another has the clients. All of it on one pair of processes.

The receiving node has the server's core to itself; the sender, the engine and the clients share the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.cluster.contestants import Entrant
from benchmarks.process import Child
from benchmarks.scenarios import Figures, cost, texts_of

__all__ = [
    "FULL",
    "IDLE_VARIES",
    "OVER_IDLE",
    "P99",
    "QUICK",
    "SCENARIOS",
    "THROUGHPUT",
    "TO_ALONE",
    "TO_OWN",
    "WAKEUPS",
    "WINDOW",
    "Run",
    "Scenario",
    "Side",
    "Sizes",
]

SIZE = 128
"""Bytes of a message."""
WARM_UP = 5
"""Messages before the measured ones; again while some are missing, as subscribing may take effect late."""
WARM_UPS = 10
WINDOW = 64
"""Messages on their way at once when it goes as fast as it goes: a layer of channels_redis drops what is over 100."""
UNLIMITED = 1_000_000
TURNS = 4
"""Times that deliveries from another node and from here take turns in a round."""
CPU, P50, P99 = "CPU, µs", "p50, µs", "p99, µs"
THROUGHPUT = "deliveries a second"
BUSY, SENDER = "receiver busy, %", "sender, µs a message"
OVER_IDLE, IDLE_VARIES, WAKEUPS = "CPU over idle, µs", "idle varies by, µs", "wake-ups over idle"
TO_OWN, TO_ALONE = "relative to the node's own", "relative to no node"


@dataclass(frozen=True)
class Sizes:
    """How much of everything.

    Attributes:
        elsewhere: messages to a room that the node has no members in.
        elsewhere_of_peers: the same for the others.
        idle: seconds of nothing, before and after.
        clients: in the room.
        messages: to it at a pace.
        per_second: the pace.
        seconds: of as fast as it goes.
        members: in the room whose deliveries are compared with local ones.
        member_messages: to it, in each turn.
        member_per_second: their pace.
    """

    elsewhere: int
    elsewhere_of_peers: int
    idle: float
    clients: int
    messages: int
    per_second: float
    seconds: float
    members: int
    member_messages: int
    member_per_second: float


FULL = Sizes(20_000, 2_000, 1.5, 100, 100, 25, 1.5, 500, 30, 50)
QUICK = Sizes(100, 50, 0.05, 5, 10, 100, 0.1, 10, 3, 200)


class Side:
    """A server process and its clients.

    Attributes:
        child: the server.
        load: the process of its clients.
    """

    def __init__(self, child: Child, load: Child, framing: str) -> None:
        self.child = child
        self.load = load
        self._framing = framing
        self._connected: tuple[int, str] | None = None

    async def connect(self, clients: int, room: str) -> None:
        """Have that many clients in that room, in place of others that there were."""
        if self._connected == (clients, room):
            return
        self._connected = None
        await self.load.ask("keep", clients=0)
        await self.until_connected(0)
        port = self.child.hello["port"]
        arguments = {"framing": self._framing, "deflate": False, "room": room}
        await self.load.ask("connect", port=port, clients=clients, **arguments)
        await self.until_connected(clients)
        self._connected = clients, room

    async def until_connected(self, clients: int) -> None:
        """Wait until the server knows of so many clients."""
        async with asyncio.timeout(20):
            while (await self.child.ask("status"))["connected"] != clients:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)


@dataclass
class Run:
    """The processes of one entrant, started.

    Attributes:
        entrant: whose they are.
        sizes: how much.
        sender: has no clients.
        receiver: has them.
        alone: a process that is no node, and its clients; where it is compared with.
    """

    entrant: Entrant
    sizes: Sizes
    sender: Child
    receiver: Side
    alone: Side | None

    async def send(self, sender: Child, to: Side, count: int, clients: int, **pace: float) -> Figures:
        """Have messages sent to room 0, wait for the last delivery, check all; what each cost the one with clients."""
        credit = (await sender.ask("credit"))["port"] if "window" in pace else 0
        await to.load.ask("expect", credit=credit)
        texts = texts_of(SIZE, count, 0)
        before, sender_before = to.child.usage(), sender.usage()
        sent = await sender.ask("broadcast", count=count, texts=texts, rooms=1, **pace)
        busy = (await to.load.ask("wait", each=sent["each"]))["busy"]
        after, sender_after = to.child.usage(), sender.usage()
        checked = await to.load.ask("check", first=sent["first"], each=sent["each"])
        values = cost(before, after, sent["each"] * clients)
        seconds = max(checked["seconds"], 1e-9)
        values |= {
            THROUGHPUT: checked["deliveries"] / seconds,
            P50: checked["p50"],
            P99: checked["p99"],
            BUSY: (after.total - before.total) / seconds * 100,
            SENDER: (sender_after.total - sender_before.total) / max(sent["each"], 1) * 1e6,
        }
        return Figures(values, checked["deliveries"], checked["faults"], busy, sent["late"])

    async def warm_up(self, sender: Child, to: Side, clients: int, **pace: float) -> None:
        """Send a few until all of them arrive."""
        for _ in range(WARM_UPS):
            if not (await self.send(sender, to, WARM_UP, clients, **pace)).faults:
                return
        raise RuntimeError("messages do not arrive")


def _only(figures: Figures, values: dict[str, float]) -> Figures:
    return Figures(values, figures.deliveries, figures.faults, figures.busy, figures.late)


async def elsewhere(run: Run) -> Figures:
    """Messages to a room that the node has no members in, beside nothing, and beside a room with one member."""
    sizes = run.sizes
    count = sizes.elsewhere if run.entrant.ours else sizes.elsewhere_of_peers
    node = run.receiver.child
    await run.receiver.connect(1, "elsewhere")
    await run.sender.ask("broadcast", count=WARM_UP, texts=["x"], rooms=1)
    await run.receiver.load.ask("expect")
    loop = asyncio.get_running_loop()

    async def during(action: Awaitable[object]) -> tuple[float, float, int]:
        before, start = node.usage(), loop.time()
        await action
        after, seconds = node.usage(), loop.time() - start
        return seconds, after.total - before.total, after.wakeups - before.wakeups

    first = await during(asyncio.sleep(sizes.idle))
    texts = texts_of(SIZE, count, 0)
    seconds, used, wakeups = await during(run.sender.ask("broadcast", count=count, texts=texts, rooms=1))
    last = await during(asyncio.sleep(sizes.idle))
    strays = await run.receiver.load.ask("check", first=0, each=0)
    idle, idle_wakeups = [(part[0] + part[1]) / (first[0] + last[0]) for part in zip(first[1:], last[1:], strict=True)]
    await run.receiver.connect(1, "0")
    await run.warm_up(run.sender, run.receiver, 1)
    with_one = await run.send(run.sender, run.receiver, count // 10, 1, window=WINDOW)
    values = {
        OVER_IDLE: (used - idle * seconds) / count * 1e6,
        IDLE_VARIES: abs(first[1] / first[0] - last[1] / last[0]) * seconds / count * 1e6,
        WAKEUPS: (wakeups - idle_wakeups * seconds) / count,
        "idle, ms a second": idle * 1e3,
        "with one member, CPU, µs": with_one.values[CPU],
        "messages a second": count / seconds,
    }
    return Figures(values, with_one.deliveries, with_one.faults + strays["faults"], with_one.busy)


async def paced(run: Run) -> Figures:
    """One room, one message after the other at a pace that all can keep."""
    sizes = run.sizes
    await run.receiver.connect(sizes.clients, "0")
    await run.warm_up(run.sender, run.receiver, sizes.clients, per_second=sizes.per_second)
    pace = {"per_second": sizes.per_second}
    figures = await run.send(run.sender, run.receiver, sizes.messages, sizes.clients, **pace)
    columns = (P99, P50, CPU, SENDER)
    return _only(figures, {name: figures.values[name] for name in columns})


async def saturation(run: Run) -> Figures:
    """The same room, as fast as it goes."""
    await run.receiver.connect(run.sizes.clients, "0")
    await run.warm_up(run.sender, run.receiver, run.sizes.clients, per_second=run.sizes.per_second)
    pace = {"seconds": run.sizes.seconds, "window": WINDOW}
    figures = await run.send(run.sender, run.receiver, UNLIMITED, run.sizes.clients, **pace)
    columns = (THROUGHPUT, CPU, BUSY, SENDER, P99)
    return _only(figures, {name: figures.values[name] for name in columns})


async def members(run: Run) -> Figures:
    """A delivery of another node's message, of the node's own, and of a process that is no node, in turns."""
    if run.alone is None:
        raise RuntimeError("there is nothing to compare with")
    sizes = run.sizes
    here, alone = run.receiver, run.alone
    for side in (here, alone):
        await side.connect(sizes.members, "0")
        await run.warm_up(side.child, side, sizes.members)
    await run.warm_up(run.sender, here, sizes.members)
    pace: dict[str, Any] = {"per_second": sizes.member_per_second}
    sources = (run.sender, here), (here.child, here), (alone.child, alone)
    turns = [
        [await run.send(sender, side, sizes.member_messages, sizes.members, **pace) for sender, side in sources]
        for _ in range(TURNS)
    ]
    costs = [[figures.values[CPU] for figures in turn] for turn in turns]
    every = [figures for turn in turns for figures in turn]
    values = {
        "of another node, CPU, µs": median(remote for remote, _, _ in costs),
        "the node's own, CPU, µs": median(own for _, own, _ in costs),
        "in a process that is no node, CPU, µs": median(none for _, _, none in costs),
        TO_OWN: median(remote / own for remote, own, _ in costs),
        TO_ALONE: median(remote / none for remote, _, none in costs),
    }
    return Figures(
        values,
        sum(figures.deliveries for figures in every),
        sum(figures.faults for figures in every),
        max(figures.busy for figures in every),
        sum(figures.late for figures in every),
    )


@dataclass(frozen=True)
class Scenario:
    """Something that is measured.

    Attributes:
        key: for ``--scenario``.
        title: of its table; ``{…}`` are fields of `Sizes`.
        measure: on started processes.
        only_ours: whether the peers take no part.
    """

    key: str
    title: str
    measure: Callable[[Run], Awaitable[Figures]]
    only_ours: bool = False


SCENARIOS = (
    Scenario("elsewhere", "{elsewhere:,} messages to a room that the node has no members in", elsewhere),
    Scenario("paced", "One room of {clients} on another node, {per_second:g} messages a second", paced),
    Scenario("saturation", "One room of {clients} on another node, as fast as it goes", saturation),
    Scenario("members", "A delivery among {members}, from another node and from here", members, only_ours=True),
)
"""All of them, in the order in which they are measured."""
