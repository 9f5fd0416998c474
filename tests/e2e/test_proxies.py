"""Behind nginx and HAProxy with the lines that docs/deployment.md has, and with those that people forget."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import httpx2 as httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin, Subprotocol

import velocity_ws.asgi.pages
from tests.support import DEADLINE, Peer, settings
from tests.support.engines import free_port
from tests.support.proxies import PROXIES, Proxy, documented, run_proxy
from velocity_ws import Broker, Reject, Server


def served_broker() -> Broker:
    """A broker that lets in those with a token."""
    broker = Broker(settings(port=0, subprotocols="bearer"))

    @broker.authenticate
    def check(request: HTTPConnection) -> None:
        offered = request.scope["subprotocols"]
        if offered == ["none"]:
            raise Reject("no token", status=401)
        if offered != ["bearer", "t0k.en"]:
            raise Reject("bad token", code=4401)

    @broker.on("echo")
    async def echo(data: str) -> str:
        return data

    return broker


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.headers["host"])


def arrive(port: int, *subprotocols: str) -> connect:
    """A handshake through the proxy, as a browser makes it from a page that came through it."""
    return connect(
        f"ws://127.0.0.1:{port}/ws",
        origin=Origin(f"http://127.0.0.1:{port}"),
        subprotocols=[Subprotocol(name) for name in subprotocols],
        proxy=None,
        open_timeout=DEADLINE,
    )


@pytest.mark.parametrize("proxy", PROXIES)
async def test_the_documented_lines_let_everything_through(proxy: Proxy, tmp_path: Path) -> None:
    port = free_port()
    async with (
        Server(served_broker(), Starlette(routes=[Route("/", hello)])) as one,
        Server(served_broker(), Starlette(routes=[Route("/", hello)])) as two,
        run_proxy(proxy, documented(proxy, port, one.port, two.port), port, tmp_path),
    ):
        async with arrive(port, "bearer", "t0k.en") as ws:
            assert ws.subprotocol == "bearer"
            assert ws.response is not None
            assert "permessage-deflate" in ws.response.headers["sec-websocket-extensions"]
            assert (await Peer(ws).request("echo", "x" * 100_000))["data"] == "x" * 100_000
        async with arrive(port, "bearer", "stale") as ws:
            assert await Peer(ws).closed() == (4401, "bad token")
        with pytest.raises(InvalidStatus) as refused:
            async with arrive(port, "none"):
                pass
        assert (refused.value.response.status_code, refused.value.response.body) == (401, b"no token")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            assert (await http.get("/")).text == f"127.0.0.1:{port}"
            assert (await http.get("/ws/velocity.js")).status_code == 200


@pytest.mark.parametrize("proxy", PROXIES)
async def test_a_server_that_is_stopping_costs_nobody_a_handshake_behind_the_documented_lines(
    proxy: Proxy, tmp_path: Path
) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        refused.set()
        writer.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    port, refused = free_port(), asyncio.Event()
    stopping = await asyncio.start_server(refuse, "127.0.0.1", 0)
    stopping_port = stopping.sockets[0].getsockname()[1]
    async with (
        Server(served_broker()) as server,
        run_proxy(proxy, documented(proxy, port, stopping_port, server.port), port, tmp_path),
    ):
        for _ in range(2):  # so that each of the two has its turn
            async with arrive(port, "bearer", "t0k.en") as ws:
                assert (await Peer(ws).request("echo", "hello"))["data"] == "hello"
    assert refused.is_set()
    stopping.close()


async def test_an_nginx_that_passes_no_upgrade_on_is_answered_426_and_the_log_names_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(velocity_ws.asgi.pages, "_has_warned", False)
    port = free_port()
    async with Server(served_broker()) as server:
        config = f"""
events {{}}
http {{
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://127.0.0.1:{server.port}; proxy_set_header Host $http_host; }}
    }}
}}
"""
        async with run_proxy("nginx", config, port, tmp_path):
            with caplog.at_level(logging.WARNING, "velocity_ws"), pytest.raises(InvalidStatus) as refused:
                async with arrive(port, "bearer", "t0k.en"):
                    pass
    assert refused.value.response.status_code == 426
    (warning,) = caplog.messages
    assert "without Upgrade: websocket and Connection: Upgrade and HTTP/1.1" in warning


@pytest.mark.parametrize("forgotten", ["proxy_set_header Host $http_host;", "_http_host"])
async def test_an_nginx_that_loses_the_pages_host_has_its_page_refused(
    forgotten: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    async with Server(served_broker()) as server:
        text = documented("nginx", port, server.port, server.port)
        # Without the line the backend's name is passed on; with nginx's own $host the port is lost.
        text = text.replace("$http_host", "$host") if forgotten == "_http_host" else text.replace(forgotten, "")
        async with run_proxy("nginx", text, port, tmp_path):
            with pytest.raises(InvalidStatus) as refused:
                async with arrive(port, "bearer", "t0k.en"):
                    pass
    assert refused.value.response.status_code == 403
    assert "proxy_set_header Host $http_host;" in caplog.text
