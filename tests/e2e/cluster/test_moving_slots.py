"""A Redis Cluster in which slots move and a replica takes over, while nodes talk: nobody is deaf, and all adds up."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from redis.crc import key_slot

from tests.support import Peer, eventually
from tests.support.engines import ENGINES
from tests.support.nodes import Node, application, nodes, person
from tests.support.sharded import sharded
from velocity_ws import Broker, History

KINDS = [kind for kind in ("valkey", "redis") if kind in ENGINES]
ROOMS = ("chat:x", "plain:x")
PATIENT = ("--cluster-node-timeout", "15000")
"""No server takes another one for gone here that a busy machine holds up: what happens is asked for."""


def with_history(broker: Broker) -> None:
    application(broker)
    broker.rooms("chat:{name}", history=History(size=100_000))


class Heard:
    """What somebody in both rooms hears: numbers and gaps by room."""

    def __init__(self) -> None:
        self.numbers: dict[str, list[int]] = {room: [] for room in ROOMS}
        self.missed: dict[str, list[Any]] = {room: [] for room in ROOMS}

    async def listen(self, peer: Peer) -> None:
        async for text in peer.ws:
            message = json.loads(text)
            if message["event"] == "n":
                self.numbers[message["data"][0]].append(message["data"][1])
            elif message["event"] == "gap" and message["data"]["room"] in ROOMS:
                self.missed[message["data"]["room"]].append(message["data"]["missed"])

    def is_told(self, room: str, said: int) -> bool:
        """Whether the gaps tell of all that did not come."""
        missed = self.missed[room]
        return bool(missed) and (None in missed or sum(missed) == said - len(self.numbers[room]))


class Talk:
    """Numbers that one node says in both rooms, in each as fast as they are taken."""

    def __init__(self, node: Node) -> None:
        self.said = dict.fromkeys(ROOMS, 0)
        self.is_over = False
        self._node = node

    async def talk(self, room: str) -> None:
        for number in itertools.count():
            if self.is_over:
                return
            await self._node.broker.to_room(room).send("n", [room, number])  # which is never refused
            self.said[room] = number + 1
            await asyncio.sleep(0.003)


@pytest.mark.parametrize("kind", KINDS)
async def test_slots_move_and_a_replica_takes_over_while_nodes_talk(kind: str, tmp_path: Path) -> None:
    async with sharded(tmp_path, 2, 1, kind, *PATIENT) as servers, nodes(servers.url, prepare=with_history) as (a, b):
        async with person(b) as (peer, _):
            for room in ROOMS:
                await peer.request("join", room)
            talk, heard = Talk(a), Heard()
            talking = [asyncio.create_task(talk.talk(room)) for room in ROOMS]
            listening = asyncio.create_task(heard.listen(peer))

            async def both_are_heard() -> None:
                said = dict(talk.said)
                await eventually(lambda: all(heard.numbers[room][-1:] > [said[room]] for room in ROOMS), within=8)
                assert a.broker.healthy
                assert b.broker.healthy

            await both_are_heard()
            for room in ROOMS:
                topic = f"velocity.room.{room.replace(':', '=3A')}"
                source = await servers.primary_of(topic)
                (target,) = [each for each in servers.servers[:2] if each is not source]
                await servers.move(key_slot(topic.encode()), source, target, 0.1)
                await both_are_heard()
            await servers.promote(await servers.replica_of(target))
            await both_are_heard()
            talk.is_over = True
            await asyncio.gather(*talking)
            await eventually(lambda: all(heard.numbers[room][-1] == talk.said[room] - 1 for room in ROOMS))
            await eventually(lambda: heard.is_told("plain:x", talk.said["plain:x"]))
            listening.cancel()
        assert heard.numbers["chat:x"] == list(range(talk.said["chat:x"]))
        assert heard.missed["chat:x"] == []
        numbers = heard.numbers["plain:x"]
        assert numbers == sorted(set(numbers))
        assert a.broker.get_stats().backplane_refused == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_what_a_replica_lacks_that_takes_over_is_told_to_those_who_had_it(kind: str, tmp_path: Path) -> None:
    async with sharded(tmp_path, 1, 1, kind, *PATIENT) as servers, nodes(servers.url, prepare=with_history) as (a, b):
        primary, replica = servers.servers
        async with person(a) as (ann, _), person(b) as (bob, _):
            for peer in (ann, bob):
                await peer.request("join", "chat:x")
            assert await said(a, 1, ann, bob) == 1
            await servers.caught_up(replica)
            # From now on the replica cannot log in, and the primary alone has what is confirmed.
            await primary.order("CONFIG", "SET", "requirepass", "secret")
            await primary.order("CLIENT", "KILL", "TYPE", "replica", password="secret")
            assert await said(a, 2, ann, bob) == 2
            await replica.order("CLUSTER", "FAILOVER", "TAKEOVER")
            for peer in (ann, bob):
                gap = await in_room(peer, "gap")
                assert (gap["room"], gap["reason"], gap["missed"]) == ("chat:x", "epoch", None)
            assert await said(a, 3, ann, bob) == 3
            assert [entry.data for entry in await a.broker.history("chat:x")] == [1, 3]
            assert a.broker.healthy
            assert b.broker.healthy


async def said(node: Node, number: int, *peers: Peer) -> int:
    """Say a number in the room with history; it, as all of these heard it."""
    await node.broker.to_room("chat:x").send("n", number)
    (heard,) = {await in_room(peer, "n") for peer in peers}
    assert isinstance(heard, int)
    return heard


async def in_room(peer: Peer, event: str) -> Any:
    """The data of the next message, which is of that event, beside gaps of what is said to all or to a user.

    Such a gap has no reason. It comes when the other nodes have said how much they published, and so before or after
    what the log shows.
    """
    while (message := await peer.receive())["event"] == "gap" and message["data"]["room"] is None:
        pass
    assert message["event"] == event, message
    return message["data"]
