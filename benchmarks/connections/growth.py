"""How what is done for one client grows with how many there are, and how long a loop is held up then.

Servers of all sizes are there at once and take turns, so that whatever else the machine does falls on all of them.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from statistics import median

from benchmarks.connections.coming import LOAD, summed, until_connected
from benchmarks.connections.sizes import ROOM, Sizes, Spot
from benchmarks.connections.visits import MANY
from benchmarks.process import Child
from benchmarks.scenarios import Figures, texts_of

__all__ = ["COLD", "HELD", "HOT", "UP", "connections", "held", "held_in", "rooms"]

SERVER = [sys.executable, "-m", "benchmarks.servers.growing"]
SIZE = 128
"""Bytes of a message."""
VALUE = "µs"


@dataclass
class Place:
    """A server of a size with its clients.

    Attributes:
        spot: the size.
        sizes: how much is done.
        server: the server.
        load: the clients that stay.
        visitors: those that come and go.
    """

    spot: Spot
    sizes: Sizes
    server: Child
    load: Child
    visitors: Child

    @property
    def rooms(self) -> int:
        """How many rooms can be delivered to."""
        return self.spot.clients // ROOM

    async def to_rooms(self, rooms: int) -> Figures:
        """A delivery in rooms, one after the other."""
        return await self._send(self.sizes.messages, self.rooms, rooms, ROOM, is_to_users=False)

    async def to_users(self, users: int) -> Figures:
        """A send to a user, one after the other."""
        return await self._send(self.sizes.sends, self.spot.clients, users, 1, is_to_users=True)

    async def _send(self, messages: int, groups: int, told: int, each_reaches: int, *, is_to_users: bool) -> Figures:
        count = told * max(1, messages // told)
        await self.server.ask("address", users=is_to_users)
        await self.load.ask("expect")
        before = self.server.usage().total
        sent = await self.server.ask("broadcast", count=count, texts=texts_of(SIZE, count, 0), rooms=told)
        busy = (await self.load.ask("hear", count=count * each_reaches))["busy"]
        used = self.server.usage().total - before
        checked = await self.load.ask("compare", first=sent["first"], each=sent["each"], groups=groups, told=told)
        value = used / (count * each_reaches) * 1e6
        return Figures({VALUE: value}, checked["deliveries"], checked["faults"], busy)

    async def move(self, among: int) -> Figures:
        """A client joins a room of its own and leaves it, one after the other."""
        before = self.server.usage().total
        done = await self.server.ask("move", count=self.sizes.moves, among=among)
        return Figures({VALUE: (self.server.usage().total - before) / self.sizes.moves * 1e6}, faults=done["wrong"])

    async def visit(self) -> Figures:
        """A client comes, gets its welcome, and goes."""
        sizes = self.sizes
        arguments = {"port": self.server.hello["port"], "at_once": sizes.at_once, "rooms": self.rooms}
        before = self.server.usage().total
        done = await self.visitors.ask("visit", count=sizes.short_visits, first=MANY // 2, **arguments)
        await until_connected(self.server, self.spot.clients)
        value = (self.server.usage().total - before) / sizes.short_visits * 1e6
        return Figures({VALUE: value}, done["deliveries"], done["faults"], done["busy"])

    async def greet_first(self) -> None:
        """The first client of all, for whom the process does what it does once: imports, a collection of garbage."""
        await self.visitors.ask("visit", port=self.server.hello["port"], count=1, at_once=1, rooms=1)
        await until_connected(self.server, 0)

    async def broadcast(self) -> Figures:
        """Messages to everybody, one after the other."""
        count = self.sizes.broadcasts
        await self.load.ask("expect")
        sent = await self.server.ask("broadcast", count=count, texts=texts_of(SIZE, count, 0), per_second=2)
        busy = (await self.load.ask("hear", count=count * self.spot.clients))["busy"]
        checked = await self.load.ask("compare", first=sent["first"], each=count, groups=1, told=1)
        return Figures({}, checked["deliveries"], checked["faults"], busy, sent["late"])


HOT: Mapping[str, Callable[[Place], Awaitable[Figures]]] = {
    "delivery, µs": lambda place: place.to_rooms(1),
    "join and leave, µs": lambda place: place.move(ROOM),
    "connect and close, µs": lambda place: place.visit(),
    "to_user, µs": lambda place: place.to_users(ROOM),
}
"""What is done with the same few clients, however many there are."""
COLD: Mapping[str, Callable[[Place], Awaitable[Figures]]] = {
    "delivery in every room, µs": lambda place: place.to_rooms(place.rooms),
    "join and leave of everybody, µs": lambda place: place.move(place.spot.clients),
    "to_user to everybody, µs": lambda place: place.to_users(place.spot.clients),
}
"""The same with each client in turn: of many, the processor has none in its caches when its turn comes."""


@asynccontextmanager
async def _place(spot: Spot, sizes: Sizes, *options: str) -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(Child([*SERVER, *options], server=True))
        load, visitors = [await stack.enter_async_context(Child(LOAD, server=False)) for _ in range(2)]
        yield Place(spot, sizes, server, load, visitors)


async def _settle(place: Place) -> Figures:
    clients = place.spot.clients
    port = place.server.hello["port"]
    done = await place.load.ask("settle", port=port, clients=clients, rooms=place.rooms)
    await until_connected(place.server, clients)
    await place.server.ask("fill", rooms=place.spot.rooms)
    return Figures({}, done["deliveries"], done["faults"], done["busy"])


async def _grow(names: Sequence[str], spots: Mapping[str, Spot], sizes: Sizes) -> dict[str, Figures]:
    jobs = {**HOT, **COLD}
    found: dict[str, dict[str, list[float]]] = {name: {job: [] for job in jobs} for name in names}
    every: dict[str, list[Figures]] = {name: [] for name in names}
    async with AsyncExitStack() as stack:
        places = {name: await stack.enter_async_context(_place(spots[name], sizes)) for name in names}
        for name, place in places.items():
            every[name].append(await _settle(place))
        for turn in range(sizes.turns + 1):
            for job, measure in jobs.items():
                for name, place in places.items():
                    figures = await measure(place)
                    every[name].append(figures)
                    if turn:
                        found[name][job].append(figures.values[VALUE])
    return {name: summed({job: median(values) for job, values in found[name].items()}, every[name]) for name in names}


async def connections(names: Sequence[str], sizes: Sizes) -> dict[str, Figures]:
    """By how many clients are connected."""
    return await _grow(names, sizes.connections, sizes)


async def rooms(names: Sequence[str], sizes: Sizes) -> dict[str, Figures]:
    """By how many rooms there are, with as many clients."""
    return await _grow(names, sizes.rooms, sizes)


HELD = ("while they come", "while nothing is said", "during broadcasts to all", "while all else is done")
UP, LATE = "held up, ms", "late, ms"


def held_in(name: str, phase: str) -> str:
    """The row of a server, of a name, in a phase."""
    return f"{name}, {phase}"


async def held(names: Sequence[str], sizes: Sizes) -> dict[str, Figures]:
    """How long the loops of the smallest server and of the largest are held up at most, by what is done meanwhile."""
    smallest, *_, largest = sizes.connections
    found: dict[str, Figures] = {}
    for name in (smallest, largest):
        async with _place(sizes.connections[name], sizes, "--ping", str(sizes.interval)) as place:
            await place.greet_first()
            for phase, measure in zip(HELD, (_settle, _idle, Place.broadcast, _all_else), strict=True):
                await place.server.ask("watch")
                figures = await measure(place)
                watched = await place.server.ask("watched")
                found[held_in(name, phase)] = summed({UP: watched["held"], LATE: watched["late"]}, [figures])
    return found


async def _idle(place: Place) -> Figures:
    await asyncio.sleep(place.sizes.idle)
    await until_connected(place.server, place.spot.clients)  # those that answered no ping would be gone
    return Figures({})


async def _all_else(place: Place) -> Figures:
    return summed({}, [await measure(place) for measure in (*HOT.values(), *COLD.values())])
