"""Rooms of a kind on two nodes: a client joins by itself on one, and hears the other from its answer on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support import DEADLINE, Peer, eventually
from tests.support.nodes import Node, Watcher, engine_url, nodes
from tests.support.workers import an_engine
from velocity_ws import Broker, Client, Emitter

ENGINES = ("memory", "nats", "valkey", "embedded")


class Told:
    """What the hooks of all nodes were told."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.moves: list[Any] = []

    def prepare(self, broker: Broker) -> None:
        """Register the hooks: rooms ``chat:{chat_id}`` with even numbers can be joined."""
        chats = broker.rooms("chat:{chat_id}", presence=True)
        broker.rooms("tea:{name}")

        @broker.authenticate
        async def authenticate(request: Any) -> str | None:
            name: str | None = request.query_params.get("user")
            return name

        @chats.authorize
        async def may_enter(client: Client, chat_id: int) -> bool:
            self.asked.append((client.user_id, chat_id))
            return chat_id % 2 == 0

        @chats.on("say")
        async def say(client: Client, data: str, room: str) -> None:
            await broker.to_room(room).except_(client.id).send("said", data)

        @chats.on_join
        async def came(client: Client, chat_id: int) -> None:
            self.moves.append(("came", client.user_id, chat_id))

        @chats.on_leave
        async def went(client: Client, chat_id: int) -> None:
            self.moves.append(("went", client.user_id, chat_id))

        @broker.on("whoami")
        async def whoami(client: Client) -> str:
            return client.id


async def heard(peer: Peer, event: str) -> Any:
    """The data of the next message of an event; presence is not looked at."""
    while (message := await peer.receive())["event"] == "presence":
        pass
    assert message["event"] == event, message
    return message["data"]


async def asked(peer: Peer, event: str, data: Any) -> Any:
    """Send a request; its answer. Presence is not looked at."""
    await peer.send(event, data, id=1)
    while (message := await peer.receive())["event"] == "presence":
        pass
    assert message["id"] == 1, message
    return message


@pytest.mark.parametrize("kind", ENGINES)
async def test_who_has_joined_on_one_node_hears_the_other(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    engine = engine_url(kind) if kind == "memory" else an_engine(kind, tmp_path, monkeypatch)
    async with engine as url, nodes(url, prepare=told.prepare) as (a, b):
        async with a.address.connect("/ws?user=ann") as ann, b.address.connect("/ws?user=bob") as bob:
            for chat_id in range(0, 20, 2):
                room = f"chat:{chat_id}"
                assert (await asked(ann, "join", {"room": room}))["data"] == {"room": room}
                await b.broker.to_room(room).send("said", chat_id)  # nobody waits for anything in between
                assert await heard(ann, "said") == chat_id
            assert (await asked(bob, "join", {"room": "chat:4"}))["event"] == "reply"
            await bob.send("say", "hi", room="chat:4")
            assert await heard(ann, "said") == "hi"
            assert (await asked(ann, "join", {"room": "chat:5"}))["data"]["code"] == "FORBIDDEN"
            assert (await asked(bob, "leave", {"room": "chat:4"}))["event"] == "reply"
            assert await a.broker.count("chat:4") == 1
            assert told.asked[-2:] == [("bob", 4), ("ann", 5)]
            assert told.moves[-2:] == [("came", "bob", 4), ("went", "bob", 4)]


async def other_node(a: Node, client_id: str, room: str) -> None:
    await a.broker.join_room(client_id, room)


async def emitter(a: Node, client_id: str, room: str) -> None:
    async with Emitter(a.broker.settings.backplane_url, timeout=DEADLINE) as found:
        await found.join_room(client_id, room)


@pytest.mark.parametrize("kind", ENGINES[1:])
@pytest.mark.parametrize("join", [other_node, emitter])
async def test_who_is_put_in_from_elsewhere_is_not_asked_about(
    kind: str, join: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    async with an_engine(kind, tmp_path, monkeypatch) as url, nodes(url, prepare=told.prepare) as (a, b):
        async with b.address.connect("/ws?user=bob") as bob:
            client_id = (await asked(bob, "whoami", None))["data"]
            monkeypatch.setattr("velocity_ws.cluster.membership.DISCOVERY_TIME", DEADLINE)  # an emitter waits for all
            await join(a, client_id, "chat:5")
            await a.broker.to_room("chat:5").send("said", "welcome")
            assert await heard(bob, "said") == "welcome"
            assert told.asked == []
            assert told.moves == [("came", "bob", 5)], "on the node that has the client"
            await a.broker.leave_room(client_id, "chat:5")
            assert told.moves[1:] == [("went", "bob", 5)]


async def test_the_members_of_such_a_room_are_told_who_is_in_it_on_both_nodes(url: str) -> None:
    told = Told()
    async with nodes(url, prepare=told.prepare) as (a, b):
        async with a.address.connect("/ws?user=ann") as ann, b.address.connect("/ws?user=bob") as bob:
            watcher = Watcher(ann, "chat:4")
            await ann.send("join", {"room": "chat:4"})
            await eventually(lambda: a.broker.get_rooms() == ["chat:4"])
            await bob.send("join", {"room": "chat:4"})
            await watcher.sees({"ann": 1, "bob": 1})
            await bob.send("leave", {"room": "chat:4"})
            await watcher.sees({"ann": 1})
