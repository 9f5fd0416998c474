"""A client that goes while its read buffer is full and its handler hangs: it is heard of without reading."""

from __future__ import annotations

import asyncio
import ctypes
import json
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.support import DEADLINE, eventually, settings
from tests.support.configured import certified
from tests.support.wire import frame, handshake
from velocity_ws import Broker, Client, Close, Server

ENDS = ["close", "half-close", "reset", "flood and close", *(["silence"] if sys.platform == "linux" else [])]
"""Silence: its machine is gone, without a word."""
MESSAGE = frame(0x81, json.dumps({"event": "hang", "data": "x" * 200}).encode())


class Leaver:
    """A client on a blocking socket, that sends more than is read, and goes."""

    def __init__(self, port: int, context: ssl.SSLContext | None, end: str) -> None:
        self._end = end
        self._tcp = self.sock = socket.create_connection(("127.0.0.1", port), DEADLINE)
        if context is not None:
            self.sock = context.wrap_socket(self._tcp)
        self.sock.sendall(handshake(f"X-End: {end}\r\n"))
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.sock.recv(4096)
        self.sock.sendall(MESSAGE * 20)

    def go(self) -> None:
        """The end."""
        match self._end:
            case "flood and close":
                self.sock.settimeout(0.3)
                try:
                    while True:
                        self.sock.sendall(MESSAGE * 1000)
                except (TimeoutError, ssl.SSLError):
                    self.sock.close()
            case "reset":
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.sock.close()
            case "half-close":
                socket.socket.shutdown(self.sock, socket.SHUT_WR)
            case "silence":
                deafen(self.sock)
            case "close":
                self.sock.close()


def deafen(sock: socket.socket) -> None:
    """Let nothing arrive at a socket any more, so that nothing is acknowledged (SO_ATTACH_FILTER: drop everything)."""
    drop = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    sock.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HP", 1, ctypes.addressof(drop)))


async def leave(ends: list[str], options: Any, **values: Any) -> dict[str, tuple[Close, float]]:
    """Clients that go in these ways, beside one that stays and does no more than wait; how and when each ended."""
    broker = Broker(settings(port=0, read_buffer_size=1000, rate_limit=0, enable_compression=False, **values))
    release = asyncio.Event()
    ended: dict[str, tuple[Close, float]] = {}
    inside: list[str] = []
    handled = 0

    @broker.on("hang")
    async def hang(client: Client) -> None:
        nonlocal handled
        inside.append(client.request.headers["x-end"])
        await release.wait()
        handled += 1

    @broker.on_disconnect
    async def gone(client: Client, close: Close) -> None:
        ended[client.request.headers["x-end"]] = (close, time.monotonic())

    context: ssl.SSLContext | None = None
    if options:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with Server(broker, **options) as server:
        names = [*ends, "stays"]
        leavers = await asyncio.gather(*[asyncio.to_thread(Leaver, server.port, context, name) for name in names])
        await eventually(lambda: sorted(inside) == sorted(names))
        await eventually(lambda: all(session.inbox.is_full for session in broker.node.lifecycle.sessions))
        began = time.monotonic()
        await asyncio.gather(*[asyncio.to_thread(leaver.go) for leaver in leavers])
        await eventually(lambda: set(ended) >= set(ends), within=60)
        assert set(ended) == set(ends), "the one that stays is still there, though it answered no ping"
        release.set()
        await eventually(lambda: handled >= 20)
        for leaver in leavers:
            leaver.sock.close()
        await eventually(lambda: not broker.node.lifecycle.sessions)
    return {end: (ended[end][0], ended[end][1] - began) for end in ends}


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_who_goes_while_nothing_is_read_is_gone(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
    secure: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("velocity_ws.websocket.peer.INTERVAL", 0.1)
    monkeypatch.setattr("velocity_ws.sessions.ending.HANDLER_GRACE", 0.1)
    options = certified(tmp_path) if secure else {}
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        ended = runner.run(leave(ENDS, options, ping_interval=0.3, ping_timeout=0.3))
    assert {end: (close.code, close.by) for end, (close, _) in ended.items()} == dict.fromkeys(ENDS, (1006, "network"))


async def test_where_nothing_is_pinged_a_probe_finds_who_went_behind_what_is_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("velocity_ws.websocket.peer.INTERVAL", 0.1)
    monkeypatch.setattr("velocity_ws.sessions.ending.HANDLER_GRACE", 0.1)
    ended = await leave(["flood and close"], {}, ping_interval=0)
    assert ended["flood and close"][0].code == 1006


@pytest.mark.soak
async def test_who_goes_while_nothing_is_read_is_gone_within_10_seconds() -> None:
    ended = await leave([end for end in ENDS if end != "silence"], {})
    assert max(seconds for _, seconds in ended.values()) <= 10, ended
