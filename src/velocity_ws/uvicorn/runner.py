"""Runner: uvicorn's server, run and stopped within a running event loop. Knows no broker.

uvicorn's own would take the process: signal handlers, ``sys.exit``, polling ten times a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import uvicorn

from velocity_ws.errors import ServerError
from velocity_ws.settings import Settings
from velocity_ws.uvicorn.tls import TLSServer
from velocity_ws.uvicorn.websocket import WebSocketProtocol

__all__ = ["UvicornRunner"]


class UvicornRunner(uvicorn.Server):
    """uvicorn's server without its hold on the process. On the broker's loop only.

    Attributes:
        listening: set once connections are taken.
    """

    def __init__(self, config: uvicorn.Config, settings: Settings | None = None) -> None:
        """
        Args:
            config: uvicorn's.
            settings: bounds of TLS handshakes; where they are missing, uvicorn's loop does them without.
        """
        super().__init__(config)
        self._settings = settings
        self.listening = asyncio.Event()
        self._leaving = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def drains(self) -> bool:
        """Whether its WebSocket class closes the connections in batches when it stops."""
        protocol = self.config.ws_protocol_class
        return isinstance(protocol, type) and issubclass(protocol, WebSocketProtocol)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the caller."""
        yield

    async def run_here(self, listener: socket.socket) -> None:
        """Serve until told to stop.

        Args:
            listener: that connections are taken from.

        Raises:
            ServerError: the application's startup failed.
        """
        try:
            await self.serve(sockets=[listener])
        except SystemExit as error:
            raise ServerError("the application's startup failed; its log says why") from error
        finally:
            if self._timer is not None:
                self._timer.cancel()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, but for TLS, and then set `listening`."""
        if self.config.ssl is None or self._settings is None:
            await super().startup(sockets)
        else:
            await super().startup([])
            self.servers = [self._tls_server(sockets or [], self.config.ssl, self._settings)]
        self.listening.set()

    def _tls_server(self, listeners: list[socket.socket], context: ssl.SSLContext, settings: Settings) -> Any:
        def make_protocol() -> asyncio.Protocol:
            http: Any = self.config.http_protocol_class
            protocol: asyncio.Protocol = http(
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )
            return protocol

        return TLSServer(listeners, context, make_protocol, settings)

    async def main_loop(self) -> None:
        """Do once a second what uvicorn does then, until told to stop."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._leaving.wait()

    def stop_listening(self) -> None:
        """Take no new connections."""
        self.should_exit = True
        for server in getattr(self, "servers", ()):  # there are none before the application has started
            server.close()

    def hurry(self) -> None:
        """Abort the connections that are open; the application's lifespan has its turn then."""
        self.stop_listening()
        self._leaving.set()
        self._abort_connections()

    async def stop(self, seconds: float) -> None:
        """Close the open connections, and abort those that are left after ``seconds``."""
        self.should_exit = True
        self._leaving.set()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._abort_connections)

    def _abort_connections(self) -> None:
        # A peer that does not read keeps ``transport.close()`` waiting for ever.
        for connection in list(self.server_state.connections):
            connection.transport.abort()
