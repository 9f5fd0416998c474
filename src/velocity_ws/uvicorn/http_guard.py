"""HTTP guard: limits and deadlines for a connection until it is a WebSocket. Knows no parser and no message.

It is added to uvicorn's HTTP classes, those on h11 and on httptools alike.

A connection has ``WS_HANDSHAKE_TIMEOUT`` seconds from the TCP accept until the headers of its first request are
complete, and as long for those of each later request from their first byte: 408. Headers of more than
``WS_MAX_HEADER_SIZE`` bytes or ``WS_MAX_HEADER_COUNT`` fields: 431. A handshake over ``WS_MAX_CONNECTIONS`` or
uvicorn's ``--limit-concurrency``, or while the server is stopping: 503, before the upgrade.
``WS_MAX_CONNECTIONS_PER_IP`` is left to the application, which knows the client's address where a proxy stands before.

There are ``WS_MAX_CONNECTIONS`` connections at most that have not come so far, or 100; beyond, the oldest is refused.

With TLS the time runs from the TCP accept too. TLS handshakes are bounded by a `Server`, and for uvicorn's own server
by the event loop of `loop`, both by means of `tls`. On another loop there is no connection to abort before the
handshake is complete, which takes 60 seconds at most (asyncio's ``ssl_handshake_timeout``, which uvicorn does not pass
on); one that was late is aborted before anything of it is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, ClassVar, Self, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from velocity_ws.logs import get_logger, quote
from velocity_ws.process.descriptors import say_that_none_is_left
from velocity_ws.settings import Settings
from velocity_ws.uvicorn.http_lazy import LazyHTTP
from velocity_ws.uvicorn.http_upgrade import hand_over
from velocity_ws.uvicorn.proxies import trusts
from velocity_ws.uvicorn.state import HTTPState, count_refusal, is_stopping, refuse_handshakes
from velocity_ws.websocket.request import RawHeaders, read_handshake

__all__ = ["HEADER_COUNT", "HEADER_SIZE", "HTTPGuard", "Oversized", "head_size"]

HEADER_SIZE = "WS_MAX_HEADER_SIZE"
HEADER_COUNT = "WS_MAX_HEADER_COUNT"

MAX_DISCARDED = 256 * 1024
"""Bytes that a refused peer may send while it is to read the answer."""

log = get_logger("velocity_ws.uvicorn")


class Oversized(Exception):
    """Headers, or requests, beyond what is allowed; raised inside a parser's callback. Its text names the setting."""


def head_size(target: bytes, headers: Iterable[tuple[bytes, bytes]]) -> int:
    """Bytes of a request's line and headers, as they were sent but for optional whitespace."""
    return len(target) + sum(len(name) + len(value) + 4 for name, value in headers)


