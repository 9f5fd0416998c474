"""Redis shards: connections to the servers of a cluster, found by topic, which follow slots that move to other servers.

A server that has lost a slot says so, and knows whose it is. One that is cut off from the others does not know; so all
are asked again and again, and most of them are right, as it takes most of them to choose another server. Connections to
servers that still have slots go on; there are new ones to those that have some now, and none any more to those that
have none. Knows no commands but its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from velocity_ws.backplane.redis_connection import RedisConnection
from velocity_ws.backplane.redis_slots import SLOTS_COMMAND, Place, Ranges, SlotFinder, Slots, primaries
from velocity_ws.backplane.redis_watch import Watch

__all__ = ["ROUNDS", "Shard", "Shards"]

OPEN_TIMEOUT = 1.0
"""Seconds that a connection to a server may take to be there, or to be left."""
PAUSE = 0.02
"""Seconds until it is asked again where a slot is, while servers do not agree; doubled up to the next."""
LAST_PAUSE = 0.2
COMPARE_INTERVAL = 1.0
"""Seconds after which the servers are asked again whom they take for the cluster's."""
ROUNDS = 15
"""How often something is tried again because the server of its slot says that it is another's: some 2.5 s."""


class Shard(Protocol):
    """What there is for one server."""

    @property
    def connections(self) -> Sequence[RedisConnection]:
        """To the server, not open; the first one is no subscriber."""

    async def begin(self) -> None:
        """Do what has to be done first, once these are open."""


S = TypeVar("S", bound=Shard)


class Shards(Generic[S]):
    """All servers of a cluster that have slots. On the broker's loop only."""

    def __init__(
        self,
        finder: SlotFinder,
        make: Callable[[Callable[[], Any]], S],
        ended: Callable[[Exception], None],
        leaving: Callable[[S], None],
        *,
        gives_up: bool = True,
    ) -> None:
        """
        Args:
            finder: asks the cluster's servers.
            make: makes what there is for a server, of what makes connections to it.
            ended: called with the reason when it cannot go on.
            leaving: called with what there is for a server that has no slots any more, before it is given up.
            gives_up: as for `Watch`.
        """
        self._finder = finder
        self._make = make
        self._ended = ended
        self._leaving = leaving
        self._by_place: dict[Place, S] = {}
        self._opening: list[S] = []
        self._slots: Slots[S] = Slots([])
        self._watch = Watch(gives_up=gives_up)
        self._following: asyncio.Task[None] | None = None
        self._comparing: asyncio.Task[None] | None = None

    @property
    def all(self) -> Iterable[S]:
        """What there is for each server."""
        return self._by_place.values()

    def of(self, topic: str) -> S:
        """What there is for the server that has a topic, as far as is known.

        Raises:
            OSError: there is no connection.
        """
        return self._slots.of(topic)

    async def open(self) -> None:
        """Connect to all of them.

        Raises:
            OSError: one is not there, refuses the login, or is no primary.
        """
        await self._take(await self._finder.find())
        await self._compare()
        self._comparing = asyncio.create_task(self._compare_on(), name="velocity-ws shards compared")

    async def follow(self, told: S, attempt: int = 0) -> None:
        """A server has said that a slot is another's: find out whose, once for all who were told so meanwhile.

        Args:
            told: what there is for that server.
            attempt: how often this was done for the same reason before.

        Raises:
            OSError: that cannot be found out, or there is no connection to that other server.
        """
        if attempt >= ROUNDS:
            raise ConnectionError("the servers of the cluster do not agree which of them has a slot")
        if attempt:
            await asyncio.sleep(min(PAUSE * 2 ** (attempt - 1), LAST_PAUSE))
        await asyncio.shield(self._start(told))

    def follow_soon(self, told: S) -> None:
        """The same while nobody waits for it, as a server is no primary any more.

        Args:
            told: what there is for that server.
        """
        self._start(told).add_done_callback(self._followed)

    def _followed(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self._ended(error)

    def _start(self, told: S) -> asyncio.Task[None]:
        if self._following is None or self._following.done():
            self._following = asyncio.create_task(self._follow(told), name="velocity-ws shards")
            self._following.add_done_callback(lambda task: task.cancelled() or task.exception())  # who waited may not
        return self._following

    async def close(self) -> None:
        """End all connections, now."""
        self._watch.stop()
        tasks = [task for task in (self._comparing, self._following) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        shards = [*self.all, *self._opening]
        self._by_place, self._opening, self._slots = {}, [], Slots([])
        await _end(shards)

    async def _compare_on(self) -> None:
        try:
            while True:
                await asyncio.sleep(COMPARE_INTERVAL)
                await self._compare()
        except Exception as error:
            self._ended(error)

    async def _compare(self) -> None:
        """Leave servers that most others take for servers without slots."""
        asked = [*self._by_place.items()]
        replies = await asyncio.gather(
            *[shard.connections[0].ask([SLOTS_COMMAND]) for _, shard in asked], return_exceptions=True
        )
        views = [
            (shard, primaries(found[0], place))
            for (place, shard), found in zip(asked, replies, strict=True)
            if isinstance(found, list) and isinstance(found[0], list)  # else it is left, or ends by itself
        ]
        for place, _ in asked:
            others = [shard for shard, view in views if view and place not in view]
            if 2 * len(others) > len(asked):
                await self.follow(others[0])
                return

    async def _follow(self, told: S) -> None:
        place = next((place for place, shard in self._by_place.items() if shard is told), None)
        if place is None:  # it was given up meanwhile, and so it is known where its slots are
            return
        (reply,) = await told.connections[0].ask([SLOTS_COMMAND])
        await self._take(self._finder.read(reply, place))

    async def _take(self, ranges: Ranges) -> None:
        """Have connections to these servers, and to no others."""
        places = {place for _, place in ranges}
        new = {place: self._make(self._finder.connections_to(place)) for place in places - self._by_place.keys()}
        self._opening = [*new.values()]
        await _all(self._open(shard) for shard in self._opening)
        self._opening = []
        self._by_place |= new
        gone = {place: shard for place, shard in self._by_place.items() if place not in places}
        for shard in gone.values():
            self._leaving(shard)
        self._slots = Slots([(first, self._by_place[place]) for first, place in ranges])
        self._watch.start([each for place in places for each in self._by_place[place].connections])
        await _all(_answered(each) for shard in gone.values() for each in shard.connections)
        await _end([*gone.values()])
        for place in gone:
            del self._by_place[place]

    async def _open(self, shard: S) -> None:
        async with asyncio.timeout(OPEN_TIMEOUT):
            for connection in shard.connections:
                await connection.open()
            await shard.begin()


async def _answered(connection: RedisConnection) -> None:
    """Wait until all that a server was sent is answered."""
    async with asyncio.timeout(OPEN_TIMEOUT):
        await connection.ask([("PING",)])


async def _all(calls: Iterable[Any]) -> None:
    """Wait until all of these are over, and raise what one of them has raised."""
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


async def _end(shards: Sequence[Shard]) -> None:
    connections = [connection for shard in shards for connection in shard.connections]
    for connection in connections:
        connection.abort()
    for connection in connections:
        await connection.wait_closed()
