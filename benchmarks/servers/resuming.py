"""What servers with streams over HTTP have in common: sources and commands. Knows nothing of how they send."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from benchmarks.servers.control import option, serve_asgi
from benchmarks.streams.sources import Sources

__all__ = ["URL", "Resuming", "event"]

URL = option("--backplane")
"""The engine's."""


def event(token: str) -> str:
    """A server-sent event of one token."""
    return f"data: {json.dumps(token)}\n\n"


class Resuming:
    """A server under test. A reader asks for ``/streams/ID``; the id ends with a dash and the number of the stream."""

    app: Any
    """The ASGI application."""

    def __init__(self) -> None:
        self.sources = Sources()

    async def start(self, stream_id: str) -> None:
        """Begin a stream, where the first reader does not."""

    async def source(self, stream_id: str) -> AsyncIterator[str]:
        """What the model says, as the server's application has it: events."""
        async for token in self.sources.of(int(stream_id.rpartition("-")[2])):
            yield event(token)

    async def prepare(
        self, way: str, run: str, room: str, streams: int, tokens: int, per_second: float, size: int = 0
    ) -> dict[str, Any]:
        """Begin streams whose sources wait for `go`; see `benchmarks.servers.streaming`."""
        self.sources.prepare(streams, tokens, per_second, size)
        for number in range(streams):
            await self.start(f"{run}{number}")
        return {}

    async def go(self) -> dict[str, Any]:
        """See `Sources.go`."""
        return await self.sources.go()

    async def broadcast(self, data: dict[str, Any]) -> None:
        """There is none."""
        raise NotImplementedError

    async def to_room(self, room: str, data: dict[str, Any]) -> None:
        """There is none."""
        raise NotImplementedError

    def connected(self) -> int:
        """Readers are not counted."""
        return 0

    async def serve(self) -> None:
        """Serve until stdin is closed."""
        await serve_asgi(self.app, self, {"prepare": self.prepare, "go": self.go})
