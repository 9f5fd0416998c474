"""Descriptors: raises their limit to what the connections need, and says when they run out. Knows no connection."""

from __future__ import annotations

import logging
import sys
import time

if sys.platform != "win32":  # which has no such limit
    import resource

from velocity_ws.logs import get_logger

__all__ = ["most_open", "prepare", "say_that_none_is_left"]

HEADROOM = 64
"""Descriptors that a process needs beside those of its connections: its files, its engine, its listeners."""
MANY = 1024 * 1024
"""Descriptors to ask for where neither connections nor descriptors are limited."""
SAID_FOR = 60.0
"""Seconds between two lines that none is left."""

_ASYNCIO_SAYS = "socket.accept() out of system resource"
_AND_THEN = "Exception in callback BaseSelectorEventLoop._start_serving("
"""Where the server has stopped before it tries again."""
_said_at = -SAID_FOR

log = get_logger("velocity_ws.process")


def most_open() -> int:
    """How many descriptors this process may have open."""
    if sys.platform == "win32":
        return MANY
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MANY if soft == resource.RLIM_INFINITY else soft


def prepare(connections: int) -> None:
    """Raise the soft limit of descriptors to what the connections need, and log where that is not allowed.

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
    """Drop asyncio's records that none is left, up to thousands a second with tracebacks, and say it once instead."""
    text = str(record.msg)
    if text.startswith(_ASYNCIO_SAYS):
        say_that_none_is_left()
    return not text.startswith((_ASYNCIO_SAYS, _AND_THEN))
