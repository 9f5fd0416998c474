"""Redis servers: the connections of a store, to one server or to each of a cluster, and what is called on them.

Knows scripts and topics, and not what they keep. In a cluster, what finds that its slot is another server's by now is
called there, as nothing of it was done.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from redis.exceptions import (
    AskError,
    ClusterError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from velocity_ws.backplane.redis_connection import RedisConnection
from velocity_ws.backplane.redis_primary import RedisPrimary, primary_of
from velocity_ws.backplane.redis_roles import Roles
from velocity_ws.backplane.redis_shards import Shards
from velocity_ws.backplane.redis_slots import SlotFinder
from velocity_ws.backplane.redis_watch import Watch
from velocity_ws.history.items import Refused
from velocity_ws.history.redis_scripts import Script

__all__ = ["CHANGES", "READS", "Call", "Reply", "Servers", "servers_of"]

Reply = Any
Command = tuple[str | bytes | int, ...]
CHANGES, READS = 0, 1
"""Which of the two connections to a server: no change waits behind what is read."""
_GONE = (ReadOnlyError, ClusterError, MovedError)
"""What a server says that is not the one to ask any more; nothing was done then. Redis 6 says it within another."""
_ON_THE_MOVE = (TryAgainError, AskError)
"""What a server says whose slot is moved just now: it has some of the keys, or none. Nothing was done then, nor would
the other server do it, as it has not all of them either."""


class Call(NamedTuple):
    """One call of a script.

    Attributes:
        topic: says which server.
        keys: of the engine.
        arguments: the rest.
    """

    topic: str
    keys: Sequence[str]
    arguments: Sequence[bytes | str | int]


def servers_of(url: str) -> SlotFinder | RedisPrimary:
    """What knows the servers that a URL leads to, of a cluster, or the one that is meant.

    Raises:
        ValueError: redis-py does not take it.
    """
    return SlotFinder(url) if "+cluster:" in url.partition("/")[0] else primary_of(url)


class Servers:
    """The connections to an engine, opened once. On the broker's loop only."""

    def __init__(
        self,
        where: SlotFinder | RedisPrimary,
        roles: Roles,
        scripts: Sequence[Script],
        ended: Callable[[Exception], None],
        moved: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            where: see `servers_of`.
            roles: says which servers may be appended to.
            scripts: all that will be called.
            ended: called, once, when a connection has ended by itself.
            moved: called when a server of a cluster is left, as it has no slots any more.
        """
        self._roles = roles
        self._scripts = scripts
        self._watch = Watch(gives_up=False)
        self._ended = ended
        self._shards: Shards[_Server] | None = None
        self._primary: RedisPrimary | None = None
        self._only: _Server | None = None
        if isinstance(where, SlotFinder):
            self._shards = Shards(where, self._server, ended, lambda _: moved(), gives_up=False)
        else:
            self._primary = where

    async def open(self) -> None:
        """Connect to all servers.

        Raises:
            OSError: one is not there, refuses the login, or is no primary.
        """
        if self._shards is not None:
            await self._shards.open()
        if self._primary is None:
            return
        self._only = server = self._server(await self._primary.find(self._ended))
        try:
            for connection in server.connections:
                await connection.open()
            await server.begin()
        except OSError:
            await self._primary.unreached()
            raise
        if (await server.about("cluster")).get("cluster_enabled") == "1":
            raise ConnectionError("a Redis Cluster keeps history, and streams, only where the URL has redis+cluster://")
        self._watch.start(server.connections)

    async def policies(self) -> list[str]:
        """By which policy each server evicts whose memory is bounded, where it tells."""
        told = [await server.about("memory") for server in self._all]
        return [each.get("maxmemory_policy", "") for each in told if each.get("maxmemory", "0") != "0"]

    async def ids(self) -> str:
        """What all servers call themselves, each of them otherwise after a restart; empty where they do not tell."""
        told = [(await server.about("server")).get("run_id", "") for server in self._all]
        return " ".join(sorted(told)) if all(told) else ""

    async def call(self, side: int, script: Script, calls: Sequence[Call]) -> list[Reply | Refused]:
        """Call a script for each, in one round trip where no slot has moved, and return the replies in order.

        Raises:
            OSError: a connection has ended.
        """
        commands = [("EVALSHA", script.sha, len(call.keys), *call.keys, *call.arguments) for call in calls]
        return await self._answers(side, [call.topic for call in calls], commands)

    async def ask(self, topic: str, commands: Sequence[Command]) -> list[Reply | Refused]:
        """Send commands to the server of a topic, in one round trip, and return the replies in order.

        Raises:
            OSError: the connection has ended.
        """
        return await self._answers(CHANGES, [topic] * len(commands), commands)

    async def close(self) -> None:
        """End all connections, now."""
        self._watch.stop()
        if self._shards is not None:
            await self._shards.close()
        server, self._only = self._only, None
        connections = [] if server is None else server.connections
        for connection in connections:
            connection.abort()
        if self._primary is not None:
            await self._primary.close()
        for connection in connections:
            await connection.wait_closed()

    @property
    def _all(self) -> Iterable[_Server]:
        if self._shards is not None:
            return self._shards.all
        return [] if self._only is None else [self._only]

    def _server(self, make: Callable[[], Any]) -> _Server:
        return _Server(make, self._roles, self._scripts, self._ended, None if self._shards is None else self._demoted)

    def _demoted(self, server: _Server) -> None:
        if self._shards is not None:
            self._shards.follow_soon(server)

    def _of(self, topic: str) -> _Server:
        if self._shards is not None:
            return self._shards.of(topic)
        if self._only is None:
            raise ConnectionError("there is no connection")
        return self._only

    async def _answers(self, side: int, topics: Sequence[str], commands: Sequence[Command]) -> list[Reply | Refused]:
        """Send commands, each to the server of its topic; the replies, with a `Refused` for each that is an error."""
        replies: list[Reply] = [None] * len(commands)
        left: Sequence[int] = range(len(commands))
        for attempt in itertools.count():
            by_server: dict[_Server, list[int]] = {}
            for index in left:
                by_server.setdefault(self._of(topics[index]), []).append(index)
            parts = [
                server.answers(side, [topics[index] for index in mine], [commands[index] for index in mine])
                for server, mine in by_server.items()
            ]
            told: _Server | None = None
            for (server, mine), part in zip(by_server.items(), await asyncio.gather(*parts), strict=True):
                for index, reply in zip(mine, part, strict=True):
                    replies[index] = reply
                    if isinstance(reply, MovedError):
                        told = server
            if not _has_errors(replies):
                return replies
            left = _undone(MovedError, topics, replies)
            if not left or self._shards is None or told is None:
                break
            await self._shards.follow(told, attempt)
        for index in _undone(_ON_THE_MOVE, topics, replies):
            replies[index] = Refused("moving", "the engine did not take it: its slot is on the way to another server")
        return [self.refusal(reply) if isinstance(reply, ResponseError) else reply for reply in replies]

    def refusal(self, error: ResponseError) -> Refused:
        """Why something was not done; where the server is not the one any more, the connection has ended, too."""
        text = "its slot is another server's" if isinstance(error, AskError) else str(error)
        if isinstance(error, _GONE) or "-READONLY" in text:
            self._ended(ConnectionError(f"the engine takes nothing here: {text}"))
        return Refused("engine", f"the engine did not take it: {text}")


class _Server:
    """The two connections to one server, and its scripts."""

    def __init__(
        self,
        make: Callable[[], Any],
        roles: Roles,
        scripts: Sequence[Script],
        ended: Callable[[Exception], None],
        demoted: Callable[[_Server], None] | None,
    ) -> None:
        told = None if demoted is None else partial(demoted, self)
        self.connections = [RedisConnection(make(), roles, ended, demoted=told) for _ in (CHANGES, READS)]
        self._scripts = scripts

    async def begin(self) -> None:
        """See `Shard.begin`."""
        await self._load(CHANGES)

    async def about(self, section: str) -> dict[str, str]:
        """See `RedisConnection.about`."""
        return await self.connections[READS].about(section)

    async def answers(self, side: int, topics: Sequence[str], commands: Sequence[Command]) -> list[Reply]:
        """Send commands, and again those that found no script."""
        replies = await self.connections[side].ask(commands)
        missing = _undone(NoScriptError, topics, replies) if _has_errors(replies) else ()
        if missing:
            await self._load(side)
            again = await self.connections[side].ask([commands[index] for index in missing])
            for index, reply in zip(missing, again, strict=True):
                replies[index] = reply
        return replies

    async def _load(self, side: int) -> None:
        """Have the server keep the scripts, which it forgets with a restart or a promotion."""
        for reply in await self.connections[side].ask([("SCRIPT", "LOAD", script.text) for script in self._scripts]):
            if isinstance(reply, ResponseError):
                raise ConnectionError(f"the engine takes no scripts, which keep history, and streams: {reply}")


def _has_errors(replies: Sequence[Reply]) -> bool:
    return any(isinstance(reply, ResponseError) for reply in replies)


def _undone(
    kinds: type[ResponseError] | tuple[type[ResponseError], ...], topics: Sequence[str], replies: Sequence[Reply]
) -> list[int]:
    """What was answered by such an error; but not what would come behind a later one of its topic that was done."""
    done: set[str] = set()
    found: list[int] = []
    for index in reversed(range(len(topics))):
        if not isinstance(replies[index], kinds):
            done.add(topics[index])
        elif topics[index] not in done:
            found.append(index)
    return found[::-1]
