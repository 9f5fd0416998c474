"""Siblings: how many processes serve beside this one. Knows servers by their names only."""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

__all__ = ["callers", "count_workers"]

_FORKING = {"gunicorn", "uvicorn_worker"}
"""Servers whose configuration exists in workers only."""
_SPAWNING = {"uvicorn", "hypercorn", "granian"}
"""Servers that may also run in the caller's process, where their number of workers means nothing."""


def count_workers() -> int:
    """How many processes serve, this one included; 1 where that cannot be found.

    No server tells its application. But each runs the event loop from a function of its own, so what it was
    configured with stands among the callers of all that runs on the loop.
    """
    servers = _FORKING if multiprocessing.parent_process() is None else _FORKING | _SPAWNING
    return max([1, *(number for frame in callers() for number in _workers(frame, servers))])


def callers() -> Iterator[FrameType]:
    """The frames of the running function and its callers, innermost first."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        yield frame
        frame = frame.f_back


def _workers(frame: FrameType, servers: set[str]) -> Iterator[int]:
    """The numbers of workers that one of these servers names in a function of its own."""
    server = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    if server not in servers:
        return
    local = frame.f_locals
    this = local.get("self")
    for holder in (this, getattr(this, "config", None), getattr(this, "cfg", None), local.get("config")):
        number: Any = getattr(holder, "workers", None)
        if isinstance(number, int) and not getattr(holder, "should_reload", False):  # uvicorn's reloader has one
            yield number
    if server == "granian" and isinstance(local.get("worker_id"), int):
        # Where it does not fork, workers get nothing but their own number, counted from 1.
        asked = re.search(r"--workers[= ](\d+)", " ".join(sys.argv))
        yield max(local["worker_id"], int(asked[1] if asked else os.environ.get("GRANIAN_WORKERS") or 1))
