"""uvicorn's own command with `--ws velocity_ws.uvicorn:WebSocketProtocol`: whatever its options offer works."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import inspect
import json
import os
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from uvicorn.config import HTTP_PROTOCOLS, Config
from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import velocity_ws.uvicorn
from tests.support import DEADLINE, Peer
from tests.support.command import OURS, PATIENT, UPPER, command
from velocity_ws.close import CloseCode

THEIRS = "websockets-sansio"
OUR_HTTP = "velocity_ws.uvicorn:HTTPProtocol"
HTTP_CLASSES = ["auto", *([OUR_HTTP] if hasattr(velocity_ws.uvicorn, "HTTPProtocol") else [])]


async def first(connection: ClientConnection) -> Any:
    """What the application tells of itself at first."""
    async with asyncio.timeout(DEADLINE):
        return json.loads(await connection.recv())


async def check_echo(connection: ClientConnection) -> None:
    """Texts and binary messages, small and large, whole and in fragments, come back."""
    async with asyncio.timeout(DEADLINE):
        for message in ("", "hello", "ü" * 500, b"\x00\xff", "x" * 70_000, os.urandom(1_000_000)):
            await connection.send(message)
            assert await connection.recv() == message
        await connection.send(["frag", "", "mented"])
        assert await connection.recv() == "fragmented"
        await (await connection.ping())


async def code_of(connection: ClientConnection) -> int | None:
    """The close code, once it is over."""
    async with asyncio.timeout(UPPER):
        await connection.wait_closed()
    return connection.close_code


def http_choices() -> list[Any]:
    """`--http`, as far as this uvicorn and what is installed offer it."""
    missing = "this uvicorn does not offer it, or it is not installed"
    has_zttp = "zttp" in HTTP_PROTOCOLS and importlib.util.find_spec("zttp") is not None
    has_http2 = has_zttp and "http2" in inspect.signature(Config).parameters
    zttp = pytest.param("zttp", marks=pytest.mark.skipif(not has_zttp, reason=missing))
    http2 = pytest.param("zttp --http2", marks=pytest.mark.skipif(not has_http2, reason=missing))
    known = ["h11", "httptools", zttp, http2]
    return [*known, *HTTP_CLASSES[1:]]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("http", http_choices())
async def test_loops_and_http_parsers(loop: str, http: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        served = await stack.enter_async_context(command("--loop", loop, "--http", *http.split()))
        assert (await served.get())[0] == 200
        connection = await stack.enter_async_context(served.connect(max_size=None))
        told = await first(connection)
        assert told["is ours"]
        assert told["loop"] == loop
        assert http == OUR_HTTP or told["http"] == http.split()[0]
        assert any(extension.name == "permessage-deflate" for extension in connection.protocol.extensions)
        await check_echo(connection)
        plain = await stack.enter_async_context(served.connect(compression=None, max_size=None))
        await first(plain)
        await check_echo(plain)
        peer = Peer(await stack.enter_async_context(served.connect("/ws")))
        assert (await peer.request("who"))["data"]["is ours"]
        await served.stop()
        assert [await code_of(each) for each in (connection, plain, peer.ws)] == [CloseCode.SERVICE_RESTART] * 3


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, list[str]]:
    """What a client trusts, and the options by which the server is trusted."""
    place = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    own = authority.issue_cert("localhost")
    own.private_key_pem.write_to_path(place / "key.pem")
    for index, blob in enumerate(own.cert_chain_pems):
        blob.write_to_path(place / "cert.pem", append=index > 0)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    return trusting, ["--ssl-keyfile", str(place / "key.pem"), "--ssl-certfile", str(place / "cert.pem")]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("http", HTTP_CLASSES)
async def test_tls(loop: str, http: str, certificates: tuple[ssl.SSLContext, list[str]]) -> None:
    trusting, options = certificates
    async with contextlib.AsyncExitStack() as stack:
        served = await stack.enter_async_context(command("--loop", loop, "--http", http, *options))
        secure: Any = {"scheme": "wss", "host": "localhost", "ssl": trusting}
        connection = await stack.enter_async_context(served.connect(**secure, max_size=None))
        told = await first(connection)
        assert told["is ours"]
        assert told["url"] == f"wss://localhost:{served.port}/echo"
        assert told["client"][0] in ("127.0.0.1", "::1")
        await check_echo(connection)
        peer = Peer(await stack.enter_async_context(served.connect("/ws", **secure)))
        assert (await peer.request("who"))["data"]["scheme"] == "wss"
        leaver = await stack.enter_async_context(served.connect(**secure))
        await leaver.close(4000)
        await served.stop()
        assert [await code_of(each) for each in (connection, peer.ws)] == [CloseCode.SERVICE_RESTART] * 2


def coming_from(address: str) -> dict[str, Any]:
    """The headers of a proxy."""
    return {"additional_headers": {"X-Forwarded-For": address, "X-Forwarded-Proto": "https"}}


@pytest.mark.parametrize("http", HTTP_CLASSES)
async def test_behind_a_proxy(http: str) -> None:
    async with command("--proxy-headers", "--http", http, WS_MAX_CONNECTIONS_PER_IP="1") as served:
        async with served.connect("/ws", **coming_from("192.0.2.7")) as connection:
            told = (await Peer(connection).request("who"))["data"]
            assert told["remote_addr"].rpartition(":")[0] == "192.0.2.7"
            assert told["scheme"] == "wss"
            assert await served.refused("/ws", **coming_from("192.0.2.7")) == 503
            async with served.connect("/ws", **coming_from("192.0.2.8, 127.0.0.1")) as another:
                told = (await Peer(another).request("who"))["data"]
                assert told["remote_addr"].rpartition(":")[0] == "192.0.2.8"
            async with served.connect("/ws", **coming_from("2001:db8::7")) as another:
                told = (await Peer(another).request("who"))["data"]
                assert told["remote_addr"].startswith("[2001:db8::7]:")


@pytest.mark.parametrize("options", [["--no-proxy-headers"], ["--forwarded-allow-ips", "10.9.9.9"]])
async def test_a_proxy_that_is_not_trusted(options: list[str]) -> None:
    async with command(*options, WS_MAX_CONNECTIONS_PER_IP="1") as served:
        async with served.connect("/ws", **coming_from("192.0.2.7")) as connection:
            told = (await Peer(connection).request("who"))["data"]
            assert told["remote_addr"].startswith("127.0.0.1:")
            assert told["scheme"] == "ws"
            assert await served.refused("/ws", **coming_from("192.0.2.8")) == 503


@pytest.mark.parametrize("http", HTTP_CLASSES)
async def test_unix_socket(http: str, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    options = ("--uds", path, "--http", http, "--forwarded-allow-ips", "*")
    async with command(*options, WS_MAX_CONNECTIONS_PER_IP="1") as served:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(2):  # who has no address is in no one's way
                connection = await stack.enter_async_context(unix_connect(path, "ws://localhost/ws"))
                told = (await Peer(connection).request("who"))["data"]
                assert told["is ours"]
                assert told["remote_addr"] == ""
            connection = await stack.enter_async_context(unix_connect(path, "ws://localhost/echo", max_size=None))
            assert (await first(connection))["server"] == [path, None]
            await check_echo(connection)
            proxied = coming_from("192.0.2.7")
            connection = await stack.enter_async_context(unix_connect(path, "ws://localhost/ws", **proxied))
            told = (await Peer(connection).request("who"))["data"]
            assert told["remote_addr"].rpartition(":")[0] == "192.0.2.7"
            with pytest.raises(InvalidStatus, match="503"):
                await stack.enter_async_context(unix_connect(path, "ws://localhost/ws", **proxied))
            await served.stop()


async def test_root_path() -> None:
    async with command("--root-path", "/api/v1") as served:
        async with served.connect("/ws") as connection:
            told = (await Peer(connection).request("who"))["data"]
            assert (told["root_path"], told["path"], told["raw_path"]) == ("/api/v1", "/api/v1/ws", "/api/v1/ws")
        _, http = await served.get("/tell?a=%20b")
        async with served.connect("/echo?a=%20b") as connection:
            told = await first(connection)
        for key in ("url", "path", "raw_path"):
            assert told[key] == http[key].replace("http:", "ws:").replace("tell", "echo")
        assert told["query_string"] == http["query_string"] == "a=%20b"


async def test_subprotocols() -> None:
    async with command() as served:
        async with served.connect(subprotocols=["one", "two"]) as connection:
            assert connection.subprotocol == "two"
            assert (await first(connection))["subprotocols"] == ["one", "two"]
        several = {"Sec-WebSocket-Protocol": "one , two"}  # beside the header that the library sends
        async with served.connect(subprotocols=["two"], additional_headers=several) as connection:
            assert connection.subprotocol == "two"
            assert sorted((await first(connection))["subprotocols"]) == ["one", "two", "two"]
        async with served.connect() as connection:
            assert connection.subprotocol is None
            assert (await first(connection))["subprotocols"] == []


async def test_what_is_told_is_what_uvicorns_own_class_tells() -> None:
    told = []
    for ws in (OURS, THEIRS):
        async with command("--root-path", "/api", "--forwarded-allow-ips", "*", ws=ws) as served:
            for path in ("/echo", "/echo/a%20b/%C3%BC?x=1&y=%20z", "/echo/a%2Fb?", "/echo//c"):
                for options in ({}, coming_from("192.0.2.7"), {"subprotocols": ["a", "b"]}):
                    async with served.connect(path, **options) as connection:
                        own = await first(connection)
                    assert own.pop("is ours") == (ws == OURS)
                    assert own.pop("pid") == served.process.pid
                    own["client"][1] = bool(own["client"][1])
                    told.append(json.dumps(own).replace(str(served.port), "PORT"))
    assert told[: len(told) // 2] == told[len(told) // 2 :]


@pytest.mark.parametrize("http", http_choices())
async def test_limit_concurrency(http: str) -> None:
    async with command("--limit-concurrency", "3", "--http", *http.split()) as served:
        async with contextlib.AsyncExitStack() as stack:
            for path in ("/ws", "/echo"):
                connection = await stack.enter_async_context(served.connect(path))
                await (await connection.ping())
            assert (await served.get())[0] == 503
        async with asyncio.timeout(DEADLINE):
            while (await served.get())[0] != 200:
                await asyncio.sleep(0.02)  # the pause between two looks, not the wait


async def test_options_about_websockets() -> None:
    options = ("--ws-max-size", "1000", "--ws-per-message-deflate", "false", "--ws-ping-interval", "0.1")
    async with command(*options, "--header", "x-own:yes", "--no-date-header") as served:
        async with served.connect() as connection:
            assert connection.protocol.extensions == []
            assert connection.response is not None
            assert connection.response.headers["x-own"] == "yes"
            assert connection.response.headers["server"] == "uvicorn"
            assert "date" not in connection.response.headers
            await first(connection)
            await connection.send("x" * 1000)
            assert await connection.recv() == "x" * 1000
            await connection.send("x" * 1001)
            assert await code_of(connection) == CloseCode.MESSAGE_TOO_BIG
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(
            b"GET /echo HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        async with asyncio.timeout(DEADLINE):
            await reader.readuntil(b"\r\n\r\n")
            await reader.readuntil(b"}")  # what the application tells
            assert (await reader.readexactly(2))[0] == 0x89  # a ping
            writer.close()
            await writer.wait_closed()


async def test_workers() -> None:
    async with command("--workers", "2", *PATIENT, workers=2) as served:
        async with contextlib.AsyncExitStack() as stack:
            peers = [Peer(await stack.enter_async_context(served.connect("/ws"))) for _ in range(40)]
            pids = {(await peer.request("who"))["data"]["pid"] for peer in peers}
            assert served.process.pid not in pids
            await served.stop()
            assert served.process.returncode == 0
            assert {await code_of(peer.ws) for peer in peers} == {CloseCode.SERVICE_RESTART}
    with pytest.raises((OSError, ConnectionClosed)):
        await served.connect("/ws")
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
