"""Redis, or Valkey, as a backplane, through redis-py. Knows nothing but bytes and topics; a channel is a topic.

Two connections: one publishes, one is subscribed. Each has a reader, so that its end is seen at once and not when it
is used next. The library's pools and retries are not used: what comes back is not to be in doubt.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from velocity_ws.backplane.base import Lost, Receive

__all__ = ["RedisBackplane"]

MAX_PAYLOAD = 8 * 1024 * 1024
"""Bytes; a subscriber for which the server has more than 32 MiB waiting is cut off by it."""
_SCHEMES = {"valkey": "redis", "valkeys": "rediss"}


class RedisBackplane:
    """``redis://``, ``rediss://`` (TLS), ``valkey://``, ``valkeys://`` and ``unix://``."""

    def __init__(self, url: str) -> None:
        """
        Args:
            url: as redis-py takes it: user, password, host, port, database and options.
        """
        scheme, colon, rest = url.partition(":")
        self.max_payload = MAX_PAYLOAD
        self._pool = ConnectionPool.from_url(_SCHEMES.get(scheme, scheme) + colon + rest)
        # Not to be had from the URL: what the reading of replies rests on. RESP3 costs more for each message.
        self._pool.connection_kwargs |= {
            "protocol": 2,
            "decode_responses": False,
            "health_check_interval": 0,
            "socket_timeout": None,
            "retry": Retry(NoBackoff(), 0),
            "client_name": self._pool.connection_kwargs.get("client_name", "velocity-ws"),
        }
        self._publisher: _Channel | None = None
        self._subscriber: _Channel | None = None
        self._receive: Receive | None = None

    async def connect(self, receive: Receive, lost: Lost) -> None:
        """See `Backplane.connect`."""
        self._receive = receive

        def ended(error: Exception) -> None:
            if self._receive is receive:
                self._receive = None
                lost(error)

        connect: Callable[[], Any] = self._pool.make_connection
        self._subscriber = _Channel(connect(), self._arrived, ended)
        self._publisher = _Channel(connect(), None, ended)
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

    def _connected(self, channel: _Channel | None) -> _Channel:
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


class _Channel:
    """One connection, and the task that reads it."""

    def __init__(
        self, connection: Any, is_answer: Callable[[Any], bool] | None, ended: Callable[[Exception], None]
    ) -> None:
        self._connection = connection
        self._is_answer = is_answer
        self._ended = ended
        self._waiting: deque[_Answers] = deque()
        self._reader: asyncio.Task[None] | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._error: Exception | None = None

    async def open(self) -> None:
        try:
            await self._connection.connect()
        except RedisError as error:
            raise ConnectionError(str(error)) from error
        self._keep()
        self._reader = asyncio.create_task(self._read(), name="velocity-ws redis")

    def _keep(self) -> None:
        """Remember what carries it, which the library only closes, and forgets, when a call is cancelled."""
        writer: asyncio.StreamWriter | None = getattr(self._connection, "_writer", None)
        if writer is not None:
            self._transport = writer.transport

    async def send(self, commands: Iterable[tuple[str | bytes, ...]], answers: int) -> None:
        """Send commands, and wait for so many answers."""
        if self._error is not None:
            raise ConnectionError(str(self._error)) from self._error
        if not self._connection.is_connected:  # it would connect by itself
            raise ConnectionError("the connection was closed")
        waiting = _Answers(answers)
        self._waiting.append(waiting)
        try:
            await self._connection.send_packed_command(self._connection.pack_commands(commands))
        except RedisError as error:
            raise ConnectionError(str(error)) from error
        await waiting.done

    def abort(self) -> None:
        """End it, with what is not written yet: it is not to come after what the next connection carries."""
        self._keep()
        if self._transport is not None:
            self._transport.abort()
        if self._reader is not None:
            self._reader.cancel()
        self._fail(ConnectionError("the connection was closed"))

    async def close(self) -> None:
        """Let it go, once it was aborted."""
        if self._reader is not None:
            await asyncio.wait([self._reader])
        await self._connection.disconnect(nowait=True)

    async def _read(self) -> None:
        try:
            while True:
                reply = await self._connection.read_response()
                if (self._is_answer is None or self._is_answer(reply)) and self._waiting:
                    answers = self._waiting[0]
                    answers.left -= 1
                    if not answers.left:
                        self._waiting.popleft().settle(None)
        except (RedisError, OSError) as error:
            self._fail(ConnectionError(str(error)))
            self._ended(ConnectionError(str(error)))

    def _fail(self, error: Exception) -> None:
        self._error = error
        for answers in self._waiting:
            answers.settle(error)
        self._waiting.clear()


class _Answers:
    """How many answers a caller still waits for."""

    __slots__ = ("done", "left")

    def __init__(self, left: int) -> None:
        self.left = left
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(self, error: Exception | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
            self.done.exception()  # its caller may have been cancelled: then nobody else looks
