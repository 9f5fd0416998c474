"""Streams on nodes that do not hear, or do not know yet: their members get what there is, and nothing twice."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.support import DEADLINE, Peer, eventually, running, settings
from tests.support.dead_network import network
from tests.support.engines import engine
from tests.support.jetstream import storing
from tests.support.nodes import nodes
from tests.support.streaming import ROOM, Gate, Reading, chat, join, said
from velocity_ws import Broker
from velocity_ws.streams.memory import MemoryStreams


@pytest.mark.parametrize("kind", ["nats", "valkey"])
async def test_members_get_what_began_and_ended_while_their_node_heard_nothing(kind: str, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(storing(tmp_path) if kind == "nats" else engine(kind))
        ways = [await stack.enter_async_context(network(server.port)) for _ in range(2)]
        urls = [f"{kind}://127.0.0.1:{way.port}" for way in ways]
        one, other = await stack.enter_async_context(nodes(urls, prepare=chat))
        peer = await stack.enter_async_context(other.address.connect())
        gate = Gate()
        await join(peer)
        await one.broker.streams.start("runs", room=ROOM, source=gate.source())
        gate.say("before ")
        reading = await Reading("runs").follow(peer, 7)
        ways[1].die()
        gate.say("and ")
        stream = await one.broker.streams.start("short", room=ROOM, source=said(["all ", "of it"]))
        assert await stream.wait() == "done"
        ways[1].live()
        ways[1].cut()
        found = Reading("short")
        while found.end is None or len(reading.text) < 11:
            message = await peer.receive()
            if message["event"] == "gap":  # of what is no stream
                continue
            (found if message["data"]["id"] == "short" else reading).take(message)
        gate.say("after")
        gate.end()
        await reading.follow(peer)
        assert (found.text, found.end) == ("all of it", "done")
        assert (reading.text, reading.end) == ("before and after", "done")


async def test_a_node_whose_engine_could_not_be_asked_at_its_start_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velocity_ws.streams.streams.AGAIN", 0.05)
    url = "memory://asked-again"
    async with nodes(url, 1, prepare=chat) as [first]:
        stream = await first.broker.streams.start("a", room=ROOM, source=said(["all of it"]))
        assert await stream.wait() == "done"
        is_marked, failures = MemoryStreams.is_marked, [ConnectionError("it is away")] * 2

        async def fails_at_first(self: MemoryStreams) -> bool:
            if failures:
                raise failures.pop()
            return await is_marked(self)

        monkeypatch.setattr(MemoryStreams, "is_marked", fails_at_first)
        async with nodes(url, 1, prepare=chat) as [second], second.address.connect() as peer:
            await join(peer)
            reading = Reading("a")
            async with asyncio.timeout(DEADLINE):
                while reading.end is None:
                    message = await peer.receive()
                    if message["event"] == "stream":
                        reading.take(message)
            assert reading.text == "all of it"


async def test_who_comes_back_to_a_node_that_has_just_started_gets_nothing_twice() -> None:
    """As in each deploy: it says what it has, and the node has to know that there are streams."""
    url = "memory://deployed"
    async with nodes(url, 1, prepare=chat) as [first]:
        gate = Gate()
        await first.broker.streams.start("a", room=ROOM, source=gate.source())
        gate.say("0123456789")
        async with first.address.connect() as peer:
            await join(peer)
            await Reading("a").follow(peer, 10)
        broker = Broker(settings(backplane_url=url), twin=True)
        chat(broker)
        async with running(broker, "ours") as address, address.connect() as peer:
            await join(peer, streams={"a": 10})
            gate.end()
            assert (await read_from(peer, 10)).end == "done"


async def read_from(peer: Peer, length: int) -> Reading:
    """Read the stream from where somebody is, to its end."""
    return await Reading("a", "0123456789"[:length]).follow(peer)


async def test_what_a_client_has_is_kept_until_its_node_knows_of_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    async def cannot_say(_: MemoryStreams) -> bool:
        raise ConnectionError("not now")

    url = "memory://late"
    async with nodes(url, 1, prepare=chat) as [first]:
        gate = Gate()
        await first.broker.streams.start("a", room=ROOM, source=gate.source())
        gate.say("0123456")
        async with asyncio.timeout(DEADLINE):
            while (await first.broker.streams.read("a")).text != "0123456":
                await asyncio.sleep(0.01)  # the pause between two looks, not the wait
        monkeypatch.setattr(MemoryStreams, "is_marked", cannot_say)
        broker = Broker(settings(backplane_url=url), twin=True)
        chat(broker)
        async with running(broker, "ours") as address, address.connect() as peer:
            await join(peer, streams={"a": 7})
            streams = broker.node.streams
            assert streams is not None
            assert not streams.is_awake
            gate.say("789")
            gate.end()
            assert (await read_from(peer, 7)).text == "0123456789"
            await eventually(lambda: streams.is_awake)
            assert not streams.entrances._early
