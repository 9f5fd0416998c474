"""Servers in processes of their own, and what they print."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect

from tests.support import DEADLINE, eventually
from tests.support.command import kept_port

__all__ = ["APP", "COMMANDS", "OURS", "PORT", "ROOT", "UPPER", "Console", "answers", "console", "says"]

ROOT = Path(__file__).parents[2]
UPPER = 60.0
"""Seconds that an interpreter may take to start, on a machine that is busy otherwise."""
APP = "tests.programs.faults:app"
PORT = "{port}"
OURS = ("--ws", "velocity_ws.uvicorn:WebSocketProtocol", "--http", "velocity_ws.uvicorn:HTTPProtocol")
COMMANDS = {
    "uvicorn": ("-m", "uvicorn", APP, "--port", PORT),
    "uvicorn, our classes": ("-m", "uvicorn", APP, "--port", PORT, *OURS),
    "velocity-ws run": ("-m", "velocity_ws", "run", APP, "--port", PORT),
    "Server.run": ("-m", "tests.programs.faults"),
    "Server in a loop": ("-m", "tests.programs.faults"),
    "hypercorn": ("-m", "hypercorn", APP, "--bind", f"127.0.0.1:{PORT}", "--workers", "0"),
}


class Console:
    """A server in a process of its own, and what it printed."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.text = ""
        self.port = port
        self._news = asyncio.Event()
        self._is_over = False

    async def read(self) -> None:
        """Take what it prints until it ends."""
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.text += line.decode()
            self._news.set()
        self._is_over = True
        self._news.set()

    async def shows(self, pattern: str) -> re.Match[str]:
        """Wait until it has printed this."""
        try:
            async with asyncio.timeout(UPPER):
                while not (found := re.search(pattern, self.text)):
                    assert not self._is_over, self.text
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"{pattern} is not in {self.text}") from None
        return found

    def connect(self, query: str = "", **options: object) -> connect:
        return connect(f"ws://127.0.0.1:{self.port}/ws{query}", proxy=None, open_timeout=DEADLINE, **options)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def console(way: str, **variables: str) -> AsyncIterator[Console]:
    """Start a server, and end it."""
    port = kept_port()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WS_")}
    more = {"PYTHONUNBUFFERED": "1", "FAULTS_SERVER": "loop" if way == "Server in a loop" else ""}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *[text.format(port=port) for text in COMMANDS[way]]),
        cwd=ROOT,
        env={**clean, **more, "FAULTS_PORT": str(port), **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    served = Console(process, port)
    reading = asyncio.create_task(served.read())
    try:
        await eventually(lambda: process.returncode is not None or answers(port), within=UPPER)
        yield served
    finally:
        if process.returncode is None:
            process.kill()  # how it ends is for other tests
        await process.wait()
        await reading


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


async def says(client: ClientConnection, event: str, data: object = None) -> str:
    """Ask, and what is answered."""
    await client.send(json.dumps({"event": event, "data": data, "id": 1}))
    async with asyncio.timeout(DEADLINE):
        return str(json.loads(await client.recv())["event"])
