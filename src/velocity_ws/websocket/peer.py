"""Peer: whether there is still somebody at the other end of a socket, as the kernel knows.

Who goes is heard of by reading; while messages wait for a handler that does not end, nothing is read. And a pong comes
after all that was sent before the ping has been read. Knows no frames.
"""

from __future__ import annotations

import asyncio
import select
import socket
import struct
import sys
from typing import Protocol

__all__ = ["Watch", "has_gone", "is_unheard", "taken"]

INTERVAL = 1.0
"""Seconds between two looks."""
_GONE = getattr(select, "POLLRDHUP", 0)
"""What is polled for, beside POLLHUP and POLLERR, which always are."""
_TCP_INFO = struct.Struct("=2x2B52xI60xQ")
"""Of Linux's ``struct tcp_info``: retransmissions and probes without an answer, milliseconds since the last answer, and
how many bytes were answered in all."""
_UNANSWERED = 2


class Watched(Protocol):
    """A connection that is not read."""

    @property
    def transport(self) -> asyncio.Transport:
        """Its transport."""

    @property
    def is_unread(self) -> bool:
        """Whether it still is not read."""

    def probe(self) -> None:
        """Send something that needs no answer: to a socket that is closed, it brings a reset."""

    def peer_has_gone(self) -> None:
        """There is nobody any more."""


class Watch:
    """Looks at the connections of one event loop, for as long as they are not read."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._looks: dict[Watched, asyncio.TimerHandle] = {}

    def add(self, connection: Watched) -> None:
        """Look at one from now on. Harmless when that is so already."""
        if connection not in self._looks:
            self._looks[connection] = self._loop.call_later(INTERVAL, self._look, connection)

    def remove(self, connection: Watched) -> None:
        """One is closed, and is to be freed. Harmless where it is not looked at."""
        look = self._looks.pop(connection, None)
        if look is not None:
            look.cancel()

    def _look(self, connection: Watched) -> None:
        del self._looks[connection]
        if not connection.is_unread or connection.transport.is_closing():
            return
        if has_gone(connection.transport):
            connection.peer_has_gone()
        else:
            connection.probe()
            self.add(connection)


def has_gone(transport: asyncio.BaseTransport) -> bool:
    """Whether the peer has sent the end (FIN) or a reset; not told where the system cannot (Windows)."""
    sock = transport.get_extra_info("socket")
    if sock is None or not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(sock.fileno(), _GONE)
    return bool(poll.poll(0))


def is_unheard(transport: asyncio.BaseTransport, seconds: float) -> bool:
    """Whether the peer's kernel has answered nothing for so long, however often it was asked; told on Linux only."""
    retransmits, probes, since, _ = _tcp_info(transport)
    return max(retransmits, probes) >= _UNANSWERED and since > seconds * 1000


def taken(transport: asyncio.BaseTransport) -> int:
    """Bytes that the peer's kernel has taken since the beginning; 0 where that is not told: on Linux only it is."""
    return _tcp_info(transport)[3]


def _tcp_info(transport: asyncio.BaseTransport) -> tuple[int, int, int, int]:
    sock = transport.get_extra_info("socket")
    if sock is None or sys.platform != "linux":  # others have one of the same name, which says other things
        return 0, 0, 0, 0
    try:
        retransmits, probes, since, acked = _TCP_INFO.unpack(
            sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        )
    except (OSError, struct.error):  # a Unix socket, or an old kernel
        return 0, 0, 0, 0
    return retransmits, probes, since, acked
