"""NATS: a backplane over NATS, through nats-py. Knows only bytes and topics, which NATS calls subjects.

The library connects, reads and parses. Its queues are not used for what is sent and what arrives: it has one with a
task for each subscription, which loses the order across subjects, and one of flushes, which confirms what was not
written yet and swallows a cancellation. The contract suite fails where a version of it changes what this rests on.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import nats.errors
from nats.aio.client import PING_PROTO, Client

from velocity_ws.backplane.base import Lost, Receive
from velocity_ws.backplane.urls import server_urls

__all__ = ["NatsBackplane"]

CONNECT_TIMEOUT = 1
"""Seconds for each server."""
NEVER = 365 * 86400
"""Seconds between the library's own pings, which must not interfere; a lost connection shows without them."""
_TOPIC = re.compile(r"[A-Za-z0-9_=~-]+(?:\.[A-Za-z0-9_=~-]+)*", re.ASCII)
CLOSE_TIMEOUT = 0.8
"""Seconds that the library's tasks have to end, once their connection is gone."""


class _NatsClient(Client):
    """The library's client, changed so that it hands messages over at once, in the order in which they came.

    Attributes:
        topics: the topic of each subscription, by its number.
        last: the last error that the library reported.
    """

    def __init__(self, receive: Receive) -> None:
        super().__init__()
        self.topics: dict[int, str] = {}
        self.last: Exception = ConnectionError("the connection was closed")
        self._receive = receive

    async def keep_error(self, error: Exception) -> None:
        """The library's callback for errors, which it would log otherwise."""
        self.last = error

    async def confirm(self, commands: Sequence[bytes]) -> None:
        """Send commands, and wait until the server has taken them.

        Raises:
            ConnectionError: the server has refused one, or the connection has ended.
        """
        transport = self._transport
        if transport is None or not self.is_connected:
            raise ConnectionError(str(self.last))
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._pongs.append(future)
        transport.writelines([*commands, PING_PROTO])
        # Shielded: cancelling the future would end the library's reader, which sets it.
        if not await asyncio.shield(future):
            raise ConnectionError(str(self.last))

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:  # noqa: ARG002
        topic = self.topics.get(sid)
        if topic is not None:
            self._receive(topic, data)

    async def _process_err(self, err_msg: str) -> None:
        # The library goes on after some of them, though something was not done then.
        self.last = ConnectionError(err_msg.strip("'"))
        self.give_up()
        await self._process_op_err(self.last)

    def give_up(self) -> None:
        """Receive nothing more, and let what waits for a confirmation fail."""
        self.topics = {}
        for future in self._pongs:
            if not future.done():
                future.set_result(False)
        self._pongs.clear()

    @property
    def server_info(self) -> dict[str, Any]:
        """What the server said of itself when the connection was made."""
        return self._server_info

    @property
    def reader(self) -> asyncio.Task[None] | None:
        """The task that reads; the connection ends with it."""
        return self._reading_task

    async def abort(self) -> None:
        """End the connection now, with what is not written yet: it must not arrive after what the next one carries."""
        self.give_up()
        writer: asyncio.StreamWriter | None = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()
        tasks = [task for task in (self.reader, self._flusher_task, self._ping_interval_task) if task is not None]
        closing = asyncio.create_task(self.close(), name="velocity-ws nats")
        try:
            await asyncio.wait([closing, *tasks], timeout=CLOSE_TIMEOUT)
        finally:
            for task in (closing, *tasks):
                task.cancel()
        if closing.done() and not closing.cancelled():
            closing.exception()  # retrieved; whatever it is, there is no connection


class NatsBackplane:
    """``nats://`` and ``tls://``; several servers are separated by commas. On the broker's loop only.

    Attributes:
        servers: the URLs of the servers; user and password, or token, are those of the first that has any.
    """

    def __init__(self, url: str) -> None:
        """
        Args:
            url: of one server, or of several, ``nats://a:4222,nats://b:4222`` or ``nats://a:4222,b:4222``.
        """
        self.servers = server_urls(url)
        self.max_payload = 1024 * 1024
        self._client: _NatsClient | None = None
        self._numbers = itertools.count(1)
        self._subscribed: dict[str, int] = {}

    async def connect(self, receive: Receive, lost: Lost) -> None:
        """See `Backplane.connect`."""
        client = _NatsClient(receive)

        def ended(_: object) -> None:
            client.give_up()
            if self._client is client:
                self._client = None
                lost(ConnectionError(str(client.last) or type(client.last).__name__))

        try:
            await client.connect(
                self.servers,
                name="velocity-ws",
                allow_reconnect=False,
                connect_timeout=CONNECT_TIMEOUT,
                # It tries its servers several times even so; these are the pauses, and how often.
                reconnect_time_wait=0.05,  # type: ignore[arg-type] # it is only slept
                max_reconnect_attempts=1,
                error_cb=client.keep_error,
                pending_size=0,
                ping_interval=NEVER,
                **_credentials(self.servers),
            )
        except (nats.errors.Error, TimeoutError, OSError) as error:
            await client.abort()
            raise ConnectionError(str(client.last) or type(client.last).__name__) from error
        except BaseException:
            await client.abort()
            raise
        self._client = client
        self._subscribed = {}
        self.max_payload = client.max_payload
        if client.reader is not None:
            client.reader.add_done_callback(ended)

    @property
    def server_name(self) -> str:
        """What the server of the connection calls itself; empty without a connection."""
        info: dict[str, Any] = {} if self._client is None else self._client.server_info
        return str(info.get("server_name", ""))

    async def subscribe(self, topics: Collection[str]) -> None:
        """See `Backplane.subscribe`."""
        client = self._connected()
        _check(topics)
        new = {topic: next(self._numbers) for topic in topics if topic not in self._subscribed}
        self._subscribed |= new
        client.topics |= {number: topic for topic, number in new.items()}
        await client.confirm([f"SUB {topic} {number}\r\n".encode() for topic, number in new.items()])

    async def unsubscribe(self, topics: Collection[str]) -> None:
        """See `Backplane.unsubscribe`."""
        client = self._connected()
        old = [self._subscribed.pop(topic) for topic in topics if topic in self._subscribed]
        for number in old:
            client.topics.pop(number, None)
        await client.confirm([f"UNSUB {number}\r\n".encode() for number in old])

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


def _credentials(servers: Collection[str]) -> dict[str, Any]:
    """User and password, or token, decoded: the library takes them as they are in the URL, percent-encoded."""
    for server in servers:
        parts = urlsplit(server)
        if parts.username and parts.password is not None:
            return {"user": unquote(parts.username), "password": unquote(parts.password)}
        if parts.username:
            return {"token": unquote(parts.username)}
    return {}
