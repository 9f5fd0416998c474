"""Redis, or Valkey, as a backplane, through redis-py. Knows nothing but bytes and topics; a channel is a topic.

Two connections: one publishes, one is subscribed. Each has a reader, so that its end is seen at once and not when it
is used next.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from velocity_ws.backplane.base import Lost, Receive
from velocity_ws.backplane.redis_connection import Channel, pool_of
from velocity_ws.backplane.redis_roles import Roles

__all__ = ["MAX_PAYLOAD", "RedisBackplane"]

MAX_PAYLOAD = 8 * 1024 * 1024
"""Bytes; Redis cuts off a subscriber for which it has more than 32 MiB waiting, and so has to have room for several."""


class RedisBackplane:
    """``redis://``, ``rediss://`` (TLS), ``valkey://``, ``valkeys://`` and ``unix://``."""

    def __init__(self, url: str) -> None:
        """
        Args:
            url: as redis-py takes it: user, password, host, port, database and options.
        """
        self.max_payload = MAX_PAYLOAD
        self._pool = pool_of(url)
        self._roles = Roles()
        self._publisher: Channel | None = None
        self._subscriber: Channel | None = None
        self._receive: Receive | None = None

    async def connect(self, receive: Receive, lost: Lost) -> None:
        """See `Backplane.connect`."""
        self._receive = receive

        def ended(error: Exception) -> None:
            if self._receive is receive:
                self._receive = None
                lost(error)

        connect: Callable[[], Any] = self._pool.make_connection
        self._subscriber = Channel(connect(), self._roles, ended, self._arrived)
        self._publisher = Channel(connect(), self._roles, ended)
        await self._subscriber.open()
        await self._publisher.open()

    async def subscribe(self, topics: Collection[str]) -> None:
        """See `Backplane.subscribe`."""
        subscriber = self._connected(self._subscriber)
        if topics:
            await subscriber.send([("SUBSCRIBE", *topics)], len(topics))

    async def unsubscribe(self, topics: Collection[str]) -> None:
        """See `Backplane.unsubscribe`."""
        subscriber = self._connected(self._subscriber)
        if topics:
            await subscriber.send([("UNSUBSCRIBE", *topics)], len(topics))

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """See `Backplane.publish`."""
        publisher = self._connected(self._publisher)
        if messages:
            await publisher.send([("PUBLISH", topic, payload) for topic, payload in messages], len(messages))

    async def close(self) -> None:
        """See `Backplane.close`."""
        self._receive = None
        publisher, self._publisher = self._publisher, None
        subscriber, self._subscriber = self._subscriber, None
        for channel in (publisher, subscriber):
            if channel is not None:
                channel.abort()
        for channel in (publisher, subscriber):
            if channel is not None:
                await channel.close()

    def release(self) -> None:
        """See `Backplane.release`. There is nothing."""

    def _connected(self, channel: Channel | None) -> Channel:
        if channel is None or self._receive is None:  # one that has lost the other is no good
            raise ConnectionError("there is no connection")
        return channel

    def _arrived(self, reply: Any) -> bool:
        """Something came to the subscriber; whether it answers a command."""
        kind = reply[0]
        if kind != b"message":
            return bool(kind in (b"subscribe", b"unsubscribe"))
        if self._receive is not None:
            self._receive(reply[1].decode("ascii"), reply[2])
        return False
