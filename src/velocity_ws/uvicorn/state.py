"""State: what one server's connections share: `HTTPState` before the upgrade, `WebSocketState` after. Knows no frame.

uvicorn gives each connection the server's `ServerState`, so what is shared hangs on that, and lives as long.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from typing import Any, Protocol

from uvicorn.config import Config
from uvicorn.server import ServerState

from velocity_ws.concurrency.deadlines import Deadlines
from velocity_ws.errors import SettingsError
from velocity_ws.logs import CountedWarnings, RateLimitedWarnings, get_logger
from velocity_ws.process.garbage import full_collections
from velocity_ws.settings import Settings
from velocity_ws.stats import UNATTRIBUTED, Counters
from velocity_ws.uvicorn.behind_proxies import split
from velocity_ws.uvicorn.console import without_query
from velocity_ws.uvicorn.descriptors_left import DescriptorsLeft
from velocity_ws.uvicorn.drain import Drain
from velocity_ws.uvicorn.late_connections import LateConnections
from velocity_ws.uvicorn.terms import Terms, of_broker, of_server
from velocity_ws.websocket.common import Common
from velocity_ws.websocket.handshake import Negotiator
from velocity_ws.websocket.keepalive import Keepalive
from velocity_ws.websocket.parser_adapter import ParserPool
from velocity_ws.websocket.peer import PeerWatch
from velocity_ws.websocket.scope import Address
from velocity_ws.websocket.unfinished import MESSAGE_TIMEOUT, UNFINISHED_SIZE, UnfinishedMessages
from velocity_ws.websocket.writer import closing_within

__all__ = [
    "HTTPState",
    "TimedConnection",
    "WebSocketState",
    "count_refusal",
    "count_refusals_in",
    "is_stopping",
    "refuse_handshakes",
    "settings_from_environment",
]

LEAST_HEADS = 100
"""Connections that may have sent no request yet, however few there may be: pages open several at once."""
FLUSH = 1.0
"""Seconds that a refused peer has to read its answer, until its connection is aborted."""

OF_BROKER = {
    "ws_max_size": "WS_MAX_MESSAGE_SIZE",
    "ws_max_queue": "WS_READ_BUFFER_SIZE",
    "ws_ping_interval": "WS_PING_INTERVAL",
    "ws_ping_timeout": "WS_PING_TIMEOUT",
    "ws_per_message_deflate": "WS_ENABLE_COMPRESSION",
}
"""uvicorn's options for WebSockets that the clients of a broker do not follow, and the settings that they do."""

_WEBSOCKET = "velocity_ws_websocket"
_HTTP = "velocity_ws_http"
_STOPPING = "velocity_ws_is_stopping"
_COUNTERS = "velocity_ws_counters"

log = get_logger("velocity_ws.uvicorn")
access_log = logging.getLogger("uvicorn.access")


def refuse_handshakes(server_state: ServerState) -> None:
    """Answer 503 to every WebSocket handshake from now on: the server is stopping."""
    vars(server_state)[_STOPPING] = True


def is_stopping(server_state: ServerState) -> bool:
    """Whether `refuse_handshakes` was called."""
    return _STOPPING in vars(server_state)


def count_refusals_in(server_state: ServerState, counters: Counters) -> None:
    """Count what a server refuses before an application sees it in a broker's figures: the server has no other."""
    vars(server_state)[_COUNTERS] = counters


def count_refusal(server_state: ServerState) -> None:
    """Count a handshake, or what may have been one, that was refused before the application saw it."""
    counters: Counters = vars(server_state).get(_COUNTERS, UNATTRIBUTED)
    counters.rejected += 1


@functools.cache
def settings_from_environment() -> Settings:
    """The ``WS_*`` settings, read once; the defaults where they are not valid, which is logged."""
    try:
        return Settings()
    except SettingsError as error:
        # uvicorn makes the first protocol when the first client comes, and then it is too late to stop.
        log.error("the HTTP class takes the default for every setting, because: %s", error)
        return Settings.model_construct()


