"""Logs: warnings are seen where logging is not configured, and no stranger can write lines. Knows no server."""

from __future__ import annotations

import logging
import math
import time
import traceback
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

from velocity_ws.limits import RateLimiter

__all__ = [
    "CountedWarnings",
    "RateLimitedWarnings",
    "get_logger",
    "hint",
    "printable",
    "quote",
    "quote_exception",
    "use_console",
]

WARNINGS_AT_ONCE = 20
"""Warnings that any stranger can cause, and that one server or application shows at once."""
SECONDS_PER_WARNING = 5.0
"""Seconds for each of them in the long run."""
SECONDS_BETWEEN = 60.0
"""Seconds between two warnings of one kind that are counted."""
MAX_QUOTED = 200
"""Characters of a stranger's text that a line of the log shows."""

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class _Logger(logging.Logger):
    """A logger that looks for handlers anew for each record.

    They are the application's, where it has configured some that this record reaches; else uvicorn's, where uvicorn has
    configured its own; else the console of a `Server`; else Python's last resort.
    """

    @property
    def disabled(self) -> bool:
        """Never true: ``dictConfig`` disables by default each logger that it does not name, with all its errors.

        A level, a filter or a ``NullHandler`` silences this one, too.
        """
        return False

    @disabled.setter
    def disabled(self, value: bool) -> None:
        pass

    def makeRecord(  # noqa: N802 - the name is the standard library's
        self,
        name: str,
        level: int,
        fn: str,
        lno: int,
        msg: object,
        args: Any,
        exc_info: _ExcInfo | None,
        func: str | None = None,
        extra: Mapping[str, object] | None = None,
        sinfo: str | None = None,
    ) -> logging.LogRecord:
        """Make the record; in its traceback no text of an exception looks like a line of the log."""
        record = super().makeRecord(name, level, fn, lno, msg, args, exc_info, func, extra, sinfo)
        quote_exception(record)
        return record

    def callHandlers(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is the standard library's
        """Give the record to the handlers."""
        uvicorn = logging.getLogger("uvicorn.error")
        if self.hasHandlers():
            super().callHandlers(record)
        elif uvicorn.hasHandlers():
            if record.levelno >= uvicorn.getEffectiveLevel():
                uvicorn.callHandlers(record)
        elif _console is not None:
            _console.callHandlers(record)
        else:
            super().callHandlers(record)


_console: logging.Logger | None = None


def get_logger(name: str) -> logging.Logger:
    """The logger of that name, which finds its handlers as `_Logger` does from then on. From any thread."""
    logger = logging.getLogger(name)
    if type(logger) is logging.Logger:
        logger.__class__ = _Logger
    return logger


def use_console(handler: logging.Handler) -> None:
    """Set the handler that prints warnings and errors if nothing else does, in place of Python's last resort."""
    global _console  # noqa: PLW0603 - as the last resort, there is one for the process
    # Not the handler alone: tools that report errors (Sentry) watch `logging.Logger.callHandlers`.
    _console = logging.Logger("velocity_ws")  # noqa: LOG001 - it has no children, and is not found by its name
    _console.addHandler(handler)


def hint(logger: logging.Logger, message: str, *args: object) -> None:
    """Log at INFO, so that it is seen also if only uvicorn has configured logging, which shows its own INFO lines."""
    is_default = logger.getEffectiveLevel() == logging.WARNING and logger.manager.disable < logging.INFO
    if is_default and not logger.hasHandlers():
        logger.handle(logger.makeRecord(logger.name, logging.INFO, __file__, 0, message, args, None))
    else:
        logger.info(message, *args)


class RateLimitedWarnings:
    """Warnings that any stranger can cause at will: some are shown at once, and then few; the others at DEBUG."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._limiter = RateLimiter(1 / SECONDS_PER_WARNING, WARNINGS_AT_ONCE, time.monotonic)

    def warn(self, message: str, *args: object, extra: Mapping[str, object] | None = None) -> None:
        """Log a warning, or a line at DEBUG where there are too many."""
        level = logging.DEBUG if self._limiter.acquire() else logging.WARNING
        self._logger.log(level, message, *args, extra=extra)


class CountedWarnings:
    """Warnings of what may happen very often: one of each kind a minute, with the count of those not shown."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._kinds: dict[str, tuple[float, int]] = {}

    def warn(self, kind: str, message: str, *args: object, extra: Mapping[str, object] | None = None) -> None:
        """Log a warning, or count it.

        Args:
            kind: what is counted together; never of a stranger's choice, as all kinds are kept.
            message: with ``%`` placeholders.
            args: for the placeholders.
            extra: fields of the record.
        """
        now = time.monotonic()
        at, count = self._kinds.get(kind, (-math.inf, 0))
        if now - at < SECONDS_BETWEEN:
            self._kinds[kind] = at, count + 1
            return
        self._kinds[kind] = now, 0
        since = f"; and {count} times more since this was last said" if count else ""
        self._logger.warning("%s%s", message % args, since, extra=extra)


def quote(text: object) -> str:
    """A stranger's text as it may stand in a line of a log: in quotes, escaped, and shortened to `MAX_QUOTED`."""
    text = str(text)
    return repr(text) if len(text) <= MAX_QUOTED else repr(text[:MAX_QUOTED]) + "…"


def quote_exception(record: logging.LogRecord) -> bool:
    """Indent and escape a traceback whose text could be taken for lines of the log; a filter that keeps all records."""
    error = record.exc_info[1] if record.exc_info else None
    if error is not None and not all(map(str.isprintable, _texts(error))):
        lines = "".join(traceback.format_exception(error)).rstrip("\n").split("\n")
        record.exc_text = "\n".join(["  " + printable(line) for line in lines])  # where formatters keep it
    return True


def printable(text: str) -> str:
    """Escape each character that does not print: ends of lines, controls of a terminal."""
    return text if text.isprintable() else "".join([c if c.isprintable() else repr(c)[1:-1] for c in text])


def _texts(error: BaseException) -> Iterator[str]:
    """The texts of an exception, and of those that it came from."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        left += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            left += one.exceptions
        yield from [line.removesuffix("\n") for line in traceback.format_exception_only(one)]
        yield from getattr(one, "__notes__", ())
