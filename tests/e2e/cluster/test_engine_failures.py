"""The engine fails: killed and empty when it returns, frozen, not there at first. All is counted."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from tests.support import DEADLINE, eventually, settings
from tests.support.dead_network import network
from tests.support.engines import Engine, engine
from tests.support.machine import lateness
from tests.support.nodes import nodes, person
from tests.support.talking_pair import TalkingPair, talking
from velocity_ws import BackplaneUnavailable, Broker, History
from velocity_ws.backplane import create_backplane
from velocity_ws.cluster.envelopes import PlainPublication, encode_body, encode_header

ENGINES = ("nats", "valkey")


@pytest.fixture(params=ENGINES)
def kind(request: pytest.FixtureRequest) -> str:
    """An engine's."""
    value: str = request.param
    return value


@asynccontextmanager
async def scene(kind: str, **values: Any) -> AsyncIterator[tuple[TalkingPair, Engine]]:
    async with engine(kind) as server, nodes(server.url, **values) as pair, talking(pair) as found:
        yield found, server


@pytest.mark.parametrize("seconds", [0, pytest.param(10, marks=pytest.mark.soak)])
async def test_the_engine_is_killed_and_returns_empty(kind: str, seconds: float) -> None:
    async with scene(kind, node_lease=8) as (found, server):
        await server.kill()
        await eventually(lambda: found.are_healthy == [False, False])
        with pytest.raises(BackplaneUnavailable) as caught:
            await found.pair[0].broker.broadcast("now")
        assert caught.value.outcome == "refused"
        assert (await found.pair[0].broker.members("x")).missing == (found.pair[1].broker.node_id,)
        assert (await found.pair[0].broker.cluster_stats()).missing == (found.pair[1].broker.node_id,)
        async with person(found.pair[1], "cat", "new") as (cat, _):
            await asyncio.sleep(seconds)
            await server.start()
            async with asyncio.timeout(5):
                await found.hears_more()
            assert [len(await node.broker.members("x")) for node in found.pair] == [2, 2]
            await found.pair[0].broker.to_room("new").send("hi", 1)
            while (message := await cat.receive())["event"] != "hi":
                assert message["event"] in ("gap", "now")
        # Each client is told of the room, and that it may have missed what was not for a room.
        await eventually(lambda: all(len(listener.gaps) >= 2 for listener in found.listeners))
        for listener in found.listeners:
            assert [gap["room"] for gap in listener.gaps].count("x") == 1
        found.others[0].update(refused=1, published=1)


async def test_the_engine_freezes(kind: str) -> None:
    async with scene(kind, node_lease=8, backplane_timeout=1) as (found, server):
        server.freeze()
        try:
            await eventually(lambda: found.are_healthy == [False, False])
            with pytest.raises(BackplaneUnavailable):
                await found.pair[0].broker.broadcast("now")
        finally:
            server.thaw()
        await found.hears_more()
        # The deadline of 1 s, and what the engine and a busy machine add; without it, two until the node gives up.
        assert max(talker.longest for talker in found.talkers) < 1.5
        found.others[0].update(refused=1)


async def test_nodes_that_start_before_the_engine(kind: str) -> None:
    async with engine(kind) as server:
        await server.kill()
        brokers = [Broker(settings(backplane_url=server.url), twin=True) for _ in range(2)]
        await asyncio.gather(*[broker.start() for broker in brokers])
        async with brokers[0], brokers[1]:
            assert [broker.healthy for broker in brokers] == [False, False]
            await server.start()
            await eventually(lambda: all(broker.healthy for broker in brokers))
            async with asyncio.timeout(DEADLINE):
                while len((await brokers[0].cluster_stats()).nodes) < 2:
                    await asyncio.sleep(0.01)


async def test_a_health_page_says_it(kind: str) -> None:
    async with engine(kind) as server, nodes(server.url, 1) as (node,), httpx2.AsyncClient() as http:
        page = f"{node.address.http}/ws/health"
        answer = await http.get(page)
        assert (answer.status_code, answer.json()) == (200, {"healthy": True})
        await server.kill()
        await eventually(lambda: not node.broker.healthy)
        answer = await http.get(page)
        assert (answer.status_code, answer.json()) == (503, {"healthy": False})


@pytest.mark.parametrize("is_group", [False, True])
async def test_who_needs_the_engine_is_told_to_try_again(is_group: bool, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[BaseException] = []

    def prepare(broker: Broker) -> None:
        @broker.rooms("chat:{name}", history=History()).authorize
        async def authorize() -> bool:
            return await broker.is_online("ann")

        @broker.on("say")
        async def say(data: str) -> None:
            if is_group:
                async with asyncio.TaskGroup() as group:
                    group.create_task(broker.to_room("chat:1").send("said", data))
            else:
                await broker.to_room("chat:1").send("said", data)

        @broker.on_binary
        async def said(data: bytes) -> None:
            await broker.to_room("chat:1").send("said", data.decode())

        @broker.on_error
        async def see(error: BaseException) -> None:
            seen.append(error)

    async with engine("valkey") as server, nodes(server.url, prepare=prepare) as (node, _):
        async with node.address.connect() as peer:
            await server.kill()
            await eventually(lambda: not node.broker.healthy)
            answers = [await peer.request("say", "hi"), await peer.request("join", {"room": "chat:1"})]
            await peer.ws.send(b"hi")
            answers.append(await peer.receive())
            errors = [answer["data"] for answer in answers]
            assert [(error["code"], error["retry_after"]) for error in errors] == [("UNAVAILABLE", 1.0)] * 3
            assert "engine" not in str(errors)
            with pytest.raises(BackplaneUnavailable):  # outside of the broker's hooks, as in a route
                await node.broker.to_room("chat:1").send("said", "hi")
        assert len(seen) == node.broker.get_stats().errors == 3
    said = [record for record in caplog.records if record.name == "velocity_ws.sessions"]
    assert [record.exc_info for record in said] == [None] * 3
    assert "while handling 'say'" in said[0].getMessage()


async def test_a_refused_message_leaves_nothing_for_the_garbage_collector() -> None:
    async with engine("nats") as server, nodes(server.url, 1) as (node,):
        await server.kill()
        await eventually(lambda: not node.broker.healthy)
        gc.disable()
        try:
            with pytest.raises(BackplaneUnavailable) as refused:
                await node.broker.broadcast("n", 1)
            left = weakref.ref(refused.value)
            del refused
            assert left() is None
        finally:
            gc.enable()


async def test_a_message_to_many_rooms_has_one_deadline() -> None:
    async with (
        engine("nats") as server,
        network(server.port) as way,
        nodes(f"nats://127.0.0.1:{way.port}", 1, backplane_timeout=1) as (node,),
        lateness() as late,
    ):
        way.die()
        loop = asyncio.get_running_loop()
        began = loop.time() - late()
        with pytest.raises(BackplaneUnavailable):
            await node.broker.to_rooms([f"room{number}" for number in range(8)]).send("n", 1)
        # One second each, until the connection is given up, would be two.
        assert loop.time() - late() - began < 1.5


async def test_a_queue_that_is_full_refuses_at_once() -> None:
    async with (
        engine("nats") as server,
        nodes(server.url, 1, backplane_queue_size=100_000, backplane_timeout=10) as (node,),
    ):
        target = node.broker.to_all()
        results = await asyncio.gather(*[target.send("n", "x" * 1000) for _ in range(2000)], return_exceptions=True)
        refused = [result for result in results if isinstance(result, BackplaneUnavailable)]
        assert refused
        assert all(error.outcome == "refused" and "wait for the engine" in str(error) for error in refused)
        assert node.broker.get_stats().backplane_sent == 2000 - len(refused)
        assert node.broker.healthy
        await target.send("n", "again")


async def test_what_is_too_large_for_the_engine_is_refused() -> None:
    async with engine("nats") as server, nodes(server.url, 2) as (a, b), person(b) as (peer, _):
        with pytest.raises(BackplaneUnavailable, match="1048576"):
            await a.broker.broadcast("n", "x" * 1024 * 1024)
        await a.broker.broadcast("end")
        await peer.expect("end")


async def test_foreign_messages_are_counted_and_dropped(kind: str) -> None:
    async with engine(kind) as server, nodes(server.url, 1) as (node,), person(node, room="x") as (peer, _):
        backplane = create_backplane(server.url)
        await backplane.connect(lambda *_: None, lambda _: None)
        post = encode_body(PlainPublication("all", (), 0, (), True, b'{"event":"wrong"}'))
        header = encode_header("elevenchars", 1)
        other_version = header[:3] + b"\x09" + header[4:]
        not_text = encode_body(PlainPublication("all", (), 0, (), True, b"\xff"))
        no_room = encode_body(PlainPublication("rooms", (), 0, (), True, b"{}"))
        foreign = [
            b"",
            b"nonsense",
            post,
            other_version + post,
            header + not_text,
            header + no_room,
            header,
            header + b"\xc1",
        ]
        await backplane.publish([("velocity.all", data) for data in foreign])
        await backplane.publish([("velocity.room.x", header + b"\x90"), ("velocity.all", header + post)])
        assert await peer.receive() == {"event": "wrong"}  # the last, which is in order
        assert node.broker.get_stats().backplane_invalid == len(foreign) + 1
        await backplane.close()
