"""Redis: a backplane over Redis or Valkey, through redis-py. Knows only bytes and topics, which Redis calls channels.

There are two connections: one publishes, one is subscribed. Each has a reader, so that its end is seen at once and not
when it is used next.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from velocity_ws.backplane.base import Lost, Receive
from velocity_ws.backplane.redis_connection import RedisConnection
from velocity_ws.backplane.redis_primary import primary_of
from velocity_ws.backplane.redis_roles import Roles
from velocity_ws.backplane.redis_watch import Watch

__all__ = ["MAX_PAYLOAD", "RedisBackplane"]

MAX_PAYLOAD = 8 * 1024 * 1024
"""Bytes. Redis cuts off a subscriber that has more than 32 MiB waiting, and several have to fit in."""


class RedisBackplane:
    """``redis://``, ``rediss://`` (TLS), ``valkey://``, ``valkeys://``, ``unix://``; the first four with ``+sentinel``.

    On the broker's loop only.

    Attributes:
        server_id: see `Backplane`.
    """

    def __init__(self, url: str) -> None:
        """
        Args:
            url: as redis-py takes it, with user, password, host, port, database and options; or that of Sentinels, see
                `velocity_ws.backplane.sentinel_urls`.

        Raises:
            ValueError: redis-py does not take it.
        """
        self.max_payload = MAX_PAYLOAD
        self.server_id = ""
        self._primary = primary_of(url)
        self._roles = Roles()
        self._watch = Watch()
        self._publisher: RedisConnection | None = None
        self._subscriber: RedisConnection | None = None
        self._receive: Receive | None = None

    async def connect(self, receive: Receive, lost: Lost) -> None:
        """See `Backplane.connect`."""
        self._receive = receive

        def ended(error: Exception) -> None:
            if self._receive is receive:
                self._receive = None
                lost(error)

        connect = await self._primary.find(ended)
        self._subscriber = RedisConnection(connect(), self._roles, ended, self._arrived)
        self._publisher = RedisConnection(connect(), self._roles, ended)
        try:
            await self._subscriber.open()
            await self._publisher.open()
        except OSError:
            await self._primary.unreached()
            raise
        self.server_id = (await self._publisher.about("server")).get("run_id", "")
        self._watch.start((self._subscriber, self._publisher))

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
        self._watch.stop()
        publisher, self._publisher = self._publisher, None
        subscriber, self._subscriber = self._subscriber, None
        for connection in (publisher, subscriber):
            if connection is not None:
                connection.abort()
        await self._primary.close()
        for connection in (publisher, subscriber):
            if connection is not None:
                await connection.wait_closed()

    def release(self) -> None:
        """See `Backplane.release`. There is nothing to give back."""

    def _connected(self, connection: RedisConnection | None) -> RedisConnection:
        if connection is None or self._receive is None:  # one of the two alone is of no use
            raise ConnectionError("there is no connection")
        return connection

    def _arrived(self, reply: Any) -> bool:
        """Take what came to the subscriber; whether it answers a command."""
        kind = reply[0]
        if kind != b"message":
            return bool(kind in (b"subscribe", b"unsubscribe", b"pong"))
        if self._receive is not None:
            self._receive(reply[1].decode("ascii"), reply[2])
        return False
