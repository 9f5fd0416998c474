"""Redis Sentinel: which server is the primary, as the Sentinels say, and when it is another. Knows no topic.

All of them are asked, and listened to: the one that has promoted a server says so at once, the others some time later.
redis-py's own discovery takes the first answer, which may be that of a Sentinel that was away; here the one with the
largest configuration epoch counts.

Source: https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/ (Sentinel API, Pub/Sub messages,
configuration epochs).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from velocity_ws.backplane.redis_connection import pool_of
from velocity_ws.backplane.sentinel_urls import parse_sentinel_url
from velocity_ws.logs import get_logger

__all__ = ["SentinelPrimary"]

log = get_logger("velocity_ws.backplane")

SWITCH = "+switch-master"
"""Where a Sentinel publishes that it takes another server for the primary."""
ANSWER_TIMEOUT = 0.5
"""Seconds in which a Sentinel answers, or is away."""
PING_INTERVAL = 2.0
"""Seconds of silence after which it is looked whether a Sentinel is still there; and as long for its answer."""
AGAIN = 1.0
"""Seconds until a Sentinel that is away is tried again."""


class _Primary(NamedTuple):
    """What a Sentinel says.

    Attributes:
        epoch: of its configuration: the larger, the newer.
        host: the primary's.
        port: the primary's.
    """

    epoch: int
    host: str
    port: int


class SentinelPrimary:
    """The primary of a URL with Sentinels. On the broker's loop only."""

    def __init__(self, url: str) -> None:
        """
        Args:
            url: see `parse_sentinel_url`.

        Raises:
            ValueError: it is none, or redis-py does not take an option.
        """
        where = parse_sentinel_url(url)
        self._name = where.name
        self._server = where.server
        pool_of(where.server)
        timeouts = {"socket_connect_timeout": ANSWER_TIMEOUT, "socket_timeout": ANSWER_TIMEOUT}
        self._pools = [pool_of(sentinel) for sentinel in where.sentinels]
        for pool in self._pools:
            pool.connection_kwargs |= timeouts
        self._known: _Primary | None = None
        self._why = ""
        self._moved: Callable[[Exception], None] | None = None
        self._watching: list[asyncio.Task[None]] = []
        self._away: dict[int, str] = {}

    async def find(self, moved: Callable[[Exception], None]) -> Callable[[], Any]:
        """See `RedisPrimary.find`. Where no Sentinel answers, it is the one that was known last."""
        await self.close()
        self._moved = moved
        listening = [asyncio.Event() for _ in self._pools]
        self._watching = [
            asyncio.create_task(self._watch(index, event), name="velocity-ws sentinel")
            for index, event in enumerate(listening)
        ]
        # What is said from then on is heard; what was said before, the answers know.
        await asyncio.gather(*[event.wait() for event in listening])
        found = await self._ask()
        if found is not None:
            self._known = found
        if self._known is None:
            raise ConnectionError(f"no Sentinel says which server is the primary of {self._name} ({self._why})")
        pool = pool_of(self._server)
        pool.connection_kwargs |= {"host": self._known.host, "port": self._known.port}
        make: Callable[[], Any] = pool.make_connection
        return make

    async def close(self) -> None:
        """See `RedisPrimary.close`."""
        self._moved = None
        watching, self._watching = self._watching, []
        for task in watching:
            task.cancel()
        if watching:
            await asyncio.wait(watching)
        for pool in self._pools:
            await pool.disconnect()

    async def _ask(self) -> _Primary | None:
        """What the Sentinels say: the newest of it; ``None`` where none of them says anything."""
        answers = await asyncio.gather(*[self._ask_one(pool) for pool in self._pools])
        return max([answer for answer in answers if answer is not None], default=None)

    async def _ask_one(self, pool: Any) -> _Primary | None:
        redis: Redis = Redis(connection_pool=pool)
        try:
            async with asyncio.timeout(2 * ANSWER_TIMEOUT):
                reply = await redis.execute_command("SENTINEL", "MASTER", self._name)  # type: ignore[no-untyped-call]
        except (RedisError, OSError) as error:  # a TimeoutError is one
            self._why = str(error) or "it did not answer in time"
            return None
        said = dict(zip(reply[::2], reply[1::2], strict=False))
        return _Primary(int(said[b"config-epoch"]), said[b"ip"].decode(), int(said[b"port"]))

    async def _watch(self, index: int, listening: asyncio.Event) -> None:
        """Listen to a Sentinel, for as long as this is not cancelled.

        Args:
            index: which.
            listening: set once it listens, or is away.
        """
        while True:
            redis: Redis = Redis(connection_pool=self._pools[index])
            try:
                async with redis.pubsub() as pubsub:
                    await pubsub.subscribe(SWITCH)
                    await self._listen(index, pubsub, listening)
            except (RedisError, OSError) as error:
                self._is_away(index, str(error) or "it did not answer in time")
            listening.set()
            await asyncio.sleep(AGAIN)

    def _is_away(self, index: int, why: str) -> None:
        had_one = len(self._away) < len(self._pools)
        self._away[index] = why
        if had_one and len(self._away) == len(self._pools):
            log.warning(
                "no Sentinel of %s is reached (%s); as long as its primary is, nothing is missed, and should another "
                "server become it, that will not be noticed",
                *(self._name, why),
            )

    async def _listen(self, index: int, pubsub: Any, listening: asyncio.Event) -> None:
        """Take what a Sentinel says.

        Raises:
            OSError: it says nothing, not even that it is there.
        """
        is_asked = False
        while True:
            message = await pubsub.get_message(timeout=PING_INTERVAL)
            if message is None:
                if is_asked:
                    raise TimeoutError("it does not answer")
                is_asked = True
                await pubsub.ping()
                continue
            is_asked = False
            if message["type"] == "subscribe":
                self._away.pop(index, None)
                is_new = not listening.is_set()
                listening.set()
                if not is_new:  # it was away, and may have said something meanwhile
                    await self._look()
            elif message["type"] == "message" and message["data"].split(b" ")[0].decode() == self._name:
                await self._look()

    async def _look(self) -> None:
        """Look whether the primary is another one."""
        found, known = await self._ask(), self._known
        if found is None or known is None or found[1:] == known[1:] or found.epoch < known.epoch:
            return
        self._known = found
        if self._moved is not None:
            self._moved(ConnectionError(f"the primary of {self._name} is another server now"))
