"""fastapi-resumable-stream, as its README has it: a list in Redis, and a subscription that wakes each reader."""

from __future__ import annotations

from fastapi import FastAPI, Response
from fastapi_resumable_stream import (
    ActiveStreamRegistry,
    ResumableStream,
    StopController,
    resume_conversation_stream,
    start_conversation_stream,
    streaming_response,
)
from redis.asyncio import Redis

from benchmarks.servers.control import run
from benchmarks.servers.resuming import URL, Resuming


class Package(Resuming):
    """The id of a stream is that of its conversation too."""

    def __init__(self) -> None:
        super().__init__()
        # redis-py 8 has a pool of 100 connections by default, and each reader takes one for itself.
        redis = Redis.from_url(URL, max_connections=10_000)
        self._stream = ResumableStream(redis)
        self._registry = ActiveStreamRegistry(redis)
        self._stop = StopController(redis)
        self.app = FastAPI()
        self.app.get("/streams/{conversation_id}")(self._resume)

    async def start(self, stream_id: str) -> None:
        await start_conversation_stream(
            self._stream,
            self._registry,
            self._stop,
            stream_id,
            stream_id,
            producer=lambda: self.source(stream_id),
        )

    async def _resume(self, conversation_id: str, after: int = 0) -> Response:
        resumed = await resume_conversation_stream(self._stream, self._registry, conversation_id, after=after)
        if resumed is None:
            return Response(status_code=204)
        response: Response = streaming_response(resumed)
        return response


async def main() -> None:
    """Serve until stdin is closed."""
    await Package().serve()


if __name__ == "__main__":
    run(main)
