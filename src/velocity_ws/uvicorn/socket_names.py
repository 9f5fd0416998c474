"""Socket names: the addresses of a connection's two ends, as ASGI's scopes have them. Knows no protocol."""

from __future__ import annotations

import asyncio
from typing import Any

from velocity_ws.websocket.scope import Address

__all__ = ["LocalAddress", "PeerAddress", "local_address", "peer_address"]

LocalAddress = Address
PeerAddress = tuple[str, int]

_NAMES = (tuple, list)

# uvicorn's functions ask the kernel, for which uvloop makes a socket object each time: 3.6 us where this takes 0.6.


def local_address(transport: asyncio.BaseTransport) -> LocalAddress | None:
    """Host and port of this end, or the path of a Unix socket and ``None``; ``None`` where there is neither."""
    name: Any = transport.get_extra_info("sockname")
    return (name, None) if isinstance(name, str) else _host_and_port(name)


def peer_address(transport: asyncio.BaseTransport) -> PeerAddress | None:
    """Host and port of the other end, which may have gone already; ``None`` on a Unix socket."""
    return _host_and_port(transport.get_extra_info("peername"))


def _host_and_port(name: Any) -> PeerAddress | None:
    return (str(name[0]), int(name[1])) if isinstance(name, _NAMES) and len(name) > 1 else None
