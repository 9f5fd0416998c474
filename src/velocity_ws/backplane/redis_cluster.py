"""Redis Cluster: a backplane over sharded pub/sub (Redis 7, Valkey). Knows only bytes and topics.

A topic lives on the server that has its slot, so a cluster carries more than one server does. The price: what one node
publishes to *different* topics has no order, as they are on different servers; within a topic it has. A shard that is
lost, or a slot that moves, ends the connection as a whole: the next one asks anew which server has which slots.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from velocity_ws.backplane.base import Lost, Receive
from velocity_ws.backplane.redis import MAX_PAYLOAD
from velocity_ws.backplane.redis_connection import RedisConnection, pool_of
from velocity_ws.backplane.redis_roles import Roles
from velocity_ws.backplane.redis_slots import Slots, ask_slots, connections_to
from velocity_ws.backplane.redis_watch import Watch

__all__ = ["RedisClusterBackplane"]

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
        self._watch = Watch()
        pool_of(self._url)  # raises now what it would raise later
        self.max_payload = MAX_PAYLOAD
        self.is_ordered = False
        self._shards: list[_Shard] = []
        self._slots: Slots[_Shard] = Slots([])
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
        ranges = await ask_slots(self._url)
        for _, server in ranges:
            if server not in servers:
                make = connections_to(self._url, *server)
                servers[server] = shard = _Shard(make, self._roles, ended, self._arrived)
                self._shards.append(shard)
                await shard.open()
        self._slots = Slots([(first, servers[server]) for first, server in ranges])
        self._watch.start([side for shard in self._shards for side in (shard.publisher, shard.subscriber)])

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
        self._watch.stop()
        shards, self._shards = self._shards, []
        connections = [connection for shard in shards for connection in (shard.publisher, shard.subscriber)]
        for connection in connections:
            connection.abort()
        for connection in connections:
            await connection.wait_closed()

    def release(self) -> None:
        """See `Backplane.release`. There is nothing to give back."""

    async def _send(self, side: str, commands: Iterable[tuple[str, tuple[str | bytes, ...]]]) -> None:
        """Send each command to the shard of its topic, and wait for all the answers."""
        if self._receive is None:
            raise ConnectionError("there is no connection")
        by_shard: dict[_Shard, Commands] = {}
        for topic, command in commands:
            by_shard.setdefault(self._slots.of(topic), []).append(command)
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
        return bool(kind in (b"ssubscribe", b"sunsubscribe", b"pong"))


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
