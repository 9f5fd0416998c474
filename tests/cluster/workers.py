"""Workers of the command ``velocity-ws run``, and clients of theirs that check what they get."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

ROOT = Path(__file__).parents[2]
START = 30.0
"""Seconds that workers may take to start, on a machine that does other things."""


@asynccontextmanager
async def workers(count: int, url: str, **environment: str) -> AsyncIterator[int]:
    """So many workers behind one port, which this is."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    command = ["-m", "velocity_ws", "run", "tests.programs.cluster_app:app", "--workers", str(count)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, "--port", str(port), "--log-level", "warning",
        cwd=ROOT,
        env={**os.environ, "WS_BACKPLANE_URL": url, "WS_RATE_LIMIT": "0", **environment},
        start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(START):
            while True:
                try:
                    seen = set()
                    async with AsyncExitStack() as stack:
                        for _ in range(4 * count):
                            member = await stack.enter_async_context(person(port, "anyone"))
                            seen.add(member.node)
                            stats = await member.request("stats")
                            assert stats["healthy"]
                        if len(seen) == count or count == 1:
                            break
                except (OSError, AssertionError, ConnectionClosed):
                    await asyncio.sleep(0.05)
        yield port
        if process.returncode == -signal.SIGKILL:  # by the test
            return
        assert process.returncode is None
        process.terminate()
        async with asyncio.timeout(START):
            assert await process.wait() == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


class Member:
    """A client in a room. Keeps what it gets, but for answers, which go to who asked."""

    def __init__(self, ws: ClientConnection, room: str) -> None:
        self.ws = ws
        self.room = room
        self.id = self.node = ""
        self.got: list[Any] = []
        self.events: list[tuple[str, Any]] = []
        self.heard = asyncio.Event()
        self._answers: dict[int, asyncio.Future[Any]] = {}

    async def read(self) -> None:
        """Until the connection is over."""
        with contextlib.suppress(ConnectionClosed):
            async for text in self.ws:
                message = json.loads(text)
                if message["event"] == "n":
                    self.got.append(message["data"])
                    self.heard.set()
                elif "id" in message:
                    assert message["event"] == "reply", message
                    self._answers.pop(message["id"]).set_result(message["data"])
                else:
                    self.events.append((message["event"], message["data"]))
        for future in self._answers.values():
            future.cancel()

    async def ask(self, event: str, data: Any = None) -> asyncio.Future[Any]:
        """Send a request; what will be its answer."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        number = len(self._answers) + 1
        while number in self._answers:
            number += 1
        self._answers[number] = future
        await self.ws.send(json.dumps({"event": event, "data": data, "id": number}))
        return future

    async def request(self, event: str, data: Any = None, within: float = 30.0) -> Any:
        """Send a request, and wait for its answer."""
        future = await self.ask(event, data)
        async with asyncio.timeout(within):
            return await future


@asynccontextmanager
async def person(port: int, room: str, user: str = "") -> AsyncIterator[Member]:
    """Somebody in a room, on whichever worker took the connection."""
    path = f"/ws?user={user}" if user else "/ws"
    async with connect(f"ws://127.0.0.1:{port}{path}", proxy=None, open_timeout=20, max_queue=None) as ws:
        member = Member(ws, room)
        reading = asyncio.create_task(member.read())
        try:
            member.id, member.node = await member.request("join", room)
            yield member
        finally:
            reading.cancel()
            await asyncio.wait([reading])
