"""How streams are written and read over HTTP: paths, heads, and what events say. Knows the wire."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from benchmarks.client import Client
from benchmarks.streams.readers import EventReader, Piece

__all__ = ["KEY", "ROOTS", "EventsOfProtocol", "EventsOfRakaia", "Poll", "request"]

KEY = "a-key-of-the-benchmark"
Form = Literal["ours", "rakaia"]
ROOTS: dict[str, str] = {"ours": "/ws/streams/", "rakaia": "/"}
"""What the paths of streams begin with, by who serves them in the protocol's form."""


def request(method: str, port: int, path: str, body: bytes = b"", head: str = "") -> bytes:
    """A request of a program with the key; others do not look at that."""
    text = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-API-Key: {KEY}\r\n{head}"
    if method != "GET":
        text += f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
    return f"{text}\r\n".encode() + body


class EventsOfProtocol(EventReader):
    """A reader of events as the Durable Streams protocol has them. The room of the query is the stream's name."""

    _root = ROOTS["ours"]

    def _hello(self) -> None:
        self.socket.send(request("GET", self._port, f"{self._root}{self._room}?offset=-1&live=sse"))

    def pieces(self) -> Iterator[Piece]:
        """What has come since the last time: the text of each event that has some."""
        for said, came_at in self._said():
            for block in said.split(b"\n\n"):
                if block.startswith(b"event: data\n"):
                    text = "\n".join([line[5:].decode() for line in block.split(b"\n")[1:]])
                    yield Piece(text, came_at, None, {}, len(said))


class EventsOfRakaia(EventsOfProtocol):
    """The same at another path."""

    _root = ROOTS["rakaia"]


class Poll(Client):
    """A long poll that waits for what is never said. It is taken for open once it has asked."""

    def _hello(self) -> None:
        self.socket.send(request("GET", self._port, f"{ROOTS['ours']}{self._room}?offset=now&live=long-poll"))
        self.opened = True
