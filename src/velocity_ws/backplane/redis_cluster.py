"""Redis Cluster: a backplane over sharded pub/sub (Redis 7, Valkey). Knows only bytes and topics.

A topic lives on the server that has its slot, so a cluster carries more than one server does. The price: what one node
publishes to *different* topics has no order, as they are on different servers; within a topic it has. A shard that is
lost, or a slot that moves, ends the connection as a whole: the next one asks anew which server has which slots.
"""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from redis.crc import key_slot
from redis.exceptions import RedisError

from velocity_ws.backplane.base import Lost, Receive
from velocity_ws.backplane.redis import MAX_PAYLOAD
from velocity_ws.backplane.redis_connection import RedisConnection, pool_of
from velocity_ws.backplane.redis_roles import Roles

__all__ = ["RedisClusterBackplane"]

SLOTS = 16384

Commands = list[tuple[str | bytes, ...]]


class RedisClusterBackplane:
    """``redis+cluster://``, ``rediss+cluster://``, ``valkey+cluster://`` and ``valkeys+cluster://``."""

    def __init__(self, url: str) -> None:
        """
        Args:
            url: of any server of the cluster; its user, password and options are those of all servers.

        Raises:
            ValueError: redis-py does not take it.
        """
        self._url = url.replace("+cluster:", ":", 1)
        self._roles = Roles(is_sharded=True)
        pool_of(self._url)  # raises now what it would raise later
        self.max_payload = MAX_PAYLOAD
        self.is_ordered = False
        self._shards: list[_Shard] = []
        self._firsts: list[int] = []
        self._by_first: list[_Shard] = []
        self._receive: Receive | None = None
        self._topics: set[str] = set()

    async def connect(self, receive: Receive, lost: Lost) -> None:
        """See `Backplane.connect`."""
        self._receive = receive
        self._topics = set()

        def ended(error: Exception) -> None:
            if self._receive is receive:
                self._receive = None
                lost(error)

        servers: dict[tuple[str, int], _Shard] = {}
        ranges = await self._ask_slots()
        for _, _, host, port in ranges:
            if (host, port) not in servers:
                servers[host, port] = shard = _Shard(self._make(host, port), self._roles, ended, self._arrived)
                self._shards.append(shard)
                await shard.open()
        self._firsts = [first for first, *_ in ranges]
        self._by_first = [servers[host, port] for _, _, host, port in ranges]

    async def subscribe(self, topics: Collection[str]) -> None:
        """See `Backplane.subscribe`."""
        new = [topic for topic in topics if topic not in self._topics]
        self._topics.update(new)
        await self._send("subscriber", [(topic, ("SSUBSCRIBE", topic)) for topic in new])

    async def unsubscribe(self, topics: Collection[str]) -> None:
        """See `Backplane.unsubscribe`."""
        old = [topic for topic in topics if topic in self._topics]
        self._topics.difference_update(old)
        await self._send("subscriber", [(topic, ("SUNSUBSCRIBE", topic)) for topic in old])

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """See `Backplane.publish`."""
        await self._send("publisher", [(topic, ("SPUBLISH", topic, payload)) for topic, payload in messages])

    async def close(self) -> None:
        """See `Backplane.close`."""
        self._receive = None
        shards, self._shards = self._shards, []
        connections = [connection for shard in shards for connection in (shard.publisher, shard.subscriber)]
        for connection in connections:
            connection.abort()
        for connection in connections:
            await connection.wait_closed()

    def release(self) -> None:
        """See `Backplane.release`. There is nothing to give back."""

    def _make(self, host: str, port: int) -> Callable[[], Any]:
        pool = pool_of(self._url)
        pool.connection_kwargs |= {"host": host, "port": port}
        make: Callable[[], Any] = pool.make_connection
        return make

    async def _ask_slots(self) -> list[tuple[int, int, str, int]]:
        """Which server has which slots: for each range, in order, its first and last slot, and the host and port."""
        pool = pool_of(self._url)
        make: Callable[[], Any] = pool.make_connection
        connection = make()
        try:
            await connection.connect()
            await connection.send_command("CLUSTER", "SLOTS")
            reply = await connection.read_response()
        except RedisError as error:
            raise ConnectionError(str(error)) from error
        finally:
            await connection.disconnect(nowait=True)
        # A server that does not know its own address says none: then it is the one that was asked.
        own = str(pool.connection_kwargs.get("host", "127.0.0.1"))
        ranges = sorted(
            (int(first), int(last), main[0].decode() or own, int(main[1])) for first, last, main, *_ in reply
        )
        covered = sum(last - first + 1 for first, last, *_ in ranges)
        if covered != SLOTS:
            raise ConnectionError(f"the cluster has a server for {covered} of {SLOTS} slots")
        return ranges

    async def _send(self, side: str, commands: Iterable[tuple[str, tuple[str | bytes, ...]]]) -> None:
        """Send each command to the shard of its topic, and wait for all the answers."""
        if self._receive is None:
            raise ConnectionError("there is no connection")
        by_shard: dict[_Shard, Commands] = {}
        for topic, command in commands:
            slot = key_slot(topic.encode())
            by_shard.setdefault(self._by_first[bisect.bisect_right(self._firsts, slot) - 1], []).append(command)
        await asyncio.gather(*[getattr(shard, side).send(mine, len(mine)) for shard, mine in by_shard.items()])

    def _arrived(self, reply: Any) -> bool:
        """Take what came to a subscriber; whether it answers a command."""
        kind, topic = reply[0], reply[1]
        if kind == b"smessage":
            if self._receive is not None:
                self._receive(topic.decode("ascii"), reply[2])
            return False
        if kind == b"sunsubscribe" and topic is not None and topic.decode("ascii") in self._topics:
            raise ConnectionError("a slot has moved to another server")
        return bool(kind in (b"ssubscribe", b"sunsubscribe"))


class _Shard:
    """The two connections to one server."""

    def __init__(
        self,
        make: Callable[[], Any],
        roles: Roles,
        ended: Callable[[Exception], None],
        is_answer: Callable[[Any], bool],
    ) -> None:
        self.publisher = RedisConnection(make(), roles, ended)
        self.subscriber = RedisConnection(make(), roles, ended, is_answer)

    async def open(self) -> None:
        await self.publisher.open()
        await self.subscriber.open()
