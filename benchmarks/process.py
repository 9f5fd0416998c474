"""Programs that answer commands: one JSON object a line on stdin, one JSON line back on stdout, and what they use.

Knows nothing of what the commands are. A program may be written in anything: its processor time and memory are read
from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil  # type: ignore[import-untyped, unused-ignore]

__all__ = ["ROOT", "Child", "Usage", "pinned", "raise_file_limit", "server_core"]

ROOT = Path(__file__).parent.parent
TIMEOUT = 60.0
"""Seconds any command may take."""
LINE = 2**22
"""Bytes an answer may have."""


@dataclass(frozen=True)
class Usage:
    """What a process has used: seconds of processor time, bytes of resident memory, how often it was woken."""

    total: float
    user: float
    system: float
    rss: int
    wakeups: int


def server_core() -> int | None:
    """The core of the server under test; ``None`` where processes cannot be pinned, or there is only one core."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return cores[0] if len(cores) > 1 else None


@contextlib.contextmanager
def pinned(*, server: bool) -> Iterator[None]:
    """What is started meanwhile runs, with all its threads, on the server's core, or on all the others."""
    core = server_core()
    if core is None:
        yield
        return
    all_cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core} if server else all_cores - {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_cores)


def raise_file_limit() -> None:
    """Let this process and its children have a socket for each client."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Child:
    """A program. Its first line says that it is ready.

    Args:
        command: what to run.
        server: whether it runs on the server's core, or beside it.
        environment: variables that it has besides this process's.
        root: the checkout it runs from.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        server: bool,
        environment: Mapping[str, str] | None = None,
        root: Path = ROOT,
    ) -> None:
        self._command = command
        self._root = root
        self._server = server
        self._environment = {**os.environ, **(environment or {})}
        self._process: asyncio.subprocess.Process | None = None
        self.hello: dict[str, Any] = {}

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        with pinned(server=self._server):
            self._process = await asyncio.create_subprocess_exec(
                *self._command, cwd=self._root, stdin=pipe, stdout=pipe, limit=LINE, env=self._environment
            )
        try:
            self.hello = await self._answer("start")
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._end()

    async def _end(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Give a command and wait for its answer.

        Raises:
            RuntimeError: the process has ended; what it wrote to stderr says why.
            TimeoutError: there was no answer in time.
        """
        if self._process is None or self._process.stdin is None:
            raise RuntimeError("not started")
        self._process.stdin.write(json.dumps({"command": command, **arguments}).encode() + b"\n")
        return await self._answer(command)

    async def _answer(self, command: str) -> dict[str, Any]:
        if self._process is None or self._process.stdout is None:
            raise RuntimeError("not started")
        async with asyncio.timeout(TIMEOUT):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self._command)} ended while it was asked to {command}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def usage(self) -> Usage:
        """What it has used so far, read from outside."""
        if self._process is None:
            raise RuntimeError("not started")
        process = psutil.Process(self._process.pid)
        times = process.cpu_times()
        total = times.user + times.system
        if sys.platform == "linux":
            # The process's own clock (clock_getcpuclockid(3)): psutil's times are counted in ticks of 10 ms.
            total = time.clock_gettime((~self._process.pid << 3) | 2)
        return Usage(total, times.user, times.system, process.memory_info().rss, process.num_ctx_switches().voluntary)
