"""Garbage: when the collector runs, which stops everything meanwhile. Knows nothing of what it looks at.

Source: https://docs.python.org/3/library/gc.html, and ``Modules/gcmodule.c`` of CPython 3.11 to 3.13. Where another
version collects otherwise, in small steps, nothing here is ever due.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable
from types import ModuleType, TracebackType

resource: ModuleType | None
try:
    import resource
except ImportError:  # on Windows
    resource = None

__all__ = ["LARGE", "FullCollections", "collection_paused", "full_collections"]

LARGE = 64 * 1024
"""Bytes of a message from which it is worth it: to look through 170,000 new lists again and again, as the collector
does while they are made, takes longer than to make them."""
_OLDEST = 2
"""The generation of a full collection."""
SHARE = 0.005
"""What part of the time full collections may take."""
OBJECT_COST = 0.5e-6
"""Seconds that a full collection is expected to take for each object that has come since the last one."""
MOST_BYTES = 128 * 1024 * 1024
"""Bytes by which the process may grow until a full collection is due, or by half of what it has, if that is more: what
is garbage may be few objects, and large."""
USUAL = 10
"""CPython's thresholds of the middle and the oldest generation, in collections of the one before."""
YOUNGER = 2
"""That of the middle one here. With CPython's, each of its collections stops everything for 2 ms while thousands of
clients connect, with this for 0.6 ms; together they take the same, as each object is looked at once."""
MOST_NEW = 1_400_000
"""Objects after which a full collection is due whatever it takes, some 150 MB, if all of them stayed. CPython's rule
applies besides: none while less than a quarter is new."""
CONNECTION_BYTES = 16 * 1024
CONNECTION_OBJECTS = 70
"""What a connection has, and so is no garbage: bytes, and objects, an application's few included. Else 10,000 clients
that connect at once would all be stopped for a quarter of a second, to find nothing."""


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


class FullCollections:
    """Keeps full collections apart, so that they take a small part of the time; also while very many objects come.

    By itself the collector looks at everything each time that a quarter more is there: while thousands of clients
    connect within seconds that is again and again, for a tenth of a second each time and more. Young garbage is
    collected as before. What the application has set is kept: a collector that it switched off, or a larger threshold.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            clock: seconds, never going back.
        """
        self._clock = clock
        self._began = self._ended = self._took = 0.0
        self._memory = 0
        self._connections = self._at_first = self._most = self._came = 0
        self._usual: int | None = None
        self._own: tuple[int, int, int] | None = None

    def keep_apart(self) -> None:
        """Do so from now on, and never look at what is there already. Once is enough. From any thread."""
        if self._note not in gc.callbacks:
            young, younger, oldest = gc.get_threshold()
            if younger == oldest == USUAL:
                gc.set_threshold(young, YOUNGER, oldest)
            gc.callbacks.append(self._note)
            if gc.isenabled():
                gc.collect()  # what is garbage already would stay for ever
            gc.freeze()
            self._forget()

    def count_in(self) -> None:
        """A connection has come."""
        self._connections += 1
        self._came += 1
        if self._connections > self._most:
            self._most = self._connections

    def count_out(self) -> None:
        """A connection has gone; what it had is freed without a collection."""
        self._connections -= 1

    def _note(self, phase: str, info: dict[str, int]) -> None:
        """A collection begins or ends, on any thread."""
        if phase == "start":
            self._began = self._clock()
        elif info["generation"] == _OLDEST:
            self._took = self._clock() - self._began
            self._forget()
        elif info["generation"] == _OLDEST - 1 and self._usual is not None:
            if not self._is_due():
                self._set(_collections_of(MOST_NEW + self._came * CONNECTION_OBJECTS))
            else:
                self._set(self._usual)
                self._usual = None

    def _is_due(self) -> bool:
        young, younger, _ = gc.get_threshold()
        grown = _most_memory() - self._memory - (self._most - self._at_first) * CONNECTION_BYTES
        if grown > max(MOST_BYTES, self._memory // 2):
            return True
        new = gc.get_count()[_OLDEST] * young * younger  # if all of them stayed
        return self._clock() - self._ended >= (self._took + new * OBJECT_COST) / SHARE

    def _forget(self) -> None:
        """There was a full collection: begin to count anew, and put the next one off."""
        self._ended = self._clock()
        self._memory = _most_memory()
        self._at_first = self._most = self._connections
        self._came = 0
        young, younger, usual = gc.get_threshold()
        most = _collections_of(MOST_NEW)
        if usual < most:
            self._usual, self._own = usual, (young, younger, most)
            gc.set_threshold(*self._own)

    def _set(self, threshold: int) -> None:
        """Set that of a full collection, where the application has not set its own meanwhile."""
        young, younger, oldest = found = gc.get_threshold()
        if found == self._own and oldest != threshold:
            self._own = young, younger, threshold
            gc.set_threshold(*self._own)


def _collections_of(objects: int) -> int:
    """How many collections of the middle generation there are while a number of objects come, if all of them stay."""
    young, younger, _ = gc.get_threshold()
    return objects // max(1, young * younger)


def _most_memory() -> int:
    """Bytes that the process has had at most; 0 where that is not told."""
    if resource is None:
        return 0
    most: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


full_collections = FullCollections()
"""Those of this process, which has one collector."""
