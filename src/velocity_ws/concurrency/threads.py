"""Threads: an executor whose threads, even busy ones, keep no process alive. Knows no hook and no event loop."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

__all__ = ["Threads"]

P = ParamSpec("P")
T = TypeVar("T")

Work = Callable[[], None]
Desk = SimpleQueue[Work | None]
"""The queue from which one thread takes its work; ``None`` ends the thread."""


class Threads(Executor):
    """An executor of daemon threads, which are started as they are needed. From any thread.

    The standard library joins the threads of its executor when the interpreter ends, so one call that never
    returns would keep the process for ever.

    Args:
        limit: how many calls run at once; further ones wait for a thread, and are dropped when they are cancelled.
        name: the beginning of each thread's name, followed by its number.
        spare: how many threads may be started in place of those whose call takes longer than ``patience``.
        patience: seconds after which a call counts as slow.
        on_exhausted: called once, in any thread, when all threads are taken, the spare ones too, and a call waits.
    """

    def __init__(
        self,
        limit: int,
        name: str,
        *,
        spare: int = 0,
        patience: float = 1.0,
        on_exhausted: Callable[[], None] | None = None,
    ) -> None:
        self._limit = limit
        self._total = limit + spare
        self._name = name
        self._patience = patience
        self._on_exhausted = on_exhausted
        self._lock = threading.Lock()
        self._is_over = False
        self._count = 0
        self._threads: dict[Desk, threading.Thread] = {}
        self._idle: list[Desk] = []
        self._busy: dict[Desk, float] = {}  # since when, the longest first, but for those that are slow
        self._waiting: dict[Future[Any], Work] = {}
        self._timer: threading.Timer | None = None

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call ``fn(*args, **kwargs)`` in a thread.

        Returns:
            The future of its result.

        Raises:
            RuntimeError: the executor was shut down.
        """
        future: Future[T] = Future()
        work = partial(_work, future, partial(fn, *args, **kwargs))
        with self._lock:
            if self._is_over:
                raise RuntimeError("these threads have been shut down")
            if self._idle:
                desk = self._idle.pop()
                self._busy[desk] = time.monotonic()
                desk.put(work)
                return future
            if self._has_room() and self._start(work):
                return future
            self._waiting[future] = work
            self._look_later()
            exhausted = self._exhausted()
        future.add_done_callback(self._forget)
        if exhausted is not None:
            exhausted()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and let each thread end when it has nothing to do.

        Args:
            wait: whether to block until all threads have ended.
            cancel_futures: whether to cancel the calls that wait for a thread.
        """
        with self._lock:
            self._is_over = True
            threads = list(self._threads.values())
            for desk in self._threads:
                desk.put(None)
            waiting = list(self._waiting) if cancel_futures else []
            if self._timer is not None and cancel_futures:
                self._timer.cancel()
        for future in waiting:
            future.cancel()
        if wait:
            for thread in threads:
                thread.join()

    # --- inside; with the lock held, but for what runs in threads

    def _has_room(self) -> bool:
        """Whether one more thread may be started, when slow ones do not count."""
        slow = time.monotonic() - self._patience
        for desk, since in list(self._busy.items()) if len(self._busy) >= self._limit else ():
            if since > slow:
                break
            del self._busy[desk]
        return len(self._busy) < self._limit and len(self._threads) < self._total

    def _start(self, work: Work) -> bool:
        """Start a thread with its first work; return whether the system had one."""
        desk: Desk = SimpleQueue()
        thread = threading.Thread(target=self._run, args=(desk,), name=f"{self._name} {self._count}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if not self._threads:
                raise
            return False
        self._count += 1
        self._threads[desk] = thread
        self._busy[desk] = time.monotonic()
        desk.put(work)
        return True

    def _look_later(self) -> None:
        """Set a timer that starts threads for waiting calls once the longest running call counts as slow."""
        if self._timer is None and self._waiting and len(self._threads) < self._total:
            since = next(iter(self._busy.values()), 0.0)
            seconds = max(since + self._patience - time.monotonic(), 0.05)
            timer = threading.Timer(seconds, self._look)
            timer.daemon = True
            with contextlib.suppress(RuntimeError):  # the system has no thread for that either
                timer.start()
                self._timer = timer

    def _exhausted(self) -> Callable[[], None] | None:
        """Return the callback for taken threads, if all are taken and it has not been called."""
        if not self._waiting or len(self._threads) < self._total:
            return None
        told, self._on_exhausted = self._on_exhausted, None
        return told

    def _look(self) -> None:
        with self._lock:
            self._timer = None
            while self._waiting and self._has_room():
                future = next(iter(self._waiting))
                if not self._start(self._waiting[future]):
                    break
                del self._waiting[future]
            self._look_later()
            exhausted = self._exhausted()
        if exhausted is not None:
            exhausted()

    def _forget(self, future: Future[Any]) -> None:
        """Drop a future from those that wait, as it is done or cancelled."""
        with self._lock:
            self._waiting.pop(future, None)

    def _run(self, desk: Desk) -> None:
        while (work := desk.get()) is not None:
            while work is not None:
                work()
                del work  # or an idle thread would keep alive all that it refers to
                work = self._next(desk)

    def _next(self, desk: Desk) -> Work | None:
        """Return the next work for a thread that has none: a waiting call; or ``None``, to become idle or to end."""
        with self._lock:
            self._busy.pop(desk, None)
            if self._waiting:
                future = next(iter(self._waiting))
                self._busy[desk] = time.monotonic()
                return self._waiting.pop(future)
            if self._is_over or len(self._threads) > self._limit:
                self._threads.pop(desk)
                desk.put(None)
            else:
                self._idle.append(desk)
            return None


def _work(future: Future[T], call: Callable[[], T]) -> None:
    try:
        if future.set_running_or_notify_cancel():
            future.set_result(call())
    except BaseException as error:
        future.set_exception(error)
    finally:
        del future  # whose error refers to this frame: both would wait for the garbage collector
