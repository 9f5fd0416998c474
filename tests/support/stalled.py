"""A client that does not read until it is told to."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.support import DEADLINE, Address
from velocity_ws import Client

__all__ = ["Stalled", "fill_up", "stalled"]


class Stalled:
    """A client that connects by hand and then reads nothing until it is told to."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock

    async def read_frames(self, until: str | None = None) -> list[Any]:
        """What the server sent: decoded text messages, and the close code as an int at the end."""
        loop = asyncio.get_running_loop()
        data = b""
        found: list[Any] = []
        async with asyncio.timeout(DEADLINE):
            while True:
                while (frame := _frame(data)) is not None:
                    opcode, payload, data = frame
                    if opcode == 8:
                        return [*found, int.from_bytes(payload[:2], "big")]
                    if opcode == 1:
                        found.append(json.loads(payload))
                        if found[-1]["event"] == until:
                            return found
                try:
                    chunk = await loop.sock_recv(self.socket, 1 << 20)
                except ConnectionResetError:
                    chunk = b""
                if not chunk:
                    return [*found, 1006]
                data += chunk


async def fill_up(client: Client) -> int:
    """Send a client that does not read numbered volatile messages until one is left out; how many were sent."""
    for number in itertools.count():
        if not await client.send("v", [number, "x" * 16_000], volatile=True):
            return number
        await asyncio.sleep(0)
    raise AssertionError


def _frame(data: bytes) -> tuple[int, bytes, bytes] | None:
    """The first frame of some bytes: opcode, payload, the rest (RFC 6455, section 5.2; unmasked, unfragmented)."""
    if len(data) < 2:
        return None
    length, at = data[1], 2
    if length == 126:
        length, at = int.from_bytes(data[2:4], "big"), 4
    elif length == 127:
        length, at = int.from_bytes(data[2:10], "big"), 10
    if len(data) < at + length:
        return None
    return data[0] & 15, data[at : at + length], data[at + length :]


@asynccontextmanager
async def stalled(address: Address) -> AsyncIterator[Stalled]:
    """Connect a client that does not read, with little room in its kernel."""
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", address.port))
        request = (
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{address.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await loop.sock_sendall(sock, request.encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += await loop.sock_recv(sock, 1)
        assert b" 101 " in answer
        yield Stalled(sock)
