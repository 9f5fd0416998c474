"""Whatever arrives on the engine: real envelopes, mutated, published by a stranger on the topics of two nodes."""

from __future__ import annotations

import asyncio
import copy
import logging
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support import Peer, eventually
from tests.support.nodes import Node, application, nodes, person
from tests.support.workers import an_engine
from velocity_ws import Broker, Client
from velocity_ws.backplane import create_backplane
from velocity_ws.cluster.cluster import Cluster
from velocity_ws.cluster.envelopes import Heartbeat, encode_body, encode_header

ROUNDS, AT_ONCE = 60, 50
STRANGER = "a-stranger-"
BAD_NAMES = [b"a b c d e f", b"a.b.c.d.e.>", b"*          ", b"\0" * 11, b"\xff" * 11, b"SUB x\r\n 1\r\n"]
NASTY: list[Any] = [
    *(-1, 0, 2**31, 2**63, 2**64 - 1, -(2**63), 1e308, float("nan"), float("inf"), None, True, [], {}, [[[]]], b""),
    *("", "x" * 300, "a b", "\ud7ff", "é" * 257, "*", ">", b"\xff\xfe", ["x"] * 5, {"x": -1}, "post", "bye", "join"),
]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where the parts of a value are."""
    found = [path]
    items = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    for key, part in items:
        found += places(part, (*path, key))
    return found


def mutated(body: bytes, rng: random.Random) -> bytes:
    """A body with something wrong in it, or nothing."""
    how = rng.randrange(4)
    if how == 0:
        at = rng.randrange(len(body))
        return body[:at] + rng.randbytes(rng.randrange(1, 4)) + body[at + rng.randrange(3) :]
    if how == 1:
        return body[: rng.randrange(len(body))]
    value = msgspec.msgpack.decode(body)
    for _ in range(how - 1):
        path = rng.choice(places(value))
        if not path:
            continue
        inside = value
        for key in path[:-1]:
            inside = inside[key]
        inside[path[-1]] = copy.deepcopy(rng.choice(NASTY))
    return msgspec.msgpack.encode(value)


async def recorded(pair: list[Node], heard: list[bytes]) -> list[bytes]:
    """What two nodes say when somebody uses all that they can do; without its headers."""
    a, b = pair
    async with person(a, "ann", "x"), person(b, "bob", "x") as (_, bob), person(b, "cat", "x"):
        for broker in (a.broker, b.broker):
            await broker.broadcast("all", 1)
            await broker.to_rooms(["x", "y"]).except_(bob).send("some", 2)
            await broker.to_user("ann").send_bytes(b"\xff")
            await broker.to_client(bob).send("one", 3)
            await broker.to_nodes().send("tell", {"n": 1})
            await broker.members("x")
            await broker.count("x")
            await broker.cluster_stats()
            await broker.disconnect_user("nobody")
            await broker.remove_user("nobody", "x")
            await broker.connections("ann")
        await a.broker.join_room(bob, "z")
        await a.broker.leave_room(bob, "z")
        await a.broker.disconnect(f"{b.broker.node_id}.nobody")
        for node in pair:
            cluster = cluster_of(node)
            await cluster.membership.discover()
            await cluster._numbers.ask((cluster.topics.all, cluster.topics.room("x")))
            cluster._numbers.left()
            await cluster._numbers.tell()
            presence = node.broker.node.presence
            assert presence is not None
            assert presence.exchange is not None
            presence.exchange.begin_anew()
            presence.exchange._tell_version("x")
        bodies: set[bytes] = set()

        def has_all() -> bool:
            bodies.update(data[len(encode_header(STRANGER, 1)) :] for data in heard)
            tags = {msgspec.msgpack.decode(body)[0] for body in bodies}
            return tags >= {"post", "beat", "ask", "answer", "note", "probe"}

        await eventually(has_all)
    return sorted(bodies)


SAID: dict[str, set[tuple[type, ...]]] = {
    "ask join": {(str, str)},
    "ask leave": {(str, str)},
    "ask disconnect": {(str, int, str)},
    "ask disconnect_user": {(str, int, str)},
    "ask remove_user": {(str, str)},
    "ask connections": {(str,)},
    "ask members": {(str,)},
    "ask count": {(str,)},
    "ask stats": {(type(None),)},
    "ask numbers": {(str, str)},
    "note told": {(str, bytes)},
    "note published": {(str, dict)},
    "note presence": {(list, dict)},
    "note presence_change": {(str, int, int, dict)},
    "note presence_asked": {(str,)},
    "note presence_anew": {(type(None),)},
    "note presence_versions": {(str, int, dict)},
}


async def test_nodes_ask_and_tell_by_the_same_names_as_ever() -> None:
    url = "memory://the-same-names-as-ever"
    async with nodes(url, options={"presence": ["x"]}) as pair:
        stranger, heard = create_backplane(url), list[bytes]()
        await stranger.connect(lambda _, data: heard.append(data), lambda _: None)
        await listen(stranger, pair)
        said: dict[str, set[tuple[type, ...]]] = {}
        for body in await recorded(pair, heard):
            match msgspec.msgpack.decode(body):
                case ["ask" as tag, *_, what, args] | ["note" as tag, what, args]:
                    shape = tuple(map(type, args if isinstance(args, list) else [args]))
                    said.setdefault(f"{tag} {what}", set()).add(shape)
        await stranger.close()
    assert said == SAID


@pytest.mark.parametrize("kind", ["nats", "valkey", "embedded"])
async def test_nodes_are_well_and_serve_whatever_a_stranger_publishes(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def prepare(broker: Broker) -> None:
        application(broker)

        @broker.on("echo")
        async def echo(client: Client, data: int) -> int:
            return data

        @broker.on_node("tell")
        async def tell(data: object) -> None:
            pass

    rng = random.Random(kind)
    async with an_engine(kind, tmp_path, monkeypatch) as url:
        async with nodes(url, prepare=prepare, options={"presence": ["x"]}) as pair:
            stranger, heard = create_backplane(url), list[bytes]()
            await stranger.connect(lambda _, data: heard.append(data), lambda _: None)
            try:
                topics = await listen(stranger, pair)
                bodies = await recorded(pair, heard)
                async with person(pair[0], "dan", "here") as (dan, _), person(pair[1], "eve", "here") as (eve, _):
                    caplog.clear()
                    for number in range(ROUNDS):
                        messages = [some_message(bodies, rng) for _ in range(AT_ONCE)]
                        await stranger.publish([(rng.choice(topics), message) for message in messages])
                        await dan.send("echo", number, id=number)
                        await hears(dan, {"event": "reply", "id": number, "data": number})
                        await pair[number % 2].broker.to_room("here").send("n", number)
                        for peer in (dan, eve):
                            await hears(peer, {"event": "n", "data": number})
                    bye = encode_header(STRANGER, 1) + encode_body(Heartbeat("bye", 0.0))
                    await stranger.publish([(topics[0], bye)])
                    for node in pair:
                        await eventually(lambda node=node: STRANGER not in cluster_of(node).membership)  # type: ignore[misc]
                        assert (await node.broker.members("here")).missing == ()
                        assert await node.broker.count("here") == 2
                        assert await node.peers() == 1
                        assert node.broker.healthy
                        stats = node.broker.get_stats()
                        assert stats.backplane_invalid > ROUNDS
                        assert stats.errors == 0
            finally:
                await stranger.close()
                stranger.release()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert "trying again" not in caplog.text
    assert caplog.text.count("dropped what is no message") <= 4, "once a minute for a node"


async def hears(peer: Peer, message: Any) -> None:
    """Read up to that; what the stranger has to say may come before it."""
    text = msgspec.json.encode(message).decode()
    async with asyncio.timeout(10):
        while await peer.ws.recv() != text:
            pass


def cluster_of(node: Node) -> Cluster:
    """A node's."""
    assert node.broker.node.cluster is not None
    return node.broker.node.cluster


async def listen(stranger: Any, pair: list[Node]) -> list[str]:
    """Hear all that the nodes say; the topics, of which the first is that of all nodes."""
    topics = cluster_of(pair[0]).topics
    own = [topics.node(node.broker.node_id) for node in pair]
    found = [topics.nodes, topics.all, topics.room("x"), topics.user("ann"), topics.room("here"), *own]
    await stranger.subscribe(found)
    return found


def some_message(bodies: list[bytes], rng: random.Random) -> bytes:
    """One that no node of ours has sent, from somebody who may have no name."""
    sequence = rng.choice([0, 1, 5, 2**48, 2**64 - 1])
    header = encode_header(STRANGER, sequence)
    if rng.random() < 0.2:
        header = header.replace(STRANGER.encode(), rng.choice(BAD_NAMES))
    if rng.random() < 0.05:
        return rng.randbytes(rng.randrange(60))
    return header + mutated(rng.choice(bodies), rng)
