"""Handshake: one request to open a WebSocket, from its headers to its answer. Knows no transport and no application.

The ``websockets`` library says whether a request is valid, and what compression is agreed to.
"""

from __future__ import annotations

import hashlib
import re
from binascii import b2a_base64
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from starlette.types import Scope
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.utils import GUID

from velocity_ws.websocket.common import CommonHeaders
from velocity_ws.websocket.parser_adapter import Window, log
from velocity_ws.websocket.request import RawHeaders, to_latin
from velocity_ws.websocket.scope import Address, ScopeKeys, VersionKeys

__all__ = ["Handshake", "Negotiator"]

WINDOW_BITS = 12
"""What is negotiated for compression: 4 KiB of history, and no context kept between messages in either direction."""

_KEY, _SUBPROTOCOLS = b"sec-websocket-key", b"sec-websocket-protocol"
# What the library looks at, besides the key; the rest of a request is the application's.
_NEGOTIATED = (b"connection", b"upgrade", b"sec-websocket-version", b"sec-websocket-extensions")
_GUID = GUID.encode()
_KEY_FORM = re.compile(rb"[A-Za-z0-9+/]{22}==")
MAX_KNOWN = 256
"""Ways to ask whose answer is remembered."""
MAX_KNOWN_SIZE = 512
"""Bytes of one of them."""
_SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "

Fields = dict[bytes, bytes]
"""Headers by name, in lower case; of one that comes twice, the last."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What is agreed to with a valid request.

    Attributes:
        extensions: value of ``Sec-WebSocket-Extensions``, if any is agreed to.
        window: the compression that they stand for.
    """

    extensions: str | None
    window: Window | None


class Negotiator:
    """Says whether requests open a WebSocket, and on what terms. One serves many connections.

    Most clients ask in one of a few ways, so what was found of one request holds for the next that differs in nothing
    but its key.

    Attributes:
        headers: the headers that many requests have.
    """

    def __init__(self) -> None:
        deflate = ServerPerMessageDeflateFactory(
            server_no_context_takeover=True,
            client_no_context_takeover=True,
            server_max_window_bits=WINDOW_BITS,
            client_max_window_bits=WINDOW_BITS,
        )
        self.headers = CommonHeaders()
        self._conn = ServerProtocol(extensions=[deflate], logger=log)
        self._known: dict[tuple[bytes | None, ...], Agreement] = {}

    def negotiate(self, path: bytes, headers: RawHeaders, fields: Fields) -> tuple[bytes, Agreement] | Response:
        """Decide about a request.

        Args:
            path: with the query.
            headers: with names in lower case.
            fields: the same.

        Returns:
            The value of ``Sec-WebSocket-Accept`` and the rest that is agreed to; or the response that refuses a request
            that is not valid.
        """
        if not path.isascii():
            return self.reject(400)
        key, way = fields.get(_KEY, b""), tuple(map(fields.get, _NEGOTIATED))
        # None of them comes twice; others may, as HAProxy's X-Forwarded-For.
        is_plain = len(fields) == len(headers) or _comes_once(headers)
        known = self._known.get(way) if is_plain else None
        # Whether it is surely a key (RFC 6455, section 4.2.1); where not, the library is asked.
        if known is not None and _KEY_FORM.fullmatch(key):
            return _accept_key(key), known
        negotiated = [
            (name.decode(), value.decode("latin-1")) for name, value in headers if name in _NEGOTIATED or name == _KEY
        ]
        request = Request(path.decode(), Headers(negotiated))
        try:
            accept, extensions, _ = self._conn.process_request(request)
        except InvalidHandshake:
            return self._conn.accept(request)  # which says what is wrong
        window = None
        for extension in self._conn.extensions:
            if isinstance(extension, PerMessageDeflate):
                window = Window(extension.local_max_window_bits, extension.remote_max_window_bits)
        agreed = Agreement(extensions if window is not None else None, window)
        if is_plain and sum([len(value or b"") for value in way]) <= MAX_KNOWN_SIZE:
            if len(self._known) >= MAX_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[way] = agreed
        return accept.encode(), agreed

    def reject(self, status: int) -> Response:
        """A response that refuses with this status, without a body."""
        return self._conn.reject(status, "")