class HTTPGuard(LazyHTTP):
    """Bounds what a connection may cost until it has become a WebSocket. A mixin, before a class of uvicorn's."""

    # uvicorn's class has 28 attributes. With more than 30, each connection's would be a dictionary of its own, and not
    # share its keys: 1.3 KiB for each connection that is open, as readers of streams are for minutes.
    __slots__ = ("_discarded", "_has_read", "_head_began", "_is_over", "_shared")

    _settings: ClassVar[Settings | None] = None

    @classmethod
    def configured(cls, settings: Settings) -> type[Self]:
        """A subclass with given settings, in place of those from the environment."""
        return cast("type[Self]", type(cls.__name__, (cls,), {"_settings": settings, "__doc__": cls.__doc__}))

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._shared = shared = HTTPState.of(server_state, _loop, type(self)._settings)
        super().__init__(config, server_state, app_state, shared.loop)
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
        if not self._shared.descriptors.are_there(transport):
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
            self._begin()
            super().shutdown()
        if self.transport.is_closing():
            self._shared.heads.stop(self)
            self._shared.leaving.start(self)

    # --- what a `TLSAcceptor` calls before the connection is made

    def is_proxy(self, ip: str) -> bool:
        """Whether uvicorn takes this address for a proxy's, which stands for many clients."""
        return trusts(self.config, ip)

    def turned_away(self) -> None:
        """The connection is closed, as its address has too many; nothing is to be done for it."""
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

    def abort(self) -> None:
        """End the connection now: it was to be closed and is not gone in time."""
        self.transport.abort()

    def head_is_late(self) -> None:
        """Refuse the request: its headers did not become complete in time."""
        self._head_began = None
        if self._has_read and self.flow.read_paused:
            self._head_goes_on()  # it is not the peer that keeps us waiting
        elif self._has_read:
            self._refuse(408)
        else:
            self._is_over = True
            log.debug("a connection said nothing in time")
            if self.transport is not None:  # else the TLS handshake goes on
                self.transport.abort()

    def _refuse(self, status: int, setting: str = "") -> None:
        """Answer, read nothing more, and close.

        Args:
            status: of HTTP.
            setting: name of the limit that is why, if one is; it is logged.
        """
        if self._is_over or self.transport.is_closing():
            return
        self._begin()
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
        self._begin()
        count_refusal(self.server_state)
        self._end()
        self.transport.write(_response(503, self.server_state.default_headers))
        self.transport.close()
        self._shared.flushing.start(self)

    def _end(self) -> None:
        """Handle nothing more that comes."""
        self._is_over = True
        if self._has_begun:
            self._unset_keepalive_if_required()
        self._head_is_over()

    def _forget(self) -> None:
        """Drop what a parser keeps of what was read; for subclasses."""

    def _discard(self, data: bytes) -> None:
        """Count bytes that come after the end, and abort where they are too many."""
        self._discarded += len(data)
        if self._discarded <= MAX_DISCARDED:
            return
        if self.cycle is not None and not (self.cycle.response_complete or self.cycle.disconnected):
            self.flow.pause_reading()  # the last answers are still to come
        else:
            self.transport.abort()

    # --- the upgrade

    def _opens_websocket(self, data: bytes) -> bool:
        """Hand the connection over, where the first bytes are a handshake; else `_begin`, and return false."""
        shared, found = self._shared, None
        if len(data) <= shared.max_header_size and self.config.ws_protocol_class is not None:
            found = read_handshake(data)
        if found is None or len(found[1]) > shared.max_header_count:
            self._begin()
            return False
        self._upgrade(b"GET", *found, b"")
        return True

    def _upgrade(self, method: bytes, target: bytes, headers: RawHeaders, trailing: bytes) -> None:
        """Hand the connection over, or refuse; the arguments are those of `hand_over`."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._refuse(400)  # the answer to an earlier request would land inside the WebSocket
            return
        if self._is_full():
            self._refuse(503)
            return
        began = self.loop.time() if self._head_began is None else self._head_began
        self._end()
        hand_over(self, self._shared, method=method, target=target, headers=headers, trailing=trailing, began=began)

    def _is_full(self) -> bool:
        if is_stopping(self.server_state):
            return True
        if self._shared.max_connections and self._shared.websockets >= self._shared.max_connections:
            self._begin()  # which finds the address
            what = "handshake of %s refused (503): WS_MAX_CONNECTIONS (%d) is reached"
            address = self.client[0] if self.client else ""
            self._shared.limit_warnings.warn("websockets", what, quote(address), self._shared.max_connections)
            return True
        limit, server = self.config.limit_concurrency, self.server_state
        return limit is not None and (len(server.connections) >= limit or len(server.tasks) >= limit)


def _response(status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
    phrase = HTTPStatus(status).phrase.encode()
    own = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n" % len(phrase)
    lines = [b"%s: %s\r\n" % header for header in headers]
    return b"".join([b"HTTP/1.1 %d %s\r\n" % (status, phrase), *lines, own, b"\r\n", phrase])
