"""Calls into a program over a WebSocket of JSON: Chromium's DevTools protocol and WebDriver BiDi have one form."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.support.client_scripts import PATIENCE

__all__ = ["START", "Remote", "RemoteError", "remote"]

START = 120.0
"""Seconds a program may take to start and answer."""


class RemoteError(Exception):
    """A call was refused; the text is the program's."""


class Remote:
    """A connection to a program that is driven."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._ids = itertools.count(1)
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._listeners: list[Callable[[dict[str, Any]], None]] = []

    async def call(self, method: str, *, session: str | None = None, within: float = PATIENCE, **params: Any) -> Any:
        """Call a method; its result.

        Args:
            session: the session of the DevTools protocol that it is for.
            within: seconds.
        """
        number = next(self._ids)
        of = {} if session is None else {"sessionId": session}
        future = self._calls[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(within):
                await self._connection.send(json.dumps({"id": number, "method": method, "params": params, **of}))
                return await future
        finally:
            del self._calls[number]

    def listen(self, listener: Callable[[dict[str, Any]], None]) -> None:
        """Have every event given to a function, as it came."""
        self._listeners.append(listener)

    async def read(self) -> None:
        """Take what comes, until the connection ends."""
        async for text in self._connection:
            message = json.loads(text)
            if "id" not in message or message["id"] is None:
                for listener in self._listeners:
                    listener(message)
            elif (call := self._calls.get(message["id"])) is None or call.done():
                continue  # nobody waits for it any more
            elif "error" in message:
                call.set_exception(RemoteError(json.dumps(message)))
            else:
                call.set_result(message["result"])


@asynccontextmanager
async def remote(url: str) -> AsyncIterator[Remote]:
    """A connection to the program that listens there, until the end of the block."""
    async with connect(url, proxy=None, max_size=None, ping_interval=None, open_timeout=START) as connection:
        found = Remote(connection)
        reader = asyncio.create_task(found.read())
        try:
            yield found
        finally:
            reader.cancel()
            await asyncio.wait([reader])
