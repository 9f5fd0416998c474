"""A server of streams that is to be stopped: says how many of its requests are open, and when its lifespan ends.

SHUTDOWN_REPORT is the directory of what it says: of each process ``begun-PID``, ``open-PID`` with the number of
requests for streams that are open, and ``ended-PID``.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from velocity_ws import Broker, Settings, WebSocketMiddleware

REPORT = Path(os.environ["SHUTDOWN_REPORT"])
KEY = "a-key-for-readers"


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Say that it has begun, and that it has ended."""
    (REPORT / f"begun-{os.getpid()}").touch()
    yield
    (REPORT / f"ended-{os.getpid()}").touch()


class Counting:
    """Counts the requests for streams that are open."""

    def __init__(self) -> None:
        broker = Broker(Settings(_env_file=None, api_keys=KEY, max_message_size="1MiB"))
        self._app = WebSocketMiddleware(Starlette(lifespan=lifespan), broker)
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        self._count(1)
        try:
            await self._app(scope, receive, send)
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        self._open += change
        (REPORT / f"open-{os.getpid()}").write_text(str(self._open))


app = Counting()
