"""HTTP: uvicorn's HTTP class on h11, guarded, and the one to use (``--http velocity_ws.uvicorn:HTTPProtocol``).

Knows no frame.
"""

from __future__ import annotations

from typing import Any

import h11
from uvicorn.protocols.http import h11_impl

from velocity_ws.uvicorn.http_guard import HEADER_COUNT, HEADER_SIZE, HTTPGuard, head_size
from velocity_ws.uvicorn.state import HTTPState

__all__ = ["H11Protocol", "HTTPProtocol"]


class _LimitedH11(h11.Connection):
    """h11's connection, with a limit for headers that arrive whole too."""

    status = 400
    """The status to answer with, once `next_event` has raised."""
    setting = ""
    """Name of the limit that was why, if one was."""

    def __init__(self, shared: HTTPState, max_size: int) -> None:
        super().__init__(h11.SERVER, max_size)
        self._shared = shared

    def next_event(self) -> Any:
        """The next event of h11's.

        Raises:
            h11.RemoteProtocolError: it is not HTTP, or too much.
        """
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            self._fail(error.error_status_hint, HEADER_SIZE if error.error_status_hint == 431 else "")
            raise
        if type(event) is h11.Request:
            setting = ""
            if len(event.headers) > self._shared.max_header_count:
                setting = HEADER_COUNT
            elif head_size(event.target, event.headers) > self._shared.max_header_size:
                setting = HEADER_SIZE
            if setting:
                self._fail(431, setting)
                raise h11.RemoteProtocolError("too many headers", error_status_hint=431)
            if event.method == b"CONNECT":
                # After an application's 2xx, h11 would raise at what it sends; httptools' class refuses it as well.
                raise h11.RemoteProtocolError("no proxy")
        return event

    def _fail(self, status: int, setting: str) -> None:
        self.status, self.setting = status, setting


class H11Protocol(HTTPGuard, h11_impl.H11Protocol):
    """uvicorn's class on h11, with the limits of the `HTTPGuard`."""

    conn: _LimitedH11

    def _set_up(self) -> None:
        super()._set_up()
        limit = self._shared.max_header_size
        self.conn = _LimitedH11(self._shared, min(self.config.h11_max_incomplete_event_size or limit, limit))

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client."""
        if self._is_over:
            self._discard(data)
            return
        if not self._has_begun and self._opens_websocket(data):
            return
        self._has_read = True
        super().data_received(data)

    def handle_events(self) -> None:
        """Handle what is complete of what was read."""
        if self._is_over:
            return
        super().handle_events()
        if self._is_over:
            return
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._head_goes_on()
        else:
            self._head_is_over()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over: its request asks for a WebSocket."""
        self._upgrade(event.method, event.target, self.headers, self.conn.trailing_data[0])

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature
        """Refuse what cannot be parsed, or is too much."""
        self._refuse(self.conn.status, self.conn.setting)

    def _forget(self) -> None:
        self.conn = _LimitedH11(self._shared, 1)


HTTPProtocol: type[HTTPGuard]
try:
    from velocity_ws.uvicorn.http_tools import HttpToolsProtocol
except ImportError:
    HTTPProtocol = H11Protocol
else:
    HTTPProtocol = HttpToolsProtocol
