"""resumable-stream for Python, as its README has it: the producer keeps the text, and publishes to each reader."""

from __future__ import annotations

from resumable_stream import (
    CreateResumableStreamContextOptions,
    RedisPublisher,
    RedisSubscriber,
    create_resumable_stream_context,
)
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from benchmarks.servers.control import run
from benchmarks.servers.resuming import URL, Resuming


class Port(Resuming):
    """The first reader of a stream begins it, and gets it without the engine."""

    def __init__(self) -> None:
        super().__init__()
        self._publisher, self._subscriber = RedisPublisher(URL), RedisSubscriber(URL)
        # The README gives `redis_url` to this one, which 0.2.0 refuses.
        options = CreateResumableStreamContextOptions(publisher=self._publisher, subscriber=self._subscriber)
        self._context = create_resumable_stream_context(options)
        self.app = Starlette(routes=[Route("/streams/{stream_id}", self._read)])

    async def connect(self) -> None:
        """Connect to the engine."""
        await self._publisher.connect()
        await self._subscriber.connect()

    async def _read(self, request: Request) -> Response:
        stream_id: str = request.path_params["stream_id"]
        stream = await self._context.resumable_stream(stream_id, lambda: self.source(stream_id))
        if stream is None:
            return Response("Stream is already done", status_code=422)
        return StreamingResponse(stream, media_type="text/event-stream")


async def main() -> None:
    """Serve until stdin is closed."""
    port = Port()
    await port.connect()
    await port.serve()


if __name__ == "__main__":
    run(main)
