"""RedisStore: what stores in Redis and Valkey have in common: a connection to their servers, which may be asked.

Knows scripts, and not what they keep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from velocity_ws.backplane.base import Lost
from velocity_ws.backplane.redis_roles import Roles
from velocity_ws.history.items import Refused
from velocity_ws.history.redis_scripts import Script
from velocity_ws.history.redis_servers import CHANGES, Call, Reply, Servers, servers_of
from velocity_ws.logs import get_logger

__all__ = ["RedisStore"]

log = get_logger("velocity_ws.history")


class RedisStore:
    """The schemes of `RedisBackplane` and of `RedisClusterBackplane`. On the broker's loop only.

    Attributes:
        is_cluster: whether topics are on different servers.
        on_moved: see `MovingStore`.
        server_id: what names the servers of the connection; empty where that is not known, or they have changed.
    """

    def __init__(self, url: str, scripts: Sequence[Script], check: Script, kept: str) -> None:
        """
        Args:
            url: as for the backplane.
            scripts: all that will be called.
            check: takes a key and a topic, and returns which commands of these the login may not use there.
            kept: what the store keeps, as it is called in a warning.

        Raises:
            ValueError: redis-py does not take the URL.
        """
        self.is_cluster = "+cluster:" in url.partition("/")[0]
        self.on_moved: Callable[[], None] = lambda: None
        self.server_id = ""
        self._kept = kept
        self._here = {each: each.sharded() if self.is_cluster else each for each in (*scripts, check)}
        self._check = check
        self._servers: Servers | None = None
        self._lost: Lost | None = None
        self._is_allowed = self._has_warned = False
        self._where = servers_of(url)
        self._roles = Roles(is_sharded=self.is_cluster)

    async def connect(self, lost: Lost) -> None:
        """Open a connection.

        Args:
            lost: called once when the connection ends in any way but `close`.

        Raises:
            OSError: there is no engine, it refuses the login, or takes no scripts.
        """

        def ended(error: Exception) -> None:
            if self._lost is lost:
                self._lost = None
                lost(error)

        self._lost, self._is_allowed = lost, False
        self._servers = Servers(self._where, self._roles, list(self._here.values()), ended, self._moved)
        await self._servers.open()
        self.server_id = await self._servers.ids()
        for policy in await self._servers.policies():
            if policy.startswith("allkeys") and not self._has_warned:
                self._has_warned = True
                log.warning(
                    "the engine may evict any key when its memory is full (maxmemory-policy %s), and so %s; "
                    "give them an engine with the policy noeviction",
                    policy,
                    self._kept,
                )

    async def close(self) -> None:
        """End the connection, within a second. Harmless when there is none; `connect` works again after it."""
        self._lost = None
        servers, self._servers = self._servers, None
        if servers is not None:
            await servers.close()

    def release(self) -> None:
        """Give back what outlives a connection, which is nothing."""

    def connected(self) -> Servers:
        """The servers.

        Raises:
            OSError: there is no connection.
        """
        if self._servers is None or self._lost is None:
            raise ConnectionError("there is no connection")
        return self._servers

    async def call(self, side: int, script: Script, calls: Sequence[Call]) -> list[Reply | Refused]:
        """See `Servers.call`.

        Raises:
            OSError: there is no connection, or it has ended.
        """
        return await self.connected().call(side, self._here[script], calls)

    async def alter(self, script: Script, calls: Sequence[Call]) -> list[Reply | Refused]:
        """Call a script that changes something; not where a command of it is forbidden, which would stop it half way.

        Raises:
            OSError: there is no connection, or it has ended.
        """
        self.connected()
        if calls and not self._is_allowed:
            topic = calls[0].topic
            (reply,) = await self.call(CHANGES, self._check, [Call(topic, (), (f"{{{topic}}}:meta", topic))])
            if not isinstance(reply, Refused) and reply:
                lacking = b", ".join(reply).decode()
                reply = Refused("engine", f"the login may not {lacking} there: docs/scaling.md has what it needs")
            if isinstance(reply, Refused):
                return [reply] * len(calls)
            self._is_allowed = True
        return await self.call(CHANGES, script, calls)

    def _moved(self) -> None:
        self.server_id = ""
        self.on_moved()
