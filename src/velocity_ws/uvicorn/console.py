"""Console: what of the server's log a terminal shows, in uvicorn's form and without tokens. Knows no connection."""

from __future__ import annotations

import logging
import sys

from uvicorn.logging import DefaultFormatter

from velocity_ws.logs import printable
from velocity_ws.paths import STREAMS

__all__ = ["ConsoleHandler", "without_query"]


class ConsoleHandler(logging.Handler):
    """Prints warnings and errors as uvicorn does, to what is stderr then."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.setFormatter(DefaultFormatter("%(levelprefix)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record to stderr."""
        try:
            print(self.format(record), file=sys.stderr, flush=True)  # noqa: T201
        except Exception:
            self.handleError(record)


def without_query(record: logging.LogRecord) -> bool:
    """Take the query out of uvicorn's line for each WebSocket, and each request for a stream; keeps every record.

    Browsers have no other place for a token.
    """
    if not isinstance(record.args, tuple):
        return True
    if str(record.msg).startswith('%s - "WebSocket %s"'):
        client, path, *rest = record.args
        record.args = (printable(str(client)), printable(str(path).partition("?")[0]), *rest)
    elif str(record.msg).startswith('%s - "%s %s HTTP/%s"'):
        client, method, path, *rest = record.args
        bare = str(path).partition("?")[0]
        if STREAMS in bare:
            record.args = (client, method, bare, *rest)
    return True
