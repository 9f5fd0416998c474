"""Guard: what is added to uvicorn's HTTP classes, whichever parser they have. Knows no parser and no message.

A connection has ``WS_HANDSHAKE_TIMEOUT`` seconds from the TCP accept until the headers of its first request are
complete, and as long for those of each later request from their first byte: 408. Headers of more than
``WS_MAX_HEADER_SIZE`` bytes or ``WS_MAX_HEADER_COUNT`` fields: 431. A handshake over ``WS_MAX_CONNECTIONS`` or
uvicorn's ``--limit-concurrency``, or while the server is stopping: 503, before the upgrade.
``WS_MAX_CONNECTIONS_PER_IP`` is left to the application, which knows the client's address where a proxy stands before.

Of connections that have not come so far there are ``WS_MAX_CONNECTIONS`` at most, or 100: beyond, the oldest is cut.

With TLS the time runs from the TCP accept too, and the handshakes are bounded by a `Server` (see `acceptor`), and for
uvicorn's own server by our event loop (see `loop`). On another one there is no connection to cut before the handshake
is complete, which takes 60 seconds at most (asyncio's ``ssl_handshake_timeout``, which uvicorn does not pass on); one
that was late is cut before anything of it is read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from uvicorn.config import Config
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import ServerState

from velocity_ws.logs import get_logger, quote
from velocity_ws.process.descriptors import say_that_none_is_left
from velocity_ws.settings import Settings
from velocity_ws.uvicorn.shared import Shared, count_refusal, is_stopping, refuse_handshakes

__all__ = ["Guard", "Oversized", "head_size"]

MAX_DISCARDED = 256 * 1024
"""Bytes such a peer may send meanwhile."""

log = get_logger("velocity_ws.http")

if TYPE_CHECKING:

    class _Uvicorn(asyncio.Protocol):
        """What uvicorn's HTTP classes have in common and the guard relies on."""

        app_state: dict[str, Any]
        client: tuple[str, int] | None
        config: Config
        connections: set[Any]
        cycle: Any
        flow: FlowControl
        limit_concurrency: int | None
        logger: Any
        loop: asyncio.AbstractEventLoop
        server: tuple[str, int | None] | None
        server_state: ServerState
        tasks: set[asyncio.Task[None]]
        transport: asyncio.Transport
        ws_protocol_class: Any

        def __init__(
            self,
            config: Config,
            server_state: ServerState,
            app_state: dict[str, Any],
            _loop: asyncio.AbstractEventLoop | None = None,
        ) -> None: ...
        def connection_made(self, transport: asyncio.Transport) -> None: ...  # type: ignore[override]
        def shutdown(self) -> None: ...
        def _unset_keepalive_if_required(self) -> None: ...

else:
    _Uvicorn = object


class Oversized(Exception):
    """Headers, or requests, beyond what is allowed; raised inside a parser's callback. Its text names the setting."""


def head_size(target: bytes, headers: Iterable[tuple[bytes, bytes]]) -> int:
    """Bytes of a request's line and headers, as they were sent but for optional whitespace."""
    return len(target) + sum(len(name) + len(value) + 4 for name, value in headers)


