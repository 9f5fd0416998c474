"""Handshake: one request to open a WebSocket, judged by the ``websockets`` library, answered once.

Knows the request and uvicorn's configuration; knows no transport and no application.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import unquote

from starlette.types import Scope
from websockets.datastructures import Headers
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from velocity_ws.protocol.library import Window, log

if TYPE_CHECKING:
    from uvicorn.config import Config

__all__ = ["Handshake", "Judge", "RequestReader"]

WINDOW_BITS = 12
"""What is negotiated for compression: 4 KiB of history, and no context kept between messages in either direction."""

RawHeaders = list[tuple[bytes, bytes]]

# What the library looks at; the rest of a request is the application's.
_JUDGED = frozenset(
    {
        b"connection", b"upgrade", b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-extensions",
        b"sec-websocket-protocol",
    }
)  # fmt: skip
_EXTENSIONS = "Sec-WebSocket-Extensions"


class RequestReader:
    """Parses a request from bytes, for HTTP protocol classes that hand over bytes only."""

    def __init__(self) -> None:
        self._conn = ServerProtocol(logger=log)

    def feed(self, data: bytes) -> tuple[bytes, RawHeaders] | None:
        """Take more of it; its path with the query and its headers once it is complete."""
        self._conn.receive_data(data)
        for event in self._conn.events_received():
            if isinstance(event, Request):
                headers = [(name.lower().encode("ascii"), _latin(value)) for name, value in event.headers.raw_items()]
                return event.path.encode("ascii"), headers
        return None

    def refusal(self) -> list[bytes]:
        """What is to be written where it is no request; an empty piece stands for closing the connection."""
        return self._conn.data_to_send()


class Judge:
    """Says of requests whether they open a WebSocket; one for many, as the library keeps nothing of them."""

    def __init__(self) -> None:
        deflate = ServerPerMessageDeflateFactory(
            server_no_context_takeover=True,
            client_no_context_takeover=True,
            server_max_window_bits=WINDOW_BITS,
            client_max_window_bits=WINDOW_BITS,
        )
        self._conn = ServerProtocol(extensions=[deflate], logger=log)

    def respond(self, path: str, headers: Headers) -> tuple[Response, Window | None]:
        """The response to a request, and the compression that it agrees to."""
        self._conn.extensions = []
        response = self._conn.accept(Request(path, headers))
        for extension in self._conn.extensions:
            if isinstance(extension, PerMessageDeflate):
                return response, Window(extension.local_max_window_bits, extension.remote_max_window_bits)
        return response, None

    def reject(self, status: int) -> Response:
        """A response that refuses."""
        return self._conn.reject(status, "")


class Handshake:
    """One request, from its arrival to its answer.

    Attributes:
        is_valid: whether it opens a WebSocket, and so is for the application to decide about.
    """

    __slots__ = ("_headers", "_judge", "_path", "_response", "_window", "is_valid")

    def __init__(self, judge: Judge, path: bytes, headers: RawHeaders) -> None:
        """
        Args:
            judge: the library.
            path: with the query.
            headers: with names in lower case.
        """
        self._judge = judge
        self._path = path
        self._headers = headers
        judged = Headers([(name.decode(), value.decode("latin-1")) for name, value in headers if name in _JUDGED])
        if path.isascii():
            self._response, self._window = judge.respond(path.decode(), judged)
        else:
            self._response, self._window = judge.reject(400), None
        self.is_valid = self._response.status_code == 101

    def scope(self, config: Config, **connection: object) -> Scope:
        """The ASGI scope of the request.

        Args:
            config: of uvicorn.
            connection: the keys that are not the request's: ``scheme``, ``server``, ``client``, ``state``…
        """
        raw_path, _, query = self._path.partition(b"?")
        root_path = config.root_path
        return {
            "type": "websocket",
            "asgi": {"version": config.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "root_path": root_path,
            "path": root_path + unquote(raw_path.decode("ascii")),
            "raw_path": root_path.encode("ascii") + raw_path,
            "query_string": query,
            "headers": self._headers,
            "subprotocols": [
                offered.strip()
                for name, value in self._headers
                if name == b"sec-websocket-protocol"
                for offered in value.decode("latin-1").split(",")
            ],
            **connection,
        }

    def accept(
        self, subprotocol: str | None, headers: Iterable[tuple[bytes, bytes]], *, deflate: bool
    ) -> tuple[bytes, Window | None]:
        """The response that opens the WebSocket, and the compression that it agrees to.

        Raises:
            ValueError: a header would break out of its line.
        """
        own, window = self._response.headers, self._window
        del own["Date"]  # uvicorn's default headers have it
        if not deflate and window is not None:
            window = None
            del own[_EXTENSIONS]
        _add(own, headers)
        if subprotocol:
            _add(own, [(b"Sec-WebSocket-Protocol", _latin(subprotocol))])
        return self._response.serialize(), window

    def refuse(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
        """A response that refuses.

        Raises:
            ValueError: a header would break out of its line.
        """
        response = self._judge.reject(status)
        own = Headers([("Date", response.headers["Date"]), ("Connection", "close")])
        _add(own, headers)
        if "Content-Length" not in own:
            own["Content-Length"] = str(len(body))
        return Response(status, response.reason_phrase, own, body).serialize()

    def refusal(self) -> bytes:
        """The library's response to a request that is not valid."""
        return self._response.serialize()


def _add(headers: Headers, more: Iterable[tuple[bytes, bytes]]) -> None:
    for name, value in more:
        if b"\r" in name + value or b"\n" in name + value:
            raise ValueError(f"a header holds a line break: {name!r}")
        headers[name.decode("latin-1")] = value.decode("latin-1")


def _latin(value: str) -> bytes:
    return value.encode("latin-1", errors="surrogateescape")
