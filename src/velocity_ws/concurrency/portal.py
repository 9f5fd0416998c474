"""Portal: the way to the broker's loop from other loops and threads. Knows nothing of what runs there."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import sys
import weakref
from collections.abc import Callable, Coroutine
from threading import get_ident
from typing import Any, Final, TypeVar

from velocity_ws.errors import BrokerError, WouldDeadlockError

__all__ = ["KERNEL_IS_ASKED", "Portal", "end_now"]

T = TypeVar("T")

LOOK_AGAIN = 1.0
"""Seconds after which a waiting call looks whether the broker's loop still runs."""
KERNEL_IS_ASKED: Final = sys.version_info < (3, 12)
"""Whether `asyncio.get_running_loop` makes a system call each time, as CPython 3.11 does."""


_forks = 0
"""How many forks lie between the first process and this one: tells it from its parent, and is cheaper than its pid."""


def _forked() -> None:
    global _forks  # noqa: PLW0603 - of the process
    _forks += 1
    for portal in _portals:
        portal.thread = None


_portals: weakref.WeakSet[Portal] = weakref.WeakSet()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class Portal:
    """Runs coroutines on the broker's loop, to which all state of the broker belongs. It is unset until a start.

    Attributes:
        thread: the thread in which the loop runs, while it is known to run something of the broker's: what is called
            meanwhile in that thread `is_here`. ``None`` at all other times, and where the kernel is not asked.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._forks = 0
        self.thread: int | None = None
        _portals.add(self)

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The broker's loop; ``None`` if there is none, if it is closed, or if it is that of a fork's parent."""
        loop = self._loop
        return None if loop is None or loop.is_closed() or self._forks != _forks else loop

    def settle(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Set the broker's loop; ``None`` when the broker has stopped."""
        self._loop = loop
        self._forks = _forks

    @property
    def is_here(self) -> bool:
        """Whether a coroutine can do its work right here: on the broker's loop, or if there is none.

        From any loop, in a coroutine.
        """
        if KERNEL_IS_ASKED and self.thread == get_ident():
            return True
        return self._loop is asyncio.get_running_loop() or self.loop is None

    async def run(self, function: Callable[..., Coroutine[Any, Any, T]], *args: object) -> T:
        """Await ``function(*args)`` on the broker's loop. From any loop, in a coroutine.

        If the broker has no loop, the function runs on the caller's: no client is connected, so nothing races with it.

        Returns:
            What the function returns.

        Raises:
            BrokerError: the broker's loop was stopped or closed before the function had returned.
        """
        loop = self._loop
        is_here = (KERNEL_IS_ASKED and self.thread == get_ident()) or loop is asyncio.get_running_loop()  # as above
        if is_here or (loop := self.loop) is None:
            return await function(*args)
        future = asyncio.wrap_future(_submit(loop, function(*args)))
        try:
            while not (await asyncio.wait([future], timeout=LOOK_AGAIN))[0]:
                if not loop.is_running():
                    raise BrokerError("the broker's event loop was stopped while this was waiting for it")
            return future.result()
        finally:
            future.cancel()

    def block(self, function: Callable[..., Coroutine[Any, Any, T]], *args: object, **options: object) -> T:
        """Run ``function(*args, **options)`` on the broker's loop, and block until it has returned. From any thread.

        Returns:
            What the function returns.

        Raises:
            WouldDeadlockError: it was called on the broker's loop, which would wait for itself.
            BrokerError: the broker's loop was stopped or closed before the function had returned.
        """
        try:
            here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        loop = self.loop
        if loop is not None and loop is here:
            name = getattr(function, "__qualname__", "this")
            raise WouldDeadlockError(
                f"{name} was called in its blocking form on the broker's own event loop, which would wait for itself "
                "for ever. Here, await the method of the same name without '.sync'; the blocking form is for threads."
            )
        coroutine = function(*args, **options)
        if loop is not None:
            return _wait(loop, _submit(loop, coroutine))
        if here is None:
            return asyncio.run(coroutine)
        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            return executor.submit(asyncio.run, coroutine).result()


def _wait(loop: asyncio.AbstractEventLoop, future: concurrent.futures.Future[T]) -> T:
    # Not anyio's from_thread.run(token=...), which costs the same (31 µs on uvloop): it waits for ever for a loop that
    # is stopped but not closed, or its own; and a scope that ends around an AnyIO worker thread cancels what it runs.
    while True:
        try:
            return future.result(LOOK_AGAIN)
        except TimeoutError:
            if future.done():  # the function raised it
                raise
            if not loop.is_running():
                raise BrokerError("the broker's event loop was stopped while this was waiting for it") from None


def _submit(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
    if not loop.is_running():
        coroutine.close()
        raise BrokerError(
            "the broker's event loop is not running, so nothing can be done on it; start the broker again"
        )
    try:
        return asyncio.run_coroutine_threadsafe(coroutine, loop)
    except RuntimeError as error:
        coroutine.close()
        raise BrokerError("the broker's event loop has just been closed; start the broker again") from error


def end_now(timeout: asyncio.Timeout) -> None:
    """Make a running ``asyncio.timeout`` expire now; harmless if it has expired already."""
    with contextlib.suppress(RuntimeError):  # it has expired, and its block has not ended yet
        timeout.reschedule(asyncio.get_running_loop().time())
