"""`WebSocketProtocol` as a server of its own: any ASGI application runs on it, and no connection costs another."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from uvicorn.protocols.utils import ClientDisconnected
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.support import DEADLINE, ServerKind, eventually, running, serve, settings
from velocity_ws import Broker, WebSocketApp
from velocity_ws.uvicorn import WebSocketProtocol

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
)


def starlette(endpoint: Any) -> Starlette:
    """An application with one WebSocket route."""
    return Starlette(routes=[WebSocketRoute("/ws", endpoint)])


async def echo(ws: WebSocket) -> None:
    await ws.accept(subprotocol="b" if "b" in ws.scope["subprotocols"] else None, headers=[(b"x-own", b"yes")])
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            message = await ws.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") is not None:
                await ws.send_text(message["text"])
            else:
                await ws.send_bytes(message["bytes"])


@pytest.mark.parametrize("compression", ["deflate", None])
async def test_an_application_that_is_not_ours(compression: str | None) -> None:
    async with serve(starlette(echo), "ours") as address:
        async with address.connect(subprotocols=["a", "b"], compression=compression, max_size=None) as peer:
            assert peer.ws.subprotocol == "b"
            assert peer.ws.response is not None
            assert peer.ws.response.headers["x-own"] == "yes"
            assert "date" in peer.ws.response.headers
            messages: list[str | bytes] = ["", "hello", "ü" * 500, b"", b"\x00\xff", "x" * 70_000, b"y" * 300_000]
            for message in messages:
                await peer.ws.send(message)
                assert await peer.ws.recv() == message
            await peer.ws.send(["frag", "", "men", "ted"])
            assert await peer.ws.recv() == "fragmented"
            async with asyncio.timeout(DEADLINE):
                await (await peer.ws.ping())


async def test_refusals() -> None:
    async def deny(ws: WebSocket) -> None:
        if "deny" in ws.query_params:
            await ws.send_denial_response(PlainTextResponse("not you", 451, {"x-why": "law"}))
        elif "close" in ws.query_params:
            await ws.close()
        elif "raise" in ws.query_params:
            raise RuntimeError("broken")

    async with serve(starlette(deny), "ours") as address:
        for query, status, body in (
            ("deny=1", 451, b"not you"),
            ("close=1", 403, b""),
            ("raise=1", 500, b"Internal Server Error"),
            ("", 500, b"Internal Server Error"),
        ):
            with pytest.raises(InvalidStatus) as caught:
                async with address.connect(f"/ws?{query}"):
                    pass
            assert caught.value.response.status_code == status
            assert caught.value.response.body == body
        assert caught.value.response.headers["connection"] == "close"


async def test_how_it_ended() -> None:
    ended: list[Any] = []

    async def listen(ws: WebSocket) -> None:
        await ws.accept()
        event = await ws._receive()
        while event["type"] != "websocket.disconnect":
            event = await ws._receive()
        ended.append((event["code"], event["reason"]))
        with pytest.raises(ClientDisconnected):
            await ws._send({"type": "websocket.send", "text": "too late"})

    async with serve(starlette(listen), "ours") as address:
        async with address.connect() as peer:
            await peer.ws.close(4001, "mine")
        await eventually(lambda: len(ended) == 1)
        async with address.connect() as peer:
            peer.ws.transport.abort()
        await eventually(lambda: len(ended) == 2)
        async with address.connect() as peer:
            peer.ws.transport.write_eof()
            await eventually(lambda: len(ended) == 3)
        async with address.connect(compression=None) as peer:
            peer.ws.transport.write(b"\x81\x85\x00\x00\x00\x00\xff\xff\xff\xff\xff")
            assert (await peer.closed())[0] == 1007
        await eventually(lambda: len(ended) == 4)
    assert [code for code, _ in ended] == [4001, 1006, 1006, 1007]
    assert ended[0][1] == "mine"


async def test_an_application_that_fails_after_accept() -> None:
    async def broken(ws: WebSocket) -> None:
        await ws.accept()
        raise RuntimeError("broken")

    async with serve(starlette(broken), "ours") as address, address.connect() as peer:
        assert (await peer.closed())[0] == 1011


async def test_an_application_that_returns_closes() -> None:
    async def brief(ws: WebSocket) -> None:
        await ws.accept()
        await ws.send_text("bye")

    async with serve(starlette(brief), "ours") as address, address.connect() as peer:
        assert await peer.ws.recv() == "bye"
        assert (await peer.closed())[0] == 1000


@pytest.mark.parametrize("how", ["returns", "raises", "closes"])
async def test_the_end_of_an_application_that_has_not_read_everything(how: str) -> None:
    arrived, over = asyncio.Event(), asyncio.Event()

    async def brief(ws: WebSocket) -> None:
        await ws.accept()
        await ws.receive()
        await arrived.wait()
        if how == "raises":
            raise RuntimeError("broken")
        if how == "closes":
            await ws.close(4000)
            await over.wait()

    async with serve(starlette(brief), "ours") as address, address.connect(compression=None) as peer:
        await peer.ws.send("x" * 1000)
        for _ in range(100):
            await peer.ws.send("x" * 1000)  # more than is read ahead
        await asyncio.sleep(0.1)  # read by the server, up to that
        arrived.set()
        async with asyncio.timeout(DEADLINE / 2):
            assert (await peer.closed())[0] == {"returns": 1000, "raises": 1011, "closes": 4000}[how]
        over.set()


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (b"\x81\x82\x00\x00\x00\x00\xff\xff", 1007),
        (b"\x01\x82\x00\x00\x00\x00\xff\xff", 1007),
        (b"\x83\x80\x00\x00\x00\x00", 1002),
        (b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff", 1009),
    ],
)
async def test_what_came_before_an_error_is_answered_first(bad: bytes, code: int) -> None:
    async with serve(starlette(echo), "ours") as address:
        reader, writer = await asyncio.open_connection("127.0.0.1", address.port)
        writer.write(HANDSHAKE + b"\r\n")
        async with asyncio.timeout(DEADLINE):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"\x81\x81\x00\x00\x00\x00a" * 3 + bad)
            said = await reader.read()
        assert said[:9] == b"\x81\x01a" * 3
        assert int.from_bytes(said[11:13], "big") == code
        writer.close()
        await writer.wait_closed()


async def test_who_is_to_be_failed_is_not_read_meanwhile() -> None:
    go = asyncio.Event()

    async def slow(ws: WebSocket) -> None:
        await ws.accept()
        await ws.receive()
        await go.wait()

    async with serve(starlette(slow), "ours") as address:
        reader, writer = await asyncio.open_connection("127.0.0.1", address.port)
        writer.write(HANDSHAKE + b"\r\n")
        async with asyncio.timeout(DEADLINE):
            await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\x81\x81\x00\x00\x00\x00a" * 3 + b"\x83\x80\x00\x00\x00\x00")
        writer.write(bytes(30_000_000))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.drain(), 0.3)
        go.set()
        writer.transport.abort()


async def test_why_a_connection_is_failed_is_said_when_the_application_ends() -> None:
    arrived = asyncio.Event()

    async def brief(ws: WebSocket) -> None:
        await ws.accept()
        await ws.receive()
        await arrived.wait()

    async with serve(starlette(brief), "ours") as address, address.connect(compression=None) as peer:
        await peer.ws.send("read")
        await peer.ws.send("not read")
        peer.ws.transport.write(b"\x83\x80\x00\x00\x00\x00")
        await asyncio.sleep(0.1)  # read by the server, which says nothing yet
        arrived.set()
        async with asyncio.timeout(DEADLINE / 2):
            assert (await peer.closed())[0] == 1002


async def test_an_application_that_sends_nonsense() -> None:
    failures: list[str] = []

    async def nonsense(scope: Any, receive: Any, send: Any) -> None:
        for message in ({"type": "websocket.send", "text": "early"}, {"type": "websocket.unheard.of"}):
            try:
                await send(message)
            except RuntimeError as error:
                failures.append(str(error))
        await send({"type": "websocket.accept"})
        try:
            await send({"type": "websocket.accept"})
        except RuntimeError as error:
            failures.append(str(error))

    async with serve(nonsense, "ours", lifespan="off") as address, address.connect() as peer:
        await peer.closed()
    assert len(failures) == 3


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (HANDSHAKE.replace(b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", b"") + b"\r\n", 400),
        (HANDSHAKE.replace(b"Version: 13", b"Version: 8") + b"\r\n", 400),
        (HANDSHAKE + b"X-Many: 1\r\n" * 200 + b"\r\n", 431),
    ],
)
async def test_a_handshake_that_fails_is_answered_and_gone(request_: bytes, status: int) -> None:
    async with serve(starlette(echo), "ours") as address:
        reader, writer = await asyncio.open_connection("127.0.0.1", address.port)
        writer.write(request_)
        async with asyncio.timeout(DEADLINE):
            assert int((await reader.read()).split()[1]) == status
        writer.close()
        await writer.wait_closed()


async def test_messages_sent_before_accept_are_not_lost() -> None:
    arrived, go = asyncio.Event(), asyncio.Event()

    async def late(ws: WebSocket) -> None:
        arrived.set()
        await go.wait()
        await echo(ws)

    async with serve(starlette(late), "ours") as address:
        reader, writer = await asyncio.open_connection("127.0.0.1", address.port)
        writer.write(HANDSHAKE + b"\r\n")
        await writer.drain()
        await arrived.wait()
        writer.write(b"\x81\x82\x00\x00\x00\x00hi")
        await writer.drain()
        go.set()
        async with asyncio.timeout(DEADLINE):
            assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(4) == b"\x81\x02hi"
        writer.close()
        await writer.wait_closed()


async def test_messages_that_come_before_the_broker_takes_them_are_not_lost() -> None:
    broker = Broker(settings())
    app = WebSocketApp(broker)
    go = asyncio.Event()

    @broker.on("echo")
    async def answer(data: int) -> int:
        return data

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        async def send_and_wait(message: Any) -> None:
            await send(message)
            if message["type"] == "websocket.accept":
                await go.wait()

        await app(scope, receive, send_and_wait)

    async with serve(middleware, "ours", lifespan="off") as address, address.connect() as peer:
        for number in range(3):
            await peer.send("echo", number, id=number)
        await asyncio.wait_for(peer.ws.ping(), DEADLINE)  # written: the server's socket has them
        go.set()
        for number in range(3):
            assert (await peer.receive())["data"] == number
    await broker.stop()


async def test_the_server_stops_with_1012() -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with serve(starlette(echo), "ours") as address:
            peer = await stack.enter_async_context(address.connect())
        assert (await peer.closed())[0] == 1012


async def test_an_application_waits_for_a_client_that_does_not_read() -> None:
    sent = 0

    async def pour(ws: WebSocket) -> None:
        nonlocal sent
        await ws.accept()
        with contextlib.suppress(WebSocketDisconnect, OSError):
            while True:
                await ws.send_bytes(b"x" * 100_000)
                sent += 1

    async with serve(starlette(pour), "ours") as address:
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.setblocking(False)
            await asyncio.get_running_loop().sock_connect(slow, ("127.0.0.1", address.port))
            await asyncio.get_running_loop().sock_sendall(slow, HANDSHAKE + b"\r\n")
            await eventually(lambda: sent > 1)
            last = -1
            while last != sent:  # until nothing more goes out
                last = sent
                for _ in range(20):
                    await asyncio.sleep(0)
            assert sent < 200


# --- one connection never costs another


@pytest.mark.usefixtures("unhurried")
async def test_a_slow_handler_is_not_taken_for_a_dead_peer() -> None:
    broker = Broker(settings(ping_interval=0.05, ping_timeout=0.05))
    begun, go = asyncio.Event(), asyncio.Event()

    @broker.on("slow")
    async def slow() -> str:
        begun.set()
        await go.wait()
        return "done"

    async with running(broker, "ours") as address, address.connect() as peer:
        await peer.send("slow", id=1)
        await begun.wait()
        for _ in range(5):
            assert await broker.get_clients()[0].ping() is not None
        await asyncio.sleep(0.4)  # eight times what a pong may take
        go.set()
        assert (await peer.receive())["data"] == "done"


async def test_pings_that_are_never_read_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[WebSocketProtocol] = []
    original = WebSocketProtocol.connection_made

    def note(self: WebSocketProtocol, transport: asyncio.BaseTransport) -> None:
        original(self, transport)
        made.append(self)

    monkeypatch.setattr(WebSocketProtocol, "connection_made", note)
    monkeypatch.setattr("velocity_ws.websocket.connection.CONTROL_FRAMES_AT_ONCE", 1_000_000)
    ping = b"\x89\xfd" + bytes(4) + b"p" * 125
    async with serve(starlette(echo), "ours") as address:
        loop = asyncio.get_running_loop()
        with socket.socket() as flood:
            flood.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            flood.setblocking(False)
            await loop.sock_connect(flood, ("127.0.0.1", address.port))
            await loop.sock_sendall(flood, HANDSHAKE + b"\r\n")
            assert b" 101 " in await loop.sock_recv(flood, 4096)
            async with asyncio.timeout(60):
                await loop.sock_sendall(flood, ping * 100_000)
            highest = made[0].transport.get_write_buffer_size()
            assert highest < 256 * 1024
            assert made[0]._writer.is_paused


async def test_a_client_that_only_pings_is_closed() -> None:
    async with serve(starlette(echo), "ours") as address, address.connect() as peer:
        await peer.ws.send("hello")
        assert await peer.ws.recv() == "hello"
        peer.ws.transport.write(b"\x89\x80\x00\x00\x00\x00" * 10_000)
        assert (await peer.closed())[0] == 1008


@pytest.mark.parametrize(
    ("flood", "code"),
    [("pings", 1008), ("empty fragments", 1008), ("one-byte fragments", 1008)],
)
async def test_a_flood_does_not_delay_others(flood: str, code: int | None) -> None:
    broker = Broker(settings(rate_limit=0, max_message_size="1MiB"))

    @broker.on("echo")
    async def answer(data: int) -> int:
        return data

    async with running(broker, "ours") as address, address.connect() as victim:
        attacker = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.programs.flood",
            str(address.port),
            flood,
            stdout=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        await eventually(lambda: len(broker.get_clients()) == 2 or attacker.returncode is not None)
        took: list[float] = []
        for number in range(200):
            begun = time.perf_counter()
            assert (await victim.request("echo", number))["data"] == number
            took.append(time.perf_counter() - begun)
        assert attacker.stdout is not None
        async with asyncio.timeout(DEADLINE):
            assert int(await attacker.stdout.readline()) == code
        await attacker.wait()
    # One turn of the flood's at most; without a budget for each turn it is seconds.
    assert sorted(took)[int(len(took) * 0.9)] < 0.1


async def test_a_deflate_bomb_is_refused_at_the_limit() -> None:
    broker = Broker(settings(max_message_size="64KiB"))
    async with running(broker, "ours") as address, address.connect(compression="deflate") as peer:
        await peer.ws.send("x" * 50_000_000)
        assert (await peer.closed())[0] == 1009


async def test_compression_is_negotiated_without_context(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker(settings())
    async with running(broker, "ours") as address, address.connect(compression="deflate") as peer:
        assert peer.ws.response is not None
        agreed = peer.ws.response.headers["Sec-WebSocket-Extensions"]
        for parameter in ("server_no_context_takeover", "client_no_context_takeover", "server_max_window_bits=12"):
            assert parameter in agreed
        await broker.broadcast("n", "ha" * 1000)
        assert await peer.expect("n") == "ha" * 1000
    broker = Broker(settings(enable_compression=False))
    async with running(broker, "ours", ws_per_message_deflate=True) as address:
        async with address.connect(compression="deflate") as peer:
            assert peer.ws.response is not None
            assert "Sec-WebSocket-Extensions" not in peer.ws.response.headers


async def test_a_client_that_is_pinged_when_it_goes() -> None:
    broker = Broker(settings())
    async with running(broker, "ours") as address, contextlib.AsyncExitStack() as stack:
        peer = await stack.enter_async_context(address.connect())
        await eventually(broker.get_clients)
        client = broker.get_clients()[0]
        peer.ws.transport.pause_reading()
        waiting = asyncio.create_task(client.ping())
        await asyncio.sleep(0)
        peer.ws.transport.abort()
        assert await waiting is None
        await eventually(lambda: not client.is_connected)
        assert await client.ping() is None
        with contextlib.suppress(ConnectionClosed):
            await peer.ws.send(json.dumps({}))


# --- what is said, and to whom


async def test_no_token_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with serve(starlette(echo), "ours") as address:
        async with address.connect("/ws?token=secret"):
            pass
        with pytest.raises(InvalidStatus):
            async with address.connect("/elsewhere?token=secret"):
                pass
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("websockets")]
    assert any('"WebSocket /ws" [accepted]' in line for line in ours)
    assert not any("secret" in line for line in ours)


async def test_a_header_cannot_break_out_of_its_line(caplog: pytest.LogCaptureFixture) -> None:
    async def split(ws: WebSocket) -> None:
        await ws.accept(headers=[(b"x-own", b"a\r\nset-cookie: stolen=1")])

    async with serve(starlette(split), "ours") as address:
        with pytest.raises(InvalidStatus) as caught:
            async with address.connect():
                pass
    assert caught.value.response.status_code == 500
    assert "set-cookie" not in caught.value.response.headers
    assert "cannot be sent as a header" in caplog.text


@pytest.mark.parametrize(("status", "headers"), [(403, [(b"x-own", b"a\r\nset-cookie: stolen=1")]), (999, [])])
async def test_a_refusal_that_cannot_be_sent_is_a_500(status: int, headers: list[tuple[bytes, bytes]]) -> None:
    async def deny(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b"no"})

    async with serve(deny, "ours", lifespan="off") as address:
        with pytest.raises(InvalidStatus) as caught:
            async with address.connect():
                pass
    assert caught.value.response.status_code == 500
    assert "set-cookie" not in caught.value.response.headers


@pytest.mark.parametrize(("server", "is_said"), [("ours", False), ("websockets-sansio", True)])
async def test_the_portable_path_says_once_what_is_faster(
    server: ServerKind, is_said: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("velocity_ws.sessions.hints._said_faster_way", 0)  # by whatever ran before in this process
    caplog.set_level("INFO", "velocity_ws")
    async with running(Broker(settings()), server) as address:
        for _ in range(2):
            async with address.connect():
                pass
    said = [record for record in caplog.records if "--ws velocity_ws.uvicorn:WebSocketProtocol" in record.getMessage()]
    assert len(said) == int(is_said)


@pytest.mark.parametrize("what", ["too long", "not masked"])
async def test_who_goes_on_sending_still_reads_why_it_was_closed(what: str) -> None:
    # Enough for some of it to be unread when the connection is failed.
    bad = b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff" if what == "too long" else b"\x82\x05hello"
    broker = Broker(settings())
    async with running(broker, "ours") as address:
        for _ in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", address.port)
            writer.write(HANDSHAKE + b"\r\n")
            async with asyncio.timeout(DEADLINE):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(bad + bytes(150_000))
                last = await reader.read()
            assert last[:1] == b"\x88"
            assert int.from_bytes(last[2:4], "big") == (1009 if what == "too long" else 1002)
            writer.close()
            await writer.wait_closed()
        await eventually(lambda: not broker.get_clients())
