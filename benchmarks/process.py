"""Processes that answer commands: one JSON object a line on stdin, one JSON line back on stdout.

Knows nothing of what the commands are.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self

__all__ = ["Child", "answer_commands", "pin", "raise_file_limit", "server_core"]

Handler = Callable[..., Awaitable[dict[str, Any]]]

TIMEOUT = 60.0
"""Seconds any command may take."""


def server_core() -> int | None:
    """The core of the server under test; ``None`` where processes cannot be pinned, or there is only one core."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return cores[0] if len(cores) > 1 else None


def pin(*, server: bool) -> None:
    """Pin this process to the server's core, or to all the others."""
    core = server_core()
    if core is not None:
        os.sched_setaffinity(0, {core} if server else os.sched_getaffinity(0) - {core})


def raise_file_limit() -> None:
    """Let this process and its children have a socket for each client."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Child:
    """A module of this package run as a process of its own."""

    def __init__(self, module: str, *args: str) -> None:
        self._command = ["-m", f"benchmarks.{module}", *args]
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(sys.executable, *self._command, stdin=pipe, stdout=pipe)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Give a command and wait for its answer.

        Raises:
            RuntimeError: the process has ended; what it wrote to stderr says why.
            TimeoutError: there was no answer in time.
        """
        if self._process is None or self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("not started")
        self._process.stdin.write(json.dumps({"command": command, **arguments}).encode() + b"\n")
        async with asyncio.timeout(TIMEOUT):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._command} ended while it was asked to {command}")
        answer: dict[str, Any] = json.loads(line)
        return answer


async def answer_commands(handlers: Mapping[str, Handler]) -> None:
    """The child's side: answer the commands on stdin until it is closed."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        while line := await reader.readline():
            arguments = json.loads(line)
            answer = await handlers[arguments.pop("command")](**arguments)
            print(json.dumps(answer), flush=True)
    finally:
        transport.close()
