"""Calls: runs a hook with its values, plain ones in threads. Knows no client, and contains no exception."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any

from velocity_ws.concurrency.threads import Threads
from velocity_ws.hooks.hook import Hook
from velocity_ws.hooks.scope import SCOPE, Scope, Surroundings
from velocity_ws.logs import get_logger

__all__ = ["Calls"]

log = get_logger("velocity_ws.sessions")

MAX_THREADS = 256
"""Plain hooks of clients running at once, those aside that take longer than `PATIENCE`."""
MAX_STRANGER_THREADS = 64
"""The same for handshakes, whose hooks have threads of their own, so that strangers take none from clients."""
SPARE = 3
"""Threads, as a multiple of these, that are started in place of slow ones: hooks that hang are not to stall others."""
PATIENCE = 1.0
"""Seconds."""


class Calls:
    """The calls of all hooks of one broker. On the broker's loop only."""

    def __init__(self, surroundings: Surroundings) -> None:
        """
        Args:
            surroundings: what dependencies have of the broker.
        """
        self._surroundings = surroundings
        self.threads: Threads | None = None
        self._stranger_threads: Threads | None = None
        self._exit_threads: Threads | None = None

    def stop(self) -> None:
        """Let the threads go; they come back when they are needed."""
        for threads in (self.threads, self._stranger_threads, self._exit_threads):
            if threads is not None:
                threads.shutdown(wait=False, cancel_futures=True)
        self.threads = self._stranger_threads = self._exit_threads = None

    def start_threads(self) -> Threads:
        """Make the threads of clients' hooks, which are made for the first call."""
        self.threads = _new_threads(MAX_THREADS, "velocity-ws hook")
        return self.threads

    def call(self, hook: Hook, values: Mapping[str, Any], *, of_stranger: bool = False) -> Awaitable[Any]:
        """Call a hook: what is returned has to be awaited at once, and raises what the hook raises.

        Args:
            hook: the hook.
            values: all values that a hook of its kind can ask for, by name.
            of_stranger: whether it is for a client that has not been let in.
        """
        if of_stranger:
            if self._stranger_threads is None:
                self._stranger_threads = _new_threads(MAX_STRANGER_THREADS, "velocity-ws handshake")
            threads = self._stranger_threads
        else:
            threads = self.threads or self.start_threads()
        if hook.needs_scope and SCOPE not in values:
            return self._call_in_scope(hook, threads, values)
        return hook(threads, values)

    def new_scope(self) -> Scope:
        """A scope of dependencies, to be put among the values of hooks that share it, and to be closed."""
        return Scope(self._surroundings, self._threads_for_exits)

    async def _call_in_scope(self, hook: Hook, threads: Threads, values: Mapping[str, Any]) -> Any:
        """Call a hook in a scope of its own."""
        async with self.new_scope() as scope:
            return await hook(threads, {**values, SCOPE: scope})

    def _threads_for_exits(self) -> Threads:
        if self._exit_threads is None:
            self._exit_threads = _new_threads(MAX_THREADS, "velocity-ws exit")
        return self._exit_threads


def _new_threads(limit: int, name: str) -> Threads:
    def exhausted() -> None:
        log.error(
            "all %d threads of plain hooks (%s) are taken by calls that do not return, and others wait for them: "
            "give what the hooks call a timeout, or make them async def",
            limit * (1 + SPARE),
            name,
        )

    return Threads(limit, name, spare=limit * SPARE, patience=PATIENCE, on_exhausted=exhausted)
