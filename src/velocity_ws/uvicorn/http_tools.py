"""HTTP tools: uvicorn's HTTP class on httptools, guarded. Knows no frame."""

from __future__ import annotations

import contextlib
from enum import Enum, auto

import httptools
from uvicorn.protocols.http import httptools_impl

from velocity_ws.uvicorn.http_guard import HEADER_COUNT, HEADER_SIZE, HTTPGuard, Oversized, head_size

__all__ = ["HttpToolsProtocol"]

MAX_PIPELINED = 100
"""Requests that may wait behind the one being answered; the connection ends after them."""

_on_header = (
    httptools_impl.HttpToolsProtocol.on_header
)  # looked up once: it is called for each header of each handshake


class _Position(Enum):
    """Where the parser stands."""

    BETWEEN = auto()
    HEAD = auto()
    BODY = auto()


class HttpToolsProtocol(HTTPGuard, httptools_impl.HttpToolsProtocol):
    """uvicorn's class on httptools, with the limits of the `HTTPGuard`."""

    __slots__ = ("_asks_for_websocket", "_at", "_is_declined", "_is_fresh", "_read", "_unseen")

    def _set_up(self) -> None:
        super()._set_up()
        self._at = _Position.BETWEEN
        self._read = 0  # the size of the read being parsed
        self._unseen = 0  # bytes fed to the parser of which nothing came back yet; never more than were
        self._is_fresh = True  # no request was there when this read began, and none has begun in it
        self._asks_for_websocket: bool | None = None
        self._is_declined = False  # whether the request asks for a protocol that is not spoken here

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client."""
        if self._is_over:
            self._discard(data)
            return
        if not self._has_begun and self._opens_websocket(data):
            return
        self._unset_keepalive_if_required()
        self._has_read = True
        rest: bytes | None = data
        while rest is not None:
            rest = self._feed(rest)

    def _feed(self, data: bytes) -> bytes | None:
        """Parse; return what has to be parsed after it, if anything has."""
        self._is_fresh = self._at is _Position.BETWEEN
        self._read = len(data)
        self._unseen += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._upgrade_or_go_on(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            over = error.__context__
            if isinstance(over, Oversized):
                self._refuse(431, str(over))
            else:
                self._refuse(400)
        else:
            if self._unseen > self._shared.max_header_size:
                # Or trailers, or a chunk's extension: the parser would keep on gathering them.
                self._refuse(431, HEADER_SIZE)
            elif self._at is _Position.HEAD or (self._at is _Position.BETWEEN and self._is_fresh):
                self._head_goes_on()
            else:
                self._head_is_over()
        return None

    def _should_upgrade(self) -> bool:
        if self._asks_for_websocket is None:  # uvicorn looks through the headers three times
            self._asks_for_websocket = super()._should_upgrade()
        return self._asks_for_websocket

    def _upgrade_or_go_on(self, trailing: bytes) -> bytes | None:
        if self._should_upgrade():
            self._upgrade(self.scope["method"].encode(), self.url, self.headers, trailing)
            return None
        self._unsupported_upgrade_warning()
        if not self._is_declined:
            # After CONNECT nothing is HTTP.
            self._end()
            if not self.cycle.response_complete:
                self.cycle.keep_alive = False
            return None
        # The parser takes what follows to be in the other protocol. To the server that speaks none, it is the body
        # (RFC 9110, section 7.8), so the request is parsed once more, without its wish.
        line = b"%s %s HTTP/%s\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        lines = [b"%s: %s\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        with contextlib.suppress(AttributeError):  # httptools before 0.6.3
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
        self._unseen = 0
        return b"".join([line, *lines, b"\r\n", trailing])

    def _forget(self) -> None:
        self.parser = None  # type: ignore[assignment]
        self.headers = []

    # --- what the parser calls

    def on_message_begin(self) -> None:
        """Note that a request begins; called by httptools."""
        if len(self.pipeline) >= MAX_PIPELINED:
            raise Oversized
        self._is_fresh = False
        self._at = _Position.HEAD
        self._asks_for_websocket = None
        self._is_declined = False
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer."""
        if len(self.headers) >= self._shared.max_header_count:
            raise Oversized(HEADER_COUNT)
        _on_header(self, name, value)

    def on_headers_complete(self) -> None:
        """The headers are complete."""
        limit = self._shared.max_header_size
        if max(self._read, self._unseen) > limit and head_size(self.url, self.headers) > limit:
            raise Oversized(HEADER_SIZE)
        self._at = _Position.BODY
        self._unseen = 0
        parser = self.parser
        if parser.should_upgrade() and not self._should_upgrade() and parser.get_method() != b"CONNECT":
            self._is_declined = True  # see `_upgrade_or_go_on`
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._unseen = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._at = _Position.BETWEEN
        self._unseen = 0
        if not self._is_declined:
            super().on_message_complete()
