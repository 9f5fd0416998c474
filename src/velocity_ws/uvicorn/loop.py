"""Loop: an event loop for uvicorn's own server, which bounds TLS handshakes. Knows no HTTP.

uvicorn leaves TLS to its loop, and has no option for how long a handshake may take; but it takes another loop.
"""

from __future__ import annotations

import asyncio
import functools
import multiprocessing
import socket
import sys
from typing import Any

from velocity_ws.process.listening import ListeningSocket
from velocity_ws.uvicorn.state import settings_from_environment
from velocity_ws.uvicorn.tls import TLSServer

__all__ = ["bounding", "new_event_loop"]


def new_event_loop() -> asyncio.AbstractEventLoop:
    """The loop that uvicorn takes by default; a server with TLS on it bounds handshakes by the ``WS_*`` variables.

    For ``uvicorn --loop velocity_ws.uvicorn:new_event_loop``.
    """
    base: Any
    if sys.platform == "win32":
        is_alone = multiprocessing.parent_process() is None  # a completion port takes no socket of another process
        base = asyncio.ProactorEventLoop if is_alone else asyncio.SelectorEventLoop
    else:
        try:
            import uvloop  # noqa: PLC0415 - an extra
        except ImportError:
            base = asyncio.SelectorEventLoop
        else:
            base = uvloop.Loop
    loop: asyncio.AbstractEventLoop = bounding(base)()
    return loop


@functools.cache
def bounding(base: Any) -> Any:
    """A class of event loops on another one, whose servers bound TLS handshakes."""

    class Loop(base):  # type: ignore[misc]
        """The base class, but for TLS."""

        async def create_server(
            self, protocol_factory: Any, host: Any = None, port: Any = None, *, ssl: Any = None, **options: Any
        ) -> Any:
            """Create a server; with TLS it is a `TLSServer`."""
            if ssl is None or any(name.startswith("ssl_") for name in options):  # the caller bounds the handshakes
                return await super().create_server(protocol_factory, host, port, ssl=ssl, **options)
            backlog = options.get("backlog", 100)
            bound = await super().create_server(protocol_factory, host, port, start_serving=False, **options)
            listeners = [_listening(each, backlog) for each in bound.sockets]
            bound.close()
            return TLSServer(listeners, ssl, protocol_factory, settings_from_environment())

    return Loop


def _listening(bound: Any, backlog: int) -> ListeningSocket:
    listener = ListeningSocket(bound.family, bound.type, bound.proto, socket.dup(bound.fileno()))
    listener.setblocking(False)
    listener.listen(backlog)
    return listener
