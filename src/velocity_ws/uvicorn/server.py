"""Server: uvicorn, started and stopped from code. Knows uvicorn, and nothing of messages."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

import uvicorn
import uvicorn.config
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.logging import DefaultFormatter

from velocity_ws.asgi.middleware import WebSocketMiddleware
from velocity_ws.broker.broker import Broker
from velocity_ws.errors import ServerError
from velocity_ws.logs import get_logger, printable, use_console
from velocity_ws.process.descriptors import Listener
from velocity_ws.settings import Settings
from velocity_ws.uvicorn.acceptor import Acceptors
from velocity_ws.uvicorn.http import HTTPProtocol
from velocity_ws.uvicorn.shared import refusals_of
from velocity_ws.uvicorn.websocket import WebSocketProtocol

__all__ = ["Server"]

CANCEL_GRACE = 0.2
"""Seconds that tasks have to end once the server has stopped."""

HURRIED_GRACE = 1.0
"""Seconds that stopping may still take once it is hurried, and then the broker."""

log = get_logger("velocity_ws.server")
uvicorn_log = logging.getLogger("uvicorn.error")


class Server:
    """Serves a broker, alone or beside an ASGI application, on the running event loop.

    Args:
        broker: what is served, at ``settings.path``.
        app: what answers everything else; by default 404.
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
        config = uvicorn.Config(WebSocketMiddleware(app or _not_found, broker), **{**defaults, **options})
        self._shows_lines = "log_config" not in options
        uvicorn_log.addFilter(_without_query)
        use_console(_Console())
        self._uvicorn = _Uvicorn(config, settings)
        refusals_of(self._uvicorn.server_state, broker.node.counters)
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
        """Start listening; returns once connections are taken.

        Raises:
            OSError: the address cannot be had, because it is taken or not this machine's.
            ServerError: it has been started before, or the application's startup failed.
        """
        if self._task is not None:
            raise ServerError("a server is started once; make a new one to serve again")
        listener = _listen(self._host, self._port)
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
        """Say goodbye to every client (1012, with a hint when to come back), in small batches, and close every socket.

        Takes up to ``WS_DRAIN_TIMEOUT``, and no longer than the clients need. Harmless when it does not run.
        """
        if self._task is None or self._task.done():
            return
        self._uvicorn.stop_listening()
        if not self._uvicorn.drains:
            await self._broker.stop()
        await self._uvicorn.stop(self._broker.settings.drain_timeout)
        await self._task
        self._bound_port = None

    async def serve(self) -> None:
        """Start, wait for SIGINT or SIGTERM, and stop. Only in the main thread.

        The second of them cuts the clients that are still connected, and nothing is waited for any longer.
        """
        first, second = asyncio.Event(), asyncio.Event()

        def told() -> None:
            (second if first.is_set() else first).set()

        with _signals(told):
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
        self._broker.node.hurry()
        self._uvicorn.hurry()
        await asyncio.wait([serving], timeout=HURRIED_GRACE)
        serving.cancel()
        # Where the application's lifespan hangs, it has not come to that; others should hear that this node has gone.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HURRIED_GRACE):
                await self._broker.stop()

    def run(self) -> None:
        """`serve` in an event loop of its own; returns after SIGINT or SIGTERM.

        Shows uvicorn's lines as the ``uvicorn`` command does, unless logging is configured already.
        """
        if self._shows_lines and not uvicorn_log.hasHandlers():
            self._uvicorn.config.log_config = uvicorn.config.LOGGING_CONFIG
            self._uvicorn.config.configure_logging()
        uvicorn_loop = self._uvicorn.config.get_loop_factory()
        with asyncio.Runner(loop_factory=uvicorn_loop) as runner:
            runner.run(self._serve_and_let_go())

    async def _serve_and_let_go(self) -> None:
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


class _Uvicorn(uvicorn.Server):
    """uvicorn's server without its hold on the process: no signal handlers, no ``sys.exit``, no polling."""

    def __init__(self, config: uvicorn.Config, settings: Settings | None = None) -> None:
        super().__init__(config)
        self._settings = settings
        self.listening = asyncio.Event()
        self._leaving = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def drains(self) -> bool:
        """Whether its connections are closed in batches by themselves when it stops."""
        protocol = self.config.ws_protocol_class
        return isinstance(protocol, type) and issubclass(protocol, WebSocketProtocol)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals stay the caller's."""
        yield

    async def run_here(self, listener: socket.socket) -> None:
        """Serve until told to stop."""
        try:
            await self.serve(sockets=[listener])
        except SystemExit as error:
            raise ServerError("the application's startup failed; its log says why") from error
        finally:
            if self._timer is not None:
                self._timer.cancel()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's, but for TLS, and then a word that it is done."""
        if self.config.ssl is None or self._settings is None:
            await super().startup(sockets)
        else:
            await super().startup([])
            self.servers = [self._acceptors(sockets or [], self.config.ssl, self._settings)]
        self.listening.set()

    def _acceptors(self, listeners: list[socket.socket], context: ssl.SSLContext, settings: Settings) -> Any:
        def make_protocol() -> asyncio.Protocol:
            http: Any = self.config.http_protocol_class
            protocol: asyncio.Protocol = http(
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )
            return protocol

        return Acceptors(listeners, context, make_protocol, settings)

    async def main_loop(self) -> None:
        """Once a second what uvicorn does then, until told to stop."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._leaving.wait()

    def stop_listening(self) -> None:
        """Take no new connection."""
        self.should_exit = True
        for server in getattr(self, "servers", ()):  # there are none before the application has started
            server.close()

    def hurry(self) -> None:
        """Cut what is still open; the application's lifespan has its turn then."""
        self.stop_listening()
        self._leaving.set()
        self._abort_connections()

    async def stop(self, seconds: float) -> None:
        """Close what is still open, gracefully for so long."""
        self.should_exit = True
        self._leaving.set()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._abort_connections)

    def _abort_connections(self) -> None:
        # A peer that does not read keeps ``transport.close()`` waiting for ever.
        for connection in list(self.server_state.connections):
            connection.transport.abort()


@contextlib.contextmanager
def _signals(told: Callable[[], object]) -> Iterator[None]:
    """Call this on the running loop at each SIGINT and SIGTERM."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    try:
        for number in numbers:
            loop.add_signal_handler(number, told)
    except NotImplementedError:  # as on Windows
        before = [signal.signal(number, lambda *_: loop.call_soon_threadsafe(told)) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)
        return
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


class _Console(logging.Handler):
    """Prints warnings and errors as uvicorn does, to what is stderr then."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.setFormatter(DefaultFormatter("%(levelprefix)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        try:
            print(self.format(record), file=sys.stderr, flush=True)  # noqa: T201
        except Exception:
            self.handleError(record)


def _without_query(record: logging.LogRecord) -> bool:
    """Take the query out of uvicorn's line for each WebSocket: browsers have no other place for a token."""
    if isinstance(record.args, tuple) and str(record.msg).startswith('%s - "WebSocket %s"'):
        client, path, *rest = record.args
        record.args = (printable(str(client)), printable(str(path).partition("?")[0]), *rest)
    return True


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; uvicorn would leave the process where it cannot have one."""
    try:
        return _bound(host, port)
    except OSError as error:
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise type(error)(error.errno, f"cannot listen on {where}: {error.strerror or error}") from error


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = Listener(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers what is not the broker's."""
    if scope["type"] == "http":
        await PlainTextResponse("Not Found", 404)(scope, receive, send)
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close"})
    else:
        raise ServerError("no lifespan here; the broker's runs alone")
