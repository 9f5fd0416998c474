"""Late connections: answers 503 to those that come while every worker drains. Knows no WebSocket.

uvicorn's parent of several workers keeps the socket listening until the last of them has gone. A client that connects
then would wait for as long, in vain. A worker that drains does not know whether the others do, too, or whether it is
the only one that is replaced (SIGHUP): so it looks whether connections are left to wait, and takes none that others
take.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import select
import socket
import sys
from typing import Any

from uvicorn.config import Config
from uvicorn.server import Server

from velocity_ws.process.siblings import callers

__all__ = ["PARENT_CLOSES", "LateConnections"]

PARENT_CLOSES = "velocity_ws_parent_closes"
"""Attribute of uvicorn's configuration where the parent closes its sockets by itself when it stops."""
POLL = 0.02
"""Seconds between two looks."""
PATIENCE = 15
"""Looks in a row at which a connection waited, after which no other worker is expected to take it."""
AT_ONCE = 100
"""Connections that are being answered at once; more wait for them."""
SECONDS = 1.0
"""Seconds that a client has for its request, and then to read the answer."""
MAX_HEAD = 64 * 1024
"""Bytes of a request after which it is answered at the latest."""

_BODY = b"the server is restarting"
_ANSWER = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n"
    b"retry-after: 1\r\ncontent-length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)


class LateConnections:
    """The listening sockets of a worker, kept for the time when the server no longer takes connections."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ssl: Any, listeners: list[socket.socket]) -> None:
        self._loop = loop
        self._ssl = ssl
        self._listeners = listeners
        self._looks = 0
        self._has_begun = False
        self._answering: set[asyncio.Task[Any]] = set()
        self.answered: set[_LateConnection] = set()

    @classmethod
    def of(cls, config: Config, loop: asyncio.AbstractEventLoop) -> LateConnections | None:
        """The late connections of this worker; ``None`` where this is no worker, or the parent closes the port."""
        if config.workers == 1 or config.should_reload or hasattr(config, PARENT_CLOSES):
            return None
        if multiprocessing.parent_process() is None or sys.platform == "win32":
            return None
        # uvicorn does not hand its server out; but it is among the callers of all that runs on its loop.
        servers = [found for frame in callers() if isinstance(found := frame.f_locals.get("self"), Server)]
        sockets = [sock for server in servers[:1] for listening in server.servers for sock in listening.sockets]
        return cls(loop, config.ssl, [socket.socket(fileno=os.dup(sock.fileno())) for sock in sockets])

    def answer(self) -> None:
        """Begin to answer: the server takes no connections any more. Harmless the second time."""
        if self._has_begun:
            return
        self._has_begun = True
        self._loop.call_later(POLL, self._look)

    def _look(self) -> None:
        poll = select.poll()
        for listener in self._listeners:
            poll.register(listener, select.POLLIN)
        waiting = {number for number, _ in poll.poll(0)}
        self._looks = self._looks + 1 if waiting else 0
        if self._looks >= PATIENCE:
            for listener in self._listeners:
                if listener.fileno() in waiting:
                    self._take(listener)
        self._loop.call_later(POLL, self._look)

    def _take(self, listener: socket.socket) -> None:
        while len(self._answering) + len(self.answered) < AT_ONCE:
            try:
                sock, _ = listener.accept()
            except OSError:  # others were faster
                return
            sock.setblocking(False)
            task = self._loop.create_task(self._serve(sock))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError, TimeoutError):  # it has gone
            async with asyncio.timeout(SECONDS):
                await self._loop.connect_accepted_socket(lambda: _LateConnection(self), sock, ssl=self._ssl)


class _LateConnection(asyncio.Protocol):
    """One connection: it sends its request, is answered, and has a moment to read that."""

    transport: asyncio.Transport

    def __init__(self, late_connections: LateConnections) -> None:
        self._all = late_connections
        self._head: bytearray | None = bytearray()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the client its time."""
        self.transport = transport
        self._all.answered.add(self)
        self._end = asyncio.get_running_loop().call_later(SECONDS, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Take a part of the request."""
        if self._head is None:
            return
        self._head += data
        if b"\r\n\r\n" not in self._head and len(self._head) <= MAX_HEAD:
            return
        self._head = None
        self.transport.write(_ANSWER)
        # To close with something unread would reset the connection, and the peer would not see the answer.
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the signature is asyncio's
        """The client has gone."""
        self._end.cancel()
        self._all.answered.discard(self)
