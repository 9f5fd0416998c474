"""Redis with Sentinel: servers of which one is the primary, and the Sentinels that say which."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.support.engines import ENGINES, Engine
from tests.support.redis_servers import order

__all__ = ["NAME", "Guarded", "guarded"]

NAME = "main"
"""What the Sentinels call the servers."""
DEAF = "deaf"
"""A user of the servers, and its password, who may not publish nor subscribe."""
DOWN_AFTER = 1000
"""Milliseconds without an answer after which a Sentinel takes a server for gone, where a test waits for that."""


class Guarded:
    """Servers and their Sentinels.

    Attributes:
        servers: one primary, and its replicas.
        sentinels: those that watch them.
        name: what they call them.
    """

    name = NAME

    def __init__(
        self,
        kind: str,
        directory: Path,
        count: int,
        login: str,
        sentinel_login: str,
        sentinel_user: str,
        tls: Mapping[str, str] | None,
        down_after: int = DOWN_AFTER,
    ) -> None:
        """
        Args:
            kind: of the servers and the Sentinels: ``valkey`` or ``redis``.
            directory: where theirs are made.
            count: how many servers there are.
            login: the password of all servers; empty for none.
            sentinel_login: that of all Sentinels.
            sentinel_user: a user that they have, as a line of their configuration has it.
            tls: the files for it, where all of them speak it.
            down_after: milliseconds without an answer after which a Sentinel takes a server for gone.
        """
        options = ["--requirepass", login, "--masterauth", login] if login else []
        options += ["--user", DEAF, "on", f">{DEAF}", "allkeys", "+@all", "resetchannels"]
        self.login = login
        self._sentinel_login = sentinel_login
        self._sentinel_user = sentinel_user
        self._tls = tls
        self._down_after = down_after
        self.servers = [Engine(kind, self._server(kind, directory / str(index), options)) for index in range(count)]
        self.sentinels = [Engine(kind, self._sentinel(kind, directory / f"s{index}")) for index in range(3)]
        self.deaf = Engine(kind, self._sentinel(kind, directory / "deaf", DEAF))
        """One more Sentinel, which hears and is heard by no other; not started."""

    @property
    def url(self) -> str:
        """As ``WS_BACKPLANE_URL`` has it."""
        login = f":{self.login}@" if self.login else ""
        places = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"{'rediss' if self._tls else 'redis'}+sentinel://{login}{places}/{NAME}"

    def _server(self, kind: str, directory: Path, options: list[str]) -> Any:
        directory.mkdir()

        def command(port: int) -> list[str]:
            whole = [*ENGINES[kind](port), "--dir", str(directory), *options, "--repl-diskless-sync-delay", "0"]
            if self._tls:
                whole += [part for line in self._tls_lines(port) for part in _option(line)]
            primary = self.servers[0].port
            return whole if port == primary else [*whole, "--replicaof", f"127.0.0.1 {primary}"]

        return command

    def _sentinel(self, kind: str, directory: Path, user: str = "") -> Any:
        directory.mkdir()
        file = directory / "sentinel.conf"

        def command(port: int) -> list[str]:
            if not file.exists():  # it keeps there what it knows
                ours = "\n".join(self._tls_lines(port)) if self._tls else f"port {port}"
                file.write_text(
                    f"{ours}\nbind 127.0.0.1\ndir {directory}\n"
                    f"sentinel monitor {NAME} 127.0.0.1 {self.servers[0].port} 2\n"
                    f"sentinel down-after-milliseconds {NAME} {self._down_after}\n"
                    f"sentinel failover-timeout {NAME} 6000\n"
                    + (f"sentinel auth-user {NAME} {user}\n" if user else "")
                    + (f"sentinel auth-pass {NAME} {user or self.login}\n" if user or self.login else "")
                    + (f"requirepass {self._sentinel_login}\n" if self._sentinel_login else "")
                    + (f"user {self._sentinel_user}\n" if self._sentinel_user else "")
                )
            return [ENGINES[kind](port)[0], str(file), "--sentinel"]

        return command

    def _tls_lines(self, port: int) -> list[str]:
        files = self._tls or {}
        lines = {"port": 0, "tls-port": port, "tls-replication": "yes", "tls-auth-clients": "no"}
        lines |= {"tls-cert-file": files["cert"], "tls-key-file": files["key"], "tls-ca-cert-file": files["ca"]}
        return [f"{name} {value}" for name, value in lines.items()]

    def _client(self, engine: Engine, login: str) -> Redis:
        options: dict[str, Any] = {"protocol": 2, "password": login or None, "socket_timeout": 2, "port": engine.port}
        if self._tls:
            options |= {"ssl": True, "ssl_ca_certs": self._tls["ca"], "ssl_cert_reqs": ssl.CERT_REQUIRED}
        return Redis(**options)

    async def start(self) -> None:
        """Start all of them; returns when the Sentinels know each other and all servers."""
        for engine in [*self.servers, *self.sentinels]:
            await engine.start()
        async with asyncio.timeout(60):  # Sentinels ask every 10 s, and again where a replica was not there yet
            for sentinel in self.sentinels:
                while not await self._knows_all(sentinel):
                    await asyncio.sleep(0.05)

    async def _knows_all(self, sentinel: Engine) -> bool:
        said = await self.state(sentinel)
        others, replicas = int(said[b"num-other-sentinels"]), int(said[b"num-slaves"])
        return others == len(self.sentinels) - 1 and replicas == len(self.servers) - 1 and said[b"flags"] == b"master"

    async def state(self, sentinel: Engine) -> dict[bytes, bytes]:
        """What a Sentinel knows of the primary."""
        async with self._client(sentinel, self._sentinel_login) as redis:
            reply = await redis.execute_command("SENTINEL", "MASTER", self.name)  # type: ignore[no-untyped-call]
        return dict(zip(reply[::2], reply[1::2], strict=False))

    async def primary(self) -> Engine:
        """The server that says that it is the primary, and is reached; the one the first Sentinel names."""
        said = await self.state(self.sentinels[0])
        return next(server for server in self.servers if server.port == int(said[b"port"]))

    async def fail_over(self) -> Engine:
        """Ask for another primary, and wait until there is one; the new one."""
        old = await self.primary()
        async with asyncio.timeout(30):
            while True:
                try:
                    await order(self.sentinels[0], "SENTINEL", "FAILOVER", self.name)
                    break
                except RedisError:  # there is no good replica yet, or the last failover is not over
                    await asyncio.sleep(0.1)
        return await self.promoted(old)

    async def promoted(self, old: Engine) -> Engine:
        """Wait until another server than that one is the primary."""
        async with asyncio.timeout(30):
            while (found := await self.primary()) is old or await self._role(found) != b"master":
                await asyncio.sleep(0.02)
        return found

    async def settled(self) -> None:
        """Wait until every server that runs is a replica of the primary, and has all that it has."""
        async with asyncio.timeout(60):
            while not await self._is_settled():
                await asyncio.sleep(0.05)

    async def _is_settled(self) -> bool:
        primary = await self.primary()
        for server in self.servers:
            if server is primary or server.process.returncode is not None:
                continue
            role = await self.ask(server, "ROLE")
            if role[0] != b"slave" or int(role[2]) != primary.port or role[3] != b"connected":
                return False
        said = await self.state(self.sentinels[0])
        return said[b"flags"] == b"master" and bool((await self.ask(primary, "ROLE"))[0] == b"master")

    async def _role(self, server: Engine) -> Any:
        try:
            return (await self.ask(server, "ROLE"))[0]
        except (RedisError, OSError):
            return None

    async def ask(self, server: Engine, *command: str) -> Any:
        """What a server answers to a command."""
        async with self._client(server, self.login) as redis:
            return await redis.execute_command(*command)  # type: ignore[no-untyped-call]


@asynccontextmanager
async def guarded(
    directory: Path,
    kind: str = "valkey",
    count: int = 3,
    *,
    login: str = "",
    sentinel_login: str = "",
    sentinel_user: str = "",
    tls: Mapping[str, str] | None = None,
    down_after: int = DOWN_AFTER,
) -> AsyncIterator[Guarded]:
    """Servers and three Sentinels, until the end of the block."""
    found = Guarded(kind, directory, count, login, sentinel_login, sentinel_user, tls, down_after)
    async with AsyncExitStack() as stack:
        for engine in [*found.servers, *found.sentinels, found.deaf]:
            stack.push_async_callback(_end, engine)
        await found.start()
        yield found


async def _end(engine: Engine) -> None:
    if engine._process is not None:
        await engine.kill()


def _option(line: str) -> list[str]:
    name, _, value = line.partition(" ")
    return [f"--{name}", value]
