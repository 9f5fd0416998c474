"""Signals: SIGINT and SIGTERM, handled on a running event loop. Knows no server."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator

__all__ = ["on_signals"]


@contextlib.contextmanager
def on_signals(act: Callable[[], object]) -> Iterator[None]:
    """Call a function on the running loop at each SIGINT and SIGTERM, in place of what they do. Main thread only."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    try:
        for number in numbers:
            loop.add_signal_handler(number, act)
    except NotImplementedError:  # as on Windows
        before = [signal.signal(number, lambda *_: loop.call_soon_threadsafe(act)) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)
        return
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
