"""Hooks that swallow, cancel, hang and guard: nobody but their own client is hurt, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.routing import Mount
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets.exceptions import InvalidStatus

from tests.support import DEADLINE, Address, ServerKind, eventually, running, serve, settings
from tests.support.wire import frame, handshake
from velocity_ws import Broker, Client, ClientNotFound, Close, HookError, Message, WebSocketApp, WebSocketMiddleware


async def test_a_guard_that_disconnects_ends_the_message(kind: ServerKind) -> None:
    broker = Broker(settings())
    reached: list[str] = []

    @broker.on_message
    async def guard(client: Client, message: Message) -> None:
        await client.disconnect(4403, "not you")

    @broker.on_message
    async def later() -> None:
        reached.append("later")

    @broker.on("delete")
    async def delete() -> None:
        reached.append("delete")

    @broker.on_binary
    async def guard_binary(client: Client) -> None:
        await client.disconnect(4403)

    @broker.on_binary
    async def later_binary() -> None:
        reached.append("binary")

    async with running(broker, kind) as address:
        for message in ('{"event": "delete", "id": 1}', b"x"):
            async with address.connect() as peer:
                await peer.ws.send(message)
                assert (await peer.closed())[0] == 4403
    assert reached == []


async def test_on_disconnect_is_called_though_the_server_cancels_the_end(kind: ServerKind) -> None:
    broker = Broker(settings())
    gone: list[Close] = []
    tasks: list[asyncio.Task[Any]] = []
    working, go = asyncio.Event(), asyncio.Event()

    @broker.on("work")
    async def work() -> None:
        working.set()
        await go.wait()

    @broker.on_disconnect
    async def left(close: Close) -> None:
        gone.append(close)

    inner = WebSocketMiddleware(Starlette(), broker)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            task = asyncio.current_task()
            assert task is not None
            tasks.append(task)
        await inner(scope, receive, send)

    async with serve(app, kind) as address:
        async with address.connect() as peer:
            await peer.send("work")
            await working.wait()
        await eventually(lambda: not broker.get_clients())
        tasks[0].cancel()
        await eventually(tasks[0].done)
        assert gone == []
        go.set()
        await eventually(lambda: gone)
        await eventually(lambda: not broker.node.lifecycle.sessions)
    assert len(gone) == 1


@pytest.mark.usefixtures("unhurried")
async def test_a_handler_that_cleans_up_slowly_is_accounted_for_by_stop() -> None:
    broker = Broker(settings(drain_timeout=0.2))
    loop = asyncio.get_running_loop()
    working, gone, release = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @broker.on("work")
    async def work() -> None:
        working.set()
        try:
            await asyncio.sleep(DEADLINE * 10)
        finally:
            while not release.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await release.wait()

    @broker.on_disconnect
    def disconnect(client: Client) -> None:
        loop.call_soon_threadsafe(gone.set)

    async with running(broker) as address, address.connect() as peer:
        await peer.send("work")
        await working.wait()
        begun = loop.time()
        await broker.stop()
        assert loop.time() - begun < 2
        async with asyncio.timeout(DEADLINE):
            await gone.wait()
        assert not broker.node.lifecycle.sessions
        assert len(broker.node.lifecycle.stragglers) == 1
        release.set()
        await eventually(lambda: not broker.node.lifecycle.stragglers)


async def test_authenticate_that_swallows_its_timeout_lets_nobody_in(kind: ServerKind) -> None:
    broker = Broker(settings(handshake_timeout=0.1))

    @broker.authenticate
    async def stubborn(request: HTTPConnection) -> str:
        try:
            await asyncio.sleep(DEADLINE * 10)
        except asyncio.CancelledError:
            return "admin"
        return "late"

    async with running(broker, kind) as address:
        with pytest.raises(InvalidStatus) as caught:
            async with address.connect():
                pass
        assert caught.value.response.status_code == 503


@pytest.mark.usefixtures("unhurried")
async def test_hooks_that_clean_up_slowly_after_their_timeout_do_not_keep_the_broker_from_stopping() -> None:
    broker = Broker(settings(handshake_timeout=0.1, drain_timeout=0.1))
    release = asyncio.Event()
    cancelled: list[str] = []

    async def stubborn(name: str) -> None:
        try:
            await asyncio.sleep(DEADLINE * 10)
        finally:
            cancelled.append(name)
            while not release.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await release.wait()

    @broker.authenticate
    async def authenticate(request: HTTPConnection) -> str:
        if "slow" in request.query_params:
            await stubborn("authenticate")
        return "ann"

    @broker.on_disconnect
    async def gone() -> None:
        await stubborn("on_disconnect")

    async with running(broker) as address:
        handshake = asyncio.create_task(refused(address, "/ws?slow"))
        async with address.connect():
            await eventually(broker.get_clients)
        await eventually(lambda: sorted(cancelled) == ["authenticate", "on_disconnect"])
        try:
            async with address.connect() as peer:
                await eventually(lambda: len(broker.node.lifecycle.sessions) == 2)
                async with asyncio.timeout(DEADLINE):
                    await broker.stop()
                assert (await peer.closed())[0] == 1001
        finally:
            release.set()
        await handshake
        await eventually(lambda: not broker.node.lifecycle.sessions)


def test_a_last_hook_that_ignores_its_cancellation_keeps_no_loop_open() -> None:
    async def serve_one() -> None:
        broker = Broker(settings(drain_timeout=0))
        began = asyncio.Event()

        @broker.on_disconnect
        async def stubborn() -> None:
            began.set()
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(DEADLINE * 10)

        async with running(broker, "ours", timeout_graceful_shutdown=1) as address:
            async with address.connect():
                pass
            await began.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve_one()), daemon=True)
    thread.start()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    gc.collect()  # asyncio complains of a task that was left, here and not in the middle of another test


async def refused(address: Address, path: str) -> None:
    with pytest.raises(InvalidStatus):
        async with address.connect(path):
            pass


async def test_a_handler_whose_task_is_cancelled_from_outside_ends_its_client(kind: ServerKind) -> None:
    broker = Broker(settings())
    tasks: list[asyncio.Task[Any]] = []

    @broker.on("wait")
    async def wait() -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        await asyncio.sleep(DEADLINE * 10)

    async with running(broker, kind) as address, address.connect() as peer:
        await peer.send("wait")
        await eventually(lambda: tasks)
        tasks[0].cancel()
        assert (await peer.closed())[0] == 1011
        await eventually(lambda: not broker.node.lifecycle.sessions)
    assert broker.get_stats().errors == 1


async def test_on_disconnect_and_on_error_that_both_hang_hold_nothing(kind: ServerKind) -> None:
    broker = Broker(settings(drain_timeout=0))

    @broker.on_disconnect
    async def hang() -> None:
        await asyncio.sleep(DEADLINE * 10)

    @broker.on_error
    async def hang_too() -> None:
        await asyncio.sleep(DEADLINE * 10)

    async with running(broker, kind) as address:
        async with address.connect():
            await eventually(broker.get_clients)
        await eventually(lambda: not broker.node.lifecycle.sessions)
        await eventually(lambda: broker.node.connection_limits.is_empty)
    assert broker.get_stats().errors >= 1


async def test_threads_that_are_left_behind_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velocity_ws.sessions.calls.MAX_STRANGER_THREADS", 4)
    broker = Broker(settings(handshake_timeout=0.1))
    release = threading.Event()
    inside = 0

    @broker.authenticate
    def block(request: HTTPConnection) -> None:
        nonlocal inside
        inside += 1
        release.wait(DEADLINE)

    async with running(broker) as address:

        async def refused() -> None:
            with pytest.raises(InvalidStatus):
                async with address.connect():
                    pass

        for _ in range(3):
            await asyncio.gather(*[refused() for _ in range(4)])
        await eventually(lambda: inside >= 4)  # a thread may have to wait for its first turn
        assert inside == 4
        release.set()


@pytest.mark.usefixtures("unhurried")
async def test_who_comes_in_after_stopping_has_begun_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    broker = Broker(settings(drain_timeout=0.2))
    closed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    stopping: list[asyncio.Task[None]] = []
    gone: list[Close] = []

    @broker.on_connect
    async def hang() -> None:
        await asyncio.Event().wait()

    @broker.on_disconnect
    async def told(close: Close) -> None:
        gone.append(close)

    async def receive() -> Any:
        if not stopping:
            return {"type": "websocket.connect"}
        code = await closed
        for _ in range(20):  # a network's time, in which the hook is cancelled
            await asyncio.sleep(0)
        return {"type": "websocket.disconnect", "code": code}

    async def send(message: Any) -> None:
        if message["type"] == "websocket.accept":
            stopping.append(asyncio.create_task(broker.stop()))
            while broker.is_running:
                await asyncio.sleep(0)
            await asyncio.sleep(0)
        else:
            assert message["type"] == "websocket.close"
            closed.set_result(message["code"])

    scope = {"type": "websocket", "path": "/ws", "query_string": b"", "headers": []}
    async with broker:
        await asyncio.wait_for(WebSocketApp(broker)(scope, receive, send), DEADLINE)
        await stopping[0]
    assert [close.code for close in gone] == [1001]
    assert broker.get_stats().errors == 0
    assert "from outside" not in caplog.text


def with_few_threads(monkeypatch: pytest.MonkeyPatch, patience: float) -> None:
    """Four for clients, four for handshakes, and four more of each in place of slow ones."""
    for name, value in (("MAX_THREADS", 4), ("MAX_STRANGER_THREADS", 4), ("SPARE", 1), ("PATIENCE", patience)):
        monkeypatch.setattr(f"velocity_ws.sessions.calls.{name}", value)


@pytest.mark.parametrize("hook", ["authenticate", "on_error"])
async def test_handshakes_that_hang_take_no_thread_from_clients(monkeypatch: pytest.MonkeyPatch, hook: str) -> None:
    with_few_threads(monkeypatch, patience=DEADLINE * 10)
    broker = Broker(settings(handshake_timeout=DEADLINE))
    release = threading.Event()
    inside: list[int] = []

    def hang() -> None:
        inside.append(1)
        release.wait(DEADLINE * 2)

    @broker.authenticate
    def authenticate(request: HTTPConnection) -> None:
        if "hang" in request.query_params:
            if hook == "on_error":
                raise ValueError("not you")
            hang()

    @broker.on_error
    def told() -> None:
        hang()

    @broker.on("echo")
    def echo(data: int) -> int:
        return data

    async with running(broker, "ours") as address, address.connect() as peer:

        async def refused() -> None:
            with contextlib.suppress(InvalidStatus, OSError):
                async with address.connect("/ws?hang"):
                    pass

        strangers = [asyncio.create_task(refused()) for _ in range(12)]
        await eventually(lambda: len(inside) == 4)
        assert (await peer.request("echo", 1))["data"] == 1
        release.set()
        await asyncio.wait(strangers)


async def test_hooks_that_hang_leave_threads_to_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with_few_threads(monkeypatch, patience=0.05)
    broker = Broker(settings())
    release = threading.Event()

    @broker.on("hang")
    def hang() -> None:
        release.wait(DEADLINE * 2)

    @broker.on("echo")
    def echo(data: int) -> int:
        return data

    async with running(broker, "ours") as address, contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(address.connect()) for _ in range(10)]
        for peer in peers[:7]:
            await peer.send("hang")
        assert (await peers[9].request("echo", 1))["data"] == 1
        assert "threads" not in caplog.text
        for peer in peers[7:9]:
            await peer.send("hang")
        await peers[9].send("echo", 2, id=2)
        await eventually(lambda: "all 8 threads of plain hooks" in caplog.text)
        release.set()
        assert (await peers[9].receive())["data"] == 2
    assert caplog.text.count("threads of plain hooks") == 1


async def test_empty_messages_are_bounded_too() -> None:
    broker = Broker(settings(rate_limit=0, read_buffer_size=1000))
    go = asyncio.Event()

    @broker.on_binary
    async def wait() -> None:
        await go.wait()

    async with running(broker) as address, address.connect(compression=None) as peer:
        for _ in range(5000):
            await peer.ws.send(b"")
        session = next(iter(broker.node.lifecycle.sessions))
        await eventually(lambda: session.inbox.is_full)
        go.set()
        await eventually(lambda: broker.get_stats().messages_received == 5000)


async def test_a_great_many_problems_are_counted_and_not_listed(kind: ServerKind) -> None:
    broker = Broker(settings())

    @broker.on("numbers")
    async def numbers(data: list[int]) -> None:
        raise AssertionError("never")

    async with running(broker, kind) as address, address.connect() as peer:
        answer = await peer.request("numbers", [{}] * 10_000)
        assert answer["data"]["code"] == "INVALID_DATA"
        assert answer["data"]["details"] == [{"loc": [], "msg": "10000 problems", "type": "too_many_problems"}]


async def test_a_hook_that_stops_the_broker_ends_undisturbed(kind: ServerKind) -> None:
    broker = Broker(settings())
    ended: list[str] = []

    @broker.on("shutdown")
    async def shutdown() -> str:
        await broker.stop()
        ended.append("handler")
        return "stopping"

    @broker.on_disconnect
    async def left() -> None:
        await broker.stop()
        ended.append("disconnect")

    async with running(broker, kind) as address, address.connect() as peer:
        assert (await peer.request("shutdown"))["data"] == "stopping"
        assert (await peer.closed())[0] == 1001
        await eventually(lambda: not broker.node.lifecycle.sessions)
        await broker.stop()
    assert ended == ["handler", "disconnect"]
    assert broker.get_stats().errors == 0


def test_what_cannot_be_a_hook() -> None:
    broker = Broker(settings())
    with pytest.raises(HookError, match="generator"):

        @broker.on("stream")
        async def stream() -> Any:
            yield 1

    with pytest.raises(HookError, match="'data'"):

        @broker.on("chat")
        async def chat(client: Client, message: dict[str, str]) -> None: ...

    with pytest.raises(HookError, match="'data'"):

        @broker.on_message
        async def raw(client: Client, data: str) -> None: ...

    register: Any = broker.on_connect  # which type checkers refuse, too

    async def connect(request: HTTPConnection) -> None: ...

    with pytest.raises(HookError, match="'request'"):
        register(connect)


def test_the_test_client_with_and_then_without_lifespan() -> None:
    broker = Broker(settings())
    app = Starlette()
    broker.attach(app)
    with TestClient(app) as client, client.websocket_connect("/ws"):
        pass
    with TestClient(app).websocket_connect("/ws"):
        pass


class Passing:
    """Middleware that changes nothing."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