class WebSocketState:
    """What the WebSocket connections of one server share, after the upgrade: pings, parsers, bounds, the drain.

    Attributes:
        addresses: those that the server has.
        application: is called for each connection, behind `proxies`.
        closing: connections that should be closing.
        drain: closes them when the server stops.
        asgi_version: of the application.
        late_connections: answers those that connect while it does; ``None`` where others take them.
        loop: the server's.
        negotiator: of handshakes.
        parsers: of the ``websockets`` library.
        peers: watches the peers of connections that are not read.
        proxies: writes into the scope what the headers of proxies say, and waits for nothing; ``None`` for no such.
        terms: of connections without a broker.
    """

    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop) -> None:
        self.asgi_version = config.asgi_version
        self.addresses: Common[Address | None] = Common()
        self.proxies, self.application = split(config)
        self.closing = closing_within(loop)
        self.drain = Drain(loop)
        self.late_connections = LateConnections.of(config, loop)
        self.negotiator = Negotiator()
        self.parsers = ParserPool()
        self.peers = PeerWatch(loop)
        self._config = config
        self.loop = loop
        self._keepalives: dict[tuple[float, float], Keepalive] = {}
        self._unfinished: dict[tuple[float, int], UnfinishedMessages] = {}
        self._settings: Settings | None = None
        self._of_broker: Terms
        keepalive = self.keepalive(config.ws_ping_interval, config.ws_ping_timeout)
        self.terms = of_server(config, self.unfinished_within(), keepalive)

    @classmethod
    def of(cls, server_state: ServerState, config: Config, loop: asyncio.AbstractEventLoop | None) -> WebSocketState:
        """The state of a server; it is made for the first WebSocket, on the running loop where none is given."""
        state: WebSocketState | None = vars(server_state).get(_WEBSOCKET)
        if state is None:
            state = vars(server_state)[_WEBSOCKET] = cls(config, loop or asyncio.get_running_loop())
            full_collections.keep_apart()
        return state

    def of_broker(self, settings: Settings) -> Terms:
        """The terms of one broker's clients; most processes have one broker."""
        if settings is not self._settings:
            self._settings = settings
            _warn_of_options(self._config, settings)
            unfinished = self.unfinished_within(settings.message_timeout, settings.max_unfinished_size)
            keepalive = self.keepalive(settings.ping_interval, settings.ping_timeout)
            self._of_broker = of_broker(settings, self._config, unfinished, keepalive)
        return self._of_broker

    def keepalive(self, interval: float | None, timeout: float | None) -> Keepalive | None:
        """The keepalive of all connections with the same interval and timeout; ``None`` where there are no pings.

        Args:
            interval: seconds between pings; 0 or ``None`` for no pings.
            timeout: seconds that a pong may take; 0 or ``None`` to wait for none.
        """
        if not interval:
            return None
        found = self._keepalives.get((interval, timeout or 0.0))
        if found is None:
            found = self._keepalives[interval, timeout or 0.0] = Keepalive(self.loop, interval, timeout or 0.0)
        return found

    def unfinished_within(self, seconds: float = MESSAGE_TIMEOUT, limit: int = UNFINISHED_SIZE) -> UnfinishedMessages:
        """The bounds of all connections with the same limits for messages that have come in part.

        Args:
            seconds: that a message may take.
            limit: bytes of all unfinished messages.
        """
        found = self._unfinished.get((seconds, limit))
        if found is None:
            found = self._unfinished[seconds, limit] = UnfinishedMessages(self.loop, seconds, limit)
        return found


class TimedConnection(Protocol):
    """An HTTP connection that has a deadline."""

    def head_is_late(self) -> None:
        """Refuse the request: its headers did not become complete in time."""

    def abort(self) -> None:
        """End the connection now: it was to be closed and is not gone in time."""


class HTTPState:
    """What the HTTP connections of one server share, before the upgrade: limits, deadlines, the count of WebSockets.

    Attributes:
        descriptors: how many are left.
        heads: connections whose headers are not complete.
        flushing: refused connections whose peer may still read the answer.
        leaving: connections that close because the server stops.
        warnings: of what any stranger can cause.
        limit_warnings: of limits that are reached.
        loop: the server's.
        websockets: how many there are.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, given: Settings | None) -> None:
        self.loop = loop
        settings = settings_from_environment() if given is None else given
        # An application's broker counts by its own settings, so a default of ours must not undercut them.
        is_set = given is not None or "max_connections" in settings.model_fields_set
        self.max_connections = settings.max_connections if is_set else 0
        self.max_heads = settings.max_connections and max(settings.max_connections, LEAST_HEADS)
        self.max_header_size = settings.max_header_size
        self.max_header_count = settings.max_header_count
        access_log.addFilter(without_query)
        self.warnings = RateLimitedWarnings(log)
        self.limit_warnings = CountedWarnings(log)
        self.descriptors = DescriptorsLeft()
        self.websockets = 0
        self._on_lost = self._lost  # made once, and not for each WebSocket
        self.heads: Deadlines[TimedConnection] = Deadlines(loop, settings.handshake_timeout, _late)
        self.flushing: Deadlines[TimedConnection] = Deadlines(loop, FLUSH, _abort)
        self.leaving: Deadlines[TimedConnection] = Deadlines(loop, settings.drain_timeout, _abort)

    @classmethod
    def of(cls, server_state: ServerState, loop: asyncio.AbstractEventLoop | None, given: Settings | None) -> HTTPState:
        """The state of a server; it is made for the first connection.

        Args:
            server_state: uvicorn's.
            loop: the server's; ``None`` for the one that is running.
            given: settings in place of those from the environment.
        """
        state: HTTPState | None = vars(server_state).get(_HTTP)
        if state is None:
            state = vars(server_state)[_HTTP] = cls(loop or asyncio.get_running_loop(), given)
        return state

    def make_room(self) -> None:
        """Where too many have not sent a request yet, refuse the one that takes longest: an honest one is quick."""
        if self.max_heads and len(self.heads) > self.max_heads:
            self.heads.act_on_first()

    def count(self, protocol: Any) -> None:
        """Count a WebSocket until it is gone.

        Args:
            protocol: its protocol object, of any WebSocket class.
        """
        self.websockets += 1
        full_collections.count_in()
        if hasattr(protocol, "on_lost"):
            protocol.on_lost = self._on_lost
            return
        connection_lost = protocol.connection_lost

        def counted(exc: Exception | None) -> None:
            self._lost()
            connection_lost(exc)

        protocol.connection_lost = counted

    def _lost(self) -> None:
        self.websockets -= 1
        full_collections.count_out()


def _warn_of_options(config: Config, settings: Settings) -> None:
    """Say which options, given to a command, are not for the clients of a broker."""
    if not isinstance(config.ws, str):  # a `Server` gives its own
        return
    defaults = inspect.signature(Config).parameters
    for option, setting in OF_BROKER.items():
        given, counts = getattr(config, option), getattr(settings, setting.removeprefix("WS_").lower())
        if given not in (defaults[option].default, counts):
            what = "--%s %s is not for the clients of a broker, for whom %s (%s) counts: set that"
            log.warning(what, option.replace("_", "-"), given, setting, counts)


def _late(connection: TimedConnection) -> None:
    connection.head_is_late()


def _abort(connection: TimedConnection) -> None:
    connection.abort()
