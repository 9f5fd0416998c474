"""Garbage: pauses the collector while very many objects are made at once. Knows nothing of what they are."""

from __future__ import annotations

import gc
import threading
from types import TracebackType

__all__ = ["LARGE", "collection_paused"]

LARGE = 64 * 1024
"""Bytes of a message from which it is worth it: to look through 170,000 new lists again and again, as the collector
does while they are made, takes longer than to make them."""


class _CollectionPause:
    """A context in which nothing is collected, on any thread; not for code that waits.

    It may be nested, and entered from any thread: the last to exit leaves the collector as the first to enter found it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._was_enabled = False

    def begin(self) -> None:
        """Pause, until `end` is called as often as this. From any thread."""
        with self._lock:
            if not self._count:
                self._was_enabled = gc.isenabled()
                gc.disable()
            self._count += 1

    def end(self) -> None:
        """Let garbage be collected again, unless it is still paused elsewhere. From any thread."""
        with self._lock:
            self._count -= 1
            if not self._count and self._was_enabled:
                gc.enable()

    def __enter__(self) -> None:
        self.begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()


collection_paused = _CollectionPause()
"""The pause of this process, which has one collector."""
