"""A NATS server in lame duck mode, as in a rolling update: its nodes move before it ends, and everything adds up."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from tests.support import eventually
from tests.support.jetstream import StoringNats, routed
from tests.support.nodes import Node, nodes
from tests.support.talking_pair import TalkingPair, talking


def url_of(*servers: StoringNats) -> str:
    return "nats://" + ",".join(f"127.0.0.1:{server.port}" for server in servers)


def server_of(node: Node) -> str:
    """The name of the one that a node is connected to; empty while it is to none."""
    cluster: Any = node.broker.node.cluster
    name: str = cluster._backplane.server_name
    return name


def asks_to_leave(server: StoringNats) -> None:
    """Lame duck mode: it takes no more connections, tells those it has, and ends them after 10 seconds."""
    server.process.send_signal(signal.SIGUSR2)


async def talk_more(found: TalkingPair, count: int = 50) -> None:
    """Let both say so much more."""
    until = [len(talker.outcomes) + count for talker in found.talkers]
    await eventually(lambda: all(len(each.outcomes) >= most for each, most in zip(found.talkers, until, strict=True)))


async def test_a_node_moves_before_its_server_goes(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        stays, *servers = await stack.enter_async_context(routed(tmp_path))
        pair = await stack.enter_async_context(nodes([url_of(*servers), url_of(stays)]))
        found = await stack.enter_async_context(talking(pair))
        (old,) = [server for server in servers if server.name == server_of(pair[0])]
        (new,) = [server for server in servers if server is not old]
        asks_to_leave(old)
        await eventually(lambda: server_of(pair[0]) == new.name, within=5)
        await found.hears_more()
        await talk_more(found)
        async with asyncio.timeout(3):
            while await old.clients():  # it is told of the end of a connection after the node has the next one
                await asyncio.sleep(0.01)
        told = [outcome for talker in found.talkers for outcome in talker.outcomes]
        assert set(told) == {"published"}, "what is said while a node moves waits for its next connection"
        assert max(talker.longest for talker in found.talkers) < 3


async def test_a_node_that_has_no_other_server_stays(tmp_path: Path) -> None:
    """What others say on servers that stay comes by the routes, and the other way round, until it ends."""
    async with AsyncExitStack() as stack:
        stays, goes, _ = await stack.enter_async_context(routed(tmp_path))
        pair = await stack.enter_async_context(nodes([url_of(goes), url_of(stays)]))
        found = await stack.enter_async_context(talking(pair))
        asks_to_leave(goes)
        await talk_more(found, 200)
        await found.hears_more()
        assert found.are_healthy == [True, True]
        assert [listener.gaps for listener in found.listeners] == [[], []]
        for index, listener in enumerate(found.listeners):
            got = listener.numbers[pair[1 - index].broker.node_id]
            assert got == list(range(len(got)))
        await goes.kill()
        await goes.start()
        await found.hears_more()
