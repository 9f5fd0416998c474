"""Connecting, being refused, and going away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any

import httpx2 as httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from tests.support import DEADLINE, Address, ServerKind, eventually, running, serve, settings
from velocity_ws import Broker, Client, Close, Reject, Server, WebSocketApp, WebSocketMiddleware
from velocity_ws.logs import WARNINGS_AT_ONCE
from velocity_ws.uvicorn.server import not_found


async def refused(address: Address, path: str = "/ws", **options: Any) -> int:
    """The status that a handshake is refused with."""
    with pytest.raises(InvalidStatus) as caught:
        async with address.connect(path, **options):
            raise AssertionError("it was accepted")
    return caught.value.response.status_code


async def test_a_client_knows_where_it_comes_from(kind: ServerKind) -> None:
    broker = Broker(settings())
    seen: list[Client] = []
    broker.on_connect(seen.append)
    async with running(broker, kind) as address:
        headers = {"Cookie": "theme=dark", "X-Tenant": "blue"}
        async with address.connect("/ws?token=abc&n=1", additional_headers=headers, user_agent_header="probe/1"):
            await eventually(lambda: seen)
            client = seen[0]
            assert client.request.query_params["token"] == "abc"
            assert client.request.cookies["theme"] == "dark"
            assert client.request.headers["x-tenant"] == "blue"
            assert client.request.url.path == "/ws"
            assert client.user_agent == "probe/1"
            assert client.remote_addr.startswith("127.0.0.1:")
            assert int(client.remote_addr.rpartition(":")[2]) > 0
            assert client.is_connected
            assert broker.get_client(client.id) is client
            assert broker.is_connected(client.id)
            assert client.connected_at.tzinfo is not None
            assert client.get_data("missing", 7) == 7
            client.set_data("cart", [1])
            assert client.get_data("cart") == [1]
            assert client.id in repr(client)


async def test_ids_are_unguessable_and_unique(kind: ServerKind) -> None:
    broker = Broker(settings())
    async with running(broker, kind) as address:
        for _ in range(3):
            async with address.connect():
                await eventually(lambda: len(broker.get_clients()) == 1)
                client_id = broker.get_clients()[0].id
                assert len(client_id) >= 22  # 128 bits in base64
            await eventually(lambda: not broker.get_clients())
            assert not broker.is_connected(client_id)
            assert broker.get_client(client_id) is None


# --- authentication


async def test_authenticate_names_the_user(kind: ServerKind) -> None:
    broker = Broker(settings())

    @broker.authenticate
    async def by_token(request: HTTPConnection) -> dict[str, str] | None:
        return {"name": "ann"} if request.query_params.get("token") == "good" else None

    @broker.authenticate
    def second(request: HTTPConnection) -> None:
        assert threading.current_thread() is not threading.main_thread()

    @broker.on("who")
    async def who(client: Client) -> Any:
        return client.user

    async with running(broker, kind) as address, address.connect("/ws?token=good") as peer, address.connect() as other:
        assert (await peer.request("who"))["data"] == {"name": "ann"}
        assert (await other.request("who"))["data"] is None


async def test_reject_answers_with_a_status(kind: ServerKind) -> None:
    broker = Broker(settings())

    @broker.authenticate
    async def nobody(request: HTTPConnection) -> None:
        raise Reject("no token", status=401)

    connected: list[Client] = []
    broker.on_connect(connected.append)
    async with running(broker, kind) as address:
        with pytest.raises(InvalidStatus) as caught:
            async with address.connect():
                pass
        assert caught.value.response.status_code == 401
        assert caught.value.response.body == b"no token"
        assert broker.get_stats().rejected == 1
    assert connected == []


async def test_reject_with_a_code_can_be_read_by_a_browser(kind: ServerKind) -> None:
    broker = Broker(settings())

    @broker.authenticate
    async def nobody(request: HTTPConnection) -> None:
        raise Reject("log in again", code=4401)

    async with running(broker, kind) as address, address.connect() as peer:
        assert await peer.closed() == (4401, "log in again")
    assert broker.get_stats().connections == 0
    assert broker.get_stats().rejected == 1


async def test_a_server_without_denial_responses_refuses_with_403() -> None:
    broker = Broker(settings())

    @broker.authenticate
    async def nobody(request: HTTPConnection) -> None:
        raise Reject("no", status=401)

    inner = WebSocketMiddleware(_nothing, broker)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope.pop("extensions", None)
        await inner(scope, receive, send)

    async with serve(app) as address:
        assert await refused(address) == 403


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("not for the application")


async def test_authenticate_that_raises_lets_nobody_in(kind: ServerKind, caplog: pytest.LogCaptureFixture) -> None:
    broker = Broker(settings())
    errors: list[tuple[Client, BaseException]] = []

    @broker.authenticate
    async def broken(request: HTTPConnection) -> None:
        raise KeyError("user")

    @broker.on_error
    async def on_error(client: Client, error: BaseException) -> None:
        errors.append((client, error))

    async with running(broker, kind) as address:
        assert await refused(address) == 500
    assert isinstance(errors[0][1], KeyError)
    assert errors[0][0].remote_addr.startswith("127.0.0.1:")
    assert broker.get_stats().errors == 1
    assert len([record for record in caplog.records if record.exc_info]) == 1


async def test_authenticate_that_hangs_is_refused(kind: ServerKind) -> None:
    broker = Broker(settings(handshake_timeout=0.2))
    release = threading.Event()

    @broker.authenticate
    def hang(request: HTTPConnection) -> None:
        if "async" not in request.query_params:
            release.wait(DEADLINE)

    @broker.authenticate
    async def hang_too(request: HTTPConnection) -> None:
        await asyncio.sleep(DEADLINE * 10)

    async with running(broker, kind) as address:
        assert await refused(address) == 503
        assert await refused(address, "/ws?async=1") == 503
        release.set()
    assert broker.get_stats().rejected == 2


# --- origins


@pytest.mark.parametrize(
    ("origin", "values", "allowed"),
    [
        ("http://127.0.0.1:{port}", {}, True),
        ("https://127.0.0.1:{port}", {}, True),
        ("http://127.0.0.1:1", {}, False),
        ("http://evil.example", {}, False),
        ("http://127.0.0.1:{port}.evil.example", {}, False),
        ("null", {}, False),
        ("null", {"allowed_origins": "null"}, True),
        ("null", {"allowed_origins": "http://localhost:*,file://"}, False),
        ("file://", {}, False),
        ("file://", {"allowed_origins": "file://"}, True),
        ("http://localhost:5173", {"allowed_origins": "http://localhost:*"}, True),
        ("http://localhost", {"allowed_origins": "http://localhost:*"}, True),
        ("https://localhost:5173", {"allowed_origins": "http://localhost:*"}, False),
        ("http://evil.example/http://127.0.0.1:{port}", {}, False),
        (None, {}, True),
        (None, {"allow_missing_origin": False}, False),
        ("https://app.example.com", {"allowed_origins": "https://app.example.com"}, True),
        ("https://app.example.com:443", {"allowed_origins": "https://app.example.com"}, True),
        ("http://app.example.com", {"allowed_origins": "https://app.example.com"}, False),
        ("http://127.0.0.1:{port}", {"allowed_origins": "https://app.example.com"}, True),
        ("https://a.example.com", {"allowed_origins": "https://*.example.com"}, True),
        ("https://example.com", {"allowed_origins": "https://*.example.com"}, False),
        ("https://aexample.com", {"allowed_origins": "https://*.example.com"}, False),
        ("https://anything.example", {"allowed_origins": "*"}, True),
        (None, {"allowed_origins": "*", "allow_missing_origin": False}, True),
    ],
)
async def test_origins(origin: str | None, values: dict[str, Any], allowed: bool) -> None:
    broker = Broker(settings(**values))
    async with running(broker) as address:
        wanted = None if origin is None else origin.format(port=address.port)
        if allowed:
            async with address.connect(origin=wanted):
                pass
        else:
            assert await refused(address, origin=wanted) == 403


async def test_two_origin_headers_are_refused(kind: ServerKind) -> None:
    async with running(Broker(settings()), kind) as address:
        twice = [("Origin", address.http), ("Origin", address.http)]
        assert await refused(address, additional_headers=twice) in (400, 403)  # some servers see it first


async def test_a_refused_origin_is_logged_beside_the_host_and_with_both_remedies(
    kind: ServerKind, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(Broker(settings()), kind) as address:
        await refused(address, origin="https://app.example.com")
        await refused(address, origin="null")
        await refused(address, origin="https://" + "a" * 5000)
    warnings = [record for record in caplog.records if record.name == "velocity_ws.asgi"]
    assert {record.levelname for record in warnings} == {"WARNING"}
    foreign, local, long = [record.getMessage() for record in warnings]
    for text in ("'https://app.example.com'", f"'127.0.0.1:{address.port}'", "WS_ALLOWED_ORIGINS", "$http_host"):
        assert text in foreign
    assert "'null'" in local
    assert "WS_ALLOWED_ORIGINS" in local
    assert len(long) < 1000


async def test_strangers_who_are_refused_by_the_hundred_write_few_warnings(caplog: pytest.LogCaptureFixture) -> None:
    broker = Broker(settings())
    async with Server(broker, port=0) as server:
        address = Address(server.port)
        for number in range(2 * WARNINGS_AT_ONCE):
            assert await refused(address, origin=f"https://evil{number}.example") == 403
            assert await refused(address, additional_headers={"X-Large": "x" * 20_000}) == 431
    assert broker.get_stats().rejected == 4 * WARNINGS_AT_ONCE
    for what in ("because of its origin", "headers are over WS_MAX_HEADER_SIZE"):
        said = [record for record in caplog.records if what in record.getMessage()]
        warnings = [record for record in said if record.levelno == logging.WARNING]
        assert WARNINGS_AT_ONCE <= len(warnings) <= WARNINGS_AT_ONCE + 5  # and one each five seconds


def _attached(broker: Broker) -> ASGIApp:
    app = Starlette()
    broker.attach(app)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost"])
    return app


def _in_a_mounted_application(broker: Broker) -> ASGIApp:
    app, part = Starlette(), Starlette()
    broker.attach(part, "/")
    app.mount("/ws", part)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost"])
    return app


def _mounted(broker: Broker) -> ASGIApp:
    app = Starlette()
    app.mount("/ws", WebSocketApp(broker))
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost"])
    return app


def _inside_the_middleware(broker: Broker) -> ASGIApp:
    return TrustedHostMiddleware(WebSocketMiddleware(Starlette(), broker), allowed_hosts=["localhost"])


@pytest.mark.parametrize("serving", [_attached, _in_a_mounted_application, _mounted, _inside_the_middleware])
async def test_trusted_hosts_keep_a_rebound_name_out(
    serving: Callable[[Broker], ASGIApp], kind: ServerKind, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Broker(settings())
    async with serve(serving(broker), kind) as address:
        rebound = f"ws://evil.example:{address.port}/ws"
        here: dict[str, Any] = {"host": "127.0.0.1", "port": address.port, "proxy": None}
        # Its own page's, as the browser sees it: without the middleware it would be the same origin.
        with pytest.raises(InvalidStatus) as caught:
            await connect(rebound, origin=Origin(f"http://evil.example:{address.port}"), **here)
        assert caught.value.response.status_code == 400
        own = Origin(f"http://localhost:{address.port}")
        async with connect(f"ws://localhost:{address.port}/ws", origin=own, **here):
            pass
        await broker.stop()
    said = {record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING}
    # uvicorn's own class says so of every refusal that has a body.
    assert said == ({"ASGI callable returned without completing handshake."} if kind == "websockets-sansio" else set())


async def test_with_a_server_from_code_a_check_of_the_origin_keeps_a_rebound_name_out() -> None:
    def is_ours(request: HTTPConnection) -> bool:
        return request.headers.get("origin") in {None, "https://app.example.com"}

    async with Server(Broker(settings(check_origin=is_ours)), port=0) as server:
        here: dict[str, Any] = {"host": "127.0.0.1", "port": server.port, "proxy": None}
        with pytest.raises(InvalidStatus, match="403"):
            await connect("ws://evil.example/ws", origin=Origin("http://evil.example"), **here)
        async with connect("ws://app.example.com/ws", origin=Origin("https://app.example.com"), **here):
            pass


async def test_check_origin_alone_decides() -> None:
    def check(request: HTTPConnection) -> bool:
        if "broken" in request.query_params:
            raise RuntimeError("broken")
        return request.headers.get("x-app") == "mine"

    broker = Broker(settings(check_origin=check, allow_missing_origin=False))
    async with running(broker) as address:
        async with address.connect(origin="https://evil.example", additional_headers={"X-App": "mine"}):
            pass
        async with address.connect(additional_headers={"X-App": "mine"}):
            pass
        assert await refused(address, origin=address.http) == 403
        assert await refused(address, "/ws?broken=1") == 500
        assert broker.get_stats().errors == 1


# --- limits


async def test_connection_limit(kind: ServerKind) -> None:
    broker = Broker(settings(max_connections=2))
    async with running(broker, kind) as address:
        async with address.connect(), address.connect() as second:
            assert await refused(address) == 503
            assert await refused(address) == 503
            await second.ws.close()
            await eventually(lambda: len(broker.get_clients()) == 1)
            async with address.connect():
                pass
        assert broker.get_stats().rejected == 2
        assert broker.get_stats().connections == 3


async def test_connection_limit_for_an_address_behind_a_proxy() -> None:
    broker = Broker(settings(max_connections_per_ip=1))
    seen: list[str] = []
    broker.on_connect(lambda client: seen.append(client.remote_addr))

    def coming_from(ip: str) -> dict[str, str]:
        return {"X-Forwarded-For": ip}

    async with running(broker, proxy_headers=True, forwarded_allow_ips="127.0.0.1") as address:
        async with address.connect(additional_headers=coming_from("192.0.2.7")):
            assert await refused(address, additional_headers=coming_from("192.0.2.7")) == 503
            async with address.connect(additional_headers=coming_from("192.0.2.8")):
                await eventually(lambda: len(seen) == 2)
        assert {addr.rpartition(":")[0] for addr in seen} == {"192.0.2.7", "192.0.2.8"}
    async with running(broker, proxy_headers=True, forwarded_allow_ips="10.9.9.9") as address:
        async with address.connect(additional_headers=coming_from("192.0.2.9")):
            await eventually(lambda: len(seen) == 3)
    assert seen[2].startswith("127.0.0.1:")


async def test_the_spellings_of_an_address_share_its_limit() -> None:
    broker = Broker(settings(max_connections_per_ip=1))

    def coming_from(ip: str) -> dict[str, Any]:
        return {"additional_headers": {"X-Forwarded-For": ip}}

    async with running(broker, forwarded_allow_ips="127.0.0.1") as address:
        async with (
            address.connect(**coming_from("192.0.2.7")),
            address.connect(**coming_from("2001:db8::7")),
            address.connect(**coming_from("2001:db8:0:1::7")),
        ):
            for other in ("::ffff:192.0.2.7", "192.0.2.7:4000", "2001:DB8::8", "[2001:db8:0:0:1::7]:4000"):
                assert await refused(address, **coming_from(other)) == 503
        await eventually(lambda: not broker.get_clients())
        async with address.connect(**coming_from("::ffff:192.0.2.7")):
            pass


async def test_an_empty_host_is_no_address() -> None:
    broker = Broker(settings(max_connections_per_ip=1))
    seen: list[str] = []
    broker.on_connect(lambda client: seen.append(client.remote_addr))
    app = WebSocketMiddleware(not_found, broker)

    async def on_a_unix_socket(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "client": ("", "0")}, receive, send)  # as some servers have it there

    async with serve(on_a_unix_socket) as address, address.connect(), address.connect():
        await eventually(lambda: len(seen) == 2)
    assert seen == ["", ""]


async def test_a_handshake_counts_while_it_is_being_authenticated() -> None:
    broker = Broker(settings(max_connections=1))
    arrived, go = asyncio.Event(), asyncio.Event()

    @broker.authenticate
    async def wait(request: HTTPConnection) -> None:
        arrived.set()
        await go.wait()

    async with running(broker) as address:

        async def connect() -> None:
            async with address.connect() as peer:
                await peer.closed()

        waiting = asyncio.create_task(connect())
        await arrived.wait()
        assert await refused(address) == 503
        go.set()
        await eventually(broker.get_clients)
        await broker.get_clients()[0].disconnect()
        await waiting


# --- on_connect, on_disconnect


async def test_no_message_is_handled_before_on_connect_has_finished(kind: ServerKind) -> None:
    broker = Broker(settings())
    go = asyncio.Event()
    order: list[str] = []

    @broker.on_connect
    async def first(client: Client) -> None:
        order.append("first")
        await client.send("hello", client.id)
        await go.wait()

    @broker.on_connect
    def second(client: Client) -> None:
        order.append("second")

    @broker.on("x")
    async def x(client: Client) -> None:
        order.append("message")

    async with running(broker, kind) as address, address.connect() as peer:
        assert await peer.expect("hello") == broker.get_clients()[0].id
        await peer.send("x", id=1)
        await eventually(lambda: broker.get_stats().messages_received == 1)
        assert order == ["first"]
        go.set()
        assert await peer.expect("reply") is None
        assert order == ["first", "second", "message"]


async def test_on_connect_that_raises_fails_closed(kind: ServerKind) -> None:
    broker = Broker(settings())
    later: list[Client] = []
    ended: list[Close] = []

    @broker.on_connect
    async def broken(client: Client) -> None:
        raise RuntimeError("database is down")

    broker.on_connect(later.append)

    @broker.on("x")
    async def x(client: Client) -> None:
        raise AssertionError("never handled")

    @broker.on_disconnect
    async def gone(client: Client, close: Close) -> None:
        ended.append(close)

    async with running(broker, kind) as address, address.connect() as peer:
        with contextlib.suppress(ConnectionClosed):  # it may be closed already
            await peer.send("x")
        code, reason = await peer.closed()
        assert code == 1011
        assert "database" not in reason
        await eventually(lambda: ended)
    assert later == []
    assert ended[0].code == 1011
    assert ended[0].by == "server"
    assert broker.get_stats().errors == 1


async def test_on_connect_may_disconnect(kind: ServerKind) -> None:
    broker = Broker(settings())
    later: list[Client] = []

    @broker.on_connect
    async def greet(client: Client) -> None:
        assert await client.send("bye", 1)
        await client.disconnect(4000, "enough")
        assert not client.is_connected
        assert not await client.send("late")

    broker.on_connect(later.append)
    async with running(broker, kind) as address, address.connect() as peer:
        assert await peer.expect("bye") == 1
        assert await peer.closed() == (4000, "enough")
        await eventually(lambda: not broker.node.lifecycle.sessions)
    assert later == []
    assert broker.get_stats().dropped == 1


async def test_on_disconnect_is_told_once_how_it_ended(kind: ServerKind) -> None:
    broker = Broker(settings())
    ended: list[tuple[Close, bool, bool, frozenset[str]]] = []
    plain: list[Client] = []

    @broker.on_connect
    async def join(client: Client) -> None:
        await broker.join_room(client.id, "lobby")

    @broker.on_disconnect
    async def gone(client: Client, close: Close) -> None:
        ended.append((close, client.is_connected, broker.is_connected(client.id), client.rooms))
        assert not await client.send("into the void")

    broker.on_disconnect(plain.append)

    @broker.on("leave")
    async def leave(client: Client) -> None:
        await client.disconnect(4001, "you asked for it")

    async with running(broker, kind) as address:
        async with address.connect() as peer:
            await peer.ws.close(4005, "mine")
        await eventually(lambda: len(ended) == 1)
        async with address.connect() as peer:
            await peer.send("leave")
            await peer.closed()
        await eventually(lambda: len(ended) == 2)
        async with address.connect() as peer:
            await eventually(lambda: broker.get_rooms() == ["lobby"])
            peer.ws.transport.abort()
        await eventually(lambda: len(ended) == 3)
    by_client, by_server, by_network = (close for close, *_ in ended)
    if kind != "hypercorn":  # which passes on no close code
        assert by_client == Close(4005, "mine", "client")
    assert by_server == Close(4001, "you asked for it", "server")
    assert by_network == Close(1006, "", "network")
    assert all(rest == [False, False, frozenset({"lobby"})] for _, *rest in ended)
    assert len(plain) == 3
    assert plain[0].rooms == frozenset()
    assert broker.get_rooms() == []


async def test_browser_style_close_without_a_code(kind: ServerKind) -> None:
    broker = Broker(settings())
    ended: list[Close] = []

    @broker.on_disconnect
    async def gone(close: Close) -> None:
        ended.append(close)

    async with running(broker, kind) as address:
        async with address.connect() as peer:
            await eventually(broker.get_clients)
            peer.ws.protocol.send_close()
            for chunk in peer.ws.protocol.data_to_send():
                peer.ws.transport.write(chunk)
            await eventually(lambda: ended)
    if kind != "hypercorn":
        assert ended == [Close(1005, "", "client")]


async def test_a_handler_that_hangs_does_not_keep_on_disconnect_away(
    kind: ServerKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("velocity_ws.sessions.ending.HANDLER_GRACE", 0.1)
    monkeypatch.setattr("velocity_ws.sessions.ending.CANCEL_GRACE", 0.1)
    broker = Broker(settings())
    running_now, cancelled, never = asyncio.Event(), asyncio.Event(), threading.Event()
    ended: list[Client] = []

    @broker.on("async")
    async def hang() -> None:
        running_now.set()
        try:
            await asyncio.sleep(DEADLINE * 10)
        finally:
            cancelled.set()

    @broker.on("stubborn")
    async def stubborn() -> None:
        running_now.set()
        while not never.is_set():
            try:
                await asyncio.sleep(0.5)  # what it pretends to do
            except asyncio.CancelledError:
                continue

    @broker.on("thread")
    def blocked() -> None:
        loop.call_soon_threadsafe(running_now.set)
        never.wait(DEADLINE * 10)

    broker.on_disconnect(ended.append)
    loop = asyncio.get_running_loop()
    async with running(broker, kind) as address:
        for number, event in enumerate(("async", "thread", "stubborn"), 1):
            running_now.clear()
            async with address.connect() as peer:
                await peer.send(event)
                await running_now.wait()
            await eventually(lambda number=number: len(ended) == number)  # type: ignore[misc]
        assert cancelled.is_set()
        assert len(broker.node.lifecycle.stragglers) == 1
        never.set()
        await eventually(lambda: not broker.node.lifecycle.stragglers)


async def test_messages_that_arrived_before_the_client_left_are_handled(kind: ServerKind) -> None:
    broker = Broker(settings())
    saved: list[int] = []

    @broker.on("save")
    async def save(data: int) -> None:
        await asyncio.sleep(0)
        saved.append(data)

    async with running(broker, kind) as address:
        async with address.connect() as peer:
            for number in range(50):
                await peer.send("save", number)
        await eventually(lambda: len(saved) == 50)
    assert saved == list(range(50))


async def test_nothing_is_handled_after_disconnect(kind: ServerKind) -> None:
    broker = Broker(settings())
    handled: list[int] = []

    @broker.on("n")
    async def n(client: Client, data: int) -> None:
        handled.append(data)
        if data == 3:
            await client.send("last")
            await client.disconnect(4000)
            await client.disconnect(4001, "harmless")

    async with running(broker, kind) as address, address.connect() as peer:
        await peer.ws.send(b"")  # answered, so that everything after it is in one place
        for number in range(20):
            await peer.send("n", number)
        await peer.expect("error")
        await peer.expect("last")
        assert await peer.closed() == (4000, "")
        await eventually(lambda: not broker.node.lifecycle.sessions)
    assert handled == [0, 1, 2, 3]


async def test_only_websockets_are_served_at_the_endpoint() -> None:
    broker = Broker(settings())
    async with running(broker) as address, httpx.AsyncClient(base_url=address.http) as http:
        assert (await http.get("/ws")).status_code == 404
        assert await refused(address, "/elsewhere") == 403


async def test_logging_is_quiet_and_tells_no_payloads(kind: ServerKind, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "velocity_ws")
    broker = Broker(settings())

    @broker.on("x")
    async def x(data: str) -> str:
        return data

    async with running(broker, kind) as address:
        async with address.connect("/ws?token=t0p-secret", additional_headers={"Cookie": "s=t0p-secret"}) as peer:
            await peer.request("x", "t0p-secret")
            await peer.ws.send("t0p-secret {")
            await peer.expect("error")
        await eventually(lambda: not broker.node.lifecycle.sessions)
    ours = [record for record in caplog.records if record.name.startswith("velocity_ws")]
    assert ours
    assert all(record.levelno < logging.WARNING for record in ours)
    assert all("t0p-secret" not in f"{record.getMessage()} {record.__dict__}" for record in ours)
    connected = next(record for record in ours if record.getMessage() == "client connected")
    assert len(connected.__dict__["client_id"]) >= 22
    assert connected.__dict__["remote_addr"].startswith("127.0.0.1:")
