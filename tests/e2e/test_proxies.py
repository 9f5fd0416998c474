"""Behind every proxy, with the lines that docs/deployment.md has for it, and with those that people forget.

nginx and HAProxy in every run of the tests, all of them by `make proxies`.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import trustme
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
from tests.support.proxies import (
    CONFIGURATION,
    DOCUMENT,
    EVERY,
    LIMITED,
    PROXIES,
    documented,
    replaced,
    run_proxy,
    with_limit,
)
from velocity_ws import Broker, Reject, Server

NO_PATHS = ("squid",)
"""Proxies that take nothing off a path."""


def served_broker(**values: Any) -> Broker:
    """A broker that lets in those with a token."""
    broker = Broker(settings(port=0, subprotocols="bearer", **values))

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
    return PlainTextResponse(str(request.url_for("hello")))


def arrive(port: int, *subprotocols: str, path: str = "", page: str | None = None) -> connect:
    """A handshake through the proxy, as a browser makes it from a page that came through it, or from another."""
    return connect(
        f"ws://127.0.0.1:{port}{path}/ws",
        origin=Origin(page or f"http://127.0.0.1:{port}"),
        subprotocols=[Subprotocol(name) for name in subprotocols],
        proxy=None,
        open_timeout=DEADLINE,
        ping_interval=None,
    )


def let_in(port: int, path: str = "") -> connect:
    """One with the token."""
    return arrive(port, "bearer", "t0k.en", path=path)


async def echoes(ws: Any, text: str = "hello") -> bool:
    """Whether a connection is alive."""
    return bool((await Peer(ws).request("echo", text))["data"] == text)


@asynccontextmanager
async def two_servers(**values: Any) -> AsyncIterator[tuple[Server, Server]]:
    """One for the root, with these settings, and one for ``/collab/``."""
    app = Starlette(routes=[Route("/", hello)])
    async with Server(served_broker(**values), app) as root, Server(served_broker(), app, root_path="/collab") as other:
        yield root, other


@pytest.mark.parametrize("proxy", EVERY)
async def test_the_documented_lines_let_everything_through(proxy: str, tmp_path: Path) -> None:
    port = free_port()
    async with two_servers() as (root, other):
        lines = documented(proxy, port, root.port, root.port, other.port)
        async with run_proxy(proxy, lines, port, tmp_path):
            for path in [""] if proxy in NO_PATHS else ["", "/collab"]:
                async with arrive(port, "bearer", "t0k.en", path=path) as ws:
                    assert ws.subprotocol == "bearer"
                    assert ws.response is not None
                    assert "permessage-deflate" in ws.response.headers["sec-websocket-extensions"]
                    assert await echoes(ws, "x" * 100_000)
                async with arrive(port, "bearer", "stale", path=path) as ws:
                    assert await Peer(ws).closed() == (4401, "bad token")
                for page, token, status, body in (
                    (None, "none", 401, b"no token"),
                    ("https://evil.example", "bearer", 403, None),
                    (f"http://127.0.0.1:{port + 1}", "bearer", 403, None),
                ):
                    with pytest.raises(InvalidStatus) as refused:
                        async with arrive(port, token, path=path, page=page):
                            pass
                    assert refused.value.response.status_code == status
                    assert body in (None, refused.value.response.body)
                async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
                    assert (await http.get(f"{path}/")).text == f"http://127.0.0.1:{port}{path}/"
                    assert (await http.get(f"{path}/ws/velocity.js")).status_code == 200
                    assert (await http.get(f"{path}/ws/health")).json() == {"healthy": True}
                    assert (await http.get("/collab")).is_redirect == proxy.startswith("nginx")


@pytest.mark.proxies
@pytest.mark.parametrize("proxy", ["nginx", "haproxy", "apache", "caddy"])
async def test_tls_at_the_proxy_is_told_to_the_application(proxy: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "app.pem"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "app.key"))
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    port = free_port()
    async with two_servers() as (root, other):
        lines = documented(proxy, port, root.port, root.port, other.port, tls=tmp_path)
        async with run_proxy(proxy, lines, port, tmp_path):
            url = f"https://127.0.0.1:{port}"
            async with httpx.AsyncClient(verify=trust, base_url=url) as http:
                for path in ("/", "/collab/"):
                    assert (await http.get(path)).text == f"{url}{path}"
            for path in ("", "/collab"):
                async with connect(
                    f"wss://127.0.0.1:{port}{path}/ws",
                    origin=Origin(url),
                    subprotocols=[Subprotocol("bearer"), Subprotocol("t0k.en")],
                    ssl=trust,
                    proxy=None,
                    open_timeout=DEADLINE,
                ) as ws:
                    assert await echoes(ws)


@pytest.mark.parametrize("proxy", EVERY)
async def test_a_restart_is_told_with_its_code_and_reason(proxy: str, tmp_path: Path) -> None:
    port = free_port()
    async with (
        two_servers() as (root, other),
        run_proxy(proxy, documented(proxy, port, root.port, root.port, other.port), port, tmp_path),
    ):
        async with let_in(port) as ws:
            assert await echoes(ws)
            await root.stop()
            code, reason = await Peer(ws).closed()
            assert code == 1012
            assert reason.startswith("restarting, retry_after=")


@pytest.mark.proxies
@pytest.mark.parametrize(
    ("proxy", "said", "meant"),
    [
        ("nginx", "location / {", "location /ws {"),
        ("apache", 'ProxyPass "/" "http://127.0.0.1:8000/"', 'ProxyPass "/ws" "http://127.0.0.1:8000/ws"'),
        ("caddy", "handle {", "handle /ws* {"),
    ],
)
async def test_the_endpoint_alone_is_passed_on(proxy: str, said: str, meant: str, tmp_path: Path) -> None:
    assert meant in DOCUMENT.read_text()
    port = free_port()
    async with two_servers() as (root, other):
        lines = documented(proxy, port, root.port, root.port, other.port)
        lines = replaced(lines, [(said.replace("8000", str(root.port)), meant.replace("8000", str(root.port)))])
        async with run_proxy(proxy, lines, port, tmp_path):
            async with let_in(port) as ws:
                assert await echoes(ws)
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
                assert (await http.get("/ws/velocity.js")).status_code == 200
                assert (await http.get("/")).text != f"http://127.0.0.1:{port}/"


@pytest.mark.proxies
@pytest.mark.parametrize(
    ("proxy", "reload"),
    [("nginx", signal.SIGHUP), ("apache", signal.SIGUSR1), ("traefik", None)],
)
async def test_a_reload_keeps_connections(proxy: str, reload: signal.Signals | None, tmp_path: Path) -> None:
    port = free_port()
    async with two_servers() as (root, other):
        lines = documented(proxy, port, root.port, root.port, other.port)
        async with run_proxy(proxy, lines, port, tmp_path) as process, let_in(port) as ws:
            assert await echoes(ws)
            file = tmp_path / CONFIGURATION
            file.write_text(replaced(file.read_text(), [("/collab", "/elsewhere")]))
            if reload is not None:  # Traefik looks at the file
                process.send_signal(reload)
            url, headers = f"http://127.0.0.1:{port}/elsewhere/ws/health", {"connection": "close"}
            async with httpx.AsyncClient(headers=headers) as http, asyncio.timeout(2 * DEADLINE):
                while (await http.get(url)).status_code != 200:  # on a new connection, which a new process takes
                    await asyncio.sleep(0.05)  # there is no event to wait for
            assert await echoes(ws)


@pytest.mark.proxies
async def test_apache_has_threads_for_more_than_debians_150(tmp_path: Path) -> None:
    port = free_port()
    async with two_servers() as (root, other), AsyncExitStack() as stack:
        lines = documented("apache", port, root.port, other.port)
        await stack.enter_async_context(run_proxy("apache", lines, port, tmp_path))
        for _ in range(200):
            assert await echoes(await stack.enter_async_context(let_in(port)))


@pytest.mark.proxies
@pytest.mark.parametrize("proxy", LIMITED)
async def test_pings_keep_a_quiet_connection_open_that_the_proxy_would_end(proxy: str, tmp_path: Path) -> None:
    port = free_port()
    quiet = {"ping_interval": 0}
    async with two_servers(ping_interval=0.3) as (root, _), AsyncExitStack() as stack:
        silent = await stack.enter_async_context(Server(served_broker(**quiet), root_path="/collab"))
        text = with_limit(proxy, documented(proxy, port, root.port, root.port, silent.port))
        await stack.enter_async_context(run_proxy(proxy, text, port, tmp_path))
        async with let_in(port) as alive, let_in(port, "/collab") as ended:
            async with asyncio.timeout(2 * DEADLINE):
                await ended.wait_closed()
            assert ended.close_code in (None, 1006)
            assert await echoes(alive)


@pytest.mark.parametrize("proxy", PROXIES)
async def test_a_server_that_is_stopping_costs_nobody_a_handshake_behind_the_documented_lines(
    proxy: str, tmp_path: Path
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
            async with let_in(port) as ws:
                assert await echoes(ws)
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


async def test_an_nginx_location_with_a_header_of_its_own_inherits_no_upgrade(tmp_path: Path) -> None:
    port = free_port()
    async with Server(served_broker()) as server:
        lines = replaced(
            documented("nginx", port, server.port),
            [("{ proxy_pass http://app; }", "{ proxy_pass http://app; proxy_set_header X-Own 1; }")],
        )
        async with run_proxy("nginx", lines, port, tmp_path):
            with pytest.raises(InvalidStatus) as refused:
                async with let_in(port):
                    pass
    assert refused.value.response.status_code == 426


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
