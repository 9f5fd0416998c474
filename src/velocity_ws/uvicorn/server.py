"""Server: a broker served by uvicorn, started and stopped from code. Knows no message and no connection."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from types import TracebackType
from typing import Any, Self

import uvicorn
import uvicorn.config
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from velocity_ws.asgi.middleware import WebSocketMiddleware
from velocity_ws.broker.broker import Broker
from velocity_ws.errors import ServerError
from velocity_ws.logs import get_logger, printable, use_console
from velocity_ws.process.listening import listen
from velocity_ws.process.signals import on_signals
from velocity_ws.uvicorn.console import ConsoleHandler, without_query
from velocity_ws.uvicorn.http import HTTPProtocol
from velocity_ws.uvicorn.runner import UvicornRunner
from velocity_ws.uvicorn.state import count_refusals_in
from velocity_ws.uvicorn.websocket import WebSocketProtocol

__all__ = ["Server", "not_found"]

CANCEL_GRACE = 0.2
"""Seconds that tasks have to end once the server has stopped."""

HURRIED_GRACE = 1.0
"""Seconds that stopping may still take once it is hurried, and then the broker."""

log = get_logger("velocity_ws.uvicorn")
uvicorn_log = logging.getLogger("uvicorn.error")


class Server:
    """Serves a broker, alone or beside an ASGI application, on the running event loop.

    Args:
        broker: the broker that is served at ``settings.path``.
        app: the application that answers all other requests; by default they get 404.
        host: in place of ``settings.host``.
        port: in place of ``settings.port``; 0 takes any free one.
        options: passed on to ``uvicorn.Config``, such as ``ssl_keyfile`` or ``log_level``.
    """

    def __init__(
        self,
        broker: Broker,
        app: ASGIApp | None = None,
        *,
        host: str | None = None,
        port: int | None = None,
        **options: Any,
    ) -> None:
        settings = broker.settings
        self._broker = broker
        self._host = settings.host if host is None else host
        self._port = settings.port if port is None else port
        defaults: dict[str, Any] = {
            "ws": WebSocketProtocol,
            "http": HTTPProtocol.configured(settings),
            "ws_max_size": settings.max_message_size,
            "ws_per_message_deflate": settings.enable_compression,
            "ws_ping_interval": settings.ping_interval or None,
            "ws_ping_timeout": settings.ping_timeout,
            "timeout_graceful_shutdown": math.ceil(settings.drain_timeout),
            "lifespan": "on",
            "log_config": None,
        }
        config = uvicorn.Config(WebSocketMiddleware(app or not_found, broker), **{**defaults, **options})
        self._shows_lines = "log_config" not in options
        uvicorn_log.addFilter(without_query)
        use_console(ConsoleHandler())
        self._uvicorn = UvicornRunner(config, settings)
        count_refusals_in(self._uvicorn.server_state, broker.node.counters)
        self._task: asyncio.Task[None] | None = None
        self._bound_port: int | None = None

    @property
    def port(self) -> int:
        """The port it listens on.

        Raises:
            ServerError: it is not running.
        """
        if self._bound_port is None:
            raise ServerError("the server listens on no port yet; await start() first")
        return self._bound_port

    async def start(self) -> None:
        """Start listening, and return when connections are accepted.

        Raises:
            OSError: the address is taken, or is not one of this machine.
            ServerError: it has been started before, or the application's startup failed.
        """
        if self._task is not None:
            raise ServerError("a server is started once; make a new one to serve again")
        listener = listen(self._host, self._port)
        self._bound_port = listener.getsockname()[1]
        self._task = asyncio.create_task(self._uvicorn.run_here(listener))
        started = asyncio.create_task(self._uvicorn.listening.wait())
        try:
            await asyncio.wait([self._task, started], return_when=asyncio.FIRST_COMPLETED)
        finally:
            started.cancel()
        if self._task.done():
            listener.close()
            self._bound_port = None
            await self._task
            raise ServerError("the server ended before it listened")
        log.info("listening", extra={"host": self._host, "port": self._bound_port})
        scheme, host = "https" if self._uvicorn.config.ssl else "http", self._host
        # As uvicorn says it of sockets of its own making.
        uvicorn_log.info("Uvicorn running on %s://%s:%d", scheme, f"[{host}]" if ":" in host else host, self.port)

    async def stop(self) -> None:
        """Stop listening, and close all connections in small batches (1012, with a hint when to come back).

        Takes as long as the clients need, at most ``WS_DRAIN_TIMEOUT``. Does nothing if the server is not running.
        """
        if self._task is None or self._task.done():
            return
        self._uvicorn.stop_listening()
        self._broker.node.lifecycle.is_leaving = True
        if not self._uvicorn.drains:
            await self._broker.stop()
        await self._uvicorn.stop(self._broker.settings.drain_timeout)
        await self._task
        self._bound_port = None

    async def serve(self) -> None:
        """Start, wait for SIGINT or SIGTERM, and stop. Only in the main thread.

        A second signal aborts all connections that are left, and waits for nothing.
        """
        first, second = asyncio.Event(), asyncio.Event()

        def stop_or_hurry() -> None:
            (second if first.is_set() else first).set()

        with on_signals(stop_or_hurry):
            serving = asyncio.create_task(self._serve_until(first))
            hurry = asyncio.create_task(second.wait())
            try:
                await asyncio.wait([serving, hurry], return_when=asyncio.FIRST_COMPLETED)
                if not serving.done():
                    await self._hurry(serving)
            finally:
                hurry.cancel()
                serving.cancel()
            with contextlib.suppress(asyncio.CancelledError) if second.is_set() else contextlib.nullcontext():
                await serving

    async def _serve_until(self, asked: asyncio.Event) -> None:
        await self.start()
        await asked.wait()
        await self.stop()

    async def _hurry(self, serving: asyncio.Task[None]) -> None:
        log.warning("told again to stop: connections are cut, and nobody is waited for")
        self._broker.node.lifecycle.hurry()
        self._uvicorn.hurry()
        await asyncio.wait([serving], timeout=HURRIED_GRACE)
        serving.cancel()
        # Where the application's lifespan hangs, the broker still runs; other nodes should hear that this one goes.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HURRIED_GRACE):
                await self._broker.stop()

    def run(self) -> None:
        """Run `serve` in a new event loop, and return after SIGINT or SIGTERM. Only in the main thread.

        Shows uvicorn's lines as the ``uvicorn`` command does, unless logging is configured already.
        """
        if self._shows_lines and not uvicorn_log.hasHandlers():
            self._uvicorn.config.log_config = uvicorn.config.LOGGING_CONFIG
            self._uvicorn.config.configure_logging()
        uvicorn_loop = self._uvicorn.config.get_loop_factory()
        with asyncio.Runner(loop_factory=uvicorn_loop) as runner:
            runner.run(self._serve_and_cancel_the_rest())

    async def _serve_and_cancel_the_rest(self) -> None:
        try:
            await self.serve()
        finally:
            # ``asyncio.Runner`` waits for what it cancels, and for a task that ignores that it would wait for ever.
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            if tasks:
                _, tasks = await asyncio.wait(tasks, timeout=CANCEL_GRACE)
            for task in tasks:
                log.error("a task goes on after it was cancelled, and is left behind: %s", printable(repr(task)))
                asyncio._unregister_task(task)  # documented for those who implement tasks

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """An ASGI application that answers what is not the broker's: 404."""
    if scope["type"] == "http":
        await PlainTextResponse("Not Found", 404)(scope, receive, send)
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close"})
    else:
        raise ServerError("no lifespan here; the broker's runs alone")
