"""Pings: round trips and keepalive of one connection (RFC 6455, section 5.5.2). Knows no transport."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from velocity_ws.websocket.parser_adapter import ping_frame

__all__ = ["Pings"]


class Pings:
    """The pings that wait for their pong."""

    __slots__ = ("_loop", "_sent", "_write")

    def __init__(self, loop: asyncio.AbstractEventLoop, write: Callable[[bytes], None]) -> None:
        self._loop = loop
        self._write = write
        self._sent: dict[bytes, tuple[float, asyncio.Future[float | None] | None]] = {}

    def send(self, waiter: asyncio.Future[float | None] | None = None) -> bytes:
        """Send a ping, whose round trip in seconds the waiter gets; the payload it can be known by."""
        payload = os.urandom(4)
        self._sent[payload] = (self._loop.time(), waiter)
        self._write(ping_frame(payload))
        return payload

    def pong(self, payload: bytes) -> None:
        """A pong has come; it answers every ping up to its own (RFC 6455, section 5.5.3)."""
        if payload not in self._sent:
            return
        for sent in list(self._sent):
            at, waiter = self._sent.pop(sent)
            if waiter is not None and not waiter.done():
                waiter.set_result(self._loop.time() - at)
            if sent == payload:
                return

    def has(self, payload: bytes) -> bool:
        """Whether the pong of a ping is still waited for."""
        return payload in self._sent

    def end(self) -> None:
        """The connection is gone: who waits gets ``None``."""
        for _, waiter in self._sent.values():
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
        self._sent.clear()
