"""Messages to one room of a kind carry its name, and no application sends what tells clients of their rooms."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import ServerKind, eventually, running, settings
from velocity_ws import Broker, Client, History, HookError, InvalidNameError, Target

BOTH: tuple[ServerKind, ...] = ("ours", "websockets-sansio")


def in_rooms(broker: Broker, *rooms: str) -> None:
    """Have the application put every client into rooms."""

    @broker.on_connect
    async def put_in(client: Client) -> None:
        for room in rooms:
            await broker.join_room(client.id, room)


@pytest.mark.parametrize("kind", BOTH)
async def test_what_is_sent_to_one_room_of_a_kind_carries_its_name(kind: ServerKind) -> None:
    broker = Broker(settings())
    broker.rooms("chat:{chat_id}")
    in_rooms(broker, "chat:7", "tea")

    @broker.on("here")
    def here() -> None:
        broker.sync.to_room("chat:7").send("e", "from a thread")

    async with running(broker, kind) as address, address.connect() as peer:
        await eventually(lambda: "tea" in broker.get_rooms())
        (client,) = broker.get_clients()
        carrying = [broker.to_room("chat:7"), broker.to_rooms(["chat:7"]), broker.to_rooms(["chat:7", "chat:7"])]
        for number, target in enumerate(carrying):
            assert await target.send("e", {"n": number}) == 1
            assert await peer.ws.recv() == f'{{"event":"e","data":{{"n":{number}}},"room":"chat:7"}}'
        await peer.send("here")
        assert await peer.receive() == {"event": "e", "data": "from a thread", "room": "chat:7"}
        others: list[Target | Client] = [client, broker.to_client(client.id), broker.to_all()]
        for other in [*others, broker.to_room("tea"), broker.to_rooms(["chat:7", "tea"])]:
            await other.send("e", {"room": "chat:7"})
            assert await peer.ws.recv() == '{"event":"e","data":{"room":"chat:7"}}'
        await broker.to_room("chat:7").send_bytes(b'{"event":"e","data":1}')
        assert await peer.receive() == b'{"event":"e","data":1}'


async def test_it_carries_it_where_it_may_be_lost_on_purpose() -> None:
    broker = Broker(settings())
    broker.rooms("chat:{chat_id}")
    in_rooms(broker, "chat:7")
    async with running(broker, "ours") as address, address.connect() as peer:
        await eventually(broker.get_rooms)
        ways: list[dict[str, Any]] = [{"volatile": True}, {"key": "k"}]
        for way in ways:
            await broker.to_room("chat:7").send("e", **way)
            assert await peer.receive() == {"event": "e", "data": None, "room": "chat:7"}


@pytest.mark.parametrize("event", ["joined", "left", "resync"])
async def test_an_application_does_not_tell_of_rooms_that_clients_join_by_themselves(event: str) -> None:
    broker = Broker(settings())
    chats = broker.rooms("chat:{chat_id}")
    in_rooms(broker, "chat:7")
    async with running(broker, "ours") as address, address.connect() as peer:
        await eventually(broker.get_rooms)
        (client,) = broker.get_clients()
        await client.send(event, 1)
        await broker.broadcast(event, 2)
        assert await peer.expect(event) == 1
        assert await peer.expect(event) == 2

        @chats.authorize
        async def may_enter() -> bool:
            return True

        for target in (client, broker.to_all(), broker.to_room("chat:7"), broker.to_user("ann"), broker.to_client("x")):
            with pytest.raises(InvalidNameError, match="give yours another name"):
                await target.send(event)
        with pytest.raises(InvalidNameError, match="give yours another name"):
            await broker.broadcast(event, volatile=True)
        with pytest.raises(InvalidNameError, match="give yours another name"):
            await client.ask(event)
        await client.send(f"{event}_too", 3)
        await broker.broadcast(event.upper(), 4)
        await broker.broadcast_bytes(f'{{"event":"{event}","data":5}}'.encode())
        assert await peer.expect(f"{event}_too") == 3
        assert await peer.expect(event.upper()) == 4
        assert isinstance(await peer.receive(), bytes)
    assert not await client.send(event), "it has gone"


@pytest.mark.parametrize("event", ["joined", "left", "resync"])
async def test_nor_where_rooms_have_a_history(event: str) -> None:
    broker = Broker(settings())
    broker.rooms("chat:{chat_id}", history=History())
    async with running(broker, "ours"):
        with pytest.raises(InvalidNameError, match="authorize or a history"):
            await broker.broadcast(event)


async def test_rooms_with_a_history_are_registered_before_the_broker_starts_where_none_has_one() -> None:
    broker = Broker(settings())
    async with running(broker, "ours"):
        with pytest.raises(HookError, match="register them before it starts"):
            broker.rooms("chat:{chat_id}", history=History())
    broker.rooms("chat:{chat_id}", history=History())
    async with running(broker, "ours"):
        broker.rooms("game:{game_id}", history=History())
