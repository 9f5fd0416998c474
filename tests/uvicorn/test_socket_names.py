"""Socket names: what the transport says is what the kernel says, by uvicorn's functions."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
import uvloop
from uvicorn.protocols.utils import get_local_addr, get_remote_addr

from velocity_ws.uvicorn.socket_names import LocalAddress, PeerAddress, local_address, peer_address

Addresses = tuple[LocalAddress | None, PeerAddress | None]


async def compared(sock: socket.socket) -> Addresses:
    """Both addresses of a connection to a listening socket, once they are those that uvicorn finds."""
    found: asyncio.Future[tuple[Addresses, Addresses]] = asyncio.get_running_loop().create_future()

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            ours = local_address(transport), peer_address(transport)
            found.set_result((ours, (get_local_addr(transport), get_remote_addr(transport))))

    loop = asyncio.get_running_loop()
    create = loop.create_unix_server if sock.family == socket.AF_UNIX else loop.create_server
    server = await create(Protocol, sock=sock)
    with socket.socket(sock.family) as client:
        client.setblocking(False)
        await loop.sock_connect(client, sock.getsockname())
        ours, theirs = await found
        if sock.family != socket.AF_UNIX:
            assert ours == (sock.getsockname()[:2], client.getsockname()[:2])
    server.close()
    assert ours == theirs
    return ours


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("kind", ["IPv4", "IPv6", "Unix"])
def test_they_are_those_that_uvicorn_finds(kind: str, loop: type[asyncio.AbstractEventLoop], tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    sock = socket.socket({"IPv4": socket.AF_INET, "IPv6": socket.AF_INET6, "Unix": socket.AF_UNIX}[kind])
    try:
        sock.bind(path if kind == "Unix" else ({"IPv4": "127.0.0.1", "IPv6": "::1"}[kind], 0))
    except OSError:
        pytest.skip(f"there is no {kind} here")
    with asyncio.Runner(loop_factory=loop) as runner:
        found = runner.run(compared(sock))
    if kind == "Unix":
        assert found == ((path, None), None)


def test_a_transport_of_another_kind_has_none() -> None:
    transport = asyncio.Transport()
    assert (local_address(transport), peer_address(transport)) == (None, None)
