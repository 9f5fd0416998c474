"""Commands started and stopped by a test: uvicorn's own, and ours in a folder. Knows no test."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import re
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.support import DEADLINE
from tests.support.engines import bound

ROOT = Path(__file__).parents[2]
OURS = "velocity_ws.uvicorn:WebSocketProtocol"
UPPER = 2 * DEADLINE
"""Seconds that a server may take to start or to stop, interpreters and all."""
PATIENT = ("--timeout-worker-healthcheck", "60")
"""Options with which uvicorn does not give a worker up that has started to start five seconds ago."""


class Served:
    """A server that was started by the command."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.log: list[str] = []
        self.port = 0

    def connect(self, path: str = "/echo", scheme: str = "ws", host: str = "127.0.0.1", **options: Any) -> connect:
        """A connection of the `websockets` library to it."""
        return connect(f"{scheme}://{host}:{self.port}{path}", proxy=None, open_timeout=DEADLINE, **options)

    async def get(self, path: str = "/tell", **headers: str) -> tuple[int, Any]:
        """The status of an HTTP request, and what is answered."""
        url = f"http://127.0.0.1:{self.port}{path}"

        def ask() -> tuple[int, Any]:
            request = urllib.request.Request(url, headers={"Connection": "close", **headers})
            try:
                with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
                    return answer.status, json.load(answer)
            except HTTPError as error:
                with error:
                    return error.code, error.read()

        return await asyncio.to_thread(ask)

    async def refused(self, path: str = "/echo", **options: Any) -> int:
        """The status that a handshake is refused with."""
        with pytest.raises(InvalidStatus) as caught:
            async with self.connect(path, **options):
                raise AssertionError("it was accepted")
        return caught.value.response.status_code

    async def listens(self, workers: int, within: float = UPPER) -> None:
        """Read what it says until all of it has started."""
        assert self.process.stderr is not None
        started, address = 0, False
        async with asyncio.timeout(within):
            while started < workers or not address:
                line = (await self.process.stderr.readline()).decode()
                assert line, "".join(self.log)
                self.log.append(line)
                started += "Application startup complete" in line
                if found := re.search(r"running on (?:https?://[\d.]+:(\d+)|unix socket)", line):
                    address = True
                    self.port = int(found[1] or 0)

    async def drain(self) -> None:
        """Read what it says until it ends."""
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.log.append(line.decode())

    async def stop(self) -> None:
        """End it as a service manager would, unless it has ended."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        await self.ended()

    async def ended(self) -> None:
        """Wait until it has ended, as it was told: another signal may find a process that has no handler left."""
        async with asyncio.timeout(UPPER):
            await self.process.wait()


@contextlib.asynccontextmanager
async def command(
    *options: str, ws: str = OURS, workers: int = 1, descriptors: int | str = 0, **variables: str
) -> AsyncIterator[Served]:
    """The application of `tests.programs.options`, served by the command; it must start, and stop in good order.

    Where there is a number of descriptors, it has no more; of ``64:4096`` the first is a soft limit. Without a lifespan
    nobody says that it has started: then ``workers`` is 0.
    """
    soft, _, hard = str(descriptors).partition(":")
    limits = f'ulimit -S -n {soft} && ulimit -H -n {hard or soft} && exec "$@"'
    limited = ("sh", "-c", limits, "sh") if descriptors else ()
    where = () if "--uds" in options else ("--port", "0")
    process = await asyncio.create_subprocess_exec(
        *limited,
        *(sys.executable, "-m", "uvicorn", "tests.programs.options:app", "--ws", ws, *where, *options),
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "WS_ALLOWED_ORIGINS": "*", **variables},
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    served = Served(process)
    reader = None
    try:
        await served.listens(workers)
        reader = asyncio.create_task(served.drain())
        yield served
        await served.stop()
        await reader
        # uvicorn ends by the signal it was sent, its supervisor of workers does not.
        assert process.returncode in (0, -signal.SIGTERM), "".join(served.log)
        assert "Traceback" not in "".join(served.log), "".join(served.log)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await (served.drain() if reader is None else reader)


def kept_port() -> int:
    """A port that nobody else is given until the tests end; who asks for it can listen there, as this does not."""
    kept = bound()
    atexit.register(kept.close)
    port: int = kept.getsockname()[1]
    return port


@contextlib.asynccontextmanager
async def serving_folder(
    folder: Path, command: str, port: int, *options: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """``velocity-ws run`` or ``dev`` in a folder, which logs to the file ``log`` there, and is killed with its workers.

    It leads a process group, so that ``os.killpg`` is what Ctrl+C in a terminal is.
    """
    variables = {name: value for name, value in os.environ.items() if not name.startswith("WS_")}
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "velocity_ws", command, "--port", str(port), *options),
            cwd=folder,
            env={**variables, "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
