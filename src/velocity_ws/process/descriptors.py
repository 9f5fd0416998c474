"""Descriptors: as many open files as the connections need, and one line when they run out. Knows no connection."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import sys
import time
from typing import Any

if sys.platform != "win32":  # which has no such limit
    import resource

from velocity_ws.logs import get_logger

__all__ = ["Listener", "most_open", "prepare", "say_that_none_is_left"]

HEADROOM = 64
"""Descriptors that a process needs beside those of its connections: its files, its engine, its listeners."""
MANY = 1024 * 1024
"""What is asked for where neither connections nor descriptors are limited."""
SAID_FOR = 60.0
"""Seconds for which it is known that there are none left."""
TURNED_AWAY_AT_ONCE = 100
"""Connections that are closed in one go, so that others have their turn."""

_NONE_LEFT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_ASYNCIO_SAYS = "socket.accept() out of system resource"
_AND_THEN = "Exception in callback BaseSelectorEventLoop._start_serving("
"""Where the server has stopped before it tries again."""
_said_at = -SAID_FOR

log = get_logger("velocity_ws.server")


def most_open() -> int:
    """How many descriptors this process may have."""
    if sys.platform == "win32":
        return MANY
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MANY if soft == resource.RLIM_INFINITY else soft


def prepare(connections: int) -> None:
    """Raise the soft limit of descriptors to what so many connections need, and say where that is not allowed.

    Args:
        connections: how many there may be; 0 = no limit.
    """
    logging.getLogger("asyncio").addFilter(_once)
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MANY if hard == resource.RLIM_INFINITY else hard
    needed = connections + HEADROOM
    wanted = min(needed, most) if connections else most
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        wanted = soft
    else:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):  # some systems have another limit beside it
            wanted = soft
    if connections and wanted != resource.RLIM_INFINITY and wanted < needed:
        log.warning(
            "WS_MAX_CONNECTIONS is %d, but this process may have %d files and sockets open and not more; raise the "
            "hard limit (`ulimit -Hn`, LimitNOFILE=, --ulimit nofile=) to %d, or set WS_MAX_CONNECTIONS to %d",
            connections,
            wanted,
            needed,
            max(1, wanted - HEADROOM),
        )


def say_that_none_is_left() -> None:
    """Log that there are no descriptors for further connections; once a minute, however many there are."""
    global _said_at  # noqa: PLW0603 - they are the process's
    now = time.monotonic()
    if now - _said_at >= SAID_FOR:
        _said_at = now
        log.error(
            "no further connection can be taken: this process has %d files and sockets open, as many as "
            "`ulimit -n` allows; the clients that are connected are served. Raise it, or lower WS_MAX_CONNECTIONS",
            most_open(),
        )


def _once(record: logging.LogRecord) -> bool:
    """Say it in place of asyncio, which does so up to thousands of times a second, each with a traceback."""
    text = str(record.msg)
    if text.startswith(_ASYNCIO_SAYS):
        say_that_none_is_left()
    return not text.startswith((_ASYNCIO_SAYS, _AND_THEN))


class Listener(socket.socket):
    """A listening socket for asyncio, with a descriptor in reserve.

    Where there is none left, whoever waits is taken by means of that one and closed, as uvloop's library does it.
    asyncio itself would ask for each of 2,048 connections, a second later for each of them again, and log all of that.
    """

    _reserve: int | None = None

    def listen(self, backlog: int = 128, /) -> None:
        """Begin to listen, and lay a descriptor aside."""
        super().listen(backlog)
        self._lay_aside()

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection.

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
        """Close both."""
        self._use_reserve()
        super().close()

    def detach(self) -> int:
        """Give the socket away, and the descriptor up."""
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
