"""Who is there: whether a user is online, by which clients, and out of a room on every node."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support import DEADLINE, eventually
from tests.support.engines import engine
from tests.support.nodes import Node, Watcher, application, engine_url, nodes, person
from tests.support.workers import an_engine
from velocity_ws import BackplaneUnavailable, Broker, Client, Emitter, InvalidNameError


@pytest_asyncio.fixture(params=["memory", "nats", "valkey", "embedded"])
async def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """An engine of each kind."""
    kind: str = request.param
    async with engine_url(kind) if kind == "memory" else an_engine(kind, tmp_path, monkeypatch) as found:
        yield found


async def test_the_clients_of_a_user_on_both_nodes(pair: list[Node]) -> None:
    a, b = pair
    before = time.time()
    async with person(b, "ann") as (_, first), person(a, "ann") as (peer, second), person(a, "bob"), person(b):
        for node in pair:
            found = await node.broker.connections("ann")
            assert [(each.client_id, each.node) for each in found] == [
                (first, b.broker.node_id),
                (second, a.broker.node_id),
            ]
            assert all(before - 1 <= each.since <= time.time() + 1 for each in found)
            assert found.missing == ()
            assert await node.broker.is_online("ann")
            assert await node.broker.is_online("bob")
            assert not await node.broker.is_online("cat")
            assert await node.broker.connections("cat") == []
        await peer.ws.close()
        await eventually(lambda: a.broker.get_client(second) is None)
        assert [each.client_id for each in await a.broker.connections("ann")] == [first]
    await eventually(lambda: b.broker.get_clients() == [])
    assert not await a.broker.is_online("ann")


async def test_users_by_their_numbers_from_threads_and_from_a_script(
    url: str, pair: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = pair
    monkeypatch.setattr("velocity_ws.cluster.membership.DISCOVERY_TIME", DEADLINE)  # the script waits for all nodes
    async with person(b, "42", "x") as (_, client_id), Emitter(url, timeout=DEADLINE) as emitter:
        assert await emitter.is_online(42)
        assert [each.client_id for each in await emitter.connections(42)] == [client_id]
        sync = a.broker.sync
        assert await asyncio.to_thread(sync.is_online, 42)
        assert [each.node for each in await asyncio.to_thread(sync.connections, "42")] == [b.broker.node_id]
        assert await asyncio.to_thread(sync.remove_user, 42, "y") == 0
        assert await asyncio.to_thread(sync.remove_user, 42, "x") == 1
        await a.broker.join_room(client_id, "z")
        assert await emitter.remove_user(42, "z") == 1
        assert await emitter.count("z") == 0
        for api in (a.broker, emitter):
            for wrong in (None, 1.5, True):
                with pytest.raises(TypeError, match="a user is named by"):
                    await api.is_online(wrong)  # type: ignore[arg-type]
            with pytest.raises(InvalidNameError):
                await api.connections("x" * 257)
            with pytest.raises(InvalidNameError):
                await api.remove_user("ann", "x" * 257)
            with pytest.raises(InvalidNameError):
                await api.remove_user("\ud83d", "x")


async def test_a_user_is_taken_out_of_a_room_on_every_node_and_all_are_told(url: str) -> None:
    left: list[tuple[str, str]] = []

    def prepare(broker: Broker) -> None:
        application(broker)

        @broker.on_leave
        async def gone(client: Client, room: str) -> None:
            await asyncio.sleep(0)
            left.append((client.id, room))

    async with nodes(url, prepare=prepare, options={"presence": ["x"]}) as (a, b), person(a, "ann", "x") as (peer, _):
        ann = Watcher(peer)
        async with person(a, "bob", "x") as (one, one_id), person(b, "bob", "x") as (two, two_id):
            async with person(b, "bob") as (_, three_id), person(b, "cat", "x"):
                await b.broker.join_room(three_id, "y")
                await ann.sees({"ann": 1, "bob": 2, "cat": 1})
                assert await a.broker.remove_user("bob", "x") == 2
                assert sorted(left) == sorted([(one_id, "x"), (two_id, "x")])
                await ann.sees({"ann": 1, "cat": 1})
                assert [member.user for member in await b.broker.members("x")] == ["ann", "cat"]
                assert await a.broker.count("y") == 1
                assert await b.broker.remove_user("bob", "x") == 0
                assert len(await a.broker.connections("bob")) == 3
                await a.broker.to_room("x").send("secret", 1)
                await a.broker.broadcast("end")
                for other in (one, two):
                    while (event := await other.receive())["event"] != "end":
                        assert event["event"] == "presence"  # of when it was in the room, and no secret


async def test_one_process_without_an_engine() -> None:
    async with nodes("memory://", 1) as (a,), person(a, "ann", "x") as (peer, client_id):
        assert await a.broker.is_online("ann")
        assert not await a.broker.is_online("bob")
        assert [each.client_id for each in await a.broker.connections("ann")] == [client_id]
        assert await a.broker.remove_user("ann", "x") == 1
        assert a.broker.get_rooms() == []
        await a.broker.to_client(client_id).send("still", 1)
        assert await peer.expect("still") == 1


async def test_a_node_that_does_not_answer_is_named_and_nobody_is_called_absent() -> None:
    async with engine("valkey") as server, nodes(server.url) as (a, b):
        async with person(a, "ann", "x"):
            cluster = b.broker.node.cluster
            assert cluster is not None
            rpc = cluster._rpc
            for what in ("connections", "remove_user"):  # as a node of another version answers
                rpc._procedures.pop(what)
            found = await a.broker.connections("ann")
            assert len(found) == 1
            assert found.missing == (b.broker.node_id,)
            assert await a.broker.is_online("ann")
            with pytest.raises(BackplaneUnavailable, match=f"{b.broker.node_id} did not answer") as caught:
                await a.broker.is_online("bob")
            assert caught.value.outcome == "unknown"
            assert caught.value.nodes == (b.broker.node_id,)
            with pytest.raises(BackplaneUnavailable, match="1 clients are taken out of the room here") as caught:
                await a.broker.remove_user("ann", "x")
            assert caught.value.outcome == "unknown"
            assert caught.value.nodes == (b.broker.node_id,)
            assert await a.broker.count("x") == 0


async def test_without_the_engine_only_who_is_here_is_known() -> None:
    async with engine("valkey") as server, nodes(server.url, 1) as (a,):
        async with person(a, "ann", "x"):
            await server.kill()
            await eventually(lambda: not a.broker.healthy)
            assert await a.broker.is_online("ann")
            with pytest.raises(BackplaneUnavailable, match="the others did not answer"):
                await a.broker.is_online("bob")
            with pytest.raises(BackplaneUnavailable):
                await a.broker.remove_user("ann", "x")
            assert a.broker.get_rooms() == []
