"""A request: what is read here is what every parser reads, and the rest is left to them."""

from __future__ import annotations

import h11
import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.http11 import Request
from websockets.server import ServerProtocol

from velocity_ws.websocket.request import MAX_FIELDS, RawHeaders, RequestReader, read_handshake

HANDSHAKE = (
    b"GET /ws?room=7 HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nCookie:a=b; c=\xe9\r\n\r\n"
)
HEADERS: RawHeaders = [
    (b"host", b"example.com"),
    (b"upgrade", b"websocket"),
    (b"connection", b"keep-alive, Upgrade"),
    (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
    (b"sec-websocket-version", b"13"),
    (b"cookie", b"a=b; c=\xe9"),
]


class Tools:
    """What httptools finds."""

    def __init__(self, data: bytes) -> None:
        self.url = b""
        self.end = -1
        self.headers: RawHeaders = []
        parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.end = upgrade.args[0]
        self.method = parser.get_method()

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))


def parsed_by_h11(data: bytes) -> tuple[bytes, RawHeaders]:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    request = connection.next_event()
    assert type(request) is h11.Request
    assert request.method == b"GET"
    return request.target, list(request.headers)


def parsed_by_library(data: bytes) -> tuple[bytes, RawHeaders]:
    connection = ServerProtocol()
    connection.receive_data(data)
    (request,) = connection.events_received()
    assert isinstance(request, Request)
    headers = [
        (name.lower().encode(), value.encode("latin-1", "surrogateescape"))
        for name, value in request.headers.raw_items()
    ]
    return request.path.encode(), headers


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """The handshake, with some bytes of it changed, cut out, or put in."""
    data = bytearray(HANDSHAKE)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        end = min(at + draw(st.integers(0, 3)), len(data))
        data[at:end] = draw(
            st.binary(max_size=3)
            | st.sampled_from(
                [b"\r\n", b"\n", b" ", b":", b"\r\n ", b"\t", b"\0", b"#", b"\r\nContent-Length: 3", b"\r\nX:"]
            )
        )
    return bytes(data)


@given(requests())
@example(HANDSHAKE)
@example(HANDSHAKE.replace(b"Cookie:", b"X-Empty:\r\nCookie: \t "))
def test_what_is_read_is_what_every_parser_reads(data: bytes) -> None:
    found = read_handshake(data)
    if found is None:
        return
    tools = Tools(data)
    assert (tools.method, tools.url, tools.headers, tools.end) == (b"GET", *found, len(data))
    assert parsed_by_library(data) == found
    assert parsed_by_h11(data) == found


def test_a_handshake_is_read() -> None:
    assert read_handshake(HANDSHAKE) == (b"/ws?room=7", HEADERS)


@pytest.mark.parametrize(
    "data",
    [
        HANDSHAKE[:-1],
        HANDSHAKE + b"\x81",
        HANDSHAKE.replace(b"GET", b"POST"),
        HANDSHAKE.replace(b"1.1", b"1.0"),
        HANDSHAKE.replace(b"/ws", b"http://example.com/ws"),
        HANDSHAKE.replace(b"/ws", b"/ws#a"),
        HANDSHAKE.replace(b"\r\nHost", b"\nHost"),
        HANDSHAKE.replace(b"Upgrade: w", b"Upgrade : w"),
        HANDSHAKE.replace(b"Upgrade: w", b"Upgrade: \r\n w"),
        HANDSHAKE.replace(b"keep-alive, Upgrade", b"keep-alive, Upgrade "),
        HANDSHAKE.replace(b"a=b", b"a=\0b"),
        HANDSHAKE.replace(b"Host", b"X-Host"),
        HANDSHAKE.replace(b"Cookie:", b"HOST: example.com\r\nCookie:"),
        HANDSHAKE.replace(b"websocket", b"h2c"),
        HANDSHAKE.replace(b", Upgrade", b""),
        HANDSHAKE.replace(b"Connection", b"X-Connection"),
        HANDSHAKE.replace(b"Upgrade:", b"X-Upgrade:"),
        HANDSHAKE.replace(b"Cookie:", b"Content-Length: 1\r\nCookie:"),
        HANDSHAKE.replace(b"Cookie:", b"Transfer-Encoding: chunked\r\nCookie:"),
        HANDSHAKE.replace(b"Cookie:", b"X: y\r\n" * MAX_FIELDS + b"Cookie:"),
        HANDSHAKE.replace(b"Cookie:", b"Cookie: " + b"a" * 8192),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_what_a_parser_has_to_judge_is_not_read(data: bytes) -> None:
    assert read_handshake(data) is None


def test_a_request_that_comes_in_parts_is_read_by_the_library() -> None:
    for at in range(1, len(HANDSHAKE)):
        reader = RequestReader()
        assert reader.feed(HANDSHAKE[:at]) is None
        assert reader.feed(HANDSHAKE[at:]) == (b"/ws?room=7", HEADERS)
        assert reader.refusal() == []


def test_what_is_no_request_is_refused_by_the_library() -> None:
    reader = RequestReader()
    assert reader.feed(HANDSHAKE.replace(b"GET", b"POST")) is None
    assert reader.refusal()[0].startswith(b"HTTP/1.1 405")