class Guard(_Uvicorn):
    """Bounds what a connection may cost until it has become a WebSocket. A mixin, before a class of uvicorn's."""

    _settings: ClassVar[Settings | None] = None

    @classmethod
    def configured(cls, settings: Settings) -> type[Self]:
        """This class with given settings, in place of those from the environment."""
        return cast("type[Self]", type(cls.__name__, (cls,), {"_settings": settings, "__doc__": cls.__doc__}))

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.logger = _uvicorn_log
        self._shared = shared = Shared.of(server_state, self.loop, type(self)._settings)
        # With TLS, too, the loop makes the protocol when it accepts the connection.
        self._head_began: float | None = self.loop.time()
        self._has_read = False
        self._is_over = False
        self._discarded = 0
        shared.heads.start(self)

    # --- what the event loop and uvicorn call

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The connection is there; with TLS, its handshake is complete."""
        super().connection_made(transport)
        if self._is_over:
            transport.abort()
            return
        self._shared.make_room()
        # The kernel gives the lowest number that is free.
        own = transport.get_extra_info("socket")
        if own is not None and not self._shared.are_descriptors_left(own.fileno()):
            say_that_none_is_left()
            self._turn_away()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._is_over = True
        self._shared.heads.stop(self)
        self._shared.flushing.stop(self)
        self._shared.leaving.stop(self)
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """The server is stopping: close between requests, after ``WS_DRAIN_TIMEOUT`` at the latest."""
        refuse_handshakes(self.server_state)
        if not self.transport.is_closing():
            if self._is_over and (self.cycle is None or self.cycle.response_complete):
                return  # it has had its answer, and its deadline runs
            super().shutdown()
        if self.transport.is_closing():
            self._shared.heads.stop(self)
            self._shared.leaving.start(self)

    # --- what an `Acceptor` asks before the connection is made

    def is_proxy(self, ip: str) -> bool:
        """Whether an address is one that uvicorn takes for a proxy's, and so stands for many clients."""
        app = self.config.loaded_app
        return isinstance(app, ProxyHeadersMiddleware) and ip in app.trusted_hosts

    def turned_away(self) -> None:
        """There are too many of that address."""
        count_refusal(self.server_state)
        self._end()

    # --- for the classes with a parser

    def _head_goes_on(self) -> None:
        """Headers have begun and are not complete."""
        if self._head_began is None:
            self._head_began = self.loop.time()
            self._shared.heads.start(self)

    def _head_is_over(self) -> None:
        """Headers are complete, or none have begun."""
        if self._head_began is not None:
            self._head_began = None
            self._shared.heads.stop(self)

    def cut(self) -> None:
        """What was to be closed is not gone in time."""
        self.transport.abort()

    def head_is_late(self) -> None:
        """Headers did not become complete in time."""
        self._head_began = None
        if self._has_read and self.flow.read_paused:
            self._head_goes_on()  # it is not the peer who keeps us waiting
        elif self._has_read:
            self._refuse(408)
        else:
            self._is_over = True
            log.debug("a connection said nothing in time")
            if self.transport is not None:  # else the TLS handshake goes on
                self.transport.abort()

    def _refuse(self, status: int, setting: str = "") -> None:
        """Answer, read nothing more, and close; where a setting is why, it is named in the log."""
        if self._is_over or self.transport.is_closing():
            return
        count_refusal(self.server_state)
        if setting:
            address = self.client[0] if self.client else ""
            what = "refused a request of %s with %d: its headers are over %s"
            self._shared.warnings.warn(what, quote(address), status, setting)
        else:
            log.debug("refused a request with %d", status)
        self._end()
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                cycle.keep_alive = False  # what is being answered comes first, and is the last
                return
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started or getattr(self, "pipeline", None):
                self.transport.close()  # an answer would land inside another
                self._shared.flushing.start(self)
                return
        self._forget()
        self.transport.write(_response(status, self.server_state.default_headers))
        # To close at once with something unread would reset the connection, and the peer would not see the answer.
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._shared.flushing.start(self)

    def _turn_away(self) -> None:
        """Answer 503 before anything was asked, and close at once: what is left is for the clients there are."""
        count_refusal(self.server_state)
        self._end()
        self.transport.write(_response(503, self.server_state.default_headers))
        self.transport.close()
        self._shared.flushing.start(self)

    def _end(self) -> None:
        """Handle nothing more that comes."""
        self._is_over = True
        self._unset_keepalive_if_required()
        self._head_is_over()

    def _forget(self) -> None:
        """Let go of what was read; where a parser keeps something, its class says what."""

    def _discard(self, data: bytes) -> None:
        """Bytes after the end."""
        self._discarded += len(data)
        if self._discarded <= MAX_DISCARDED:
            return
        if self.cycle is not None and not (self.cycle.response_complete or self.cycle.disconnected):
            self.flow.pause_reading()  # the last answers are still to come
        else:
            self.transport.abort()

    # --- the upgrade

    def _upgrade(self, method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], trailing: bytes) -> None:
        """Hand the connection over, with what was read behind the request.

        A WebSocket class may have more than uvicorn asks for: ``accepted_at`` gets the loop's time at which the
        handshake began; ``on_lost`` gets what is to be called, once, in ``connection_lost``; ``upgraded(target,
        headers, server, client)``, with both addresses, is called in place of ``data_received`` with the request as
        bytes, if its method is GET; header names are in lower case.
        """
        if self.cycle is not None and not self.cycle.response_complete:
            self._refuse(400)  # the answer to an earlier request would land inside the WebSocket
            return
        if self._is_full():
            self._refuse(503)
            return
        began = self.loop.time() if self._head_began is None else self._head_began
        self._end()
        self.connections.discard(self)
        protocol = self.ws_protocol_class(config=self.config, server_state=self.server_state, app_state=self.app_state)
        try:
            protocol.connection_made(self.transport)
            # At once, so that it is told of the connection's end even if something raises below.
            self.transport.set_protocol(protocol)
            self._shared.count(protocol)
            if hasattr(protocol, "accepted_at"):
                protocol.accepted_at = began
            if method == b"GET" and hasattr(protocol, "upgraded"):
                protocol.upgraded(target, headers, self.server, self.client)
            else:
                lines = [b"%s %s HTTP/1.1\r\n" % (method, target)]
                lines += [b"%s: %s\r\n" % header for header in headers]
                protocol.data_received(b"".join([*lines, b"\r\n"]))
            if trailing and not self.transport.is_closing():
                protocol.data_received(trailing)
        except BaseException:
            self.transport.abort()
            raise

    def _is_full(self) -> bool:
        if is_stopping(self.server_state):
            return True
        if self._shared.max_connections and self._shared.websockets >= self._shared.max_connections:
            what = "handshake of %s refused (503): WS_MAX_CONNECTIONS (%d) is reached"
            address = self.client[0] if self.client else ""
            self._shared.limits.warn("websockets", what, quote(address), self._shared.max_connections)
            return True
        limit = self.limit_concurrency
        return limit is not None and (len(self.connections) >= limit or len(self.tasks) >= limit)


class _StrangersLog(logging.LoggerAdapter[logging.Logger]):
    """uvicorn's log, where its HTTP classes warn only of what any stranger can cause at will."""

    @property
    def level(self) -> int:
        """The logger's own level."""
        return self.logger.level

    def warning(self, msg: object, *args: object, **options: Any) -> None:
        """Say it at debug."""
        self.debug(msg, *args, **options)


_uvicorn_log = _StrangersLog(logging.getLogger("uvicorn.error"))


def _response(status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
    phrase = HTTPStatus(status).phrase.encode()
    own = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n" % len(phrase)
    lines = [b"%s: %s\r\n" % header for header in headers]
    return b"".join([b"HTTP/1.1 %d %s\r\n" % (status, phrase), *lines, own, b"\r\n", phrase])
