"""NATS: a backplane over NATS. Knows only bytes and topics, which NATS calls subjects."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from velocity_ws.backplane.base import Lost, Receive
from velocity_ws.backplane.nats_client import NatsClient
from velocity_ws.backplane.urls import options_of, server_urls

__all__ = ["NatsBackplane"]

_TOPIC = re.compile(r"[A-Za-z0-9_=~-]+(?:\.[A-Za-z0-9_=~-]+)*", re.ASCII)


class _NatsClient(NatsClient):
    """A client that hands messages over at once.

    Attributes:
        topics: the topic of each subscription, by its number as it is sent.
    """

    def __init__(self, receive: Receive) -> None:
        super().__init__()
        self.topics: dict[bytes, str] = {}
        self._receive = receive

    def message(self, number: bytes, subject: bytes, headers: bytes, payload: bytes) -> None:  # noqa: ARG002
        """See `NatsClient.message`."""
        topic = self.topics.get(number)
        if topic is not None:
            self._receive(topic, payload)

    def give_up(self) -> None:
        """See `NatsClient.give_up`."""
        self.topics = {}
        super().give_up()


class NatsBackplane:
    """``nats://`` and ``tls://``; several servers are separated by commas. On the broker's loop only.

    Attributes:
        servers: the URLs of the servers; user and password, or token, are those of the first that has any.
        server_id: see `Backplane`.
        is_routed: see `Backplane`.
    """

    def __init__(self, url: str) -> None:
        """
        Args:
            url: of one server, or of several, ``nats://a:4222,nats://b:4222`` or ``nats://a:4222,b:4222``.
        """
        self.servers = server_urls(options_of(url)[0])
        self.max_payload = 1024 * 1024
        self.server_id = ""
        self.is_routed = False
        self._client: _NatsClient | None = None
        self._numbers = itertools.count(1)
        self._subscribed: dict[str, bytes] = {}

    async def connect(self, receive: Receive, lost: Lost) -> None:
        """See `Backplane.connect`."""
        client = _NatsClient(receive)

        def ended() -> None:
            client.give_up()
            if self._client is client:
                lost(ConnectionError(client.reason))

        await client.open(self.servers, ended, lost)
        self._client = client
        self._subscribed = {}
        self.max_payload = client.max_payload
        self.server_id = str(client.server_info.get("server_id", ""))
        self.is_routed = bool(client.server_info.get("cluster"))

    @property
    def server_name(self) -> str:
        """What the server of the connection calls itself; empty without a connection."""
        info: dict[str, Any] = {} if self._client is None else self._client.server_info
        return str(info.get("server_name", ""))

    async def subscribe(self, topics: Collection[str]) -> None:
        """See `Backplane.subscribe`."""
        client = self._connected()
        _check(topics)
        new = {topic: b"%d" % next(self._numbers) for topic in topics if topic not in self._subscribed}
        self._subscribed |= new
        client.topics |= {number: topic for topic, number in new.items()}
        await client.confirm([b"SUB %b %b\r\n" % (topic.encode(), number) for topic, number in new.items()])

    async def unsubscribe(self, topics: Collection[str]) -> None:
        """See `Backplane.unsubscribe`."""
        client = self._connected()
        old = [self._subscribed.pop(topic) for topic in topics if topic in self._subscribed]
        for number in old:
            client.topics.pop(number, None)
        await client.confirm([b"UNSUB %b\r\n" % number for number in old])

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """See `Backplane.publish`."""
        _check(topic for topic, _ in messages)
        commands: list[bytes] = []
        for topic, payload in messages:
            commands += (f"PUB {topic} {len(payload)}\r\n".encode(), payload, b"\r\n")
        await self._connected().confirm(commands)

    async def close(self) -> None:
        """See `Backplane.close`."""
        client, self._client = self._client, None
        if client is not None:
            await client.abort()

    def release(self) -> None:
        """See `Backplane.release`. There is nothing to give back."""

    def _connected(self) -> _NatsClient:
        if self._client is None:
            raise ConnectionError("there is no connection")
        return self._client


def _check(topics: Iterable[str]) -> None:
    """Check topics, which go into the protocol as they are.

    Raises:
        ValueError: one is no topic.
    """
    for topic in topics:
        if not _TOPIC.fullmatch(topic):
            raise ValueError(f"not a topic: {topic!r:.80}")
