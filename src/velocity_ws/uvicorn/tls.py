"""TLS: accepts connections and bounds their TLS handshakes in time and number. Knows no HTTP.

uvicorn leaves both to the event loop, which gives a handshake 60 seconds, and is silent about it until it is complete.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any

from velocity_ws.limits import ConnectionLimits
from velocity_ws.logs import get_logger
from velocity_ws.settings import Settings

__all__ = ["TLSServer"]

AT_ONCE = 16
"""Connections taken until other tasks get their turn."""
PAUSE = 0.1
"""Seconds until the next attempt after one that failed."""

log = get_logger("velocity_ws.uvicorn")


class TLSAcceptor:
    """A listening socket with TLS."""

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
            limit: handshakes at a time; beyond it the oldest is cancelled, as an honest one is quick. 0 = no limit.
            limit_per_ip: handshakes of one address, unless the protocol's ``is_proxy(ip)`` says that it stands for many
                clients; beyond it the protocol's ``turned_away()`` is called, and the connection closed. 0 = no limit.
        """
        self._listener = listener
        self._context = context
        self._make_protocol = make_protocol
        self._seconds = seconds
        self._limit = limit
        self._by_ip = ConnectionLimits(0, limit_per_ip)
        self._handshakes: dict[asyncio.Task[None], None] = {}  # in their order
        self._cancelled: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.create_task(self._accept())

    def close(self) -> None:
        """Take no more connections, and cancel the handshakes that are not complete."""
        self._accepting.cancel()
        for handshake in self._handshakes:
            handshake.cancel()
        if self._listener.fileno() >= 0:
            # What waits for it ends in a later turn; by then the number may be another socket's.
            with contextlib.suppress(NotImplementedError):
                asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()

    async def wait_closed(self) -> None:
        """Wait until no handshake is left."""
        await asyncio.wait([self._accepting, *self._handshakes, *self._cancelled])

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
            if count % AT_ONCE == 0:  # ``sock_accept`` does not suspend while connections wait
                await asyncio.sleep(0)

    def _take(self, connection: socket.socket, ip: str) -> None:
        try:
            protocol: Any = self._make_protocol()
        except Exception:  # one connection never costs another
            log.exception("a connection could not be taken")
            connection.close()
            return
        counted = ip if hasattr(protocol, "is_proxy") and not protocol.is_proxy(ip) else None
        if self._by_ip.count_in(counted) is not None:
            protocol.turned_away()
            connection.close()
            return
        handshake = asyncio.create_task(self._shake_hands(connection, protocol))
        self._handshakes[handshake] = None

        def done(handshake: asyncio.Task[None]) -> None:
            self._by_ip.count_out(counted)
            self._handshakes.pop(handshake, None)
            self._cancelled.discard(handshake)
            if handshake.cancelled():  # before it has begun
                connection.close()

        handshake.add_done_callback(done)
        if self._limit and len(self._handshakes) > self._limit:
            oldest = next(iter(self._handshakes))
            del self._handshakes[oldest]
            self._cancelled.add(oldest)
            oldest.cancel()

    async def _shake_hands(self, connection: socket.socket, protocol: Any) -> None:
        """Give the connection to the protocol once its handshake is complete. Swallows its own cancellation."""
        loop = asyncio.get_running_loop()
        error: BaseException = ConnectionResetError("the connection was lost")
        try:
            await loop.connect_accepted_socket(
                lambda: protocol, connection, ssl=self._context, ssl_handshake_timeout=self._seconds
            )
        except (Exception, asyncio.CancelledError) as why:  # all that a peer can send in place of a handshake
            error = why
        if protocol.transport is None:
            log.debug("a TLS handshake failed: %r", error)
            protocol.connection_lost(error)  # so that its deadline stops


class TLSServer:
    """The acceptors of one server's sockets, in place of an `asyncio.Server`.

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
            TLSAcceptor(
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
        """Wait until no handshake is left."""
        for acceptor in self._acceptors:
            await acceptor.wait_closed()
