"""Listening: sockets that listen, and still turn clients away when descriptors run out. Knows no server."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import Any

from velocity_ws.process.descriptors import say_that_none_is_left

__all__ = ["ListeningSocket", "listen"]

TURNED_AWAY_AT_ONCE = 100
"""Connections that are closed in one go, so that other tasks have their turn."""
BACKLOG = 2048
"""Connections that may wait to be accepted."""

_NONE_LEFT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class ListeningSocket(socket.socket):
    """A listening socket for asyncio, with a descriptor in reserve.

    Where there is none left, clients that wait are accepted by means of that one and closed, as uvloop's library does.
    asyncio itself would ask for each of 2,048 connections, a second later for each of them again, and log all of that.
    """

    _reserve: int | None = None

    def listen(self, backlog: int = 128, /) -> None:
        """Begin to listen, and lay a descriptor aside."""
        super().listen(backlog)
        self._lay_aside()

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection, and the peer's address.

        Raises:
            OSError: there is none.
        """
        try:
            return super().accept()
        except OSError as error:
            if error.errno not in _NONE_LEFT or self._reserve is None:
                raise
        say_that_none_is_left()
        self._use_reserve()
        try:
            for _ in range(TURNED_AWAY_AT_ONCE):
                super().accept()[0].close()
        finally:  # sooner or later that there is none, or no descriptor
            self._lay_aside()
        raise BlockingIOError

    def close(self) -> None:
        """Close the socket and the descriptor in reserve."""
        self._use_reserve()
        super().close()

    def detach(self) -> int:
        """Close the descriptor in reserve, and return the socket's, which stays open."""
        self._use_reserve()
        return super().detach()

    def _lay_aside(self) -> None:
        if self._reserve is None:
            with contextlib.suppress(OSError):
                self._reserve = os.open(os.devnull, os.O_RDONLY)

    def _use_reserve(self) -> None:
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None


def listen(host: str, port: int) -> ListeningSocket:
    """A listening socket of an event loop. uvicorn's own would end the process where it cannot be had.

    Args:
        host: name or address; an empty one is every address of this machine.
        port: 0 takes any free one.

    Raises:
        OSError: the address cannot be had; its text names host and port.
    """
    try:
        return _bound(host, port)
    except OSError as error:
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise type(error)(error.errno, f"cannot listen on {where}: {error.strerror or error}") from error


def _bound(host: str, port: int) -> ListeningSocket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = ListeningSocket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener
