"""Supervision: how the processes of ``velocity-ws run`` end: their status, when the port closes. Knows no option."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from types import FrameType

import click
from uvicorn.config import Config
from uvicorn.supervisors import Multiprocess

from velocity_ws.uvicorn.late_connections import PARENT_CLOSES

__all__ = ["STARTUP_FAILURE", "WorkerSupervisor", "exit_status"]

CANCEL_GRACE = 0.2
"""Seconds that tasks have to end once the server has stopped."""
STOPS = frozenset({signal.SIGINT, signal.SIGTERM})
"""Signals by which the parent stops."""
STARTUP_FAILURE = 3
"""The status that uvicorn itself ends with where the application does not start."""


class _ToldToStop(threading.Event):
    """Whether the parent is to stop: set, or a signal that says so has come and waits to be handled.

    uvicorn handles no signal while workers are replaced (SIGHUP), but asks this between two of them; else it would go
    on until all are: findings/uvicorn-hears-no-stop-while-workers-are-replaced.sh

    `wait` is as ever, so that the loop which waits goes on to handle the signal.
    """

    def __init__(self, signals: list[int]) -> None:
        super().__init__()
        self._signals = signals

    def is_set(self) -> bool:
        """Whether it is to stop."""
        return super().is_set() or not STOPS.isdisjoint(self._signals)


class WorkerSupervisor(Multiprocess):
    """uvicorn's parent of workers, which listens no longer than they do, and replaces none once it is told to stop."""

    def __init__(self, config: Config, sockets: list[socket.socket]) -> None:
        setattr(config, PARENT_CLOSES, True)
        super().__init__(config, sockets)
        self.should_exit = _ToldToStop(self.signal_queue)

    def terminate_all(self) -> None:
        """Stop: from then on connections are refused, and what balances the load tries another server."""
        for sock in self.sockets:
            sock.close()
        super().terminate_all()


@contextlib.contextmanager
def exit_status(workers: int) -> Iterator[None]:
    """Make uvicorn, which runs in this context, end with status 0 after SIGINT or SIGTERM, and only then.

    Args:
        workers: processes that serve.

    Raises:
        SystemExit: several workers ended without a signal, as they could not start.
    """
    # ``asyncio.Runner`` waits for what it cancels then, and for a hook that ignores that it would wait for ever.
    last = threading.Timer(CANCEL_GRACE, _leave, (0,))
    last.daemon = True

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if not last.ident:
            last.start()
        raise SystemExit(0)

    # Alone it drains, and then raises the signal once more, which would end the process as if it had not.
    for number in STOPS:
        signal.signal(number, end)
    if workers == 1:
        try:
            yield
        finally:
            last.cancel()
        return
    # With workers it returns after a signal, and also where they cannot start. Which signals there were shows here.
    received, wakeup = socket.socketpair()
    with received, wakeup:
        received.setblocking(False)
        wakeup.setblocking(False)
        signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            last.cancel()
        try:
            numbers = received.recv(4096)
        except BlockingIOError:
            numbers = b""
    if STOPS.isdisjoint(numbers):
        raise SystemExit(STARTUP_FAILURE)


def _leave(status: int) -> None:
    click.echo("a task goes on after it was cancelled, and is left behind", err=True)
    sys.stdout.flush()
    os._exit(status)
