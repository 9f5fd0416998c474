"""Acceptor: takes connections and does their TLS handshakes, which it can count and cut. Knows no HTTP.

uvicorn leaves both to the event loop, which gives a handshake 60 seconds, and tells nobody of it until it is complete.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any

from velocity_ws.limits import Admission
from velocity_ws.logs import get_logger
from velocity_ws.settings import Settings

__all__ = ["Acceptors"]

AT_ONCE = 16
"""Connections taken before others get their turn."""
PAUSE = 0.1
"""Seconds until the next attempt after one that failed."""

log = get_logger("velocity_ws.http")


class Acceptor:
    """A listening socket with TLS, in place of an `asyncio.Server`. Used on the running event loop only."""

    def __init__(
        self,
        listener: socket.socket,
        context: ssl.SSLContext,
        make_protocol: Callable[[], asyncio.Protocol],
        *,
        seconds: float,
        limit: int,
        limit_per_ip: int,
    ) -> None:
        """
        Args:
            listener: listening, and not blocking.
            context: of the server's side.
            make_protocol: called when a connection is accepted, before its handshake.
            seconds: that a handshake may take.
            limit: handshakes at a time; beyond it the oldest is cut, as an honest one is quick. 0 = no limit.
            limit_per_ip: of one address that the protocol's ``is_proxy(ip)`` does not take for many; beyond it the
                protocol's ``turned_away()`` is called, and the connection closed. 0 = no limit.
        """
        self._listener = listener
        self._context = context
        self._make_protocol = make_protocol
        self._seconds = seconds
        self._limit = limit
        self._by_ip = Admission(0, limit_per_ip)
        self._handshakes: dict[asyncio.Task[None], None] = {}  # in their order
        self._cut: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.create_task(self._accept())

    def close(self) -> None:
        """Take no more connections, and cut those whose handshake is not complete."""
        self._accepting.cancel()
        for handshake in self._handshakes:
            handshake.cancel()
        if self._listener.fileno() >= 0:
            # What waits for it ends in a later turn; by then the number may be another socket's.
            with contextlib.suppress(NotImplementedError):
                asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()

    async def wait_closed(self) -> None:
        """Wait until nothing of that is left."""
        await asyncio.wait([self._accepting, *self._handshakes, *self._cut])

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        count = 0
        while True:
            try:
                connection, address = await loop.sock_accept(self._listener)
            except OSError:  # there is no descriptor for it, or the peer was gone at once
                await asyncio.sleep(PAUSE)
                continue
            self._take(connection, address[0] if isinstance(address, tuple) else "")
            count += 1
            if count % AT_ONCE == 0:  # ``sock_accept`` does not suspend while somebody waits
                await asyncio.sleep(0)

    def _take(self, connection: socket.socket, ip: str) -> None:
        try:
            protocol: Any = self._make_protocol()
        except Exception:  # one connection never costs another
            log.exception("a connection could not be taken")
            connection.close()
            return
        counted = ip if hasattr(protocol, "is_proxy") and not protocol.is_proxy(ip) else None
        if self._by_ip.enter(counted) is not None:
            protocol.turned_away()
            connection.close()
            return
        handshake = asyncio.create_task(self._shake_hands(connection, protocol))
        self._handshakes[handshake] = None

        def done(handshake: asyncio.Task[None]) -> None:
            self._by_ip.leave(counted)
            self._handshakes.pop(handshake, None)
            self._cut.discard(handshake)
            if handshake.cancelled():  # before it has begun
                connection.close()

        handshake.add_done_callback(done)
        if self._limit and len(self._handshakes) > self._limit:
            oldest = next(iter(self._handshakes))
            del self._handshakes[oldest]
            self._cut.add(oldest)
            oldest.cancel()

    async def _shake_hands(self, connection: socket.socket, protocol: Any) -> None:
        """Let the protocol have the connection. It ends by itself when it is cancelled."""
        loop = asyncio.get_running_loop()
        error: BaseException = ConnectionResetError("the connection was lost")
        try:
            await loop.connect_accepted_socket(
                lambda: protocol, connection, ssl=self._context, ssl_handshake_timeout=self._seconds
            )
        except (Exception, asyncio.CancelledError) as why:  # whatever a peer can say in place of a handshake
            error = why
        if protocol.transport is None:
            log.debug("a TLS handshake failed: %r", error)
            protocol.connection_lost(error)  # so that it is waited for no more


class Acceptors:
    """Those of one server's sockets, in place of an `asyncio.Server`.

    Attributes:
        sockets: that are listened on.
    """

    def __init__(
        self,
        listeners: Iterable[socket.socket],
        context: ssl.SSLContext,
        make_protocol: Callable[[], asyncio.Protocol],
        settings: Settings,
    ) -> None:
        self.sockets = list(listeners)
        self._acceptors = [
            Acceptor(
                listener,
                context,
                make_protocol,
                seconds=settings.handshake_timeout,
                limit=settings.max_connections,
                limit_per_ip=settings.max_connections_per_ip,
            )
            for listener in self.sockets
        ]

    def close(self) -> None:
        """Take no more connections."""
        for acceptor in self._acceptors:
            acceptor.close()

    async def wait_closed(self) -> None:
        """Wait until nothing is left of their handshakes."""
        for acceptor in self._acceptors:
            await acceptor.wait_closed()
