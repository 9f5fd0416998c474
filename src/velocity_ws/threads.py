"""Threads: an executor that keeps no process alive, whatever its threads still do. Knows no hook and no event loop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from queue import SimpleQueue
from typing import ParamSpec, TypeVar

__all__ = ["Threads"]

P = ParamSpec("P")
T = TypeVar("T")


class Threads(Executor):
    """Daemon threads that are started as they are needed.

    Those of the standard library's executor are joined when the interpreter ends, so that one call that never
    returns would keep the process for ever.

    Args:
        limit: threads at once; what is submitted beyond waits for one.
        name: of each thread, before its number.
    """

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._lock = threading.Lock()
        self._idle = threading.Semaphore(0)
        self._is_over = False
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._waiting: set[Future[object]] = set()
        self._threads: list[threading.Thread] = []

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call a function in a thread.

        Raises:
            RuntimeError: it was shut down.
        """
        future: Future[T] = Future()
        work = partial(_work, self._waiting, future, partial(fn, *args, **kwargs))
        with self._lock:
            if self._is_over:
                raise RuntimeError("these threads have been shut down")
            self._waiting.add(future)  # type: ignore[arg-type] # whatever its result is, it is only cancelled
            self._work.put(work)
            if not self._idle.acquire(blocking=False) and len(self._threads) < self._limit:
                name = f"{self._name} {len(self._threads)}"
                thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads end when they have nothing to do any more."""
        with self._lock:
            self._is_over = True
            if cancel_futures:
                for future in list(self._waiting):
                    future.cancel()
            for _ in self._threads:
                self._work.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            del work  # with all that it refers to, until there is more
            self._idle.release()


def _work(waiting: set[Future[object]], future: Future[T], call: Callable[[], T]) -> None:
    waiting.discard(future)
    try:
        if future.set_running_or_notify_cancel():
            future.set_result(call())
    except BaseException as error:
        future.set_exception(error)
    finally:
        del future  # whose error refers to this frame: both would wait for the garbage collector
