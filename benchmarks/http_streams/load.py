"""The clients of `benchmarks.streams.load` that read streams over HTTP, and one that writes them.

A program of its own, as many clients take most of a core.
"""

from __future__ import annotations

import socket
import time
from typing import Any

from benchmarks.client import Client
from benchmarks.http_streams.forms import ROOTS, EventsOfProtocol, EventsOfRakaia, Poll, request
from benchmarks.load import COMMANDS, obey
from benchmarks.streams.load import Listening
from benchmarks.streams.readers import EventReader
from benchmarks.streams.tokens import tokens_of

__all__ = ["Writing"]

FORMS: dict[str, type[Client]] = {
    "plain": Client,
    "ours": EventsOfProtocol,
    "rakaia": EventsOfRakaia,
    "sse": EventReader,
    "poll": Poll,
}


class Writing(Listening):
    """Readers, a writer, and what they can be told."""

    def _open(self, port: int, framing: str, *, deflate: bool, room: str) -> Client:
        client = FORMS[framing](port, deflate=deflate, room=room)
        self._register(client)
        return client

    def create(self, port: int, form: str, room: str) -> dict[str, Any]:
        """Create a stream."""
        with socket.create_connection(("127.0.0.1", port)) as sock:
            _done(sock, request("PUT", port, ROOTS[form] + room))
        return {}

    def say(self, port: int, form: str, room: str, tokens: int, size: int, per_second: float) -> dict[str, Any]:
        """Append to a stream at a pace, each token by a request, and close it; how many were late."""
        path, late, start = ROOTS[form] + room, 0, time.monotonic()
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for number, token in enumerate(tokens_of(0, tokens, size)):
                due = start + number / per_second
                late += time.monotonic() - due > 1 / per_second
                while (left := due - time.monotonic()) > 0:
                    self._turn(left)
                _done(sock, request("POST", port, path, token.encode()))
            _done(sock, request("POST", port, path, head="Stream-Closed: true\r\n"))
        return {"late": late}


def _done(sock: socket.socket, asked: bytes) -> None:
    """Ask, and wait for the answer, which has no body.

    Raises:
        RuntimeError: it was not done.
    """
    sock.sendall(asked)
    answer = b""
    while b"\r\n\r\n" not in answer:
        read = sock.recv(65536)
        if not read:
            raise RuntimeError(f"no answer: {answer!r}")
        answer += read
    if not answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 201 ", b"HTTP/1.1 204 ")):
        raise RuntimeError(f"not done: {answer!r}")


if __name__ == "__main__":
    obey(Writing(), (*COMMANDS, "create", "say", "wait_ends"))
