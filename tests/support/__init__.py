"""What the tests share: real servers on free ports, a client that speaks the wire format, waiting with a deadline."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal, cast

import hypercorn.asyncio
import hypercorn.config
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect

from velocity_ws import Broker, Settings, WebSocketMiddleware
from velocity_ws.process.listening import listen
from velocity_ws.uvicorn import WebSocketProtocol
from velocity_ws.uvicorn.runner import UvicornRunner
from velocity_ws.uvicorn.server import not_found

DEADLINE = 30.0
"""Seconds any single thing in a test may take; never waited for when all is well."""

ServerKind = Literal["ours", "websockets-sansio", "wsproto", "hypercorn"]
SERVER_KINDS: tuple[ServerKind, ...] = ("ours", "websockets-sansio", "wsproto", "hypercorn")


def settings(**values: Any) -> Settings:
    """Settings from code alone, so that no `.env` of the developer changes a test."""
    return Settings(_env_file=None, **values)


async def eventually(condition: Callable[[], object], *, within: float = DEADLINE) -> None:
    """Wait until something is true that gives no signal when it becomes so."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.005)  # the pause between two looks, not the wait


class Peer:
    """A connection of the `websockets` library, speaking JSON."""

    def __init__(self, connection: ClientConnection) -> None:
        self.ws = connection

    async def send(self, event: str, data: Any = None, **more: Any) -> None:
        """Send `{"event", "data"}`, with `id` and whatever else is given."""
        await self.ws.send(json.dumps({"event": event, "data": data, **more}))

    async def receive(self) -> Any:
        """The next message, decoded where it is text."""
        async with asyncio.timeout(DEADLINE):
            message = await self.ws.recv()
        return json.loads(message) if isinstance(message, str) else message

    async def expect(self, event: str) -> Any:
        """The next message, which is of that event; its data."""
        message = await self.receive()
        assert message["event"] == event, message
        return message["data"]

    async def request(self, event: str, data: Any = None, *, id: int | str = 1) -> Any:
        """Send a request; its answer, whatever else arrives before it is not expected."""
        await self.send(event, data, id=id)
        message = await self.receive()
        assert message.get("id") == id, message
        return message

    async def closed(self) -> tuple[int, str]:
        """Wait until the connection is over; the close code and reason, 1006 where there was no close frame."""
        async with asyncio.timeout(DEADLINE):
            await self.ws.wait_closed()
        return self.ws.close_code or 1006, self.ws.close_reason or ""


class Address:
    """Where a server listens."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.http = f"http://127.0.0.1:{port}"
        self.ws = f"ws://127.0.0.1:{port}"

    @asynccontextmanager
    async def connect(self, path: str = "/ws", **options: Any) -> AsyncIterator[Peer]:
        """A connected peer; refusals raise what the library raises."""
        options.setdefault("open_timeout", DEADLINE)
        async with connect(self.ws + path, proxy=None, **options) as connection:
            yield Peer(connection)


@asynccontextmanager
async def serve(app: ASGIApp, kind: ServerKind = "websockets-sansio", **options: Any) -> AsyncIterator[Address]:
    """Run any ASGI app on a real server in this event loop. `options` are `uvicorn.Config`'s."""
    listener = listen("127.0.0.1", 0)
    address = Address(listener.getsockname()[1])
    if kind == "hypercorn":
        config = hypercorn.config.Config()
        config.bind = [f"fd://{listener.detach()}"]
        config.graceful_timeout = 5
        config.errorlog = None
        leave, ready = asyncio.Event(), asyncio.Event()

        async def observed(scope: Scope, receive: Receive, send: Send) -> None:
            async def observed_send(message: Message) -> None:
                await send(message)
                ready.set()

            try:
                await app(scope, receive, observed_send if scope["type"] == "lifespan" else send)
            finally:
                ready.set()

        run = asyncio.create_task(hypercorn.asyncio.serve(cast("Any", observed), config, shutdown_trigger=leave.wait))
        async with asyncio.timeout(DEADLINE):
            await ready.wait()
        try:
            yield address
        finally:
            leave.set()
            await run
        return
    options = {"lifespan": "on", "log_config": None, "timeout_graceful_shutdown": 5, **options}
    server = UvicornRunner(uvicorn.Config(app, ws=WebSocketProtocol if kind == "ours" else kind, **options))
    run = asyncio.create_task(server.run_here(listener))
    async with asyncio.timeout(DEADLINE):
        started = asyncio.create_task(server.listening.wait())
        await asyncio.wait([run, started], return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
    if run.done():
        listener.close()
        await run
    try:
        yield address
    finally:
        await server.stop(5)
        await run


@asynccontextmanager
async def running(broker: Broker, kind: ServerKind = "websockets-sansio", **options: Any) -> AsyncIterator[Address]:
    """Run a broker alone, through the middleware. uvicorn gets the options that `Server` would give it."""
    own = broker.settings
    if kind != "hypercorn":
        options = {
            "ws_max_size": own.max_message_size,
            "ws_per_message_deflate": own.enable_compression,
            "ws_ping_interval": own.ping_interval or None,
            "ws_ping_timeout": own.ping_timeout,
            **options,
        }
    async with serve(WebSocketMiddleware(not_found, broker), kind, **options) as address:
        yield address
