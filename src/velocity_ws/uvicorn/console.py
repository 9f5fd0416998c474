"""Console: what of the server's log a terminal shows, in uvicorn's form and without tokens. Knows no connection."""

from __future__ import annotations

import logging
import sys

from uvicorn.logging import DefaultFormatter

from velocity_ws.logs import printable

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
    """Take the query out of uvicorn's line for each WebSocket; a filter that keeps every record.

    Browsers have no other place for a token.
    """
    if isinstance(record.args, tuple) and str(record.msg).startswith('%s - "WebSocket %s"'):
        client, path, *rest = record.args
        record.args = (printable(str(client)), printable(str(path).partition("?")[0]), *rest)
    return True
