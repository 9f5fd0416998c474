"""Hooks that are bound methods, instances, partials and class methods: everything that can be called."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import Depends
from starlette.requests import HTTPConnection

from tests.support import eventually, running, settings
from velocity_ws import Broker, Client, Close, EventRouter, Message


async def get_session() -> str:
    return "session"


class Chat:
    """What an application keeps beside its hooks, as attributes of one object."""

    def __init__(self) -> None:
        self.saw: list[str] = []

    async def authenticate(self, request: HTTPConnection) -> str:
        self.saw.append("authenticate")
        return "ann"

    def connect(self, client: Client) -> None:
        self.saw.append("connect")

    async def message(self, client: Client, message: Message) -> None:
        self.saw.append(f"message {message.event}")

    async def said(self, client: Client, data: int, db: Annotated[str, Depends(get_session)]) -> list[Any]:
        self.saw.append("said")
        return [data, db]

    def binary(self, client: Client, data: bytes) -> None:
        self.saw.append("binary")

    async def joined(self, client: Client, room: str) -> None:
        self.saw.append(f"joined {room}")

    def left(self, client: Client, room: str) -> None:
        self.saw.append(f"left {room}")

    async def told(self, data: str, node: str) -> None:
        self.saw.append(f"told {data}")

    async def failed(self, client: Client, error: Exception) -> None:
        self.saw.append(f"failed {error!r}")

    async def gone(self, client: Client, close: Close) -> None:
        self.saw.append("gone")

    def may_enter(self, client: Client, chat_id: int) -> bool:
        self.saw.append(f"may enter {chat_id}")
        return True

    async def came(self, client: Client, chat_id: int) -> None:
        self.saw.append(f"came {chat_id}")

    async def in_room(self, client: Client, data: str, chat_id: int) -> str:
        return f"{data} in {chat_id}"

    async def fail(self, client: Client) -> None:
        raise KeyError("it")


@pytest.mark.parametrize("on_router", [False, True])
async def test_bound_methods_can_be_every_hook(on_router: bool) -> None:
    broker, chat = Broker(settings()), Chat()
    target: Broker | EventRouter = EventRouter() if on_router else broker
    target.authenticate(chat.authenticate)
    target.on_connect(chat.connect)
    target.on_message(chat.message)
    target.on("said")(chat.said)
    target.on("fail", concurrent=True)(chat.fail)
    target.on_binary(chat.binary)
    target.on_join(chat.joined)
    target.on_leave(chat.left)
    target.on_node("tell")(chat.told)
    target.on_error(chat.failed)
    target.on_disconnect(chat.gone)
    chats = target.rooms("chat:{chat_id}")
    chats.authorize(chat.may_enter)
    chats.on_join(chat.came)
    chats.on("say")(chat.in_room)
    if isinstance(target, EventRouter):
        broker.include(target)
    async with running(broker) as address:
        async with address.connect() as peer:
            assert (await peer.request("said", "7"))["data"] == [7, "session"]
            assert (await peer.request("join", {"room": "chat:5"}))["event"] == "reply"
            await peer.send("say", "hello", id=2, room="chat:5")
            assert (await peer.receive())["data"] == "hello in 5"
            assert (await peer.request("fail"))["data"]["code"] == "INTERNAL_ERROR"
            await peer.ws.send(b"b")
            await broker.to_nodes().send("tell", "all")
            await eventually(lambda: "told all" in chat.saw and "binary" in chat.saw)
        await eventually(lambda: "gone" in chat.saw)
    assert set(chat.saw) == {
        *("authenticate", "connect", "message said", "message join", "message say", "message fail", "said"),
        *(
            "may enter 5",
            "joined chat:5",
            "came 5",
            "failed KeyError('it')",
            "binary",
            "told all",
            "left chat:5",
            "gone",
        ),
    }


class Echo:
    """An instance that is called."""

    async def __call__(self, client: Client, data: int) -> int:
        return data

    def method(self, prefix: str, client: Client, data: int) -> str:
        return f"{prefix}{data}"

    @classmethod
    async def of_class(cls, client: Client, data: int) -> str:
        return f"{cls.__name__} {data}"

    @staticmethod
    def static(client: Client, data: int) -> int:
        return -data


@pytest.mark.parametrize(
    ("handler", "answer"),
    [
        (Echo(), 7),
        (functools.partial(Echo().method, "n = "), "n = 7"),
        (functools.partial(functools.partial(Echo())), 7),
        (Echo.of_class, "Echo 7"),
        (Echo().of_class, "Echo 7"),
        (Echo.static, -7),
    ],
)
async def test_whatever_can_be_called_can_be_a_handler(handler: Callable[..., Any], answer: Any) -> None:
    broker = Broker(settings())
    broker.on("x")(handler)
    async with running(broker) as address, address.connect() as peer:
        assert (await peer.request("x", "7"))["data"] == answer
