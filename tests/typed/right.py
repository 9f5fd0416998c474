"""What type checkers have to let pass."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any, assert_type

from fastapi import Depends
from pydantic import BaseModel
from starlette.requests import HTTPConnection
from starlette.responses import Response

from velocity_ws import Accept, Broker, Client, Close, Emitter, Entry, EventRouter, History, Joined, Message, Sent


class User(BaseModel):
    id: int


class Comment(BaseModel):
    text: str


class Session: ...


class Other: ...


async def get_session(client: Client[User], broker: Broker[User]) -> AsyncIterator[Session]:
    yield Session()


Db = Annotated[Session, Depends(get_session)]

broker = Broker[User]()
plain = Broker()
nobodies = Broker[User | None]()
router = EventRouter[User]()
chats = broker.rooms("chat:{chat_id}")
logs = broker.rooms("log:{log_id}", history=History(size=10, ttl="1h", mode="latest"), presence=True, rewind=True)


@broker.authenticate
async def authenticate(request: HTTPConnection, db: Db) -> User | None:
    return User(id=1)


@broker.on_connect
async def connect(client: Client[User], db: Db) -> None:
    assert_type(client.user, User)
    await client.set_user(User(id=1))
    await client.set_user(None)
    await client.set_user(check(""), expires_at=1_900_000_000)
    await client.set_user(Accept(User(id=1), expires_at=datetime.now(UTC), headers=[("set-cookie", "a=1")]))
    await client.set_user(Accept(None))
    assert_type(client.expires_at, datetime | None)


def check(token: str) -> Accept[User]:
    return Accept(User(id=1), 1_900_000_000.5, headers=Response().headers)


@router.authenticate
async def authenticate_until(request: HTTPConnection) -> Accept[User]:
    assert_type(check("").user, User)
    return check("")


@broker.refresh
async def refresh(client: Client[User], data: str) -> Accept[User]:
    return check(data)


@broker.authenticate
def authenticate_in_thread(request: HTTPConnection) -> User | None:
    return None


@broker.authenticate
async def refuses(db: Db) -> None: ...
@plain.authenticate
async def of_anything(request: HTTPConnection) -> Other:
    return Other()


@nobodies.authenticate
async def of_nobody(request: HTTPConnection) -> User | None:
    return None


@chats.presence_info
async def info(user: User, db: Db) -> dict[str, str]:
    return {"name": str(user.id)}


@chats.presence_info
def info_of_all() -> dict[str, str]:
    return {}


@nobodies.rooms("a", presence=True).presence_info
def info_of_somebody(user: User) -> dict[str, str]:
    return {"name": str(user.id)}


@nobodies.rooms("b", presence=True).presence_info
def info_of_anybody(user: User | None) -> dict[str, str]:
    return {}


@plain.rooms("c", presence=True).presence_info
def info_of_anything(user: Other) -> dict[str, str]:
    return {}


@router.refresh
def refresh_in_thread(data: str, client: Client[User]) -> User | None:
    return None


async def called() -> None:
    await refresh(plain.get_clients()[0], "")


@broker.on_connect
def connect_in_thread(client: Client[User]) -> None: ...
@broker.on_connect
async def connect_of_anyone(client: Client) -> None:
    assert_type(client.user, Any)


@broker.on_connect
async def connect_without() -> None: ...
@broker.on_message
async def guard(client: Client[User], message: Message, broker: Broker[User]) -> None: ...
@broker.on_message
def seen(message: Message) -> None: ...
@broker.on_binary
async def binary(client: Client[User], data: bytes) -> None: ...
@broker.on("said")
async def said(client: Client[User], data: Comment, db: Db, limit: int = 5) -> list[Comment]:
    return [data]


@broker.on("typing", rate=5, burst=10, concurrent=True)
def typing(data: str) -> None: ...
@broker.on_join
async def joined(client: Client[User], room: str) -> None: ...
@broker.on_leave
def left(room: str) -> None: ...
@broker.on_disconnect
async def gone(client: Client[User], close: Close) -> None: ...
@broker.on_disconnect
async def gone_why(close: Close) -> None: ...
@broker.on_error
async def failed(client: Client[User] | None, error: Exception) -> None: ...
@broker.on_error
def failed_why(error: BaseException) -> None: ...
@chats.authorize
async def may_enter(client: Client[User], chat_id: int, db: Db) -> bool:
    return client.user.id == chat_id


@chats.on("message")
async def message(client: Client[User], data: Comment, chat_id: int) -> None: ...
@chats.on_join
async def came(client: Client[User], chat_id: int) -> None: ...
@router.on("edited")
async def edited(client: Client[User], data: Comment) -> None: ...
@plain.on_connect
async def greet(client: Client) -> None: ...


class Chat:
    def __init__(self, broker: Broker[User]) -> None:
        broker.on_connect(self.connect)
        broker.on("said again")(self.said)

    async def connect(self, client: Client[User]) -> None: ...
    async def said(self, client: Client[User], data: Comment) -> None: ...


async def remembered(emitter: Emitter) -> None:
    sent = await broker.to_room("log:1").send("said", {"a": 1}, dedupe="form 7")
    assert_type(sent, Sent)
    assert_type(sent.at, str | None)
    assert_type(sent.duplicate, bool)
    count: int = await broker.broadcast("said")
    assert_type(broker.sync.to_room("log:1").send("said", dedupe=None), Sent)
    joined = await broker.join_room("x", "log:1", since=sent.at)
    assert_type(joined, Joined)
    assert_type(joined.recovered, bool | None)
    assert_type(await broker.join_room("x", "log:1", since=count), Joined)
    assert_type(await emitter.history("log:1", since=joined.at, limit=5, reverse=True), list[Entry])
    assert_type(broker.sync.history("log:1"), list[Entry])
    for event, data, at, time in await broker.history("log:1"):
        assert_type((event, data, at, time), tuple[str, Any, str, float])
    await broker.clear_history("log:1")


broker.include(router, prefix="comments.")
assert_type(broker.get_client("x"), Client[User] | None)
assert_type(broker.get_clients(), list[Client[User]])
assert_type(plain.get_clients(), list[Client[Any]])
