"""Messages to one room of a kind carry its name once, whoever sends them: a node, one without kinds, an emitter."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.support import DEADLINE, Peer
from tests.support.nodes import KINDS, application, engine_url, nodes, person
from velocity_ws import Broker, Emitter, Target


async def said(peer: Peer, target: Target) -> Any:
    """Send a message; what arrives of it."""
    await target.send("e", {"room": "chat:7"})
    return await peer.ws.recv()


PLAIN = '{"event":"e","data":{"room":"chat:7"}}'
WITH_ROOM = '{"event":"e","data":{"room":"chat:7"},"room":"chat:7"}'


@pytest.mark.parametrize("kind", KINDS)
async def test_whoever_sends_it_the_room_is_there_once(kind: str) -> None:
    numbers = itertools.count()

    def prepare(broker: Broker) -> None:
        application(broker)
        if next(numbers) < 2:  # the third knows no kinds, as a node of an older version does not
            broker.rooms("chat:{chat_id}")

    async with engine_url(kind) as url, nodes(url, 3, prepare=prepare) as (a, b, without):
        async with person(b, "ann", "chat:7") as (peer, _), person(without, "bob", "chat:7") as (other, _):
            await peer.request("join", "tea")
            await other.request("join", "tea")
            assert await said(peer, a.broker.to_room("chat:7")) == WITH_ROOM
            assert await other.ws.recv() == WITH_ROOM
            assert await said(peer, without.broker.to_room("chat:7")) == WITH_ROOM
            assert await other.ws.recv() == PLAIN
            for target in (a.broker.to_rooms(["chat:7", "tea"]), a.broker.to_room("tea"), a.broker.to_all()):
                assert await said(peer, target) == PLAIN
                assert await other.ws.recv() == PLAIN
            if kind != "memory":
                async with Emitter(url, timeout=DEADLINE) as emitter:
                    assert await said(peer, emitter.to_room("chat:7")) == WITH_ROOM
                    assert await said(peer, emitter.to_rooms(["chat:7", "tea"])) == PLAIN
                    await emitter.to_room("chat:7").send("joined")
                    assert await peer.ws.recv() == '{"event":"joined","data":null,"room":"chat:7"}'
