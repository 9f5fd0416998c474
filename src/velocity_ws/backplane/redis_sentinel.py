"""Redis Sentinel: which server is the primary, as the Sentinels say, and when it is another. Knows no topic.

All of them are asked, and listened to: the one that has promoted a server says so at once, the others some time later.
redis-py's own discovery takes the first answer, which may be that of a Sentinel that hears no other; here the one with
the largest configuration epoch counts.

Source: https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/ (Sentinel API, Pub/Sub messages,
configuration epochs).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any, NamedTuple, TypeVar

from redis.exceptions import RedisError

from velocity_ws.backplane.redis_pool import pool_of
from velocity_ws.backplane.sentinel_urls import parse_sentinel_url
from velocity_ws.logs import get_logger, printable

__all__ = ["Moved", "SentinelPrimary"]

log = get_logger("velocity_ws.backplane")

CHANNELS = ("+promoted-slave", "+switch-master")
"""Where the Sentinel that leads a failover publishes that it has promoted a server; and, up to seconds later, where
each publishes that it takes another one for the primary. What the old one confirms between the two is lost."""
ANSWER_TIMEOUT = 0.5
"""Seconds in which a Sentinel answers, or is away."""
PING_INTERVAL = 2.0
"""Seconds of silence after which it is looked whether a Sentinel is still there; and as long for its answer."""
GRACE = 0.25
"""Seconds that a first answer is waited behind for those of the others: a slow one keeps nobody out."""
END_INTERVAL = 0.1
"""Seconds after which a task that has not ended is cancelled again: before Python 3.12 one may be swallowed."""
AGAIN = 1.0
"""Seconds until a Sentinel that is away is tried again, and until all are asked again where the primary is."""

T = TypeVar("T")
Moved = Callable[[Exception], None]
"""Called when the primary is another server from now on."""


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
        self._makers: list[Callable[[], Any]] = []
        for sentinel in where.sentinels:
            pool = pool_of(sentinel)
            pool.connection_kwargs |= {"socket_connect_timeout": ANSWER_TIMEOUT, "socket_timeout": ANSWER_TIMEOUT}
            self._makers.append(pool.make_connection)
        self._known: _Primary | None = None
        self._is_doubted = False
        self._why = ""
        self._moved: Moved | None = None
        self._watching: list[asyncio.Task[None]] = []
        self._away: set[int] = set()

    async def find(self, moved: Moved) -> Callable[[], Any]:
        """See `RedisPrimary.find`. Where no Sentinel knows a newer one, it is the one that was known last."""
        await self.close()
        self._moved = moved
        listening = [asyncio.Event() for _ in self._makers]
        self._watching = [
            asyncio.create_task(self._watch(index, event), name="velocity-ws sentinel")
            for index, event in enumerate(listening)
        ]
        # What is said from then on is heard; what was said before, the answers know.
        await _most([event.wait() for event in listening])
        self._learn(await self._ask())
        self._is_doubted = False
        if self._known is None:
            raise ConnectionError(f"no Sentinel says which server is the primary of {self._name} ({self._why})")
        pool = pool_of(self._server)
        pool.connection_kwargs |= {"host": self._known.host, "port": self._known.port}
        make: Callable[[], Any] = pool.make_connection
        return make

    async def unreached(self) -> None:
        """See `RedisPrimary.unreached`."""
        self._is_doubted = True
        await asyncio.sleep(AGAIN)

    async def close(self) -> None:
        """See `RedisPrimary.close`."""
        self._moved = None
        watching, self._watching = self._watching, []
        await _end(watching)

    async def _ask(self) -> list[_Primary]:
        """What the Sentinels say, but for those that take too long."""
        return [answer for answer in await _most([self._ask_one(make) for make in self._makers]) if answer is not None]

    def _learn(self, answers: Sequence[_Primary]) -> bool:
        """Believe the newest of what was said; whether the primary is another one by that.

        What is older than what is known is believed where the known one is not reached, or where all Sentinels agree:
        a name that is monitored anew begins at epoch 0.
        """
        found, known = max(answers, key=lambda each: each.epoch, default=None), self._known
        if found is None:
            return False
        is_agreed = len(answers) == len(self._makers) and len({answer[1:] for answer in answers}) == 1
        if known is None or self._is_doubted or found.epoch >= known.epoch or is_agreed:
            self._known = found
        return known is not None and self._known is not None and self._known[1:] != known[1:]

    async def _ask_one(self, make: Callable[[], Any]) -> _Primary | None:
        connection = make()
        try:
            async with asyncio.timeout(2 * ANSWER_TIMEOUT):
                await connection.connect()
                state = await _ask(connection, "MASTER", self._name)
                # What is said there of the primary changes only when its replicas follow; this, with the promotion.
                host, port = await _ask(connection, "GET-MASTER-ADDR-BY-NAME", self._name)
            said = dict(zip(state[::2], state[1::2], strict=False))
            return _Primary(int(said[b"config-epoch"]), host.decode(), int(port))
        except (RedisError, OSError, ValueError, KeyError, TypeError) as error:  # a TimeoutError is an OSError
            self._why = printable(str(error)) or "it did not answer in time"
            return None
        finally:
            await connection.disconnect(nowait=True)

    async def _watch(self, index: int, listening: asyncio.Event) -> None:
        """Listen to a Sentinel, for as long as this is not cancelled.

        Args:
            index: which.
            listening: set once it listens, or is away.
        """
        while True:
            connection = self._makers[index]()
            try:
                async with asyncio.timeout(2 * ANSWER_TIMEOUT):
                    await connection.connect()
                    await connection.send_command("SUBSCRIBE", *CHANNELS)
                await self._listen(index, connection, listening)
            except (RedisError, OSError) as error:
                self._is_away(index, error)
            except Exception:  # of what a Sentinel says; it is listened to again
                log.exception("what a Sentinel of %s said could not be read", self._name)
            finally:
                await connection.disconnect(nowait=True)
            listening.set()
            await asyncio.sleep(AGAIN)

    def _is_away(self, index: int, error: Exception) -> None:
        had_one = len(self._away) < len(self._makers)
        self._away.add(index)
        if had_one and self._known is not None and len(self._away) == len(self._makers):
            log.warning(
                "no Sentinel of %s is reached (%s); as long as its primary is, nothing is missed, and should another "
                "server become it, that is not noticed until its role shows it",
                *(self._name, printable(str(error)) or "it did not answer in time"),
            )

    def _is_there(self, index: int) -> None:
        if len(self._away) == len(self._makers):
            log.warning("a Sentinel of %s is reached again", self._name)
        self._away.discard(index)

    async def _listen(self, index: int, connection: Any, listening: asyncio.Event) -> None:
        """Take what a Sentinel says.

        Raises:
            OSError: it says nothing, not even that it is there.
        """
        is_asked = False
        while True:
            reply = await connection.read_response(timeout=PING_INTERVAL)
            if reply is None:
                if is_asked:
                    raise TimeoutError("it does not answer")
                is_asked = True
                await connection.send_command("PING")
                continue
            is_asked = False
            if reply[0] == b"subscribe" and reply[2] == len(CHANNELS):
                self._is_there(index)
                was_away = listening.is_set()
                listening.set()
                if was_away:  # it may have said something meanwhile
                    await self._look()
            elif reply[0] == b"message" and self._name.encode() in reply[2].split(b" "):
                await self._look()

    async def _look(self) -> None:
        """Look whether the primary is another one."""
        is_another = self._learn(await self._ask() or await self._ask())
        if is_another and self._moved is not None and self._known is not None:
            self._moved(ConnectionError(f"the primary of {self._name} is {self._known.host}:{self._known.port} now"))


async def _most(calls: Collection[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of calls, but for those that take too long behind the first one that is of use."""
    tasks = [asyncio.create_task(call, name="velocity-ws sentinel") for call in calls]
    try:
        pending = set(tasks)
        while pending and not any(task.result() for task in tasks if task.done()):
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        if pending:
            await asyncio.wait(pending, timeout=GRACE)
        return [task.result() for task in tasks if task.done()]
    finally:
        await _end(tasks)


async def _end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they have ended."""
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=END_INTERVAL)


async def _ask(connection: Any, *command: str) -> Any:
    await connection.send_command("SENTINEL", *command)
    return await connection.read_response()
