"""HTTP lazy: uvicorn's part of an HTTP connection, made with the first request that does not open a WebSocket.

Knows no limit and no parser.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from uvicorn.config import Config
from uvicorn.logging import TRACE_LOG_LEVEL
from uvicorn.server import ServerState

from velocity_ws.uvicorn.http_base import UvicornHTTP
from velocity_ws.uvicorn.socket_names import peer_address

__all__ = ["LazyHTTP"]


class LazyHTTP(UvicornHTTP):
    """A connection of which nothing was read, and one of uvicorn's HTTP classes from `_begin` on.

    That is a parser, flow control, and 28 attributes: a WebSocket needs none of them, and to make them, and to parse
    its request in their callbacks, took a quarter of the time of a connection that comes and goes.
    """

    __slots__ = ("_has_begun",)

    # uvicorn's attributes, for as long as it has not set them.
    client: tuple[str, int] | None = None
    cycle: Any = None
    server: tuple[str, int | None] | None = None
    timeout_keep_alive_task: asyncio.TimerHandle | None = None
    transport: asyncio.Transport = None  # type: ignore[assignment]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self.config = config
        self.server_state = server_state
        self.app_state = app_state
        self.loop = _loop or asyncio.get_running_loop()
        self._has_begun = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The connection is there; the server closes it when it stops."""
        self.transport = transport
        self.server_state.connections.add(self)  # type: ignore[arg-type]
        if _http_log.logger.isEnabledFor(TRACE_LOG_LEVEL):  # for the line that says so
            self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        if self._has_begun:
            super().connection_lost(exc)
        else:
            self.server_state.connections.discard(self)

    def _begin(self) -> None:
        """Be a connection of uvicorn's class. Harmless the second time; never once the connection is gone, as the
        server would count one more then, and wait for it."""
        if not self._has_begun:
            self._has_begun = True
            self._set_up()

    def _set_up(self) -> None:
        """Make all that such a connection has; called once."""
        transport = self.transport
        super().__init__(self.config, self.server_state, self.app_state, self.loop)
        self.logger = _http_log
        super().connection_made(transport)
        if self.client is None:  # it has gone since, or is on a Unix socket
            self.client = peer_address(transport)


class _DemotedWarnings(logging.LoggerAdapter[logging.Logger]):
    """uvicorn's log for its HTTP classes, whose warnings any stranger can cause at will: they are shown at DEBUG."""

    @property
    def level(self) -> int:
        """The logger's own level."""
        return self.logger.level

    def warning(self, msg: object, *args: object, **options: Any) -> None:
        """Log a warning of uvicorn's at DEBUG."""
        self.debug(msg, *args, **options)


_http_log = _DemotedWarnings(logging.getLogger("uvicorn.error"))
