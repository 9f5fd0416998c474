"""Another server becomes the primary, and the nodes leave the old one at different moments."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.support import Peer, eventually, running, settings
from tests.support.dead_network import Network, network
from tests.support.engines import Engine
from tests.support.nodes import Node, application, person
from tests.support.sentinels import NAME, Guarded, guarded
from velocity_ws import BackplaneUnavailable, Broker, History
from velocity_ws.cluster.topics import Topics


async def anybody() -> bool:
    return True


@asynccontextmanager
async def three(servers: Guarded) -> AsyncIterator[tuple[list[Node], list[Network]]]:
    """Two nodes that hear the Sentinels, and a third one that reaches them by these ways."""
    async with AsyncExitStack() as stack:
        ways = [await stack.enter_async_context(network(sentinel.port)) for sentinel in servers.sentinels]
        url = f"redis+sentinel://{','.join(f'127.0.0.1:{way.port}' for way in ways)}/{NAME}"
        nodes: list[Node] = []
        for each in (servers.url, servers.url, url):
            broker = Broker(settings(backplane_url=each, backplane_timeout=5), twin=True)
            application(broker)
            broker.rooms("chat:{name}", history=History()).authorize(anybody)
            nodes.append(Node(broker, await stack.enter_async_context(running(broker, "ours"))))
        async with asyncio.timeout(30):
            for node in nodes:
                while await node.peers() < 2:
                    await asyncio.sleep(0.01)  # no event tells
        yield nodes, ways


async def until(peer: Peer, *, number: int | None = None, gap: bool = False) -> tuple[list[int], list[int | None]]:
    """What somebody gets until a number or a gap comes: the numbers, and what gaps say is missing."""
    numbers: list[int] = []
    missed: list[int | None] = []
    async with asyncio.timeout(30):
        while not (missed if gap else number in numbers):
            message = json.loads(await peer.ws.recv())
            if message["event"] == "n":
                numbers.append(message["data"])
            elif message["event"] == "gap" and message["data"]["room"] is not None:
                missed.append(message["data"]["missed"])
    return numbers, missed


async def moved(servers: Guarded, new: Engine, room: str = "chat:1", count: int = 1) -> None:
    """Wait until so many nodes hear a room of the tests on another server."""
    topic = Topics("velocity").room(room)
    async with asyncio.timeout(10):
        while (await servers.ask(new, "PUBSUB", "NUMSUB", topic))[1] < count:
            await asyncio.sleep(0.01)  # no event tells


def log_server(node: Node) -> str:
    """The server that keeps a node's logs, to which it has a connection of its own; empty while it has none."""
    histories = node.broker.node.histories
    assert histories is not None
    return histories._link.server_id


async def test_what_is_said_on_both_sides_meanwhile_is_told(tmp_path: Path) -> None:
    async with guarded(tmp_path, count=2, down_after=30_000) as servers, three(servers) as ((a, _, late), ways):
        async with person(a, "ann", "x") as (here, _id), person(late, "bob", "x") as (there, _other):
            for number, node in enumerate((a, late)):  # in turn, as what two nodes say has no order between them
                await node.broker.to_room("x").send("n", number)
                assert [await until(peer, number=number) for peer in (here, there)] == [([number], [])] * 2
            for way in ways:
                way.die()  # so that one of the nodes does not hear which server it is from now on
            await servers.fail_over()
            got, missed = await until(here, gap=True)
            assert got == []
            for number in range(2, 7):  # each of them confirmed, and heard on its own side alone
                await late.broker.to_room("x").send("n", number)
            for number in range(7, 10):
                await a.broker.to_room("x").send("n", number)
            assert (await until(there, number=6))[0] == [2, 3, 4, 5, 6]
            assert (await until(here, number=9))[0] == [7, 8, 9]
            for way in ways:  # the old one says that it is the primary for some seconds more
                way.live()
            assert await until(there, gap=True) == ([], [3])
            assert await until(here, gap=True) == ([], [5])
            assert missed in ([None], [0])


