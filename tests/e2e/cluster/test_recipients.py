"""Messages reach whom they are for, on whichever node: everyone, rooms, users, clients, without some."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.support import eventually
from tests.support.nodes import Node, nodes, person
from velocity_ws import ClientNotFound


async def test_a_broadcast_reaches_everyone_once(pair: list[Node]) -> None:
    a, b = pair
    async with person(a) as (here, _), person(b) as (there, _):
        assert await a.broker.broadcast("news", 1) == 1
        assert await b.broker.broadcast("news", 2) == 1
        assert {await here.expect("news"), await here.expect("news")} == {1, 2}
        assert {await there.expect("news"), await there.expect("news")} == {1, 2}


async def test_a_room_spans_nodes_and_nobody_else_hears_it(pair: list[Node]) -> None:
    a, b = pair
    async with person(a, room="x") as (_, _), person(b, room="x") as (there, _), person(b, room="y") as (other, _):
        await a.broker.to_room("x").send("said", "to x")
        await a.broker.to_room("y").send("said", "to y")
        assert await there.expect("said") == "to x"
        assert await other.expect("said") == "to y"


async def test_who_is_in_several_of_the_rooms_gets_it_once(pair: list[Node]) -> None:
    a, b = pair
    async with person(b, room="x") as (there, there_id), person(b, room="z") as (last, _):
        for room in ("y", "z"):
            await b.broker.join_room(there_id, room)
        await a.broker.to_rooms(["x", "y", "z"]).send("said", 1)
        await a.broker.to_rooms(["nobody's", "z", "y"]).send("said", 2)
        await a.broker.broadcast("end")
        for peer in (there, last):
            assert [await peer.expect("said"), await peer.expect("said")] == [1, 2]
            await peer.expect("end")


async def test_a_handler_says_something_to_its_room(pair: list[Node]) -> None:
    a, b = pair
    async with person(a, room="x") as (here, _), person(b, room="x") as (there, _):
        assert (await here.request("say", ["x", "hello"]))["data"] == 0  # nobody else is on its own node
        assert await there.expect("said") == "hello"


async def test_one_client_on_the_other_node(pair: list[Node]) -> None:
    a, b = pair
    async with person(b) as (there, there_id), person(b) as (other, other_id):
        await a.broker.to_client(there_id).send("you", 1)
        await a.broker.to_clients([there_id, other_id, "nobody", there_id]).send("you", 2)
        assert [await there.expect("you"), await there.expect("you")] == [1, 2]
        assert await other.expect("you") == 2


async def test_except_holds_on_the_other_node(pair: list[Node]) -> None:
    a, b = pair
    async with person(b, room="x") as (there, there_id), person(b, room="x") as (other, _):
        await a.broker.to_room("x").except_(there_id).send("said", 1)
        await a.broker.to_all().except_(there_id).send("said", 2)
        await a.broker.broadcast("end")
        await there.expect("end")
        assert [await other.expect("said"), await other.expect("said")] == [1, 2]


async def test_binary_messages_and_any_text(pair: list[Node]) -> None:
    a, b = pair
    async with person(b, room="x") as (there, _):
        everything = bytes(range(256)) * 10
        await a.broker.to_room("x").send_bytes(everything)
        assert await there.receive() == everything
        text = "ä€🎈" * 100
        await a.broker.to_room("x").send("said", text)
        assert await there.expect("said") == text


@pytest.mark.parametrize("room", ["", "a.b", "*", ">", "a b", "=", "=2A", "~", "ä🎈", "x" * 256, "a\r\nPUB b"])
async def test_any_string_is_a_room_and_only_that_one(pair: list[Node], room: str) -> None:
    a, b = pair
    async with person(b) as (there, there_id), person(b, room="plain") as (other, _):
        await b.broker.join_room(there_id, room)
        await a.broker.to_room(room).send("said", 1)
        await a.broker.broadcast("end")
        assert await there.expect("said") == 1
        await other.expect("end")


async def test_a_user_with_tabs_on_both_nodes(pair: list[Node]) -> None:
    a, b = pair
    async with person(a, "ann") as (one, _), person(b, "ann") as (two, two_id), person(b, "bob") as (bob, _):
        await a.broker.to_user("ann").send("hi", 1)
        await b.broker.to_user("ann").except_(two_id).send("hi", 2)
        assert [await one.expect("hi"), await one.expect("hi")] == [1, 2]
        assert await two.expect("hi") == 1
        await a.broker.broadcast("end")
        await two.expect("end")
        await bob.expect("end")


async def test_whoever_is_let_in_hears_what_is_sent_to_its_user_from_then_on(pair: list[Node]) -> None:
    a, b = pair
    for number in range(20):
        async with b.address.connect(f"/ws?user=user-{number}") as peer:
            await a.broker.to_user(f"user-{number}").send("hi", number)
            assert await peer.expect("hi") == number


async def test_nothing_published_after_a_join_is_missed(pair: list[Node]) -> None:
    a, b = pair
    async with person(b) as (there, there_id):
        for number in range(100):
            await b.broker.join_room(there_id, f"room {number}")
            await a.broker.to_room(f"room {number}").send("said", number)
            assert await there.expect("said") == number


async def test_nothing_is_heard_after_a_leave(pair: list[Node]) -> None:
    a, b = pair
    async with person(b, room="x") as (there, _), person(b, room="x") as (stays, _):
        await there.request("leave", "x")
        await a.broker.to_room("x").send("said", 1)
        await a.broker.broadcast("end")
        await there.expect("end")
        assert await stays.expect("said") == 1


async def test_the_order_of_a_sender_holds_across_targets(pair: list[Node]) -> None:
    a, b = pair
    async with person(b, "ann", "x") as (there, there_id):
        chance = random.Random(1)
        targets = [a.broker.to_all(), a.broker.to_room("x"), a.broker.to_user("ann"), a.broker.to_client(there_id)]
        await asyncio.gather(*[chance.choice(targets).send("n", number) for number in range(300)])
        assert [await there.expect("n") for _ in range(300)] == list(range(300))


async def test_a_client_on_another_node_is_moved_and_closed(pair: list[Node]) -> None:
    a, b = pair
    async with person(b) as (there, there_id):
        await a.broker.join_room(there_id, "x")
        assert [client.id for client in b.broker.get_room_clients("x")] == [there_id]
        await b.broker.to_room("x").send("said", 1)
        assert await there.expect("said") == 1
        await a.broker.leave_room(there_id, "x")
        await a.broker.leave_room(there_id, "x")
        assert b.broker.get_rooms() == []
        assert await a.broker.disconnect(there_id, 4001, "enough")
        assert await there.closed() == (4001, "enough")
        assert not await a.broker.disconnect(there_id)


async def test_nobody_of_that_id(pair: list[Node]) -> None:
    a, b = pair
    for client_id in ("nobody", f"{b.broker.node_id}.nobody", "elevenchars.nobody"):
        with pytest.raises(ClientNotFound):
            await a.broker.join_room(client_id, "x")
        await a.broker.leave_room(client_id, "x")
        assert not await a.broker.disconnect(client_id)
        await a.broker.to_client(client_id).send("hi")


async def test_a_user_is_closed_everywhere(pair: list[Node]) -> None:
    a, b = pair
    async with person(a, "ann") as (one, _), person(b, "ann") as (two, _), person(b, "bob") as (bob, _):
        assert await b.broker.disconnect_user("ann", 4001, "signed out") == 2
        assert await one.closed() == await two.closed() == (4001, "signed out")
        assert await a.broker.disconnect_user("ann") == 0
        await a.broker.broadcast("end")
        await bob.expect("end")


async def test_two_clusters_on_one_engine_are_apart(url: str) -> None:
    async with nodes(f"{url}?prefix=one", 1) as (one,), nodes(f"{url}?prefix=two", 1) as (two,):
        async with person(two, "ann", "x") as (peer, _):
            await one.broker.broadcast("wrong")
            await one.broker.to_room("x").send("wrong")
            await one.broker.to_user("ann").send("wrong")
            await two.broker.broadcast("right")
            await peer.expect("right")
        assert await one.peers() == 0


async def test_a_message_to_1000_rooms_is_one_to_each_client(pair: list[Node]) -> None:
    a, b = pair
    async with person(b, room="room 7") as (there, there_id):
        await b.broker.join_room(there_id, "room 900")
        await a.broker.to_rooms([f"room {number}" for number in range(1000)]).send("said", 1)
        await a.broker.broadcast("end")
        assert await there.expect("said") == 1
        await there.expect("end")


async def test_an_id_of_nobody_harms_no_engine(pair: list[Node]) -> None:
    a, b = pair
    async with person(b) as (there, _):
        for name in ("a b c d e f.x", "a 0\r\n\r\nSUB .x", "elevenchars.x", "*", "\r\n"):
            await a.broker.to_client(name).send("said", 1)
            await a.broker.to_all().except_(name).send("said", 2)
            assert await there.expect("said") == 2
        assert a.broker.healthy
        assert a.broker.get_stats().backplane_unknown == 0


async def test_what_a_node_missed_of_a_room_it_left_is_no_gap(url: str) -> None:
    async with nodes(url) as (a, b), person(b, room="x") as (there, there_id):
        await a.broker.to_room("x").send("said", 0)
        assert await there.expect("said") == 0
        await b.broker.leave_room(there_id, "x")
        cluster = b.broker.node.cluster
        assert cluster is not None
        await eventually(lambda: not cluster.subscriptions.is_confirmed(cluster.topics.room("x")))
        for number in range(10):
            await a.broker.to_room("x").send("said", number)
        await b.broker.join_room(there_id, "x")
        await a.broker.to_room("x").send("said", "again")
        assert await there.expect("said") == "again"
        assert b.broker.get_stats().backplane_missed == 0
