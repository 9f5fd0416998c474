"""Rooms of a kind: who may be in them, how clients join and leave by themselves, and what their handlers get."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from tests.support import Peer, ServerKind, eventually, running, settings
from velocity_ws import Broker, Client, EventRouter, HookError, Message

BOTH: tuple[ServerKind, ...] = ("ours", "websockets-sansio")


class ChatMessage(BaseModel):
    text: str


async def refused(peer: Peer, event: str, data: Any = None, **more: Any) -> str:
    """Send a request that is answered with an error; its code."""
    await peer.send(event, data, id=1, **more)
    message = await peer.receive()
    assert message["event"] == "error", message
    assert message["id"] == 1
    code: str = message["data"]["code"]
    return code


async def said(peer: Peer, event: str, room: str, data: Any = None) -> Any:
    """Send a request to a room; what it is answered."""
    await peer.send(event, data, id=1, room=room)
    message = await peer.receive()
    assert message["event"] == "reply", message
    return message["data"]


def in_rooms(broker: Broker, *rooms: str) -> None:
    """Have the application put every client into rooms."""

    @broker.on_connect
    async def put_in(client: Client) -> None:
        for room in rooms:
            await broker.join_room(client.id, room)


# --- messages to a room


@pytest.mark.parametrize("kind", BOTH)
async def test_a_handler_of_the_kind_gets_what_a_member_sends_to_a_room(kind: ServerKind) -> None:
    broker = Broker(settings())
    in_rooms(broker, "chat:7", "game:chess:3")
    chats, games = broker.rooms("chat:{chat_id}"), broker.rooms("game:{name}:{number}")

    @chats.on("message")
    async def in_chat(client: Client, data: ChatMessage, chat_id: int, room: str) -> list[Any]:
        return [client.id, data.text, chat_id, room]

    @games.on("message")
    def in_game(number: int, name: str, message: Message) -> list[Any]:
        return [number, name, message.room, message.event]

    @broker.on("message")
    async def elsewhere(message: Message) -> str:
        return f"everywhere else: {message.room}"

    @broker.on("other")
    async def other(message: Message) -> str | None:
        return message.room

    async with running(broker, kind) as address, address.connect() as peer:
        await eventually(lambda: "game:chess:3" in broker.get_rooms())
        (client,) = broker.get_clients()
        assert await said(peer, "message", "chat:7", {"text": "hi"}) == [client.id, "hi", 7, "chat:7"]
        assert await said(peer, "message", "game:chess:3") == [3, "chess", "game:chess:3", "message"]
        assert await said(peer, "other", "chat:7") == "chat:7"
        assert (await peer.request("message"))["data"] == "everywhere else: None"
        assert (await peer.request("other"))["data"] is None
        assert await refused(peer, "message", {"text": 7}, room="chat:7") == "INVALID_DATA"


@pytest.mark.parametrize("has_kinds", [True, False])
async def test_what_is_sent_to_a_room_by_somebody_who_is_not_in_it_reaches_no_hook(has_kinds: bool) -> None:
    broker = Broker(settings())
    in_rooms(broker, "tea")
    seen: list[str | None] = []
    if has_kinds:
        broker.rooms("chat:{chat_id}").on("message")(lambda client: seen.append("handled"))

    @broker.on_message
    async def see(message: Message) -> None:
        seen.append(message.room)

    @broker.on("message")
    async def handler(client: Client) -> None:
        """Answers those who are in the room."""

    async with running(broker) as address, address.connect() as peer:
        await eventually(broker.get_rooms)
        for room in ("chat:7", "", "no such room"):
            assert await refused(peer, "message", room=room) == "FORBIDDEN"
        assert seen == []
        assert await said(peer, "message", "tea") is None
        assert seen == ["tea"]
        assert broker.get_stats().invalid == 3


async def test_a_member_that_an_on_message_hook_takes_out_of_the_room_is_not_handled_there() -> None:
    broker = Broker(settings())
    in_rooms(broker, "tea")

    @broker.on_message
    async def throw_out(client: Client) -> None:
        await broker.leave_room(client.id, "tea")

    @broker.on("message")
    async def handler(client: Client) -> None:
        raise AssertionError

    async with running(broker) as address, address.connect() as peer:
        await eventually(broker.get_rooms)
        assert await refused(peer, "message", room="tea") == "FORBIDDEN"


async def test_a_room_whose_parameters_are_not_valid_has_no_handler_even_for_its_members() -> None:
    broker = Broker(settings())
    in_rooms(broker, "chat:seven")

    @broker.rooms("chat:{chat_id}").on("message")
    async def handler(chat_id: int) -> int:
        return chat_id

    async with running(broker) as address, address.connect() as peer:
        await eventually(broker.get_rooms)
        assert await refused(peer, "message", room="chat:seven") == "FORBIDDEN"
        assert broker.get_stats().errors == 0


@pytest.mark.parametrize("room", [7, ["tea"], {}, True, "x" * 257])
async def test_a_room_that_is_no_name_is_an_invalid_event_that_says_so(room: Any) -> None:
    broker = Broker(settings())
    async with running(broker) as address, address.connect() as peer:
        await peer.send("message", None, id=5, room=room)
        answer = await peer.receive()
        assert answer["id"] == 5
        assert answer["data"]["code"] == "INVALID_EVENT"
        assert "room" in answer["data"]["message"]


async def test_a_null_room_is_none() -> None:
    broker = Broker(settings())

    @broker.on("message")
    async def handler(message: Message) -> bool:
        return message.room is None

    async with running(broker) as address, address.connect() as peer:
        await peer.send("message", None, id=1, room=None)
        assert (await peer.receive())["data"] is True


# --- those who come and go


@pytest.mark.parametrize("kind", BOTH)
async def test_hooks_of_a_kind_are_told_within_those_of_the_broker(kind: ServerKind) -> None:
    broker = Broker(settings())
    chats = broker.rooms("chat:{chat_id}")
    told: list[Any] = []

    @broker.on_join
    async def joined(client: Client, room: str) -> None:
        told.append(("broker", "join", room))

    @broker.on_leave
    async def left(client: Client, room: str) -> None:
        told.append(("broker", "leave", room))

    @chats.on_join
    async def came(client: Client, chat_id: int) -> None:
        told.append(("kind", "join", chat_id))

    @chats.on_leave
    def went(client: Client, chat_id: int, room: str) -> None:
        told.append(("kind", "leave", chat_id))

    async with running(broker, kind) as address, address.connect() as peer:
        await eventually(broker.get_clients)
        (client,) = broker.get_clients()
        await broker.join_room(client.id, "chat:7")
        await broker.join_room(client.id, "tea")
        await broker.leave_room(client.id, "chat:7")
        assert told == [
            ("broker", "join", "chat:7"),
            ("kind", "join", 7),
            ("broker", "join", "tea"),
            ("kind", "leave", 7),
            ("broker", "leave", "chat:7"),
        ]
        told.clear()
        await broker.join_room(client.id, "chat:8")
        await peer.ws.close()
        await eventually(lambda: ("broker", "leave", "tea") in told)
        assert told[2:4] == [("kind", "leave", 8), ("broker", "leave", "chat:8")]


async def test_hooks_of_a_kind_alone_are_told_of_its_rooms_alone() -> None:
    broker = Broker(settings())
    told: list[Any] = []
    broker.rooms("chat:{chat_id}").on_leave(lambda client, chat_id: told.append(chat_id))
    broker.rooms("game:{game_id}").on_join(lambda client, game_id: told.append(game_id))
    async with running(broker) as address, address.connect():
        await eventually(broker.get_clients)
        (client,) = broker.get_clients()
        for room in ("chat:7", "tea", "game:3"):
            await broker.join_room(client.id, room)
            await broker.leave_room(client.id, room)
        assert told == ["7", "3"]


async def test_a_hook_whose_parameter_is_not_valid_is_reported_and_the_others_are_told() -> None:
    broker = Broker(settings())
    chats = broker.rooms("chat:{chat_id}")
    told: list[Any] = []
    chats.on_join(lambda client, room: told.append(room))
    broker.on_error(lambda client, error: told.append(str(error)))

    @chats.on_join
    async def came(client: Client, chat_id: int) -> None:
        raise AssertionError

    async with running(broker) as address, address.connect():
        await eventually(broker.get_clients)
        (client,) = broker.get_clients()
        await broker.join_room(client.id, "chat:seven")
        assert told == ["chat:seven", "the room's chat_id is not valid"]


def test_rooms_are_registered_once() -> None:
    broker = Broker(settings())
    broker.rooms("chat:{chat_id}")
    with pytest.raises(HookError, match="registered already"):
        broker.rooms("chat:{other}")


# --- presence


async def presence(peer: Peer) -> dict[str, Any]:
    """The next message, which tells who is in a room."""
    data: dict[str, Any] = await peer.expect("presence")
    return data


@pytest.mark.parametrize("also", [(), ["tea"], lambda room: room == "tea"])
async def test_rooms_of_a_kind_have_presence_beside_those_of_the_broker(also: Any) -> None:
    broker = Broker(settings(), presence=also, user_id=lambda user: user)
    broker.authenticate(lambda request: request.query_params["user"])
    broker.rooms("chat:{chat_id}", presence=True)
    broker.rooms("game:{game_id}")
    async with running(broker) as address, address.connect("/ws?user=ann") as ann, address.connect("/ws?user=bob"):
        await eventually(lambda: len(broker.get_clients()) == 2)
        for client in broker.get_clients():
            await broker.join_room(client.id, "game:1")
            await broker.join_room(client.id, "chat:7")
        assert (await presence(ann)) == {"room": "chat:7", "users": {"ann": 1, "bob": 1}, "anonymous": 0, "full": True}
        for client in broker.get_clients():
            await broker.join_room(client.id, "tea")
        if also:
            assert (await presence(ann))["room"] == "tea"
        await broker.to_room("tea").send("last")
        await ann.expect("last")


async def test_presence_of_a_kind_is_too_late_on_a_broker_that_has_begun_without() -> None:
    broker = Broker(settings())
    router = EventRouter()
    router.rooms("chat:{chat_id}", presence=True)
    async with broker:
        with pytest.raises(HookError, match="before it starts"):
            broker.rooms("game:{game_id}", presence=True)
        with pytest.raises(HookError, match="before it starts"):
            broker.include(router)
        broker.rooms("game:{game_id}")
    broker.include(router)
    async with broker:
        broker.rooms("tea:{name}", presence=True)