class Handshake:
    """One request, from its arrival to its answer.

    Attributes:
        is_valid: whether it asks for a WebSocket as RFC 6455 demands, so that the application decides about it.
    """

    __slots__ = ("_agreed", "_fields", "_headers", "_negotiator", "_path", "is_valid")

    def __init__(self, negotiator: Negotiator, path: bytes, headers: RawHeaders) -> None:
        """
        Args:
            negotiator: decides about the request.
            path: with the query.
            headers: with names in lower case.
        """
        self._negotiator = negotiator
        self._path = path
        self._headers = negotiator.headers.of_all(headers)
        self._fields = fields = dict(headers)
        self._agreed = negotiator.negotiate(path, headers, fields)
        self.is_valid = isinstance(self._agreed, tuple)

    def scope(
        self,
        *,
        root_path: str,
        asgi_version: str,
        scheme: str,
        server: Address | None,
        client: Address | None,
        state: dict[str, Any],
        extensions: dict[str, Any],
    ) -> Scope:
        """The ASGI scope of the request.

        Args:
            root_path: where the application is mounted; ASGI's ``path`` begins with it.
            asgi_version: of ASGI.
            scheme: ``ws`` or ``wss``.
            server: the connection's own address.
            client: the peer's.
            state: of the application's lifespan.
            extensions: that the server offers.
        """
        asked, _, query = self._path.partition(b"?")
        path = asked.decode("ascii")
        path, raw_path = root_path + (unquote(path) if "%" in path else path), root_path.encode("ascii") + asked
        scope = ScopeKeys()
        scope.type = "websocket"
        scope.asgi = vars(VersionKeys(asgi_version))
        scope.http_version = "1.1"
        scope.root_path = root_path
        scope.path = path
        scope.raw_path = raw_path
        scope.query_string = query
        scope.headers = self._headers
        scope.subprotocols = self._subprotocols() if _SUBPROTOCOLS in self._fields else []
        scope.scheme = scheme
        scope.server = server
        scope.client = client
        scope.state = state
        scope.extensions = extensions
        return vars(scope)

    def has_any(self, names: frozenset[bytes]) -> bool:
        """Whether the request has a header of one of these names, in lower case."""
        return not names.isdisjoint(self._fields)

    def _subprotocols(self) -> list[str]:
        values = [value.decode("latin-1") for name, value in self._headers if name == _SUBPROTOCOLS]
        return [offered.strip() for value in values for offered in value.split(",")]

    def accept(
        self, subprotocol: str | None, headers: Iterable[tuple[bytes, bytes]], *, deflate: bool
    ) -> tuple[bytes, Window | None]:
        """The response that opens the WebSocket, and the compression that it agrees to.

        Args:
            subprotocol: that was chosen, if any.
            headers: to send beside the handshake's own.
            deflate: whether compression may be agreed to.

        Raises:
            ValueError: a header would break out of its line.
        """
        if not isinstance(self._agreed, tuple):  # never: `is_valid` says so
            raise TypeError("a request that opens no WebSocket cannot be accepted")
        key, agreed = self._agreed
        lines = [_SWITCH, key]
        window = agreed.window if deflate else None
        if window is not None and agreed.extensions is not None:
            lines += (b"\r\nSec-WebSocket-Extensions: ", agreed.extensions.encode())
        if subprotocol:
            headers = [*headers, (b"Sec-WebSocket-Protocol", to_latin(subprotocol))]
        for name, value in headers:
            lines += (b"\r\n", name, b": ", value)
        _check(headers)
        return b"".join([*lines, b"\r\n\r\n"]), window

    def refuse(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
        """A response that refuses.

        Args:
            status: of HTTP.
            headers: to send; ``Content-Length`` is added where it is missing.
            body: of the response.

        Raises:
            ValueError: a header would break out of its line.
        """
        response = self._negotiator.reject(status)
        own = Headers([("Date", response.headers["Date"]), ("Connection", "close")])
        _check(headers)
        for name, value in headers:
            own[name.decode("latin-1")] = value.decode("latin-1")
        if "Content-Length" not in own:
            own["Content-Length"] = str(len(body))
        return Response(status, response.reason_phrase, own, body).serialize()

    def refusal(self) -> bytes:
        """The library's response to a request that is not valid."""
        return b"" if isinstance(self._agreed, tuple) else self._agreed.serialize()


def _accept_key(key: bytes) -> bytes:
    """The value of ``Sec-WebSocket-Accept`` (RFC 6455, section 4.2.2)."""
    return b2a_base64(hashlib.sha1(key + _GUID).digest(), newline=False)  # noqa: S324 - by the RFC


def _comes_once(headers: RawHeaders) -> bool:
    """Whether each header that the library looks at is there once at most."""
    names = [name for name, _ in headers if name in _NEGOTIATED or name == _KEY]
    return len(names) == len(set(names))


def _check(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """
    Raises:
        ValueError: one of them would break out of its line.
    """
    for name, value in headers:
        if b"\n" in value or b"\r" in value or b"\n" in name or b"\r" in name or b":" in name:
            raise ValueError(f"this cannot be sent as a header: {name!r}")
