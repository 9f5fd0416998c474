"""How streams are written and read over HTTP: paths, heads, and what events say. Knows the wire."""

from __future__ import annotations

import bisect
import itertools
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
        came = list(itertools.accumulate(map(len, self.chunks)))
        data, times = b"".join(self.chunks), self.times
        self.wire = len(data)
        self.chunks, self.times = [], []
        at = 0
        while (end := data.find(b"\r\n", at)) >= 0 and (size := int(data[at:end], 16)):
            at = end + 2 + size + 2
            for block in data[end + 2 : at - 2].split(b"\n\n"):
                if block.startswith(b"event: data\n"):
                    text = "\n".join([line[5:].decode() for line in block.split(b"\n")[1:]])
                    yield Piece(text, times[bisect.bisect_left(came, at)], None, {}, size)


class EventsOfRakaia(EventsOfProtocol):
    """The same at another path."""

    _root = ROOTS["rakaia"]


class Poll(Client):
    """A long poll that waits for what is never said. It is taken for open once it has asked."""

    def _hello(self) -> None:
        self.socket.send(request("GET", self._port, f"{ROOTS['ours']}{self._room}?offset=now&live=long-poll"))
        self.opened = True
