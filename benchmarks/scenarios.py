"""What is measured. The scenarios of a session share one fresh server process; the load's process serves them all.

To measure something else, add a function here and name it in `SESSIONS`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.contestants import Contestant
from benchmarks.process import Child, Usage

__all__ = [
    "FULL",
    "QUICK",
    "SCENARIOS",
    "SESSIONS",
    "SLOW",
    "Figures",
    "Run",
    "Scenario",
    "Session",
    "Sizes",
    "cost",
    "texts_of",
]

PROSE = """
the train to platform seven leaves in about four minutes please mind the gap and keep your tickets ready
alpha bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike november oscar papa quebec
"""
WORDS = PROSE.split()
WARM_UP = 3
"""Messages before the measured ones: buffers, compressors and caches exist then."""
TEXTS = 100
"""As many different texts: together they are larger than a compressor's window."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    clients: int
    messages: int
    per_second: float
    bursts: int
    bursts_per_second: float
    saturation: float
    rooms: int
    room_messages: int
    room_messages_per_second: float
    echo_clients: int
    echoes: int
    churn: int
    idle: int


FULL = Sizes(1000, 30, 20, 4, 5, 1.0, 100, 2000, 1500, 100, 150, 1000, 5000)
SLOW = Sizes(1000, 6, 20, 1, 5, 1.0, 100, 400, 1500, 100, 30, 1000, 1000)
QUICK = Sizes(20, 5, 100, 2, 50, 0.05, 4, 40, 1000, 5, 5, 20, 60)


@dataclass(frozen=True)
class Figures:
    """One measurement.

    Attributes:
        values: by column; the first is the one that is compared.
        deliveries: messages that reached a client, all of them checked.
        faults: lost, duplicated or disordered ones; connections that did not end as they should.
        busy: how busy the load's process was, 0 to 1.
        late: bursts that began more than one interval late, because the server could not keep the pace.
    """

    values: dict[str, float]
    deliveries: int = 0
    faults: int = 0
    busy: float = 0.0
    late: int = 0


@dataclass
class Run:
    """One contestant, started, and the load."""

    contestant: Contestant
    child: Child
    load: Child
    sizes: Sizes
    deflate: bool
    _connected: tuple[int, int] = field(default=(0, 0), init=False)
    _texts: int = field(default=0, init=False)

    async def connect(self, clients: int, rooms: int = 0) -> None:
        """Have that many clients, the first of those that there are, or new ones."""
        have, their_rooms = self._connected
        if clients <= have and rooms == their_rooms:
            await self.load.ask("keep", clients=clients)
            await self.until_connected(clients)
            self._connected = (clients, rooms)
            return
        await self.load.ask("keep", clients=0)
        await self.until_connected(0)
        await self.load.ask(
            "connect",
            port=self.child.hello["port"],
            clients=clients,
            framing=self.contestant.framing,
            deflate=self.deflate,
            rooms=rooms,
        )
        await self.until_connected(clients)
        self._connected = (clients, rooms)

    async def until_connected(self, clients: int) -> None:
        """Wait until the server knows of so many clients; others use it in their own ways."""
        self._connected = (-1, 0)
        async with asyncio.timeout(20):
            while (await self.child.ask("status"))["connected"] != clients:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)

    async def send(self, size: int, count: int, each_reaches: int, **pace: float) -> Figures:
        """Broadcast, wait for the last delivery, check them all; what each cost the server."""
        await self.load.ask("expect")
        texts = texts_of(size, count, self._texts)
        self._texts += len(texts)
        before = self.child.usage()
        sent = await self.child.ask("broadcast", count=count, texts=texts, **pace)
        busy = (await self.load.ask("wait", each=sent["each"]))["busy"]
        after = self.child.usage()
        checked = await self.load.ask("check", first=sent["first"], each=sent["each"])
        values = cost(before, after, sent["each"] * each_reaches)
        values |= {"p50, µs": checked["p50"], "p99, µs": checked["p99"], "bytes on the wire": checked["wire"]}
        values["deliveries a second"] = checked["deliveries"] / max(checked["seconds"], 1e-9)
        return Figures(values, checked["deliveries"], checked["faults"], busy, sent["late"])


def cost(before: Usage, after: Usage, units: int) -> dict[str, float]:
    """What a process used between two looks at it, for each of so many."""
    total = (after.total - before.total) / max(units, 1) * 1e6
    user, system = after.user - before.user, after.system - before.system
    share = user / max(user + system, 1e-9)
    return {"CPU, µs": total, "user, µs": total * share, "system, µs": total * (1 - share)}


def texts_of(size: int, count: int, first: int) -> list[str]:
    """Words, other ones for each, so that compression finds what it would find in prose; the same in every run."""
    envelope = len(f'{{"event":"news","data":{{"seq":10,"t":{time.monotonic_ns()},"text":""}}}}')
    numbers = range(first, first + min(count, TEXTS))
    words = (" ".join(random.Random(number).choices(WORDS, k=size)) for number in numbers)
    return [text[: size - envelope] for text in words]


def _only(figures: Figures, *columns: str) -> Figures:
    values = {name: figures.values[name] for name in columns}
    return Figures(values, figures.deliveries, figures.faults, figures.busy, figures.late)


COST = ("CPU, µs", "user, µs", "system, µs")


