"""Rooms of a kind: who may be in them, how clients join and leave by themselves, and what their handlers get."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, HTTPException
from pydantic import BaseModel

from tests.support import Peer, ServerKind, eventually, running, settings
from velocity_ws import Broker, Client, ClientError, EventRouter, HookError, Message
from velocity_ws.sessions.ending import HANDLER_GRACE

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


async def said_in(peer: Peer, event: str, room: str, data: Any = None) -> Any:
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
        assert await said_in(peer, "message", "chat:7", {"text": "hi"}) == [client.id, "hi", 7, "chat:7"]
        assert await said_in(peer, "message", "game:chess:3") == [3, "chess", "game:chess:3", "message"]
        assert await said_in(peer, "other", "chat:7") == "chat:7"
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
        assert await said_in(peer, "message", "tea") is None
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


# --- join and leave


class Chats:
    """A broker with rooms ``chat:{chat_id}`` that clients can join, as long as the number is allowed.

    Attributes:
        allowed: the numbers.
        asked: the numbers that were asked about.
        errors: what ``on_error`` was told.
    """

    def __init__(self, **values: Any) -> None:
        self.broker = Broker(settings(**values))
        self.rooms = self.broker.rooms("chat:{chat_id}")
        self.allowed = set(range(1000))
        self.asked: list[int] = []
        self.errors: list[str] = []
        self.rooms.authorize(self.may_enter)
        self.broker.on_error(self.failed)

    async def may_enter(self, client: Client, chat_id: int, room: str) -> bool:
        assert room == f"chat:{chat_id}"
        self.asked.append(chat_id)
        return chat_id in self.allowed

    async def failed(self, client: Client, error: BaseException) -> None:
        self.errors.append(f"{type(error).__name__}: {error}")


@pytest.mark.parametrize("kind", BOTH)
async def test_a_client_joins_and_leaves_by_itself(kind: ServerKind) -> None:
    chats = Chats()
    broker = chats.broker

    @chats.rooms.on("message")
    async def message(client: Client, data: str, chat_id: int) -> None:
        await broker.to_room(f"chat:{chat_id}").send("message", data)

    async with running(broker, kind) as address, address.connect() as peer:
        assert await peer.request("join", {"room": "chat:7"}) == reply({"room": "chat:7"})
        await peer.send("message", "hi", room="chat:7")
        assert await peer.expect("message") == "hi"
        await peer.send("join", {"room": "chat:8"})
        assert await peer.expect("joined") == {"room": "chat:8"}
        assert sorted(broker.get_rooms()) == ["chat:7", "chat:8"]
        assert await peer.request("leave", {"room": "chat:7"}) == reply({"room": "chat:7"})
        await peer.send("leave", {"room": "chat:8"})
        assert await peer.expect("left") == {"room": "chat:8"}
        assert broker.get_rooms() == []
        assert await peer.request("leave", {"room": "chat:8"}) == reply({"room": "chat:8"}), "harmless"
        assert chats.asked == [7, 8]


def reply(data: Any) -> dict[str, Any]:
    return {"event": "reply", "id": 1, "data": data}


@pytest.mark.parametrize("event", ["join", "leave"])
@pytest.mark.parametrize("kind", BOTH)
async def test_what_is_refused_does_not_tell_which_rooms_there_are(kind: ServerKind, event: str) -> None:
    chats = Chats()
    broker = chats.broker
    broker.rooms("game:{game_id}")
    rooms = ["tea", "game:1", "chat:seven", "chat:", "chat:7:8", ""]
    if event == "join":
        rooms.append("chat:7")
        chats.allowed.clear()
    in_rooms(broker, "tea", "game:1")
    async with running(broker, kind) as address, address.connect() as peer:
        answers = [await peer.request(event, {"room": room}) for room in rooms]
        error = {"code": "FORBIDDEN", "message": "you may not be in this room"}
        assert answers == [{"event": "error", "id": 1, "data": error}] * len(rooms)
        assert sorted(broker.get_rooms()) == ["game:1", "tea"], "no client leaves what it cannot ask for"


async def test_what_authorize_raises_for_the_client_is_the_answer() -> None:
    broker = Broker(settings())

    @broker.rooms("chat:{chat_id}").authorize
    def may_enter(client: Client, chat_id: int) -> bool:  # in a thread
        raise ClientError("PAYMENT_REQUIRED", "pay first", price=chat_id)

    async with running(broker) as address, address.connect() as peer:
        answer = await peer.request("join", {"room": "chat:7"})
        assert answer["data"] == {"code": "PAYMENT_REQUIRED", "message": "pay first", "price": 7}
        assert broker.get_rooms() == []
        assert broker.get_stats().errors == 0


@pytest.mark.parametrize("data", [None, "chat:7", {}, {"room": 7}, {"room": None}, {"room": "x" * 257}, []])
@pytest.mark.parametrize("event", ["join", "leave"])
async def test_data_of_another_form_is_invalid(event: str, data: Any) -> None:
    async with running(Chats().broker) as address, address.connect() as peer:
        assert await refused(peer, event, data) == "INVALID_DATA"


@pytest.mark.parametrize("event", ["join", "leave"])
async def test_without_an_authorize_there_are_no_such_events(event: str) -> None:
    broker = Broker(settings())
    broker.rooms("chat:{chat_id}").on("message")(lambda client: None)
    async with running(broker) as address, address.connect() as peer:
        assert await refused(peer, event, {"room": "chat:7"}) == "UNKNOWN_EVENT"


async def test_handlers_of_these_names_get_them_all() -> None:
    chats = Chats()
    chats.broker.on("join")(lambda data: ["mine", data])
    chats.broker.on("leave")(lambda data: ["mine", data])
    async with running(chats.broker) as address, address.connect() as peer:
        for event in ("join", "leave"):
            assert await peer.request(event, {"room": "chat:7"}) == reply(["mine", {"room": "chat:7"}])
        assert chats.asked == []


async def test_on_message_hooks_see_and_refuse_them() -> None:
    chats = Chats()
    seen: list[str] = []

    @chats.broker.on_message
    async def guard(message: Message) -> None:
        seen.append(message.event)
        if message.data["room"] == "chat:13":
            raise ClientError("UNLUCKY")

    async with running(chats.broker) as address, address.connect() as peer:
        assert await refused(peer, "join", {"room": "chat:13"}) == "UNLUCKY"
        assert await peer.request("join", {"room": "chat:7"}) == reply({"room": "chat:7"})
        assert await peer.request("leave", {"room": "chat:7"}) == reply({"room": "chat:7"})
        assert seen == ["join", "join", "leave"]
        assert chats.asked == [7]


async def test_the_rate_limit_counts_them() -> None:
    chats = Chats(rate_limit=0.01, rate_burst=1)
    async with running(chats.broker) as address, address.connect() as peer:
        assert await peer.request("join", {"room": "chat:7"}) == reply({"room": "chat:7"})
        assert (await peer.request("join", {"room": "chat:8"}))["event"] == "rate_limit_exceeded"


async def test_a_room_that_a_client_is_in_already_is_asked_about_again() -> None:
    chats = Chats()
    told: list[str] = []
    chats.rooms.on_join(lambda client, room: told.append("came"))
    chats.rooms.on_leave(lambda client, room: told.append("went"))
    in_rooms(chats.broker, "chat:7")
    async with running(chats.broker) as address, address.connect() as peer:
        for _ in range(2):
            assert await peer.request("join", {"room": "chat:7"}) == reply({"room": "chat:7"})
        assert (chats.asked, told) == ([7, 7], ["came"])
        chats.allowed.clear()
        await peer.send("join", {"room": "chat:7"}, id=1)
        assert await peer.expect("left") == {"room": "chat:7", "reason": "FORBIDDEN"}
        assert (await peer.receive())["data"]["code"] == "FORBIDDEN"
        assert chats.broker.get_rooms() == []
        assert told == ["came", "went"]


async def test_the_application_does_not_ask_when_it_puts_a_client_into_a_room() -> None:
    chats = Chats()
    chats.allowed.clear()
    in_rooms(chats.broker, "chat:7")
    async with running(chats.broker) as address, address.connect() as peer:
        await eventually(chats.broker.get_rooms)
        assert chats.asked == []
        assert await peer.request("leave", {"room": "chat:7"}) == reply({"room": "chat:7"}), "it may leave by itself"
        assert chats.broker.get_rooms() == []


async def test_a_client_is_in_so_many_rooms_by_its_own_wish_at_most() -> None:
    chats = Chats(max_rooms_per_client=3)
    broker = chats.broker
    in_rooms(broker, "chat:100", "tea", "chat:101")
    async with running(broker) as address, address.connect() as peer:
        for number in range(16):  # all at once
            await peer.send("join", {"room": f"chat:{number}"}, id=number)
        answers = [await peer.receive() for _ in range(16)]
        assert [answer["event"] for answer in answers] == ["reply"] * 3 + ["error"] * 13
        assert {answer["data"]["code"] for answer in answers[3:]} == {"TOO_MANY_ROOMS"}
        assert answers[3]["data"]["limit"] == 3
        assert chats.asked == [0, 1, 2]
        assert len(broker.get_rooms()) == 6, "those of the application are not counted"
        assert (await peer.request("join", {"room": "chat:1"}))["event"] == "reply", "it is in"
        assert (await peer.request("join", {"room": "chat:100"}))["event"] == "reply", "it is in"
        await peer.request("leave", {"room": "chat:1"})
        assert (await peer.request("join", {"room": "chat:5"}))["event"] == "reply"
        assert await refused(peer, "join", {"room": "chat:6"}) == "TOO_MANY_ROOMS"
        (client,) = broker.get_clients()
        await broker.leave_room(client.id, "chat:5")
        chats.allowed -= {6}
        assert await refused(peer, "join", {"room": "chat:6"}) == "FORBIDDEN"
        assert (await peer.request("join", {"room": "chat:8"}))["event"] == "reply", "what was refused takes no place"
        assert await refused(peer, "join", {"room": "chat:9"}) == "TOO_MANY_ROOMS"


async def test_no_limit_is_no_limit() -> None:
    chats = Chats(max_rooms_per_client=0, rate_limit=0)
    async with running(chats.broker) as address, address.connect() as peer:
        for number in range(150):
            assert (await peer.request("join", {"room": f"chat:{number}"}))["event"] == "reply"


FAILURES: list[Any] = ["yes", None, 1, OSError("the database is away")]


@pytest.mark.parametrize("result", FAILURES)
async def test_an_authorize_that_does_not_say_is_an_internal_error_and_lets_nobody_in(result: Any) -> None:
    chats = Chats()
    games = chats.broker.rooms("game:{game_id}")

    @games.authorize
    async def may_enter(client: Client) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    async with running(chats.broker) as address, address.connect() as peer:
        assert await refused(peer, "join", {"room": "game:1"}) == "INTERNAL_ERROR"
        assert chats.broker.get_rooms() == []
        assert len(chats.errors) == 1
        assert ("OSError" if isinstance(result, Exception) else "returns a bool") in chats.errors[0]


@pytest.mark.parametrize("swallows", [False, True])
@pytest.mark.parametrize("kind", BOTH)
async def test_an_authorize_that_takes_too_long_is_cancelled(
    kind: ServerKind, swallows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    chats = Chats()
    cancelled = asyncio.Event()

    @chats.broker.rooms("game:{game_id}").authorize
    async def may_enter(client: Client) -> bool:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            if not swallows:
                raise
        return True

    async with running(chats.broker, kind) as address, address.connect() as peer:
        with monkeypatch.context() as patch:
            patch.setattr("velocity_ws.sessions.permission.AUTHORIZE_TIMEOUT", 0.05)
            assert await refused(peer, "join", {"room": "game:1"}) == "INTERNAL_ERROR"
        assert cancelled.is_set()
        assert chats.broker.get_rooms() == []
        assert "took more than 0.05 s" in chats.errors[0]
        assert await peer.request("join", {"room": "chat:7"}) == reply({"room": "chat:7"}), "the client goes on"


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("who", ["client", "server"])
async def test_an_authorize_is_cancelled_when_its_client_goes(kind: ServerKind, who: str) -> None:
    chats = Chats()
    started, cancelled = asyncio.Event(), asyncio.Event()

    @chats.broker.rooms("game:{game_id}").authorize
    async def may_enter(client: Client) -> bool:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return True

    async with running(chats.broker, kind) as address:
        async with address.connect() as peer:
            await peer.send("join", {"room": "game:1"}, id=1)
            await started.wait()
            (client,) = chats.broker.get_clients()
            if who == "server":
                await client.disconnect()
            else:
                peer.ws.transport.abort()
            async with asyncio.timeout(0.9 * HANDLER_GRACE):  # and not what a handler has to finish
                await cancelled.wait()
        await eventually(lambda: not chats.broker.node.lifecycle.sessions)
        assert chats.broker.get_rooms() == []
        assert chats.errors == []


async def test_an_authorize_that_disconnects_its_client_lets_nobody_in() -> None:
    chats = Chats()

    @chats.broker.rooms("game:{game_id}").authorize
    async def may_enter(client: Client) -> bool:
        await client.disconnect(4003, "go away")
        return True

    async with running(chats.broker) as address, address.connect() as peer:
        await peer.send("join", {"room": "game:1"}, id=1)
        assert await peer.closed() == (4003, "go away")
        await eventually(lambda: not chats.broker.node.lifecycle.sessions)
        assert (chats.broker.get_rooms(), chats.errors) == ([], [])


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


# --- what handlers elsewhere have, those of rooms have too


async def test_kinds_of_a_router_have_its_prefix_on_their_events_and_not_on_their_patterns() -> None:
    broker, router = Broker(settings()), EventRouter()
    chats = router.rooms("chat:{chat_id}")
    chats.authorize(lambda client, chat_id: True)

    @chats.on("said")
    async def said(chat_id: int) -> int:
        return chat_id

    broker.include(router, prefix="chat.")
    async with running(broker) as address, address.connect() as peer:
        assert await peer.request("join", {"room": "chat:7"}) == reply({"room": "chat:7"})
        assert await said_in(peer, "chat.said", "chat:7") == 7
        assert await refused(peer, "said", room="chat:7") == "UNKNOWN_EVENT"


async def test_authorize_and_handlers_have_dependencies_and_raise_http_exceptions() -> None:
    broker = Broker(settings())
    chats = broker.rooms("chat:{chat_id}")
    closed: list[str] = []

    async def database() -> AsyncIterator[set[int]]:
        try:
            yield {7}
        finally:
            closed.append("database")

    @chats.authorize
    async def may_enter(client: Client, chat_id: int, db: Annotated[set[int], Depends(database)]) -> bool:
        if chat_id > 100:
            raise HTTPException(404, "no such chat")
        return chat_id in db

    @chats.on("said")
    async def said(chat_id: int, db: Annotated[set[int], Depends(database)]) -> bool:
        return chat_id in db

    async with running(broker) as address, address.connect() as peer:
        assert await peer.request("join", {"room": "chat:7"}) == reply({"room": "chat:7"})
        assert await refused(peer, "join", {"room": "chat:8"}) == "FORBIDDEN"
        assert await refused(peer, "join", {"room": "chat:101"}) == "NOT_FOUND"
        assert await said_in(peer, "said", "chat:7") is True
        assert closed == ["database"] * 4


async def test_a_concurrent_handler_of_a_room_does_not_hold_up_what_comes_next() -> None:
    broker = Broker(settings())
    in_rooms(broker, "chat:7")
    gate = asyncio.Event()

    @broker.rooms("chat:{chat_id}").on("ask", concurrent=True)
    async def ask(chat_id: int) -> int:
        await gate.wait()
        return chat_id

    @broker.on("open")
    async def open_gate() -> None:
        gate.set()

    async with running(broker) as address, address.connect() as peer:
        await peer.send("ask", id=1, room="chat:7")
        await peer.send("open", id=2)
        answers = [await peer.receive(), await peer.receive()]
        assert {answer["id"]: answer["data"] for answer in answers} == {1: 7, 2: None}