async def test_the_path_without_a_slash_in_every_layout() -> None:
    broker = Broker(settings(path="/"))
    sub = Starlette()
    broker.attach(sub)
    app = Starlette(
        routes=[
            Mount("/wrapped", WebSocketApp(broker), middleware=[Middleware(Passing)]),
            Mount("/inner", routes=[Mount("/", WebSocketApp(broker))]),
            Mount("/sub", sub),
        ]
    )
    async with serve(app) as address:
        for path in ("/wrapped", "/inner", "/sub"):
            for end in ("", "/"):
                async with address.connect(path + end):
                    pass


async def test_a_handler_cancelled_from_outside_while_the_server_restarts_is_the_last(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = Broker(settings())
    tasks: list[asyncio.Task[Any]] = []
    handled: list[int] = []

    @broker.on("hang")
    async def hang() -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        await asyncio.Event().wait()

    @broker.on("n")
    async def number(data: int) -> None:
        handled.append(data)

    async with running(broker, "ours") as address:
        reader, writer = await asyncio.open_connection("127.0.0.1", address.port)
        writer.write(handshake())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(frame(0x81, b'{"event":"hang"}') + frame(0x81, b'{"event":"n","data":1}'))
        await eventually(lambda: tasks)
        (session,) = broker.node.lifecycle.sessions
        session.close((1012, ""), handle="all", patience=0)
        assert (await reader.readexactly(2))[0] == 0x88  # and it is not answered
        tasks[0].cancel()
        await eventually(lambda: broker.get_stats().errors)
        received = broker.get_stats().messages_received
        writer.write(frame(0x81, b'{"event":"n","data":2}'))
        await eventually(lambda: broker.get_stats().messages_received > received)
        writer.transport.abort()
        await eventually(lambda: not broker.node.lifecycle.sessions)
    assert handled == []
    (said,) = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert said.startswith("the task that handles messages was cancelled from outside (client ")


HOOKS = ["connect", "message", "event", "plain event", "event with tasks", "binary", "join", "leave", "disconnect"]


@pytest.mark.parametrize("hook", HOOKS)
async def test_a_client_that_leaves_while_its_hook_runs_is_no_error(
    hook: str, kind: ServerKind, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Broker(settings())
    caplog.set_level("WARNING")
    reached: list[str] = []
    errors: list[BaseException] = []
    broker.on_error(lambda client, error: errors.append(error))

    async def outlive(client: Client) -> None:
        reached.append("began")
        await eventually(lambda: not client.is_connected)
        reached.append("went on")
        await client.send("late")
        await broker.join_room(client.id, "milk")
        reached.append("never")

    def outlive_in_a_thread(client: Client) -> None:
        reached.append("began")
        while client.is_connected:
            time.sleep(0.005)
        reached.append("went on")
        broker.sync.join_room(client.id, "milk")

    async def outlive_in_tasks(client: Client) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(outlive(client))
            group.create_task(outlive(client))

    async def enter(client: Client) -> None:
        await broker.join_room(client.id, "tea")

    match hook:
        case "connect":
            broker.on_connect(outlive)
        case "message":
            broker.on_message(outlive)
        case "event":
            broker.on("go")(outlive)
        case "plain event":
            broker.on("go")(outlive_in_a_thread)
        case "event with tasks":
            broker.on("go")(outlive_in_tasks)
        case "binary":
            broker.on_binary(outlive)
        case "join" | "leave":
            broker.on_connect(enter)
            (broker.on_join if hook == "join" else broker.on_leave)(outlive)
        case "disconnect":
            broker.on_disconnect(outlive)
    async with running(broker, kind) as address:
        async with address.connect() as peer:
            if hook not in ("join", "leave", "disconnect"):
                await peer.ws.send(b"x" if hook == "binary" else '{"event": "go", "id": 1}')
            if hook not in ("leave", "disconnect"):
                await eventually(lambda: reached)
        await eventually(lambda: "went on" in reached and not broker.node.lifecycle.sessions)
    assert "never" not in reached
    assert broker.get_stats().errors == 0
    late = 0 if hook == "plain event" else reached.count("went on")
    assert broker.get_stats().dropped == late, "and no answer is, as nobody is there for one"
    assert errors == []
    assert [record.getMessage() for record in caplog.records if record.name.startswith("velocity_ws")] == []


async def test_that_another_client_has_gone_is_for_the_hook_to_mind(caplog: pytest.LogCaptureFixture) -> None:
    broker = Broker(settings())

    @broker.on("other")
    async def other(client: Client) -> None:
        await broker.join_room("gone", "tea")

    @broker.on("own")
    async def own(client: Client) -> None:
        raise ClientNotFound(client.id)  # which is not true

    @broker.on("both")
    async def both(client: Client) -> None:
        raise ExceptionGroup("both", [ClientNotFound("gone"), ClientNotFound(client.id)])

    async with running(broker) as address, address.connect() as peer:
        for event in ("other", "own", "both"):
            answer = await peer.request(event)
            assert answer["data"]["code"] == "INTERNAL_ERROR"
        assert broker.get_stats().errors == 3
