"""Redis slots: which server of a Redis Cluster has which topic, as any of its servers says. Knows no topic's meaning.

The servers of a cluster share 16,384 slots; a name has one of them. What is between braces in a key names its slot, so
that all keys of a topic ``t`` that begin with ``{t}`` are on the server that carries the topic.
"""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from redis.crc import key_slot
from redis.exceptions import RedisError

from velocity_ws.backplane.redis_pool import pool_of
from velocity_ws.backplane.urls import cluster_urls

__all__ = ["SLOTS_COMMAND", "Place", "Ranges", "SlotFinder", "Slots", "primaries"]

SLOTS = 16384
SLOTS_COMMAND = ("CLUSTER", "SLOTS")
STAGGER = 0.25
"""Seconds that a server may take to answer until the next one is asked as well."""

Place = tuple[str, int]
"""The host and port of a server."""
Ranges = list[tuple[int, Place]]
"""For each range of slots, in order: the first of them, and the server that has them."""
T = TypeVar("T")


class Slots(Generic[T]):
    """What there is for each server, found by a topic."""

    def __init__(self, ranges: Sequence[tuple[int, T]]) -> None:
        """
        Args:
            ranges: the first slot of each range, in order, and what there is for its server.
        """
        self._firsts = [first for first, _ in ranges]
        self._values = [value for _, value in ranges]

    def of(self, topic: str) -> T:
        """What there is for the server that has a topic.

        Raises:
            OSError: there is nothing yet.
        """
        if not self._values:
            raise ConnectionError("there is no connection")
        return self._values[bisect.bisect_right(self._firsts, key_slot(topic.encode())) - 1]


class SlotFinder:
    """The servers of a cluster that can be asked: those that it had last, and those of the URL."""

    def __init__(self, url: str) -> None:
        """
        Args:
            url: of one of the schemes of clusters; its user, password and options are those of all servers.

        Raises:
            ValueError: redis-py does not take it.
        """
        self._urls = cluster_urls(url)
        self._named = [_place_of(pool_of(each)) for each in self._urls]
        self._known: list[Place] = []

    def connections_to(self, place: Place) -> Callable[[], Any]:
        """What makes connections to one of the servers."""
        pool = pool_of(self._urls[0])
        pool.connection_kwargs |= {"host": place[0], "port": place[1]}
        make: Callable[[], Any] = pool.make_connection
        return make

    async def find(self) -> Ranges:
        """Ask which server has which slots: those that were known last first, and the next one where one is slow.

        Raises:
            OSError: there is no server, or the cluster has none for some slots.
        """
        why: Exception = ConnectionError("there is no server")
        left = list(dict.fromkeys([*self._known, *self._named]))
        asked: set[asyncio.Task[Ranges]] = set()
        try:
            while left or asked:
                if left:
                    asked.add(asyncio.create_task(self._ask(left.pop(0)), name="velocity-ws slots"))
                timeout = STAGGER if left else None
                done, asked = await asyncio.wait(asked, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    error = task.exception()
                    if error is None:
                        return task.result()
                    if not isinstance(error, OSError):
                        raise error
                    why = error
            raise why
        finally:
            for task in asked:
                task.cancel()
            if asked:
                await asyncio.wait(asked)

    def read(self, reply: Any, place: Place) -> Ranges:
        """What a server has answered to `SLOTS_COMMAND`. Its servers are asked first from now on.

        Args:
            reply: the answer.
            place: of the server: one that does not know its own address says none.

        Raises:
            OSError: it is none, or the cluster has no server for some slots.
        """
        if isinstance(reply, Exception):
            raise ConnectionError(str(reply)) from reply
        covered = sum(int(last) - int(first) + 1 for first, last, *_ in reply)
        if covered != SLOTS:
            raise ConnectionError(f"the cluster has a server for {covered} of {SLOTS} slots")
        known = [_place(server, place) for _, _, *servers in reply for server in servers]
        self._known = list(dict.fromkeys(known))
        return sorted((int(first), _place(main, place)) for first, _, main, *_ in reply)

    async def _ask(self, place: Place) -> Ranges:
        connection = self.connections_to(place)()
        try:
            await connection.connect()
            await connection.send_command(*SLOTS_COMMAND)
            return self.read(await connection.read_response(), place)
        except RedisError as error:
            raise ConnectionError(str(error)) from error
        finally:
            await connection.disconnect(nowait=True)


def primaries(reply: Any, place: Place) -> set[Place]:
    """The servers that have slots, as one of them has answered to `SLOTS_COMMAND`.

    Args:
        reply: the answer.
        place: of the server.
    """
    return {_place(main, place) for _, _, main, *_ in reply}


def _place(server: Any, own: Place) -> Place:
    """Where a server is that another, or it itself, tells of."""
    return (server[0] or b"").decode() or own[0], int(server[1])


def _place_of(pool: Any) -> Place:
    return str(pool.connection_kwargs.get("host", "localhost")), int(pool.connection_kwargs.get("port", 6379))
