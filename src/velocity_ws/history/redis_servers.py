"""Redis servers: the connections of a store, to one server or to each of a cluster, and what is called on them.

Knows scripts and topics, and not what a log is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from redis.exceptions import AskError, ClusterError, MovedError, NoScriptError, ReadOnlyError, ResponseError

from velocity_ws.backplane.redis_connection import RedisConnection
from velocity_ws.backplane.redis_primary import RedisPrimary, primary_of
from velocity_ws.backplane.redis_roles import Roles
from velocity_ws.backplane.redis_slots import Slots, ask_slots, connections_to
from velocity_ws.backplane.redis_watch import Watch
from velocity_ws.history.items import Refused
from velocity_ws.history.redis_scripts import Script

__all__ = ["CHANGES", "READS", "Call", "Reply", "Servers", "primary_in"]

Reply = Any
CHANGES, READS = 0, 1
"""Which of the two connections to a server: no change waits behind what is read."""
_GONE = (ReadOnlyError, ClusterError, MovedError)
"""What a server says that is not the one to ask any more; nothing was done then. Redis 6 says it within another. One
whose slot is on the move (ASK, TRYAGAIN) is still the one, and a new connection would be told the same."""


class Call(NamedTuple):
    """One call of a script.

    Attributes:
        topic: of the log; says which server.
        keys: of the engine.
        arguments: the rest.
    """

    topic: str
    keys: Sequence[str]
    arguments: Sequence[bytes | str | int]


def primary_in(url: str) -> RedisPrimary:
    """The primary that a URL leads to, where it is no cluster's.

    Raises:
        ValueError: redis-py does not take it.
    """
    return primary_of(_plain(url))


def _plain(url: str) -> str:
    return url.replace("+cluster:", ":", 1)


class Servers:
    """The connections to an engine, opened once. On the broker's loop only."""

    def __init__(
        self,
        url: str,
        primary: RedisPrimary,
        roles: Roles,
        scripts: Sequence[Script],
        ended: Callable[[Exception], None],
    ) -> None:
        """
        Args:
            url: as for a backplane.
            primary: which server is meant, where it is no cluster.
            roles: says which servers may be appended to.
            scripts: all that will be called.
            ended: called, once, when a connection has ended by itself.
        """
        self._is_cluster = "+cluster:" in url.partition("/")[0]
        self._url = _plain(url)
        self._primary = primary
        self._scripts = scripts
        self._roles = roles
        self._watch = Watch(gives_up=False)
        self._ended = ended
        self._servers: list[_Server] = []
        self._slots: Slots[_Server] | None = None

    async def open(self) -> None:
        """Connect to all servers.

        Raises:
            OSError: one is not there, refuses the login, or is no primary.
        """
        if not self._is_cluster:
            make = await self._primary.find(self._ended)
            try:
                server = await self._connect(make)
            except OSError:
                await self._primary.unreached()
                raise
            if (await server.about("cluster")).get("cluster_enabled") == "1":
                raise ConnectionError(
                    "a Redis Cluster keeps the history of rooms only where the URL has redis+cluster://"
                )
            self._slots = Slots([(0, server)])
            self._watch.start(server.sides)
            return
        ranges = await ask_slots(self._url)
        servers: dict[tuple[str, int], _Server] = {}
        for _, place in ranges:
            if place not in servers:
                servers[place] = await self._connect(connections_to(self._url, *place))
        self._slots = Slots([(first, servers[place]) for first, place in ranges])
        self._watch.start([side for server in self._servers for side in server.sides])

    async def policies(self) -> list[str]:
        """By which policy each server evicts whose memory is bounded, where it tells."""
        told = [await server.about("memory") for server in self._servers]
        return [each.get("maxmemory_policy", "") for each in told if each.get("maxmemory", "0") != "0"]

    async def ids(self) -> str:
        """What all servers call themselves, each of them otherwise after a restart; empty where they do not tell."""
        told = [(await server.about("server")).get("run_id", "") for server in self._servers]
        return " ".join(sorted(told)) if all(told) else ""

    async def call(self, side: int, script: Script, calls: Sequence[Call]) -> list[Reply | Refused]:
        """Call a script for each, in one round trip, and return the replies in order.

        Raises:
            OSError: a connection has ended.
        """
        by_server: dict[_Server, list[int]] = {}
        for index, call in enumerate(calls):
            by_server.setdefault(self._of(call.topic), []).append(index)
        if len(by_server) == 1:
            (server,) = by_server
            return await server.call(side, script, calls)
        replies: list[Reply | Refused] = [None] * len(calls)
        parts = [server.call(side, script, [calls[index] for index in mine]) for server, mine in by_server.items()]
        for mine, part in zip(by_server.values(), await asyncio.gather(*parts), strict=True):
            for index, reply in zip(mine, part, strict=True):
                replies[index] = reply
        return replies

    async def ask(self, topic: str, commands: Sequence[tuple[str | bytes | int, ...]]) -> list[Reply | Refused]:
        """Send commands to the server of a topic, in one round trip, and return the replies in order.

        Raises:
            OSError: the connection has ended.
        """
        server = self._of(topic)
        return server.judged(await server.sides[CHANGES].ask(commands))

    async def close(self) -> None:
        """End all connections, now."""
        self._watch.stop()
        servers, self._servers = self._servers, []
        connections = [connection for server in servers for connection in server.sides]
        for connection in connections:
            connection.abort()
        await self._primary.close()
        for connection in connections:
            await connection.wait_closed()

    async def _connect(self, make: Callable[[], Any]) -> _Server:
        sides = [RedisConnection(make(), self._roles, self._ended) for _ in range(2)]
        server = _Server(sides, self._scripts, self._ended)
        self._servers.append(server)
        for connection in sides:
            await connection.open()
        await server.load(CHANGES)
        return server

    def _of(self, topic: str) -> _Server:
        if self._slots is None:
            raise ConnectionError("there is no connection")
        return self._slots.of(topic)