async def test_what_only_the_old_one_has_kept_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with guarded(tmp_path, count=2, down_after=30_000) as servers, three(servers) as ((a, _, late), ways):
        async with person(a, "ann", "chat:1") as (here, _id), person(late, "bob", "chat:1") as (there, _other):
            await a.broker.to_room("chat:1").send("n", 0)
            assert [(await until(peer, number=0))[0] for peer in (here, there)] == [[0], [0]]
            await servers.settled()  # else the first is lost as well
            old = log_server(a)
            for way in ways:
                way.die()
            await moved(servers, await servers.fail_over())
            await eventually(lambda: a.broker.healthy and log_server(a) not in ("", old))
            for number in range(1, 4):
                assert (await late.broker.to_room("chat:1").send("n", number)).at
            assert await until(there, number=3) == ([1, 2, 3], [])
            await a.broker.to_room("chat:1").send("n", 9)
            assert await until(here, number=9) == ([9], [])
            for way in ways:
                way.live()
            assert await until(there, number=9) == ([9], [None])
            assert await until(here, gap=True) == ([], [None])
            await late.broker.to_room("chat:1").send("n", 10)
            assert [await until(peer, number=10) for peer in (here, there)] == [([10], []), ([10], [])]
            kept = [entry.data for entry in await a.broker.history("chat:1")]
    assert kept == [0, 9, 10]
    assert "lost 3 messages of this node that it had confirmed" in caplog.text


@pytest.mark.soak  # a Sentinel tells the old one after 10 s
async def test_who_reaches_no_sentinel_goes_on_until_its_server_is_demoted(tmp_path: Path) -> None:
    async with guarded(tmp_path, count=2, down_after=30_000) as servers, three(servers) as ((a, _, late), ways):
        async with person(a, "ann", "chat:1") as (here, _id), person(late, "bob", "chat:1") as (there, _other):
            old = await servers.primary()
            for way in ways:
                way.die()
            for number in range(3):  # for longer than a Sentinel is waited for
                await asyncio.sleep(2)
                assert late.broker.healthy
                await late.broker.to_room("chat:1").send("n", number)
            assert [await until(peer, number=2) for peer in (here, there)] == [([0, 1, 2], []), ([0, 1, 2], [])]
            await servers.fail_over()
            async with asyncio.timeout(30):
                while (await servers.ask(old, "ROLE"))[0] == b"master":
                    await asyncio.sleep(0.05)
            await eventually(lambda: not late.broker.healthy, within=3)
            with pytest.raises(BackplaneUnavailable):
                await late.broker.to_room("chat:1").send("n", 3)
            await a.broker.to_room("chat:1").send("n", 4)
            assert (await until(here, number=4))[0] == [4]
            for way in ways:
                way.live()
            assert (await until(there, number=4))[0] == [4]


async def test_all_nodes_hear_each_other_soon(tmp_path: Path) -> None:
    async with guarded(tmp_path, count=2, down_after=30_000) as servers, three(servers) as ((a, b, c), _):
        async with (
            person(a, "ann", "x") as (ann, _1),
            person(b, "bob", "x") as (bob, _2),
            person(c, "cat", "x") as (
                cat,
                _3,
            ),
        ):
            new = await servers.fail_over()
            promoted = time.monotonic()
            await moved(servers, new, "x", 3)  # what is said on the old one does not come to who has left it
            for number, node in enumerate((a, b, c)):
                async with asyncio.timeout(10):
                    while not (node.broker.healthy and await node.broker.count("x") == 3):
                        await asyncio.sleep(0.01)  # no event tells
                await node.broker.to_room("x").send("n", number)
            for peer in (ann, bob, cat):
                assert (await until(peer, number=2))[0] == [0, 1, 2]
            assert time.monotonic() - promoted < 6  # the old one is told that it is none after 8 s at the earliest
