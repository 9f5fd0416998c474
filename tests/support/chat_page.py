"""A page with a chat of Vercel's AI SDK, without a browser: the program in tests/adapters/node. Knows no server."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support import DEADLINE
from tests.support.node_tools import find_node, install, node_environment

__all__ = ["SDKS", "ChatPage", "chat_page", "project_of", "text_of"]

HERE = Path(__file__).parents[1] / "adapters" / "node"
SDKS = ("ai5", "ai6", "ai7")
"""The versions of the SDK, by the names that they have in package.json."""


def project_of(place: Path) -> Path:
    """A project with the programs and the SDKs."""
    for file in (*HERE.glob("*.mjs"), HERE / "package.json"):
        shutil.copy(file, place)
    (place / "node_modules").symlink_to(install(HERE))
    return place


def text_of(message: Any) -> str:
    """The text of a message, all of its parts."""
    return "".join([part["text"] for part in message["parts"] if part["type"] == "text"])


class ChatPage:
    """The page.

    Attributes:
        messages: what it shows now.
        status: that of its chat: ready, submitted, streaming or error.
        error: what it shows of an error.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.messages: list[Any] = []
        self.status = "ready"
        self.error: str | None = None
        self._process = process
        self._done: list[dict[str, Any]] = []

    @property
    def answer(self) -> Any:
        """The last message, which is an answer."""
        assert self.messages[-1]["role"] == "assistant", self.messages
        return self.messages[-1]

    def begin(self, *command: str) -> None:
        """Have it do something, and do not wait."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")

    async def do(self, *command: str) -> None:
        """Have it do something, to the end."""
        self.begin(*command)
        await self.done(command[0])

    async def done(self, command: str) -> None:
        """Wait until it has done a command."""
        if command not in [said["done"] for said in self._done]:
            await self._until(lambda said: said.get("done") == command)
        assert not [said for said in self._done if "failed" in said]
        self._done = [said for said in self._done if said["done"] != command]

    async def shows(self, text: str) -> None:
        """Wait until its last message has a text, and no other one."""
        if not (self.messages and text_of(self.messages[-1]) == text):
            await self._until(lambda _: bool(self.messages) and text_of(self.messages[-1]) == text)

    async def read(self) -> None:
        """Have it read the stream without a chat, and wait until the response has begun, or there is none."""
        self.begin("read")
        await self._until(lambda said: "reading" in said or "read" in said)

    async def has_read(self) -> dict[str, Any]:
        """What was read: the last message, the types of its chunks, and errors."""
        return await self._until(lambda said: "read" in said)

    async def _until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        assert self._process.stdout is not None
        async with asyncio.timeout(2 * DEADLINE):
            while line := await self._process.stdout.readline():
                said: dict[str, Any] = json.loads(line)
                if "messages" in said:
                    self.messages, self.status = said["messages"], said["status"]
                    self.error = said.get("error")
                if "done" in said:
                    self._done.append(said)
                if condition(said):
                    return said
        raise AssertionError("the page has ended")


@asynccontextmanager
async def chat_page(project: Path, sdk: str, address: str, chat: str) -> AsyncIterator[ChatPage]:
    """A page with one chat of an application, which is closed behind the block."""
    process = await asyncio.create_subprocess_exec(
        find_node(), "chat.mjs", sdk, address, chat, cwd=project, env=node_environment(),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield ChatPage(process)
    finally:
        process.kill()
        await process.wait()
