"""Redis Cluster: a backplane over sharded pub/sub (Redis 7, Valkey). Knows only bytes and topics.

A topic lives on the server that has its slot, so a cluster carries more than one server does. The price: what one node
publishes to *different* topics has no order, as they are on different servers; within a topic it has. A server that is
lost ends the connection as a whole. One that gives away a slot says so, as does one that is a replica from now on: its
topics are subscribed to where they are now, and all else goes on.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any

from redis.exceptions import MovedError, ResponseError

from velocity_ws.backplane.base import Lost, Receive
from velocity_ws.backplane.redis import MAX_PAYLOAD
from velocity_ws.backplane.redis_connection import RedisConnection
from velocity_ws.backplane.redis_roles import Roles
from velocity_ws.backplane.redis_shards import Shards
from velocity_ws.backplane.redis_slots import SlotFinder

__all__ = ["RedisClusterBackplane"]

Command = tuple[str | bytes, ...]
"""What is done, the topic that it is done to, and more."""
CHUNK = 1000
"""Topics subscribed to at once."""
DETOUR = 0.1
"""Seconds after which nothing is on its way any more that was published at a server which has become a replica: that
takes it, and passes it on to the primary by the way on which servers speak with each other (40 ms on Redis 7.0)."""
_PUBLISHER, _SUBSCRIBER = 0, 1


class RedisClusterBackplane:
    """``redis+cluster://``, ``rediss+cluster://``, ``valkey+cluster://`` and ``valkeys+cluster://``.

    Attributes:
        on_missed: see `Moving`.
    """

    def __init__(self, url: str) -> None:
        """
        Args:
            url: of one or several servers of the cluster; its user, password and options are those of all servers.

        Raises:
            ValueError: redis-py does not take it.
        """
        self.max_payload = MAX_PAYLOAD
        self.is_ordered = False
        self.on_missed: Callable[[Collection[str]], None] = lambda _: None
        self._finder = SlotFinder(url)
        self._roles = Roles(is_sharded=True)
        self._shards: Shards[_Shard] = Shards(self._finder, self._shard, self._ended, self._left)
        self._receive: Receive | None = None
        self._lost: Lost | None = None
        self._topics: set[str] = set()
        self._strays: set[str] = set()
        self._moving: asyncio.Task[None] | None = None
        self._left_at = -DETOUR
        self._has_left = False

    async def connect(self, receive: Receive, lost: Lost) -> None:
        """See `Backplane.connect`."""
        self._receive, self._lost = receive, lost
        self._topics, self._strays = set(), set()
        self._shards = Shards(self._finder, self._shard, self._ended, self._left)
        await self._shards.open()

    async def subscribe(self, topics: Collection[str]) -> None:
        """See `Backplane.subscribe`."""
        new = [topic for topic in topics if topic not in self._topics]
        self._topics.update(new)
        await self._send(_SUBSCRIBER, [("SSUBSCRIBE", topic) for topic in new])

    async def unsubscribe(self, topics: Collection[str]) -> None:
        """See `Backplane.unsubscribe`."""
        old = [topic for topic in topics if topic in self._topics]
        self._topics.difference_update(old)
        await self._send(_SUBSCRIBER, [("SUNSUBSCRIBE", topic) for topic in old])

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """See `Backplane.publish`. Behind what was published at a server that was left, and does not overtake it."""
        await self._send(_PUBLISHER, [("SPUBLISH", topic, payload) for topic, payload in messages])

    async def close(self) -> None:
        """See `Backplane.close`."""
        self._receive = self._lost = None
        moving, self._moving = self._moving, None
        if moving is not None:
            moving.cancel()
            await asyncio.wait([moving])
        await self._shards.close()

    def release(self) -> None:
        """See `Backplane.release`. There is nothing to give back."""

    def _shard(self, make: Callable[[], Any]) -> _Shard:
        return _Shard(make, self._roles, self._ended, self._arrived, self._moved)

    def _ended(self, error: Exception) -> None:
        lost, self._lost, self._receive = self._lost, None, None
        if lost is not None:
            lost(error)

    # --- what is sent

    async def _send(self, side: int, commands: Sequence[Command]) -> None:
        """Send each command to the server of its topic, and wait until it is done.

        Where that server says that the slot is another's, it is sent to the other: it was not done before, and what
        comes behind it for its topic was not either.

        Raises:
            OSError: each of them may be done, or not.
        """
        for attempt in itertools.count():
            wait = self._left_at + DETOUR - asyncio.get_running_loop().time()
            if side == _PUBLISHER and wait > 0:
                await asyncio.sleep(wait)
            if self._receive is None:
                raise ConnectionError("there is no connection")
            commands, told = await self._sent(side, commands)
            if told is None:
                return
            await self._shards.follow(told, attempt)

    async def _sent(self, side: int, commands: Sequence[Command]) -> tuple[list[Command], _Shard | None]:
        """Send them once; those that found no slot, and a server that has said so."""
        by_shard: dict[_Shard, list[Command]] = {}
        for command in commands:
            by_shard.setdefault(self._shards.of(str(command[1])), []).append(command)
        calls = [shard.connections[side].ask(mine, is_by_topic=side == _SUBSCRIBER) for shard, mine in by_shard.items()]
        moved, told = list[Command](), None
        for (shard, mine), replies in zip(by_shard.items(), await asyncio.gather(*calls), strict=True):
            for command, reply in zip(mine, replies, strict=True):
                if isinstance(reply, MovedError):
                    moved.append(command)
                    told = shard
                elif isinstance(reply, ResponseError):
                    raise ConnectionError(str(reply)) from reply
        return moved, told

    # --- what comes

    def _arrived(self, shard: _Shard, reply: Any) -> bool:
        """Take what came to a subscriber; whether it answers a command."""
        kind, topic = reply[0], reply[1]
        if kind == b"smessage":
            if self._receive is not None:
                self._receive(topic.decode("ascii"), reply[2])
            return False
        if kind == b"sunsubscribe" and topic is not None and (name := topic.decode("ascii")) in self._topics:
            self._moved(shard, [name])
            return False
        return bool(kind in (b"ssubscribe", b"sunsubscribe", b"pong"))

    # --- what moves

    def _left(self, shard: _Shard) -> None:
        """A server has no slots any more: whatever it has said of that yet, nothing more is heard there."""
        self._left_at = asyncio.get_running_loop().time()
        self._has_left = True
        self._moved(shard, [topic for topic in self._topics if self._shards.of(topic) is shard])

    def _moved(self, shard: _Shard, topics: Iterable[str] = ()) -> None:
        """A server has said that it has some topics no more, or is no primary."""
        self._strays.update(topics)
        if self._receive is not None and (self._moving is None or self._moving.done()):
            self._moving = asyncio.create_task(self._move(shard), name="velocity-ws redis cluster")

    async def _move(self, shard: _Shard) -> None:
        """Subscribe to topics where they are now, until none is astray."""
        missed: list[str] = []
        try:
            await self._shards.follow(shard)
            while self._strays:
                topics = [self._strays.pop() for _ in range(min(CHUNK, len(self._strays)))]
                needed = [topic for topic in topics if topic in self._topics]
                await self._send(_SUBSCRIBER, [("SSUBSCRIBE", topic) for topic in needed])
                missed += needed
        except OSError as error:
            self._ended(error)
            return
        if missed or self._has_left:
            self._has_left = False
            self.on_missed(missed)


class _Shard:
    """The two connections to one server."""

    def __init__(
        self,
        make: Callable[[], Any],
        roles: Roles,
        ended: Callable[[Exception], None],
        arrived: Callable[[_Shard, Any], bool],
        demoted: Callable[[_Shard], None],
    ) -> None:
        publisher = RedisConnection(make(), roles, ended, demoted=partial(demoted, self))
        self.connections = (publisher, RedisConnection(make(), roles, ended, partial(arrived, self)))

    async def begin(self) -> None:
        """See `Shard.begin`. There is nothing to do."""
