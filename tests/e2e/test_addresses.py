"""The client's address behind proxies: with the documented lines nobody chooses it; without them a warning says so."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import InvalidStatus

from tests.support import DEADLINE, Peer, ServerKind, eventually, running, settings
from tests.support.command import ROOT, command
from tests.support.engines import free_port
from tests.support.proxies import EVERY, PROXIES, documented, run_proxy
from velocity_ws import Broker, Client, Server

FORGED = ["203.0.113.1", "203.0.113.2", "2001:db8::1"]
LINES = {"nginx": "proxy_set_header X-Forwarded-For", "haproxy": "option forwardfor"}
COMPLAINT = "WS_MAX_CONNECTIONS_PER_IP cannot hold"


def limited(limit: int) -> Broker:
    """A broker with that limit for an address, which tells each client its own."""
    broker = Broker(settings(max_connections_per_ip=limit, allowed_origins="*"))

    @broker.on("who")
    async def who(client: Client) -> dict[str, str]:
        return {"remote_addr": client.remote_addr}

    return broker


def come(port: int, forged: str | None = None, *, source: str = "127.0.0.2") -> connect:
    """A client from an address of this machine that no server takes for a proxy's."""
    headers = {} if forged is None else {"X-Forwarded-For": forged}
    url = f"ws://127.0.0.1:{port}/ws"
    return connect(url, local_addr=(source, 0), additional_headers=headers, proxy=None, open_timeout=DEADLINE)


async def address(connection: ClientConnection) -> str:
    """Where the server has a client from."""
    told = (await Peer(connection).request("who"))["data"]["remote_addr"]
    return str(told).rpartition(":")[0].strip("[]")


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What the log complains of, so far."""
    found: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if COMPLAINT in record.getMessage():
                found.append(record.getMessage())

    collector = Collector(logging.WARNING)
    logging.getLogger("velocity_ws.asgi").addHandler(collector)
    yield found
    logging.getLogger("velocity_ws.asgi").removeHandler(collector)


@pytest.mark.parametrize("proxy", EVERY)
async def test_behind_the_documented_lines_nobody_chooses_its_address(
    proxy: str, tmp_path: Path, warnings: list[str]
) -> None:
    port = free_port()
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(Server(limited(3), port=0))
        lines = documented(proxy, port, server.port, server.port)
        await stack.enter_async_context(run_proxy(proxy, lines, port, tmp_path))
        for forged in FORGED:
            assert await address(await stack.enter_async_context(come(port, forged))) == "127.0.0.2"
        for forged_too in (None, "203.0.113.4", "203.0.113.5, 127.0.0.1"):
            with pytest.raises(InvalidStatus, match="503"):
                await come(port, forged_too)
        honest = await stack.enter_async_context(come(port, source="127.0.0.3"))
        assert await address(honest) == "127.0.0.3"
    assert warnings == []


@pytest.mark.parametrize("proxy", PROXIES)
async def test_a_proxy_that_does_not_write_the_address_is_complained_of_once(
    proxy: str, tmp_path: Path, warnings: list[str]
) -> None:
    port = free_port()
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(Server(limited(2), port=0))
        lines = re.sub(rf"\n *{LINES[proxy]}.*", "", documented(proxy, port, server.port, server.port))
        await stack.enter_async_context(run_proxy(proxy, lines, port, tmp_path))
        assert await address(await stack.enter_async_context(come(port, FORGED[0]))) == FORGED[0]
        assert warnings == []  # nothing shows yet that the client wrote it
        for source in ("127.0.0.2", "127.0.0.3"):  # which share one limit
            assert await address(await stack.enter_async_context(come(port, source=source))) == "127.0.0.1"
        with pytest.raises(InvalidStatus, match="503"):
            await come(port, source="127.0.0.4")
    (warning,) = warnings
    for text in ("'127.0.0.1'", "X-Forwarded-For", "docs/deployment.md"):
        assert text in warning


@pytest.mark.parametrize("proxy", PROXIES)
async def test_on_a_unix_socket_the_documented_lines_count_everybody(proxy: str, tmp_path: Path) -> None:
    port, path = free_port(), tmp_path / "app.sock"
    block = {"nginx": "nginx, by a Unix socket", "haproxy": "HAProxy, by a Unix socket"}[proxy]
    lines = documented(proxy, port, block=block).replace("/run/app.sock", str(path))
    options = ("--uds", str(path), "--forwarded-allow-ips", "*", "--http", "velocity_ws.uvicorn:HTTPProtocol")
    async with command(*options, WS_MAX_CONNECTIONS_PER_IP="2") as served, run_proxy(proxy, lines, port, tmp_path):
        async with come(port, FORGED[0]) as one, come(port) as two, come(port, source="127.0.0.3") as other:
            assert [await address(each) for each in (one, two, other)] == ["127.0.0.2", "127.0.0.2", "127.0.0.3"]
            with pytest.raises(InvalidStatus, match="503"):
                await come(port, FORGED[1])
        assert COMPLAINT not in "".join(served.log)
        # A proxy that only adds to the header lets a client choose, and one that does neither has nobody counted.
        added: Any = {"additional_headers": {"X-Forwarded-For": f"{FORGED[0]}, 127.0.0.2"}}
        nothing: Any = {}
        for more in (added, nothing, added, nothing):
            async with asyncio.timeout(DEADLINE), unix_connect(str(path), "ws://localhost/ws", **more):
                pass
    complaints = [line for line in served.log if COMPLAINT in line]
    assert len(complaints) == 2
    assert "the first of several addresses in X-Forwarded-For counts" in complaints[0]
    assert "a client has no address" in complaints[1]


async def test_a_header_that_is_not_heeded_is_complained_of_on_every_server(
    kind: ServerKind, warnings: list[str]
) -> None:
    options: dict[str, Any] = {} if kind == "hypercorn" else {"forwarded_allow_ips": "10.9.9.9"}
    async with running(limited(5), kind, **options) as served:
        for forged in FORGED:
            async with served.connect(additional_headers={"X-Forwarded-For": forged}):
                pass
    (warning,) = warnings
    assert "the server does not trust '127.0.0.1'" in warning


@pytest.mark.parametrize("forged", [None, *FORGED])
async def test_without_the_limit_nothing_is_complained_of(forged: str | None, warnings: list[str]) -> None:
    headers = {} if forged is None else {"X-Forwarded-For": forged}
    async with running(limited(0), forwarded_allow_ips="10.9.9.9") as served:
        async with served.connect(additional_headers=headers):
            pass
    assert warnings == []


async def test_on_granians_unix_socket_nobody_counts_as_one(tmp_path: Path) -> None:
    path, log = tmp_path / "app.sock", tmp_path / "log"
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "granian", "--interface", "asgi", "--uds", str(path), "tests.programs.options:app"),
            cwd=ROOT,
            env={**os.environ, "WS_MAX_CONNECTIONS_PER_IP": "1"},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )

    def listens() -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return process.returncode is not None or probe.connect_ex(str(path)) == 0

    try:
        await eventually(listens, within=30)
        options: Any = {"open_timeout": 30}
        async with unix_connect(str(path), "ws://localhost/ws", **options) as one:
            async with unix_connect(str(path), "ws://localhost/ws", **options) as two:  # which would be over the limit
                for ws in (one, two):
                    assert (await Peer(ws).request("echo", 1))["data"] == 1
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    assert log.read_text().count(COMPLAINT) == 1
