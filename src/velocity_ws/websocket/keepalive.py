"""Keepalive: when connections are pinged, which pings wait for their pong, and when it is late. Knows no transport.

RFC 6455, section 5.5.2. Two timers serve all connections: one of its own would cost each of them 600 bytes with uvloop.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Protocol

from velocity_ws.concurrency.deadlines import Deadlines
from velocity_ws.websocket.parser_adapter import ping_frame

__all__ = ["Keepalive", "PingedConnection", "Pings"]


class Pings:
    """The pings of one connection that wait for their pong."""

    __slots__ = ("_loop", "_sent", "_write")

    def __init__(self, loop: asyncio.AbstractEventLoop, write: Callable[[bytes], None]) -> None:
        self._loop = loop
        self._write = write
        self._sent: dict[bytes, tuple[float, asyncio.Future[float | None] | None]] = {}

    def send(self, waiter: asyncio.Future[float | None] | None = None) -> bytes:
        """Send a ping and return its payload, 4 random bytes.

        Args:
            waiter: gets the round trip in seconds, or ``None`` if the connection ends first.
        """
        payload = os.urandom(4)
        self._sent[payload] = (self._loop.time(), waiter)
        self._write(ping_frame(payload))
        return payload

    def pong(self, payload: bytes) -> None:
        """Take a pong, which answers every ping up to its own (RFC 6455, section 5.5.3)."""
        if payload not in self._sent:
            return
        for sent in list(self._sent):
            at, waiter = self._sent.pop(sent)
            if waiter is not None and not waiter.done():
                waiter.set_result(self._loop.time() - at)
            if sent == payload:
                return

    def is_waiting(self, payload: bytes) -> bool:
        """Whether the ping with this payload still waits for its pong."""
        return payload in self._sent

    def end(self) -> None:
        """The connection is gone: every waiter gets ``None``."""
        for _, waiter in self._sent.values():
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
        self._sent.clear()


class PingedConnection(Protocol):
    """A connection, as its keepalive sees it."""

    def ping_is_due(self) -> None:
        """Time to ping: the connection calls `Keepalive.pinged`, unless it is over."""

    def pong_is_late(self) -> None:
        """No pong came in time: the connection ends, or calls `Keepalive.pinged` again to wait on."""


class Keepalive:
    """The connections with the same interval and timeout.

    Attributes:
        timeout: seconds that a pong may take; 0 where none is waited for.
        add: called with a connection once it is open.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, interval: float, timeout: float) -> None:
        """
        Args:
            loop: whose time counts.
            interval: seconds from a connection's beginning, or its last pong, to its next ping; greater than 0.
            timeout: seconds that a pong may take; 0 to wait for none, and to count from ping to ping.
        """
        self.timeout = timeout
        self._pings: Deadlines[PingedConnection] = Deadlines(loop, interval, lambda each: each.ping_is_due())
        self.add = self._pings.start
        self._pongs: Deadlines[PingedConnection] = Deadlines(loop, timeout, lambda each: each.pong_is_late())

    def pinged(self, connection: PingedConnection) -> None:
        """A ping was sent just now, or its pong is waited for once more."""
        (self._pongs if self.timeout else self._pings).start(connection)

    def ponged(self, connection: PingedConnection) -> None:
        """The pong has come: the next ping is due after the interval."""
        self._pongs.stop(connection)
        self._pings.start(connection)

    def remove(self, connection: PingedConnection) -> None:
        """The connection is gone."""
        if not self._pings.stop(connection):
            self._pongs.stop(connection)
