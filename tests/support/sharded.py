"""A Redis Cluster with replicas, and what happens to one: failovers, slots that move, shards that come."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from tests.support.command import kept_port
from tests.support.engines import ENGINES, Engine
from tests.support.redis_servers import SLOTS

__all__ = ["Sharded", "sharded"]

NODE_TIMEOUT = 1000
"""Milliseconds without an answer after which servers take another for gone."""
FORMING = 60.0
"""Seconds that a cluster may take to be one, on a machine that does other things."""


class Server(Engine):
    """A server of a cluster. It keeps what it knows of the cluster when it is killed, and nothing else.

    Attributes:
        bus: the port by which servers speak with each other.
        id: what the cluster calls it.
    """

    def __init__(self, kind: str, directory: Path, options: tuple[str, ...]) -> None:
        self.bus = kept_port()
        own = ("--dir", str(directory), "--cluster-enabled", "yes", "--cluster-port", str(self.bus))
        limits = ("--cluster-node-timeout", str(NODE_TIMEOUT), "--repl-diskless-sync-delay", "0")
        super().__init__(kind, lambda port: [*ENGINES[kind](port), *own, *limits, *options])
        self.port = kept_port()
        self.id = ""

    async def order(self, *command: str | bytes | int, password: str | None = None) -> Any:
        """Have it do something, and return what it answers."""
        async with Redis(port=self.port, protocol=2, password=password, socket_timeout=5) as redis:
            return await redis.execute_command(*command)  # type: ignore[no-untyped-call]

    async def role(self) -> str:
        """What it says that it is: ``master``, ``slave``; empty where it says nothing."""
        with contextlib.suppress(RedisError, OSError):
            return str((await self.order("ROLE"))[0].decode())
        return ""

    async def knows(self) -> list[list[str]]:
        """The servers as it knows them: id, address, flags, id of its primary, and more."""
        found = await self.order("CLUSTER", "NODES")
        text = found.decode() if isinstance(found, bytes) else "\n".join(found)
        return [line.split() for line in text.splitlines()]


class Sharded:
    """The servers of a cluster.

    Attributes:
        servers: all of them.
    """

    def __init__(self, kind: str, directory: Path, options: tuple[str, ...] = ()) -> None:
        self.servers: list[Server] = []
        self._kind = kind
        self._directory = directory
        self._options = options

    @property
    def url(self) -> str:
        """As ``WS_BACKPLANE_URL`` has it, with every server."""
        return f"redis+cluster://{','.join(f'127.0.0.1:{server.port}' for server in self.servers)}"

    def url_of(self, server: Server) -> str:
        """The same with one alone."""
        return f"redis+cluster://127.0.0.1:{server.port}"

    async def add(self) -> Server:
        """One more server, which knows no other."""
        own = self._directory / str(len(self.servers))
        own.mkdir()
        server = Server(self._kind, own, self._options)
        self.servers.append(server)
        await server.start()
        server.id = (await server.order("CLUSTER", "MYID")).decode()
        return server

    async def form(self, shards: int, replicas: int) -> None:
        """Make so many shards, each of a primary and replicas."""
        for number in range(shards * (1 + replicas)):
            server = await self.add()
            if number < shards:
                first, last = SLOTS * number // shards, SLOTS * (number + 1) // shards - 1
                await server.order("CLUSTER", "ADDSLOTSRANGE", first, last)
                await server.order("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        primaries = self.servers[:shards]
        await self.meet()
        for number, server in enumerate(self.servers[shards:]):
            await server.order("CLUSTER", "REPLICATE", primaries[number % shards].id)
        await self.settled()

    async def meet(self) -> None:
        """Make all servers known to each other."""
        first = self.servers[0]
        for server in self.servers[1:]:
            await server.order("CLUSTER", "MEET", "127.0.0.1", first.port, first.bus)
        async with asyncio.timeout(FORMING):
            for server in self.servers:
                while len([each for each in await server.knows() if "handshake" not in each[2]]) < len(self.servers):
                    await asyncio.sleep(0.05)

    async def settled(self) -> None:
        """Wait until all servers live, know so of each other, and every replica has what its primary has."""
        async with asyncio.timeout(FORMING):
            for server in self.servers:
                while not await self._is_settled(server):
                    await asyncio.sleep(0.05)

    async def _is_settled(self, server: Server) -> bool:
        with contextlib.suppress(RedisError, OSError):
            if "cluster_state:ok" not in str(await server.order("CLUSTER", "INFO")):
                return False
            knows = await server.knows()
            roles = {other.id: await other.role() for other in self.servers}
            for id_, _, flags, *_ in knows:
                if "fail" in flags or roles.get(id_, "") not in flags:
                    return False
            if roles[server.id] == "slave":
                return bool((await server.order("INFO", "replication"))["master_link_status"] == "up")
            return True
        return False

    # --- who has what

    async def primary_of(self, name: str) -> Server:
        """The server that has a topic, as most say that live."""
        slot, votes = key_slot(name.encode()), list[int]()
        for server in self.servers:
            with contextlib.suppress(RedisError, OSError):
                for first, last, (_, port, *_), *_ in await server.order("CLUSTER", "SLOTS"):
                    if first <= slot <= last:
                        votes.append(port)
        port = max(set(votes), key=votes.count)
        return next(server for server in self.servers if server.port == port)

    async def replica_of(self, primary: Server) -> Server:
        """A replica of that one which lives."""
        for server in self.servers:
            for id_, _, flags, master, *_ in await server.knows():
                if master == primary.id and "fail" not in flags:
                    return next(each for each in self.servers if each.id == id_)
        raise AssertionError("it has no replica")

    def name_on(self, number: int, shards: int, beginning: str) -> str:
        """A name that begins so, whose topic ``velocity.room.…`` is on a shard, as the slots were shared at first."""
        for index in range(10_000):
            name = f"{beginning}{index}"
            topic = f"velocity.room.{name.replace(':', '=3A')}"
            if key_slot(topic.encode()) * shards // SLOTS == number:
                return name
        raise AssertionError("there is none")

    # --- what happens

    async def promote(self, replica: Server) -> None:
        """Ask a replica to become the primary, until it is."""
        async with asyncio.timeout(30):
            while await replica.role() != "master":
                with contextlib.suppress(RedisError):  # it is one by now
                    await replica.order("CLUSTER", "FAILOVER")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.promoted(replica), 5)

    async def caught_up(self, replica: Server) -> None:
        """Wait until a replica has what its primary has by now."""
        (port,) = (await replica.order("ROLE"))[2:3]
        primary = next(each for each in self.servers if each.port == port)
        async with asyncio.timeout(30):
            offset = (await primary.order("ROLE"))[1]
            while (await replica.order("ROLE"))[4] < offset:
                await asyncio.sleep(0.01)

    async def promoted(self, replica: Server) -> None:
        """Wait until it is a primary."""
        while await replica.role() != "master":
            await asyncio.sleep(0.005)

    async def move(self, slot: int, source: Server, target: Server, pause: float = 0.0) -> None:
        """Move a slot with its keys, as ``redis-cli --cluster reshard`` does.

        Args:
            slot: which.
            source: who has it.
            target: who gets it.
            pause: seconds from when no key has been moved until they are, and again until the slot is the other's.
        """
        await target.order("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        await source.order("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        await asyncio.sleep(pause)
        while keys := await source.order("CLUSTER", "GETKEYSINSLOT", slot, 1000):
            await source.order("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        await asyncio.sleep(pause)
        for server in (target, source):
            await server.order("CLUSTER", "SETSLOT", slot, "NODE", target.id)

    async def kill(self) -> None:
        """End all of them."""
        for server in self.servers:
            await server.kill()


@asynccontextmanager
async def sharded(
    directory: Path, shards: int = 3, replicas: int = 1, kind: str = "valkey", *options: str
) -> AsyncIterator[Sharded]:
    """Such a cluster, until the end of the block."""
    async with AsyncExitStack() as stack:
        found = Sharded(kind, directory, options)
        stack.push_async_callback(found.kill)
        await found.form(shards, replicas)
        yield found
