"""Who is where, on all nodes: members, counts, figures, presence, and the hooks of coming and going."""

from __future__ import annotations

import asyncio
import time

from tests.support import eventually
from tests.support.engines import engine
from tests.support.nodes import Node, Watcher, application, nodes, person
from velocity_ws import Broker, Client
from velocity_ws.sessions.compact import Group, GroupOfOne


async def test_members_of_a_room_on_both_nodes(pair: list[Node]) -> None:
    a, b = pair
    before = time.time()
    async with person(a, "ann", "x") as (_, ann), person(b, "bob", "x") as (_, bob), person(b, room="x") as (_, none):
        for node in pair:
            members = await node.broker.members("x")
            assert [member.client_id for member in members] == [ann, bob, none]
            assert [member.user for member in members] == ["ann", "bob", None]
            assert [member.node for member in members] == [a.broker.node_id, b.broker.node_id, b.broker.node_id]
            assert all(before - 1 <= member.since <= time.time() + 1 for member in members)
            assert members.missing == ()
            assert await node.broker.count("x") == 3
            assert await node.broker.count("y") == 0
            assert await node.broker.members("y") == []


async def test_the_figures_of_both_nodes(pair: list[Node]) -> None:
    a, b = pair
    async with person(a), person(b), person(b):
        stats = await a.broker.cluster_stats()
        assert {node: found.connected_clients for node, found in stats.nodes.items()} == {
            a.broker.node_id: 1,
            b.broker.node_id: 2,
        }
        assert stats.total.connected_clients == 3
        assert stats.missing == ()


async def test_a_node_that_stops_is_gone_at_once(url: str) -> None:
    async with nodes(url, 1) as (a,):
        async with nodes(url, 1) as (b,), person(b, room="x"):
            await eventually(lambda: b.broker.node_id in a.broker.node.cluster.membership)  # type: ignore[union-attr]
            assert await a.broker.count("x") == 1
        assert await a.broker.count("x") == 0
        assert await a.peers() == 0


async def test_coming_and_going_is_told_where_the_client_is(url: str) -> None:
    heard: list[tuple[str, str, str]] = []

    def prepare(broker: Broker) -> None:
        application(broker)

        @broker.on_join
        async def joined(client: Client, room: str) -> None:
            heard.append(("join", client.id, room))

        @broker.on_leave
        def left(client: Client, room: str) -> None:
            heard.append(("leave", client.id, room))

    async with nodes(url, prepare=prepare) as (a, b):
        async with person(b, room="x") as (_, client_id):
            await a.broker.join_room(client_id, "y")
            await a.broker.join_room(client_id, "y")
            await a.broker.leave_room(client_id, "x")
            await a.broker.leave_room(client_id, "x")
            assert heard == [("join", client_id, "x"), ("join", client_id, "y"), ("leave", client_id, "x")]
        await eventually(lambda: len(heard) == 4)
        assert heard[-1] == ("leave", client_id, "y")


async def test_presence_counts_the_tabs_of_users_on_all_nodes(url: str) -> None:
    async with nodes(url, options={"presence": ["x"]}) as (a, b), person(a, "ann", "x") as (peer, _):
        ann = Watcher(peer)
        await ann.sees({"ann": 1})
        async with person(b, "bob", "x") as (other, _):
            bob = Watcher(other)
            await ann.sees({"ann": 1, "bob": 1})
            await bob.sees({"ann": 1, "bob": 1})
            async with person(a, "bob", "x"), person(b, room="x"), person(b, "cat", "y"):
                await bob.sees({"ann": 1, "bob": 2}, 1)
            await bob.sees({"ann": 1, "bob": 1})
        await ann.sees({"ann": 1})


async def test_presence_without_other_nodes() -> None:
    async with nodes("memory://", 1, options={"presence": lambda room: room == "x"}) as (a,):
        async with person(a, "ann", "x") as (peer, _):
            ann = Watcher(peer)
            await ann.sees({"ann": 1})
            async with person(a, "bob", "x"):
                await ann.sees({"ann": 1, "bob": 1})
            await ann.sees({"ann": 1})
            async with person(a, "cat", "y"):
                await a.broker.broadcast("end")
            await peer.expect("end")


async def test_a_leave_while_a_join_is_not_confirmed_is_told_to_nobody() -> None:
    heard: list[tuple[str, str]] = []

    def prepare(broker: Broker) -> None:
        application(broker)

        @broker.on_join
        async def joined(client: Client, room: str) -> None:
            heard.append(("join", room))

        @broker.on_leave
        async def left(client: Client, room: str) -> None:
            heard.append(("leave", room))

    async with nodes("memory://pairs", 1, prepare=prepare) as (a,), person(a) as (_, client_id):
        joining = asyncio.create_task(a.broker.join_room(client_id, "x"))
        await asyncio.sleep(0)
        await a.broker.leave_room(client_id, "x")
        await joining
        assert heard == []
        await a.broker.join_room(client_id, "x")
        await a.broker.leave_room(client_id, "x")
        assert heard == [("join", "x"), ("leave", "x")]


async def test_more_members_than_one_message_of_the_engine_can_name() -> None:
    async with engine("nats") as server, nodes(server.url, backplane_timeout=10) as (a, b), person(b) as (_, client_id):
        session = b.broker.node.hub.get(client_id)
        assert session is not None
        hub = b.broker.node.hub
        crowd = {f"{client_id}{number:08}": session for number in range(20_000)}  # too many to connect
        hub._rooms["x"] = Group("x", crowd)
        hub.join(client_id, "x")
        found = await a.broker.members("x")
        assert found.missing == ()
        assert len(found) == 20_001
        hub._rooms["x"] = GroupOfOne("x", session)


async def test_presence_is_right_again_when_a_node_that_was_deaf_hears() -> None:
    async with engine("valkey") as server, nodes(server.url, options={"presence": ["x"]}) as (a, b):
        async with person(a, "ann", "x") as (peer, _), person(b, "bob", "x") as (_, bob), person(b, "cat", "x"):
            ann = Watcher(peer)
            await ann.sees({"ann": 1, "bob": 1, "cat": 1})
            cluster = b.broker.node.cluster
            assert cluster is not None
            for channel in (cluster._backplane._subscriber, cluster._backplane._publisher):  # type: ignore[attr-defined]
                channel.abort()
            await eventually(lambda: not b.broker.healthy)
            await b.broker.leave_room(bob, "x")
            await ann.sees({"ann": 1, "cat": 1})
