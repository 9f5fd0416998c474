"""HTTP upgrade: hands a connection over from uvicorn's HTTP class to its WebSocket class. Knows no limit."""

from __future__ import annotations

from typing import Any

from velocity_ws.uvicorn.http_base import UvicornHTTP
from velocity_ws.uvicorn.state import HTTPState
from velocity_ws.websocket.request import RawHeaders

__all__ = ["hand_over"]


def hand_over(
    http: UvicornHTTP,
    state: HTTPState,
    *,
    method: bytes,
    target: bytes,
    headers: RawHeaders,
    trailing: bytes,
    began: float,
) -> None:
    """Hand a connection over to the WebSocket class that uvicorn is configured with.

    A WebSocket class may have more than uvicorn asks for: ``accepted_at`` gets the loop's time at which the handshake
    began; ``on_lost`` gets what is to be called, once, in ``connection_lost``; ``upgraded(target, headers, server,
    client)``, with both addresses, is called in place of ``data_received`` with the request as bytes, if its method is
    GET.

    Args:
        http: the connection; it handles nothing more.
        state: of the server, which counts the WebSocket.
        method: of the request.
        target: its path with the query.
        headers: with names in lower case.
        trailing: what was read behind the request.
        began: the loop's time at which the handshake began.
    """
    http.server_state.connections.discard(http)
    ws_class: Any = http.config.ws_protocol_class
    protocol = ws_class(config=http.config, server_state=http.server_state, app_state=http.app_state)
    try:
        protocol.connection_made(http.transport)
        # At once, so that it learns of the connection's end even if something raises below.
        http.transport.set_protocol(protocol)
        state.count(protocol)
        if hasattr(protocol, "accepted_at"):
            protocol.accepted_at = began
        if method == b"GET" and hasattr(protocol, "upgraded"):
            protocol.upgraded(target, headers, http.server, http.client)
        else:
            lines = [b"%s %s HTTP/1.1\r\n" % (method, target)]
            lines += [b"%s: %s\r\n" % header for header in headers]
            protocol.data_received(b"".join([*lines, b"\r\n"]))
        if trailing and not http.transport.is_closing():
            protocol.data_received(trailing)
    except BaseException:
        http.transport.abort()
        raise
