"""Start and stop, in every way of serving, leaving nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from websockets.exceptions import InvalidStatus

from tests.support import DEADLINE, Address, ServerKind, eventually, running, serve, settings
from velocity_ws import (
    Broker,
    BrokerError,
    Client,
    Close,
    InvalidPathError,
    Reject,
    Server,
    ServerError,
    WebSocketApp,
    WebSocketMiddleware,
)


def echo_broker(**values: Any) -> Broker:
    """A broker with one handler."""
    broker = Broker(settings(**values))

    @broker.on("echo")
    async def echo(data: Any) -> Any:
        return data

    return broker


async def works_at(address: Address, *paths: str) -> None:
    """Whether the handler answers at each path."""
    for path in paths:
        async with address.connect(path) as peer:
            assert (await peer.request("echo", path))["data"] == path


async def homepage(request: Request) -> PlainTextResponse:
    return PlainTextResponse("home")


# --- four ways of serving


async def test_attach_to_starlette(kind: ServerKind, tmp_path: Path) -> None:
    order: list[str] = []
    broker = echo_broker()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, int]]:
        order.append(f"startup {broker.is_running}")
        yield {"answer": 42}
        order.append(f"shutdown {broker.is_running}")

    async def answer(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{request.state.answer} {request.app.url_path_for('answer')}")

    app = Starlette(
        routes=[Route("/answer", answer, name="answer"), Mount("/", StaticFiles(directory=tmp_path))],
        lifespan=lifespan,
    )
    broker.attach(app)
    async with serve(app, kind) as address, httpx.AsyncClient(base_url=address.http) as http:
        assert broker.is_running
        await works_at(address, "/ws", "/ws/", "/ws?a=1")
        assert (await http.get("/answer")).text == "42 /answer"
        assert (await http.get("/ws/velocity.js")).headers["content-type"].startswith("text/javascript")
        assert (await http.get("/ws")).status_code == 404
    assert not broker.is_running
    assert order == ["startup False", "shutdown False"]


async def test_attach_to_fastapi_at_another_path(kind: ServerKind) -> None:
    broker = echo_broker(path="/ignored/")
    app = FastAPI()
    broker.attach(app, "/live/")
    async with serve(app, kind) as address:
        await works_at(address, "/live", "/live/")
        with pytest.raises(InvalidStatus):
            await works_at(address, "/ignored")
    with pytest.raises(InvalidPathError):
        broker.attach(app, "live")


async def test_attach_to_a_sub_application_whose_lifespan_nobody_runs(kind: ServerKind) -> None:
    broker = echo_broker()
    inner = FastAPI()
    broker.attach(inner)
    app = Starlette(routes=[Mount("/api", inner)])
    async with serve(app, kind) as address, httpx.AsyncClient(base_url=address.http) as http:
        assert await broker.broadcast("nobody yet") == 0
        await works_at(address, "/api/ws", "/api/ws/")
        assert (await http.get("/api/ws/velocity.js")).status_code == 200
        await eventually(lambda: not broker.node.lifecycle.sessions)
    await broker.stop()


async def test_middleware_around_any_app(kind: ServerKind) -> None:
    broker = echo_broker(path="/rt")
    told: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for _ in range(2):
                message = await receive()
                told.append(f"{message['type']} {broker.is_running}")
                await send({"type": message["type"] + ".complete"})
        elif scope["type"] == "http":
            await PlainTextResponse(f"app at {scope['path']}")(scope, receive, send)
        else:
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": "the application's own"})
            await send({"type": "websocket.close"})

    wrapped = WebSocketMiddleware(app, broker)
    async with serve(wrapped, kind) as address, httpx.AsyncClient(base_url=address.http) as http:
        await works_at(address, "/rt", "/rt/")
        assert (await http.get("/rt")).text == "app at /rt"
        assert (await http.get("/rt/velocity.d.ts")).status_code == 200
        assert (await http.get("/rt/other.js")).text == "app at /rt/other.js"
        async with address.connect("/rt/deeper") as peer:
            assert await peer.ws.recv() == "the application's own"
    assert told == ["lifespan.startup False", "lifespan.shutdown False"]


async def test_middleware_under_a_root_path() -> None:
    broker = echo_broker()
    async with running(broker, root_path="/behind/proxy") as address:
        await works_at(address, "/ws", "/ws/")


async def test_middleware_at_the_root(kind: ServerKind) -> None:
    broker = echo_broker(path="/")
    app = WebSocketMiddleware(Starlette(routes=[Route("/", homepage)]), broker)
    async with serve(app, kind) as address, httpx.AsyncClient(base_url=address.http) as http:
        await works_at(address, "/", "")
        assert (await http.get("/")).text == "home"
        assert (await http.get("/velocity.js")).status_code == 200


@pytest.mark.parametrize("fails_with", [AssertionError, None])
async def test_middleware_around_an_app_without_lifespan(kind: ServerKind, fails_with: type[Exception] | None) -> None:
    broker = echo_broker()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if fails_with is not None:
            raise fails_with

    async with serve(WebSocketMiddleware(app, broker), kind) as address:
        assert broker.is_running
        await works_at(address, "/ws")
    assert not broker.is_running


async def test_middleware_lets_a_failing_startup_fail() -> None:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        raise RuntimeError("no database")
        yield

    broker = echo_broker()
    with pytest.raises(ServerError):
        async with serve(WebSocketMiddleware(Starlette(lifespan=lifespan), broker)):
            pass
    assert not broker.is_running


async def test_bare_app_mounted(kind: ServerKind) -> None:
    broker = echo_broker()

    async def other(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("other")(scope, receive, send)

    app = Starlette(routes=[Route("/", homepage)])
    app.mount("/realtime", WebSocketApp(broker))
    app.mount("/nested", Starlette(routes=[Mount("/deep", WebSocketApp(broker))]))
    app.mount("/other", other)
    async with serve(app, kind) as address, httpx.AsyncClient(base_url=address.http) as http:
        await works_at(address, "/realtime", "/realtime/", "/realtime?x=1", "/nested/deep", "/nested/deep/")
        assert (await http.get("/realtime/velocity.js")).status_code == 200
        assert (await http.get("/realtime/")).status_code == 426
        assert (await http.get("/realtime")).status_code == 307
        with pytest.raises(InvalidStatus):  # nothing changes for what others mount
            await works_at(address, "/other")
        assert (await http.get("/realtime/other")).status_code == 404
        assert (await http.post("/realtime/velocity.js")).status_code == 405


async def test_bare_app_alone(kind: ServerKind) -> None:
    broker = echo_broker()
    async with serve(WebSocketApp(broker), kind) as address:
        await eventually(lambda: broker.is_running)
        await works_at(address, "/", "/anywhere")
    assert not broker.is_running


async def test_server() -> None:
    broker = echo_broker(port=0)
    server = Server(broker)
    with pytest.raises(ServerError, match="start"):
        _ = server.port
    await server.start()
    await works_at(Address(server.port), "/ws", "/ws/")
    async with httpx.AsyncClient(base_url=Address(server.port).http) as http:
        assert (await http.get("/")).status_code == 404
        assert (await http.get("/ws/velocity.js")).status_code == 200
    with pytest.raises(InvalidStatus):
        await works_at(Address(server.port), "/elsewhere")
    with pytest.raises(ServerError, match="once"):
        await server.start()
    await server.stop()
    await server.stop()
    with pytest.raises(ServerError):
        _ = server.port
    async with Server(broker, Starlette(routes=[Route("/", homepage)])) as again:
        await works_at(Address(again.port), "/ws")
        async with httpx.AsyncClient(base_url=Address(again.port).http) as http:
            assert (await http.get("/")).text == "home"


async def test_a_taken_port_is_an_oserror() -> None:
    async with Server(echo_broker(port=0)) as server:
        other = Server(echo_broker(), port=server.port)
        with pytest.raises(OSError, match="in use"):
            await other.start()
        await other.stop()


async def test_a_startup_that_fails_is_an_error_and_not_an_exit() -> None:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        raise RuntimeError("no database")
        yield

    server = Server(echo_broker(port=0), Starlette(lifespan=lifespan))
    with pytest.raises(ServerError, match="startup failed"):
        await server.start()
    await server.stop()


# --- Starlette's TestClient


def test_the_test_client_with_lifespan() -> None:
    broker = echo_broker()
    app = Starlette(routes=[Route("/", homepage)])
    broker.attach(app)
    gone: list[Client] = []
    broker.on_disconnect(gone.append)
    for _ in range(2):
        with TestClient(app) as http:
            assert http.get("/").text == "home"
            with http.websocket_connect("/ws") as one, http.websocket_connect("/ws/") as two:
                one.send_json({"event": "echo", "data": 1, "id": 1})
                assert one.receive_json() == {"event": "reply", "id": 1, "data": 1}
                assert broker.sync.broadcast("x") == 2
                assert [one.receive_json(), two.receive_json()] == [{"event": "x", "data": None}] * 2
        assert not broker.get_clients()
    assert len(gone) == 4


def test_the_test_client_without_lifespan() -> None:
    broker = echo_broker()
    app = FastAPI()
    broker.attach(app)
    gone: list[Close] = []
    broker.on_disconnect(lambda client, close: gone.append(close))
    client = TestClient(app)
    for number in range(3):  # each has an event loop of its own
        with client.websocket_connect("/ws") as session:
            session.send_json({"event": "echo", "data": number, "id": 1})
            assert session.receive_json()["data"] == number
        assert not broker.get_clients()
    assert len(gone) == 3
    with client.websocket_connect("/ws"), pytest.raises(WebSocketDisconnect):
        with client.websocket_connect("/ws"):  # two loops at once cannot share a broker
            pass


def test_the_test_client_sees_refusals() -> None:
    broker = echo_broker()

    @broker.authenticate
    async def nobody(request: Any) -> None:
        raise Reject("no", code=4403)

    app = Starlette()
    broker.attach(app)
    with TestClient(app) as client, client.websocket_connect("/ws") as session:
        with pytest.raises(WebSocketDisconnect) as caught:
            session.receive_json()
    assert caught.value.code == 4403


def test_run_serves_until_a_signal() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Server(echo_broker(port=port))
    closed: list[tuple[int, str]] = []

    async def client() -> None:
        async with Address(port).connect() as peer:
            assert (await peer.request("echo", 1))["data"] == 1
            os.kill(os.getpid(), signal.SIGTERM)
            closed.append(await peer.closed())

    def in_thread() -> None:
        for _ in range(3000):  # a minute
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=DEADLINE).close()
                break
            threading.Event().wait(0.02)
        asyncio.run(client())

    thread = threading.Thread(target=in_thread)
    thread.start()
    server.run()
    thread.join(DEADLINE)
    code, reason = closed[0]
    assert (code, reason.partition("=")[0]) == (1012, "restarting, retry_after")


async def test_who_restarts_says_1001_where_clients_do_not_know_1012() -> None:
    broker = echo_broker(restart_code=1001)
    async with Server(broker, port=0) as server, Address(server.port).connect() as peer:
        await server.stop()
        code, reason = await peer.closed()
    assert code == 1001
    assert re.fullmatch(r"restarting, retry_after=0\.[1-5]\d*", reason)


# --- stop


async def test_stop_says_goodbye_after_what_was_queued(kind: ServerKind) -> None:
    broker = echo_broker()
    ended: list[Close] = []

    @broker.on_disconnect
    async def gone(client: Client, close: Close) -> None:
        ended.append(close)

    async with running(broker, kind) as address:
        async with address.connect() as one, address.connect() as two:
            await eventually(lambda: len(broker.get_clients()) == 2)
            for number in range(100):
                await broker.broadcast("n", [number, "x" * 1000])
            stopping = asyncio.create_task(broker.stop())
            for peer in (one, two):
                assert [(await peer.expect("n"))[0] for _ in range(100)] == list(range(100))
                assert (await peer.closed())[0] == 1001
        await stopping
        assert not broker.is_running
        with pytest.raises(InvalidStatus) as caught:
            await works_at(address, "/ws")
        assert caught.value.response.status_code == 503
        await broker.stop()
        await broker.start()
        await broker.start()
        await works_at(address, "/ws")
    assert [close.code for close in ended[:2]] == [1001, 1001]
    assert ended[0].by == "server"


async def test_stop_lets_handlers_finish_and_answers_go_out(kind: ServerKind) -> None:
    broker = Broker(settings())
    begun, go = asyncio.Event(), asyncio.Event()

    @broker.on("work")
    async def work(data: int) -> int:
        begun.set()
        await go.wait()
        return data

    async with running(broker, kind) as address, address.connect() as peer:
        await peer.send("work", 1, id=1)
        await peer.send("work", 2, id=2)
        await begun.wait()
        await eventually(lambda: broker.get_stats().messages_received == 2)
        stopping = asyncio.create_task(broker.stop())
        second = asyncio.create_task(broker.stop())
        await eventually(lambda: not broker.is_running)
        with pytest.raises(BrokerError, match="stopping"):
            await broker.start()
        with pytest.raises(InvalidStatus) as caught:
            await works_at(address, "/ws")
        assert caught.value.response.status_code == 503
        await peer.send("work", 3, id=3)
        go.set()
        assert [(await peer.receive())["id"] for _ in range(2)] == [1, 2]
        assert (await peer.closed())[0] == 1001
        await stopping
        await second


@pytest.mark.usefixtures("unhurried")
async def test_stop_is_bounded_when_hooks_hang(kind: ServerKind) -> None:
    broker = Broker(settings(drain_timeout=0.4))
    started = asyncio.Semaphore(0)
    never = threading.Event()
    cancelled: list[str] = []
    gone: list[Client] = []
    loop = asyncio.get_running_loop()

    @broker.on("async")
    async def hang() -> None:
        started.release()
        try:
            await asyncio.sleep(DEADLINE * 10)
        except asyncio.CancelledError:
            cancelled.append("async")
            raise

    @broker.on("thread")
    def block() -> None:
        loop.call_soon_threadsafe(started.release)
        never.wait(DEADLINE * 10)

    @broker.on_disconnect
    async def first(client: Client) -> None:
        gone.append(client)

    @broker.on_disconnect
    async def hang_too(client: Client) -> None:
        await asyncio.sleep(DEADLINE * 10)

    async with running(broker, kind) as address:
        async with address.connect() as one, address.connect() as two, address.connect() as three:
            await one.send("async")
            await two.send("thread")
            await started.acquire()
            await started.acquire()
            begun = loop.time()
            await broker.stop()
            assert loop.time() - begun < 0.4 + 1.5
            for peer in (one, two, three):
                assert (await peer.closed())[0] == 1001
        assert cancelled == ["async"]
        assert len(gone) == 3
        assert not broker.node.lifecycle.sessions
        never.set()


async def test_stop_refuses_handshakes_that_are_under_way(kind: ServerKind) -> None:
    broker = Broker(settings())
    arrived = asyncio.Event()

    @broker.authenticate
    async def hang(request: Any) -> None:
        arrived.set()
        await asyncio.sleep(DEADLINE * 10)

    async with running(broker, kind) as address:
        connecting = asyncio.create_task(works_at(address, "/ws"))
        await arrived.wait()
        await broker.stop()
        with pytest.raises(InvalidStatus) as caught:
            await connecting
        assert caught.value.response.status_code == 503


async def test_a_hook_may_stop_the_broker(kind: ServerKind) -> None:
    broker = Broker(settings(drain_timeout=0.4))

    @broker.on("shutdown")
    async def shutdown() -> None:
        await broker.stop()

    async with running(broker, kind) as address, address.connect() as peer:
        await peer.send("shutdown")
        assert (await peer.closed())[0] == 1001
        await eventually(lambda: not broker.node.lifecycle.sessions)


async def test_nothing_is_left(kind: ServerKind) -> None:
    before = asyncio.all_tasks()
    broker = echo_broker()

    @broker.on_connect
    async def join(client: Client) -> None:
        await broker.join_room(client.id, "room")

    async with running(broker, kind) as address:
        async with address.connect() as peer, address.connect():
            await peer.request("echo", 1)
            await broker.broadcast("x")
        async with address.connect():
            await eventually(broker.get_clients)
    assert asyncio.all_tasks() == before
    assert not broker.get_clients()
    assert not broker.get_rooms()
    assert not broker.node.lifecycle.sessions
    assert not broker.node.lifecycle.handshakes
    stats = broker.get_stats()
    assert (stats.connected_clients, stats.rooms) == (0, 0)


async def test_a_server_that_gives_up_on_the_application() -> None:
    """Whoever cancels the task of a connection, its on_disconnect runs."""
    broker = echo_broker()
    gone: list[Close] = []

    @broker.on_disconnect
    async def note(close: Close) -> None:
        await asyncio.sleep(0)
        gone.append(close)

    tasks: list[asyncio.Task[Any]] = []
    inner = WebSocketMiddleware(Starlette(), broker)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            task = asyncio.current_task()
            assert task is not None
            tasks.append(task)
        await inner(scope, receive, send)

    async with serve(app) as address, address.connect():
        await eventually(broker.get_clients)
        tasks[0].cancel()
        await eventually(lambda: gone)
        assert not broker.get_clients()
        await eventually(tasks[0].done)
    assert gone == [Close(1006, "", "network")]