async def fan_out(run: Run, size: int = 128) -> Figures:
    """One room, one message after the other at a pace that the baseline takes half its time for."""
    sizes = run.sizes
    await run.connect(sizes.clients)
    await run.send(size, WARM_UP, sizes.clients, per_second=sizes.per_second)
    figures = await run.send(size, sizes.messages, sizes.clients, per_second=sizes.per_second)
    return _only(figures, *COST, "p50, µs", "p99, µs", "bytes on the wire")


async def deflate(run: Run) -> Figures:
    """The same with compression."""
    return await fan_out(run, 400)


async def bursts(run: Run) -> Figures:
    """Twenty messages at once."""
    sizes = run.sizes
    await run.connect(sizes.clients)
    await run.send(128, 5, sizes.clients, burst=5)
    figures = await run.send(128, 20 * sizes.bursts, sizes.clients, burst=20, per_second=sizes.bursts_per_second)
    return _only(figures, *COST, "p50, µs", "p99, µs")


async def saturation(run: Run) -> Figures:
    """As many as the server can."""
    sizes = run.sizes
    await run.connect(sizes.clients)
    figures = await run.send(128, 1000, sizes.clients, seconds=sizes.saturation)
    return _only(figures, "deliveries a second", *COST)


async def rooms(run: Run) -> Figures:
    """Many rooms, few in each."""
    sizes = run.sizes
    await run.connect(sizes.clients, sizes.rooms)
    pace = {"rooms": sizes.rooms, "per_second": sizes.room_messages_per_second}
    await run.send(128, sizes.rooms, sizes.clients, **pace)
    figures = await run.send(128, sizes.room_messages, sizes.clients, **pace)
    return _only(figures, *COST, "p50, µs", "p99, µs")


async def echo(run: Run) -> Figures:
    """A JSON message there and back, the next when the answer is here."""
    sizes = run.sizes
    await run.connect(sizes.echo_clients)
    await run.load.ask("echo", each=WARM_UP, size=64, first=0)
    before = run.child.usage()
    done = await run.load.ask("echo", each=sizes.echoes, size=64, first=WARM_UP)
    values = cost(before, run.child.usage(), sizes.echo_clients * sizes.echoes)
    values["round trips a second"] = done["deliveries"] / done["seconds"]
    return Figures(values, done["deliveries"], done["faults"], done["busy"])


async def churn(run: Run) -> Figures:
    """Handshake, close frame, answer, end of the TCP connection."""
    await run.connect(0)
    arguments: dict[str, Any] = {"port": run.child.hello["port"], "framing": run.contestant.framing, "at_once": 50}
    await run.load.ask("churn", count=max(run.sizes.churn // 10, 1), **arguments)
    before = run.child.usage()
    done = await run.load.ask("churn", count=run.sizes.churn, **arguments)
    await run.until_connected(0)
    return Figures(cost(before, run.child.usage(), run.sizes.churn), done["deliveries"], done["faults"], done["busy"])


async def idle(run: Run) -> Figures:
    """Resident memory over that of the server without connections; again once each has had a few messages."""
    clients = run.sizes.idle
    await run.connect(1)  # what the first connection imports is not its own
    await run.connect(0)
    empty = await _memory(run)
    await run.connect(clients)
    connected = await _memory(run)
    figures = await run.send(400, 2, clients, per_second=2)
    each = 1024 * clients
    values = {
        "just connected, KiB": (connected - empty) / each,
        "after 2 messages, KiB": (await _memory(run) - empty) / each,
    }
    return Figures(values, figures.deliveries, figures.faults, figures.busy)


async def _memory(run: Run) -> int:
    await run.child.ask("status", collect=True)
    return run.child.usage().rss


@dataclass(frozen=True)
class Scenario:
    """Something that is measured.

    Attributes:
        key: for ``--scenario``.
        title: of its table; ``{…}`` are fields of `Sizes`.
        measure: on a started contestant.
    """

    key: str
    title: str
    measure: Callable[[Run], Awaitable[Figures]]


@dataclass(frozen=True)
class Session:
    """Scenarios that share one server process, in this order."""

    scenarios: Sequence[Scenario]
    deflate: bool = False


# Memory has processes of its own: a server that once had thousands of connections is not as it was before.
SESSIONS = (
    Session(
        (
            Scenario("fanout", "One room of {clients:,}, 128 bytes, {per_second:g} messages a second", fan_out),
            Scenario("burst", "One room of {clients:,}, bursts of 20 messages of 128 bytes", bursts),
            Scenario("saturation", "One room of {clients:,}, 128 bytes, as fast as it goes", saturation),
            Scenario("rooms", "{rooms} rooms, {clients:,} clients in all, 128 bytes", rooms),
            Scenario("echo", "Echo of 64 bytes of JSON, {echo_clients} clients in closed loop", echo),
            Scenario("churn", "Connect and close, {churn:,} times, 50 at a time", churn),
        )
    ),
    Session(
        (Scenario("deflate", "One room of {clients:,}, 400 bytes, permessage-deflate as browsers offer it", deflate),),
        deflate=True,
    ),
    Session((Scenario("idle", "{idle:,} idle connections, plain", idle),)),
    Session((Scenario("idle_deflate", "{idle:,} idle connections, permessage-deflate", idle),), deflate=True),
)
SCENARIOS = tuple(scenario for session in SESSIONS for scenario in session.scenarios)
"""All of them."""
