"""One connection to a Redis server, and the task that reads it: commands sent, answers counted, its end seen at once.

Knows redis-py's connections; the library's pools and retries are not used, as what comes back is not to be in doubt.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

__all__ = ["Channel", "pool_of"]

_SCHEMES = {"valkey": "redis", "valkeys": "rediss"}


def pool_of(url: str) -> ConnectionPool:
    """What makes connections to the server of a URL, as redis-py takes it; ``valkey://`` and ``valkeys://`` too."""
    scheme, colon, rest = url.partition(":")
    pool = ConnectionPool.from_url(_SCHEMES.get(scheme, scheme) + colon + rest)
    # Not to be had from the URL: what the reading of replies rests on. RESP3 costs more for each message.
    pool.connection_kwargs |= {
        "protocol": 2,
        "decode_responses": False,
        "health_check_interval": 0,
        "socket_timeout": None,
        "retry": Retry(NoBackoff(), 0),
        "client_name": pool.connection_kwargs.get("client_name", "velocity-ws"),
    }
    try:
        make: Callable[[], Any] = pool.make_connection
        make()  # which does not connect: it says what it does not know
    except TypeError as error:
        raise ValueError(str(error)) from None
    return pool


class Channel:
    """See the module."""

    def __init__(
        self, connection: Any, is_answer: Callable[[Any], bool] | None, ended: Callable[[Exception], None]
    ) -> None:
        """
        Args:
            connection: of redis-py, not connected.
            is_answer: takes what arrives, and says whether it answers a command; ``None`` where all of it does.
            ended: called when the connection has ended by itself.
        """
        self._connection = connection
        self._is_answer = is_answer
        self._ended = ended
        self._waiting: deque[_Answers] = deque()
        self._reader: asyncio.Task[None] | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._error: Exception | None = None

    async def open(self) -> None:
        """Connect.

        Raises:
            OSError: it cannot, or is not let in.
        """
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
