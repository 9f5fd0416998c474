"""A Node process with `velocity.js` in it, on its own `WebSocket` or that of the package ws."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from tests.support.client_scripts import CLIENT, PATIENCE, SCRIPT
from tests.support.node_tools import find_node, install

__all__ = ["NodePage", "Sockets", "node_page"]

Sockets = Literal["ws", "undici"]
"""The class of WebSockets: of npm's package ws, or Node's own."""

TESTS = Path(__file__).parents[1]


class NodePage:
    """Such a process, as `tests.support.client_scripts.Page` says.

    Attributes:
        version: Node's.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.errors: list[str] = []
        self.version = ""
        self._process = process
        self._ids = itertools.count(1)
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, script: str, argument: Any = None, *, within: float = PATIENCE) -> Any:
        """As `tests.support.client_scripts.Page` says."""
        assert self._process.stdin is not None
        number = next(self._ids)
        future = self._calls[number] = asyncio.get_running_loop().create_future()
        line = json.dumps({"id": number, "script": script, "argument": argument})
        self._process.stdin.write(line.encode() + b"\n")
        try:
            async with asyncio.timeout(within):
                return await future
        finally:
            del self._calls[number]

    async def read(self) -> None:
        """Take what it says, until it ends."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            message = json.loads(line)
            if "error" in message:
                self.errors.append(message["error"])
            elif "ready" in message:
                self.version, kind = message["ready"]
                assert kind == "function", f"Node {self.version} has no WebSocket"
                self._ready.set_result(None)
            elif (call := self._calls.get(message["id"])) is None or call.done():
                continue  # nobody waits for it any more
            elif "failed" in message:
                call.set_exception(AssertionError(message["failed"]))
            else:
                call.set_result(message["value"])

    async def wait_ready(self) -> None:
        """Wait until it has loaded the client."""
        async with asyncio.timeout(PATIENCE):
            await self._ready


@asynccontextmanager
async def node_page(directory: Path, sockets: Sockets = "undici", *, client: str = "") -> AsyncIterator[NodePage]:
    """A Node process with the client, until the end of the block; what it needs is put into the directory.

    Args:
        client: the text of a client other than the server's.
    """
    path = directory / "velocity.mjs"  # a module, also without a package around it
    path.write_text(client or CLIENT.read_text(encoding="utf-8"), encoding="utf-8")
    module = install(TESTS / "npm") / "ws" / "wrapper.mjs" if sockets == "ws" else ""
    process = await asyncio.create_subprocess_exec(
        *(find_node(), "--experimental-websocket"),  # without it Node 20 has none of its own
        *(str(TESTS / "programs" / "node_page.mjs"), str(path), str(module), SCRIPT),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 24,
    )
    page = NodePage(process)
    reader = asyncio.create_task(page.read())
    try:
        await page.wait_ready()
        yield page
    finally:
        process.kill()
        await process.wait()
        await reader
