"""Several nodes in one process, each with a real server of its own, on one engine."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from tests.support import Address, Peer, running, settings
from tests.support.engines import engine
from velocity_ws import Broker, Client

KINDS = ("memory", "nats", "valkey")
"""The engines that every test of the behaviour across nodes runs on."""

_names = itertools.count()


@asynccontextmanager
async def engine_url(kind: str) -> AsyncIterator[str]:
    """An engine of that kind, for as long as the block; its URL."""
    if kind == "memory":
        yield f"memory://test-{next(_names)}"
        return
    async with engine(kind) as server:
        yield server.url


class Node:
    """A broker, its server, and whoever connects to it."""

    def __init__(self, broker: Broker, address: Address) -> None:
        self.broker = broker
        self.address = address

    async def peers(self) -> int:
        """How many other nodes it knows."""
        return len((await self.broker.cluster_stats()).nodes) - 1


def application(broker: Broker) -> None:
    """What every node serves: joining, leaving, saying, and who one is."""

    @broker.authenticate
    async def authenticate(request: Any) -> str | None:
        name: str | None = request.query_params.get("user")
        return name

    @broker.on("join")
    async def join(client: Client, data: str) -> str:
        await broker.join_room(client.id, data)
        return client.id

    @broker.on("leave")
    async def leave(client: Client, data: str) -> None:
        await broker.leave_room(client.id, data)

    @broker.on("whoami")
    async def whoami(client: Client) -> str:
        return client.id

    @broker.on("say")
    async def say(client: Client, data: list[Any]) -> int:
        room, what = data
        return await broker.to_room(room).except_(client.id).send("said", what)


@asynccontextmanager
async def nodes(
    url: str | Sequence[str],
    count: int = 2,
    *,
    prepare: Callable[[Broker], None] = application,
    options: Any = None,
    **values: Any,
) -> AsyncIterator[list[Node]]:
    """So many nodes that know each other, of one URL; or one for each of several URLs."""
    urls = [url] * count if isinstance(url, str) else url
    values = {"backplane_timeout": 5, **values}  # of a busy machine
    async with AsyncExitStack() as stack:
        found: list[Node] = []
        for each in urls:
            broker = Broker(settings(backplane_url=each, **values), twin=True, **(options or {}))
            prepare(broker)
            found.append(Node(broker, await stack.enter_async_context(running(broker, "ours"))))
        async with asyncio.timeout(30):
            for node in found:
                while await node.peers() < len(urls) - 1:
                    await asyncio.sleep(0.01)  # no event tells
        yield found


@asynccontextmanager
async def person(node: Node, user: str | None = None, room: str | None = None) -> AsyncIterator[tuple[Peer, str]]:
    """Somebody connected to a node, in a room; and its client id."""
    async with node.address.connect(f"/ws?user={user}" if user else "/ws") as peer:
        answer = await peer.request("whoami")
        if room is not None:
            answer = await peer.request("join", room)
        yield peer, answer["data"]


class Watcher:
    """Adds up the presence events that somebody gets."""

    def __init__(self, peer: Peer, room: str = "x") -> None:
        self.peer = peer
        self.room = room
        self.users: dict[str, int] = {}
        self.anonymous = 0

    async def sees(self, users: dict[str, int], anonymous: int = 0) -> None:
        """Read events until they add up to this."""
        async with asyncio.timeout(10):
            while self.users != users or self.anonymous != anonymous:
                message = await self.peer.receive()
                if message["event"] == "joined":
                    continue
                event = message["data"]
                assert (message["event"], event["room"]) == ("presence", self.room)
                now = event["users"] if event["full"] else {**self.users, **event["users"]}
                self.users = {user: count for user, count in now.items() if count}
                self.anonymous = event["anonymous"]


COMMAND = """
from velocity_ws.cli import main
from velocity_ws.cluster import membership
membership.DISCOVERY_TIME = 5.0  # until all nodes have answered it, however busy the machine is
main(prog_name="velocity-ws")
"""


async def run_command(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """Run ``velocity-ws``; its status and what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        COMMAND,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()
