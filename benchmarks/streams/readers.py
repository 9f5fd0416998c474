"""Readers of streams: what came, piece by piece, over a WebSocket or as server-sent events. Knows the wire."""

from __future__ import annotations

import bisect
import itertools
import json
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks.client import READ, Client

__all__ = ["EventReader", "Piece", "Reader"]

END = b'"end"'
"""In the last frame of a reader over a WebSocket, and in no other one: in a text the quotes are escaped."""
LAST = b"\n0\r\n\r\n"
"""The last chunk, and the end of the one before."""


class Piece(NamedTuple):
    """What one frame brought.

    Attributes:
        text: of some tokens.
        came: when it was read (monotonic, ns).
        start: how many characters come before it; ``None`` where the frame does not say.
        data: of the frame.
        size: bytes of its payload.
    """

    text: str
    came: int
    start: int | None
    data: dict[str, Any]
    size: int


class Reader(Client):
    """A member of a room in which streams, or messages of one token each, are said.

    Attributes:
        is_ending: whether what was read last has the end. The reader of this puts it back.
    """

    is_ending = False

    def read(self) -> int:
        """See `Client.read`."""
        count = super().read()
        if count and END in self.chunks[-1]:
            self.is_ending = True
        return count

    def pieces(self) -> Iterator[Piece]:
        """What has come since the last time.

        Raises:
            RuntimeError: something else has come.
        """
        payloads, times = self.take()
        for payload, came in zip(payloads, times, strict=True):
            message = json.loads(payload)
            data = message["data"]
            if message["event"] in ("stream", "pieces"):
                yield Piece(data.get("text", ""), came, data["from"], data, len(payload))
            elif message["event"] == "token":
                yield Piece(data, came, None, {}, len(payload))
            elif message["event"] != "end":
                raise RuntimeError(f"not to come: {payload[:200]!r}")


class EventReader(Client):
    """The same as server-sent events: each has one token, as JSON, and is a chunk of its own (RFC 9112, section 7.1).

    The room of the query is the name of the stream.
    """

    is_ending = False
    _tail = b""

    def _hello(self) -> None:
        self.socket.send(
            f"GET /streams/{self._room} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
            "Accept: text/event-stream\r\n\r\n".encode()
        )

    def read(self) -> int:
        """Take what has come; how many times that was, which is not more than once."""
        try:
            data = self.socket.recv(READ)
        except BlockingIOError:
            return 0
        except ConnectionError:
            data = b""
        if not data:
            self.ended = True
            return 0
        if not self.opened:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return 0
            if not head.startswith(b"HTTP/1.1 200 ") or b"chunked" not in head:
                raise RuntimeError(f"not the answer that was asked for: {head!r}")
            self.opened = True
            if not data:
                return 0
        self.chunks.append(data)
        self.times.append(time.monotonic_ns())
        self._tail = (self._tail + data)[-len(LAST) :]
        self.is_ending = self._tail == LAST
        return 1

    def pieces(self) -> Iterator[Piece]:
        """What has come since the last time. Events without data are left out."""
        for said, came_at in self._said():
            for line in said.splitlines():
                if line.startswith(b"data: "):
                    yield Piece(json.loads(line[6:]), came_at, None, {}, len(said))

    def _said(self) -> Iterator[tuple[bytes, int]]:
        """The chunks of HTTP that have come since the last time, each with the time at which all of it was there."""
        came = list(itertools.accumulate(map(len, self.chunks)))
        data, times = b"".join(self.chunks), self.times
        self.wire = len(data)
        self.chunks, self.times = [], []
        at = 0
        while (end := data.find(b"\r\n", at)) >= 0 and (size := int(data[at:end], 16)):
            at = end + 2 + size + 2
            yield data[end + 2 : at - 2], times[bisect.bisect_left(came, at)]
