"""Request: the request that opens a WebSocket, read from bytes. Knows no transport, and nothing of what it asks for.

Nearly always a request comes at once, and is written as every client writes it. What comes or is written in another
way is for a parser to judge: the ``websockets`` library's here, that of the HTTP class there.
"""

from __future__ import annotations

import re
from typing import Final

from websockets.http11 import Request
from websockets.server import ServerProtocol

from velocity_ws.websocket.parser_adapter import log

__all__ = ["RawHeaders", "RequestReader", "read_handshake", "to_latin"]

RawHeaders = list[tuple[bytes, bytes]]

MAX_SIZE: Final = 8192
"""Bytes of a request that `read_handshake` reads; the library has this limit for one line."""
MAX_FIELDS: Final = 100
"""Headers of one; the library has a limit of 128."""

# By RFC 9112, and RFC 9110, section 5, and nothing that parsers take in different ways: each line ends with CR and LF,
# none goes on in the next, no value ends with a blank, and there are no control characters. It looks at no byte twice.
_REQUEST = re.compile(
    rb"GET (/[!$-~]*+) HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]++:(?:[\t ]*+[!-~\x80-\xff]++)*+\r\n)++)\r\n"
)
_FIELDS = re.compile(rb"([^:]++):[\t ]*+([^\r]*+)\r\n")
_OF_BODIES = frozenset((b"content-length", b"transfer-encoding"))


def read_handshake(data: bytes) -> tuple[bytes, RawHeaders] | None:
    """The path, with the query, and the headers of a request that asks for a WebSocket as all clients do.

    ``None`` for anything else, for a part of one or more than one, and for what a parser has to judge.

    Args:
        data: all that was read.
    """
    found = _REQUEST.fullmatch(data) if len(data) <= MAX_SIZE else None
    if found is None:
        return None
    headers = [(name.lower(), value) for name, value in _FIELDS.findall(found[2])]
    fields = dict(headers)
    if len(headers) > MAX_FIELDS or len(fields) < len(headers) or not _OF_BODIES.isdisjoint(fields):
        return None
    if fields.get(b"upgrade", b"").lower() != b"websocket" or b"host" not in fields:
        return None
    options = fields.get(b"connection", b"").lower()
    if options != b"upgrade" and b"upgrade" not in [option.strip() for option in options.split(b",")]:
        return None
    return found[1], headers


class RequestReader:
    """Parses a handshake's request from bytes, for HTTP protocol classes that hand over bytes only."""

    def __init__(self) -> None:
        self._conn: ServerProtocol | None = None

    def feed(self, data: bytes) -> tuple[bytes, RawHeaders] | None:
        """Take more bytes; return the path with the query, and the headers, once the request is complete."""
        if self._conn is None:
            if (found := read_handshake(data)) is not None:
                return found
            self._conn = ServerProtocol(logger=log)
        self._conn.receive_data(data)
        for event in self._conn.events_received():
            if isinstance(event, Request):
                if event.method != "GET" or event.protocol != "HTTP/1.1":
                    self._conn.send_response(self._conn.accept(event))  # which refuses it
                    return None
                headers = [(name.lower().encode("ascii"), to_latin(value)) for name, value in event.headers.raw_items()]
                return event.path.encode("ascii"), headers
        return None

    def refusal(self) -> list[bytes]:
        """What to write where the bytes are no request; an empty piece stands for closing the connection."""
        return [] if self._conn is None else self._conn.data_to_send()


def to_latin(value: str) -> bytes:
    """The bytes of a header that the library has as text."""
    return value.encode("latin-1", errors="surrogateescape")
