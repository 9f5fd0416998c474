"""Rooms that remember, and hooks that move a client while it comes in: it is answered truly, and waits for nobody."""

from __future__ import annotations

from tests.support import Peer, running, settings
from velocity_ws import Broker, Client, History

ROOM = "chat:7"


def chat() -> Broker:
    """A broker with rooms that remember, into which everybody may come."""
    broker = Broker(settings(ping_interval=0))
    kind = broker.rooms("chat:{chat_id}", history=History())

    @kind.authorize
    async def anybody(client: Client) -> bool:
        return True

    return broker


async def said(peer: Peer, count: int) -> list[int]:
    """The data of so many messages that come next."""
    return [await peer.expect("said") for _ in range(count)]


async def test_a_hook_may_say_where_a_client_begins_that_does_not_say_it_itself() -> None:
    broker = chat()

    @broker.on_join
    async def look_back(client: Client, room: str) -> None:
        joined = await broker.join_room(client.id, room, since=2)
        assert (joined.recovered, joined.missed) == (True, 2)

    async with running(broker, "ours") as address:
        places = [(await broker.to_room(ROOM).send("said", number)).at for number in range(4)]
        async with address.connect() as peer:
            assert (await peer.request("join", {"room": ROOM}))["data"] == {"room": ROOM, "at": places[1]}
            assert await said(peer, 2) == [2, 3]
        async with address.connect() as peer:
            answer = await peer.request("join", {"room": ROOM, "since": places[0]})
            assert (answer["data"]["recovered"], answer["data"]["missed"]) == (True, 3)
            assert await said(peer, 3) == [1, 2, 3]
            await broker.to_room(ROOM).send("said", 4)
            assert await said(peer, 1) == [4]


async def test_who_is_taken_out_by_a_hook_is_refused_and_not_told_to_try_again() -> None:
    broker = chat()

    @broker.on_join
    async def take_out(client: Client, room: str) -> None:
        await broker.leave_room(client.id, room)

    async with running(broker, "ours") as address, address.connect() as peer:
        at = (await broker.to_room(ROOM).send("said", 1)).at
        for since in (None, at):
            answer = await peer.request("join", {"room": ROOM, "since": since})
            assert (answer["event"], answer["data"]["code"]) == ("error", "FORBIDDEN")
