"""What people write by hand: a list in Redis to catch up with, and pub/sub for each reader; Starlette sends events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from benchmarks.servers.control import run
from benchmarks.servers.resuming import URL, Resuming

TTL = 3600
"""Seconds for which a stream is kept."""


class Pattern(Resuming):
    """A task for each stream, a subscription for each reader."""

    def __init__(self) -> None:
        super().__init__()
        # redis-py 8 has a pool of 100 connections by default, and each reader takes one for itself.
        self._redis = Redis.from_url(URL, max_connections=10_000)
        self._tasks: set[asyncio.Task[None]] = set()
        self.app = Starlette(routes=[Route("/streams/{stream_id}", self._endpoint)])

    async def start(self, stream_id: str) -> None:
        task = asyncio.create_task(self._produce(stream_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _produce(self, stream_id: str) -> None:
        number = 0
        async for text in self.source(stream_id):
            await self._say(stream_id, {"number": number, "text": text})
            number += 1
        await self._say(stream_id, {"number": number, "done": True})

    async def _say(self, stream_id: str, piece: dict[str, object]) -> None:
        data = json.dumps(piece)
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.rpush(f"stream:{stream_id}", data)
            pipe.expire(f"stream:{stream_id}", TTL)
            pipe.publish(f"stream:{stream_id}:live", data)
            await pipe.execute()

    async def _read(self, stream_id: str, after: int) -> AsyncIterator[str]:
        pubsub = self._redis.pubsub()
        await pubsub.subscribe(f"stream:{stream_id}:live")  # before the list is read, so that nothing is missed between
        try:
            number = after
            for data in await self._redis.lrange(f"stream:{stream_id}", after, -1):
                piece = json.loads(data)
                if "done" in piece:
                    return
                yield f"id: {number}\n{piece['text']}"
                number += 1
            async for message in pubsub.listen():
                if message["type"] != "message":
                    continue
                piece = json.loads(message["data"])
                if piece["number"] < number:
                    continue
                if "done" in piece:
                    return
                yield f"id: {number}\n{piece['text']}"
                number += 1
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def _endpoint(self, request: Request) -> StreamingResponse:
        after = int(request.headers.get("Last-Event-ID", -1)) + 1
        stream = self._read(request.path_params["stream_id"], after)
        return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


async def main() -> None:
    """Serve until stdin is closed."""
    await Pattern().serve()


if __name__ == "__main__":
    run(main)
