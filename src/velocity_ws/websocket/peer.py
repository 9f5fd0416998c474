"""Peer: whether the peer of a socket is still there, as the kernel knows. Knows no frames.

That a peer has gone is usually noticed by reading; while messages wait for a handler that does not end, nothing is
read. And a pong comes only after all that was sent before the ping has been read.
"""

from __future__ import annotations

import asyncio
import select
import socket
import struct
import sys
from typing import Protocol

__all__ = ["PeerWatch", "has_gone", "is_unheard", "taken"]

INTERVAL = 1.0
"""Seconds between two looks."""
_GONE = getattr(select, "POLLRDHUP", 0)
"""What is polled for, beside POLLHUP and POLLERR, which always are."""
_TCP_INFO = struct.Struct("=2x2B52xI60xQ")
"""Of Linux's ``struct tcp_info``: retransmissions and probes without an answer, milliseconds since the last answer, and
how many bytes were answered in all."""
_UNANSWERED = 2


class UnreadConnection(Protocol):
    """A connection that may not be read for a long time."""

    @property
    def transport(self) -> asyncio.Transport:
        """The transport of the connection."""

    @property
    def is_unread(self) -> bool:
        """Whether it is still not read."""

    def probe(self) -> None:
        """Send something that needs no answer; a socket that is closed answers it with a reset."""

    def peer_has_gone(self) -> None:
        """The peer has gone: end the connection."""


class PeerWatch:
    """Looks every second whether the peers of unread connections are still there."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._looks: dict[UnreadConnection, asyncio.TimerHandle] = {}

    def add(self, connection: UnreadConnection) -> None:
        """Watch a connection for as long as it is not read. Harmless when it is watched already."""
        if connection not in self._looks:
            self._looks[connection] = self._loop.call_later(INTERVAL, self._look, connection)

    def remove(self, connection: UnreadConnection) -> None:
        """Watch a connection no more, so that it can be freed. Harmless where it is not watched."""
        look = self._looks.pop(connection, None)
        if look is not None:
            look.cancel()

    def _look(self, connection: UnreadConnection) -> None:
        del self._looks[connection]
        if not connection.is_unread or connection.transport.is_closing():
            return
        if has_gone(connection.transport):
            connection.peer_has_gone()
        else:
            connection.probe()
            self.add(connection)


def has_gone(transport: asyncio.BaseTransport) -> bool:
    """Whether the peer has sent FIN or a reset; never where the system cannot tell (Windows)."""
    sock = transport.get_extra_info("socket")
    if sock is None or not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(sock.fileno(), _GONE)
    return bool(poll.poll(0))


def is_unheard(transport: asyncio.BaseTransport, seconds: float) -> bool:
    """Whether the peer's kernel has left everything unanswered; never where the system cannot tell (only Linux can).

    Args:
        transport: of a socket.
        seconds: that must have passed since the last answer.
    """
    retransmits, probes, since, _ = _tcp_info(transport)
    return max(retransmits, probes) >= _UNANSWERED and since > seconds * 1000


def taken(transport: asyncio.BaseTransport) -> int:
    """Bytes that the peer's kernel has acknowledged in all; 0 where the system cannot tell (only Linux can)."""
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
