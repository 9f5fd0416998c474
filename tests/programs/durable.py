"""A server of streams over HTTP for suites that are not ours: its streams are at ``/v1/stream/…``, and need no key.

``python -m tests.programs.durable [URL [SECONDS]]`` prints its port. It ends with its standard input. The seconds are
those that a long poll waits, where they are not ours.
"""

from __future__ import annotations

import asyncio
import sys
from unittest.mock import patch

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from velocity_ws import Broker, Server, Settings, WebSocketApp
from velocity_ws.asgi import stream_reading

KEY = "a-key-for-the-suite"
THEIRS, OURS = "/v1/stream/", "/streams/"


class WithKey:
    """Adds the key to each request, and takes the paths of others."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_back(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    (name, value.replace(OURS.encode(), THEIRS.encode()) if name == b"location" else value)
                    for name, value in message["headers"]
                ]
            await send(message)

        if scope["type"] == "http":
            headers = [
                (name, value.replace(THEIRS.encode(), OURS.encode()) if name == b"stream-forked-from" else value)
                for name, value in scope["headers"]
            ]
            path = scope["path"].replace(THEIRS, OURS, 1)
            scope = {**scope, "path": path, "headers": [*headers, (b"x-api-key", KEY.encode())]}
        await self._app(scope, receive, send_back)


async def main(url: str = "memory://", long_poll: str = "") -> None:
    """Serve until the standard input ends."""
    wait = float(long_poll or stream_reading.LONG_POLL)
    broker = Broker(Settings(_env_file=None, api_keys=KEY, backplane_url=url, max_message_size="1MiB"))
    with patch.object(stream_reading, "LONG_POLL", wait):
        async with Server(broker, WithKey(WebSocketApp(broker)), port=0) as server:
            print(server.port, flush=True)
            await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
