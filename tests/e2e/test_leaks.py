"""What a closed connection leaves behind: nothing, without waiting for the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, HTTPException
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from websockets.exceptions import InvalidStatus

from tests.support import DEADLINE, Address, eventually, running, serve, settings
from velocity_ws import Accept, Broker, Client, ClientGone, ClientTimeout, Reject

KINDS = (
    "WebSocketProtocol",
    "Reader",
    "ASGIEvents",
    "Writer",
    "Session",
    "Inbox",
    "ConcurrentHandlers",
    "Asks",
    "EagerTask",
    "Client",
    "TransportOutbox",
    "HTTPConnection",
)
COUNT = 20


@pytest.fixture(autouse=True)
def _without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def alive() -> Counter[str]:
    """How many there are of each kind."""
    found = Counter(type(thing).__name__ for thing in gc.get_objects())
    return Counter({kind: found[kind] for kind in KINDS})


async def come_and_go(server: Address) -> None:
    async with server.connect() as peer:
        await peer.send("echo", 1, id=1)
        await peer.receive()
        await (await peer.ws.ping())


async def test_of_a_broker() -> None:
    broker = Broker(settings())

    @broker.on_connect
    async def came(client: Client) -> None:
        await broker.join_room(client.id, "x")
        await client.ping()

    @broker.on("echo")
    async def echo(data: int) -> int:
        return data

    async with running(broker, "ours") as server:
        await come_and_go(server)
        await eventually(lambda: not broker.node.lifecycle.sessions)
        gc.collect()
        before = alive()
        for _ in range(COUNT):
            await come_and_go(server)
        await eventually(lambda: not broker.node.lifecycle.sessions)
        await eventually(lambda: alive() - before == Counter())


async def get_plain(client: Client) -> AsyncIterator[Client]:
    yield client


def get_in_thread(client: Annotated[Client, Depends(get_plain)]) -> Iterator[Client]:
    yield client


async def test_of_one_whose_hooks_have_dependencies() -> None:
    broker = Broker(settings())

    @broker.on_connect
    async def came(client: Client, same: Annotated[Client, Depends(get_in_thread)]) -> None: ...

    @broker.on_message
    async def guard(client: Client, same: Annotated[Client, Depends(get_plain)]) -> None: ...

    @broker.on("echo")
    async def echo(data: int, client: Annotated[Client, Depends(get_in_thread)]) -> int:
        return data

    @broker.on("refuse")
    async def refuse(client: Annotated[Client, Depends(get_in_thread)]) -> None:
        raise HTTPException(403)

    @broker.on("fail", concurrent=True)
    async def fail(client: Annotated[Client, Depends(get_in_thread)]) -> None:
        raise HTTPException(409)  # and nothing that is logged, as pytest keeps its traceback

    async def come_and_fail(server: Address) -> None:
        async with server.connect() as peer:
            await peer.request("refuse")
            await peer.request("fail")
            await peer.request("echo", 1)

    async with running(broker, "ours") as server:
        await come_and_fail(server)
        await eventually(lambda: not broker.node.lifecycle.sessions)
        gc.collect()
        before = alive()
        for _ in range(COUNT):
            await come_and_fail(server)
        await eventually(lambda: not broker.node.lifecycle.sessions)
        await eventually(lambda: alive() - before == Counter())


async def test_of_clients_that_join_by_themselves() -> None:
    broker = Broker(settings())
    chats = broker.rooms("chat:{chat_id}")

    @chats.authorize
    async def may_enter(client: Client, chat_id: int) -> bool:
        await asyncio.sleep(0)
        return chat_id == 7

    @chats.on_leave
    async def went(client: Client) -> None:
        await asyncio.sleep(0)

    async with running(broker, "ours") as server:

        async def in_and_out() -> None:
            async with server.connect() as peer:
                for room in ("chat:7", "chat:8", "chat:eight", "tea"):
                    await peer.request("join", {"room": room})
                await peer.send("message", room="chat:7")
                await peer.receive()

        await in_and_out()
        await eventually(lambda: not broker.node.lifecycle.sessions)
        gc.collect()
        before = alive()
        for _ in range(COUNT):
            await in_and_out()
        await eventually(lambda: not broker.node.lifecycle.sessions)
        await eventually(lambda: alive() - before == Counter())


async def test_of_logins_that_would_have_ended_later_were_renewed_or_are_over() -> None:
    broker = Broker(settings(expiry_grace=0))

    @broker.authenticate
    async def authenticate() -> Accept:
        return Accept("ann", expires_at=time.time() + 10.0**8)

    @broker.refresh
    async def refresh(client: Client, data: float) -> Accept:
        return Accept("ann", expires_at=time.time() + data)

    async with running(broker, "ours") as server:

        async def log_in(end: float) -> None:
            async with server.connect() as peer:
                await peer.expect("session")
                for data in (10.0**9, end):
                    await peer.send("refresh", data, id=1)
                    await peer.expect("session")
                    await peer.expect("reply")
                if end < 1:
                    await peer.expect("session_expired")
                    assert await peer.closed() == (4401, "session expired")
            await eventually(lambda: not broker.node.lifecycle.sessions)

        await log_in(0.05)
        await log_in(10.0**9)
        gc.collect()
        before = alive()
        for _ in range(COUNT // 2):
            await log_in(0.05)
            await log_in(10.0**9)
        await eventually(lambda: alive() - before == Counter())
        assert len(broker.node.logins) == 0


async def test_of_one_that_was_not_read_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velocity_ws.websocket.peer.INTERVAL", DEADLINE * 10)
    broker = Broker(settings(rate_limit=0, read_buffer_size=1))
    release = asyncio.Event()

    @broker.on("wait")
    async def wait(data: int) -> int:
        await release.wait()
        return data

    async with running(broker, "ours") as server:

        async def stuck() -> None:
            release.clear()
            async with server.connect() as peer:
                for number in range(4):
                    await peer.send("wait", number, id=number)
                await eventually(lambda: any(session.inbox.is_full for session in broker.node.lifecycle.sessions))
                release.set()
                for _ in range(4):
                    await peer.receive()
            await eventually(lambda: not broker.node.lifecycle.sessions)

        await stuck()
        gc.collect()
        before = alive()
        for _ in range(COUNT):
            await stuck()
        await eventually(lambda: alive() - before == Counter())


async def test_of_one_with_concurrent_handlers() -> None:
    broker = Broker(settings(rate_limit=0))

    @broker.on("late", concurrent=True)
    async def late(client: Client, data: int) -> int:
        await asyncio.sleep(0)
        return data

    async with running(broker, "ours") as server:

        async def ask() -> None:
            async with server.connect() as peer:
                for number in range(20):  # more than run at once
                    await peer.send("late", number, id=number)
                for _ in range(20):
                    await peer.receive()
            await eventually(lambda: not broker.node.lifecycle.sessions)

        await ask()
        gc.collect()
        before = alive()
        for _ in range(COUNT):
            await ask()
        await eventually(lambda: alive() - before == Counter())


@pytest.mark.parametrize("event", ["hang", "unanswered", "left"])
async def test_of_one_whose_concurrent_handlers_are_cancelled_or_late(event: str) -> None:
    broker = Broker(settings())
    late: list[str] = []

    @broker.on("hang", concurrent=True)
    async def hang(client: Client) -> None:
        await asyncio.Event().wait()

    @broker.on("unanswered", concurrent=True)
    async def unanswered(client: Client) -> None:
        try:
            await client.ask("question", timeout=0.001)
        except ClientTimeout as error:
            late.append(error.client_id)

    @broker.on("left", concurrent=True)
    async def left(client: Client) -> None:
        await client.ask("question")

    async with running(broker, "ours") as server:

        async def come_and_leave() -> None:
            late.clear()
            async with server.connect() as peer:
                await peer.send(event)
                if event != "hang":
                    await peer.expect("question")
                await (await peer.ws.ping())
                if event == "unanswered":
                    await eventually(lambda: late)
            await eventually(lambda: not broker.node.lifecycle.sessions)

        await come_and_leave()
        gc.collect()
        before = alive()
        for _ in range(COUNT):
            await come_and_leave()
        await eventually(lambda: alive() - before == Counter())


async def test_of_one_that_was_asked() -> None:
    broker = Broker(settings())
    asked: list[BaseException | None] = []

    @broker.on("x")
    async def x(client: Client, data: bool) -> None:
        try:
            await client.ask("y")
            asked.append(None)
            await client.ask("never answered")
        except ClientGone as gone:
            asked.append(gone.with_traceback(None))

    async with running(broker, "ours") as server:

        async def come_and_answer() -> None:
            asked.clear()
            async with server.connect() as peer:
                await peer.send("x", True)
                await peer.send("reply", 1, id=(await peer.receive())["id"])
                await peer.ws.send('{"event": "$ping"}')
                await eventually(lambda: asked)
            await eventually(lambda: not broker.node.lifecycle.sessions)

        await come_and_answer()
        gc.collect()
        before = alive()
        for _ in range(COUNT):
            await come_and_answer()
        await eventually(lambda: alive() - before == Counter())


async def _refuses(request: HTTPConnection) -> None:
    raise Reject("not you")


def _refuses_in_a_thread(request: HTTPConnection) -> None:
    raise Reject("not you")


async def _never_answers(request: HTTPConnection) -> None:
    await asyncio.Event().wait()


async def test_of_a_handshake_that_a_thread_went_on_with_after_its_time() -> None:
    broker = Broker(settings(handshake_timeout=0.1))
    release = threading.Event()

    @broker.authenticate
    def hang(request: HTTPConnection) -> None:
        release.wait(DEADLINE)

    async with running(broker, "ours") as server:

        async def refused(count: int) -> None:
            async def one() -> None:
                with pytest.raises(InvalidStatus):
                    async with server.connect():
                        pass

            await asyncio.gather(*[one() for _ in range(count)])

        release.clear()
        await refused(1)
        release.set()
        gc.collect()
        before = alive()
        release.clear()
        await refused(COUNT)
        release.set()
        await eventually(lambda: alive() - before == Counter())


@pytest.mark.parametrize("authenticate", [_refuses, _refuses_in_a_thread, _never_answers])
async def test_of_a_refused_handshake(authenticate: Callable[[HTTPConnection], Any]) -> None:
    broker = Broker(settings(handshake_timeout=0.05 if authenticate is _never_answers else 10))
    broker.authenticate(authenticate)

    async with running(broker, "ours") as server:

        async def refused() -> None:
            with pytest.raises(InvalidStatus):
                async with server.connect():
                    pass

        await refused()
        gc.collect()
        before = alive()
        for _ in range(COUNT):
            await refused()
        await eventually(lambda: broker.get_stats().rejected == COUNT + 1)
        await eventually(lambda: alive() - before == Counter())


async def test_of_any_application() -> None:
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    async with serve(Starlette(routes=[WebSocketRoute("/ws", endpoint)]), "ours") as server:
        await come_and_go(server)
        await asyncio.sleep(0.05)
        gc.collect()
        before = alive()
        for _ in range(COUNT):
            await come_and_go(server)
        await eventually(lambda: alive() - before == Counter())


async def test_a_client_that_is_kept_is_one_that_has_gone() -> None:
    broker = Broker(settings())
    kept: list[Client] = []

    @broker.on_connect
    def keep(client: Client) -> None:
        kept.append(client)

    async with running(broker, "ours") as server:
        async with server.connect():
            await eventually(lambda: bool(kept))
        await eventually(lambda: not broker.node.lifecycle.sessions)
        (client,) = kept
        assert not client.is_connected
        assert client.rooms == frozenset()
        assert not await client.send("n")
        assert await client.ping() is None
        await client.disconnect()
        assert broker.get_stats().dropped == 1