class _Server:
    """The two connections to one server, and its scripts."""

    def __init__(
        self, sides: Sequence[RedisConnection], scripts: Sequence[Script], ended: Callable[[Exception], None]
    ) -> None:
        self.sides = sides
        self._scripts = scripts
        self._ended = ended

    async def load(self, side: int) -> None:
        """Have the server keep the scripts, which it forgets with a restart or a promotion."""
        for reply in await self.sides[side].ask([("SCRIPT", "LOAD", script.text) for script in self._scripts]):
            if isinstance(reply, ResponseError):
                raise ConnectionError(f"the engine takes no scripts, which keep the history of rooms: {reply}")

    async def about(self, section: str) -> dict[str, str]:
        """See `RedisConnection.about`."""
        return await self.sides[READS].about(section)

    async def call(self, side: int, script: Script, calls: Sequence[Call]) -> list[Reply | Refused]:
        commands = [("EVALSHA", script.sha, len(call.keys), *call.keys, *call.arguments) for call in calls]
        replies = await self.sides[side].ask(commands)
        if any(isinstance(reply, NoScriptError) for reply in replies):
            await self._again(side, calls, commands, replies)
        return self.judged(replies)

    def judged(self, replies: Sequence[Reply]) -> list[Reply | Refused]:
        """Replies, with a `Refused` for each that is an error."""
        return [self._refusal(reply) if isinstance(reply, ResponseError) else reply for reply in replies]

    async def _again(
        self,
        side: int,
        calls: Sequence[Call],
        commands: Sequence[tuple[str | bytes | int, ...]],
        replies: list[Reply],
    ) -> None:
        """Call again what found no script; but not what would come behind a later one of its topic that found it."""
        done: set[str] = set()
        missing: list[int] = []
        for index in reversed(range(len(calls))):
            if not isinstance(replies[index], NoScriptError):
                done.add(calls[index].topic)
            elif calls[index].topic not in done:
                missing.append(index)
        missing.reverse()
        await self.load(side)
        for index, reply in zip(missing, await self.sides[side].ask([commands[i] for i in missing]), strict=True):
            replies[index] = reply

    def _refusal(self, error: ResponseError) -> Refused:
        """Why something was not done; where the server is not the one any more, the connection has ended, too."""
        text = "its slot is another server's" if isinstance(error, AskError) else str(error)
        if isinstance(error, _GONE) or "-READONLY" in text:
            self._ended(ConnectionError(f"the engine takes nothing here: {text}"))
        return Refused("engine", f"the engine did not take it: {text}")
