"""Requests: questions to a NATS server and their answers, many at once on one connection. Knows no stream."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from velocity_ws.backplane.nats_client import NatsClient

__all__ = ["Parts", "Requests", "header_of", "status_of"]


def header_of(headers: bytes, name: bytes) -> bytes:
    """The value of a header; empty where there is none."""
    return headers.partition(b"\r\n" + name + b": ")[2].partition(b"\r\n")[0]


def status_of(headers: bytes) -> bytes:
    """The status of an answer that has no message; empty for others."""
    return headers[9:12] if headers.startswith(b"NATS/1.0 ") else b""


Parts = list[tuple[bytes, bytes]]
"""Headers and payloads of what answers a request."""


class _Request(NamedTuple):
    future: asyncio.Future[Parts]
    parts: Parts | None


class _InboxClient(NatsClient):
    """A client whose messages are the answers to requests."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: dict[bytes, _Request] = {}

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:  # noqa: ARG002
        number = subject[subject.rindex(b".") + 1 :]
        request = self.requests.get(number)
        if request is None:
            return
        part = (bytes(headers or b""), bytes(data))
        if request.parts is None:
            del self.requests[number]
            if not request.future.done():
                request.future.set_result([part])
            return
        request.parts.append(part)
        if part[0].startswith(b"NATS/1.0 "):
            del self.requests[number]
            if not request.future.done():
                request.future.set_result(request.parts)

    def give_up(self) -> None:
        """See `NatsClient.give_up`."""
        requests, self.requests = self.requests, {}
        for request in requests.values():
            if not request.future.done():
                request.future.set_exception(ConnectionError(self.reason))
                request.future.exception()  # retrieved: its caller may be gone
        super().give_up()


class Requests:
    """One connection, on which requests are sent. On one loop only; ends with `close`."""

    def __init__(self) -> None:
        self._client = _InboxClient()
        self._inbox = b"_INBOX." + secrets.token_hex(11).encode()
        self._numbers = itertools.count(1)
        self._unsent: list[bytes] = []

    async def open(self, servers: Collection[str], ended: Callable[[str], object]) -> None:
        """Connect.

        Args:
            servers: the URLs of the servers.
            ended: called with the reason when the connection ends, also by `close`.

        Raises:
            ConnectionError: none can be reached, or it refuses the login.
        """
        client = self._client

        def over() -> None:
            client.give_up()
            ended(client.reason)

        await client.open(servers, over)
        await client.confirm([b"SUB %b.* 1\r\n" % self._inbox])

    @property
    def server(self) -> dict[str, Any]:
        """What the server said of itself."""
        return self._client.server_info

    async def close(self) -> None:
        """End the connection, with what waits for an answer."""
        await self._client.abort()

    async def ask(self, subject: bytes, data: bytes, *, is_many: bool = False) -> Parts:
        """Send a request, and wait for its answer.

        Args:
            subject: where to.
            data: the request.
            is_many: whether the answer may have many parts, of which the last one has a status and no message.

        Raises:
            ConnectionError: the connection has ended.
        """
        number, request, reply = self._request(is_many)
        self._write(b"PUB %b %b %d\r\n" % (subject, reply, len(data)), data, b"\r\n")
        try:
            return await request.future
        finally:
            self._client.requests.pop(number, None)

    def send(self, subject: bytes, headers: bytes, payload: bytes) -> asyncio.Future[Parts]:
        """Send a message with headers; what answers it comes, whether anybody waits or not.

        Raises:
            ConnectionError: the connection has ended.
        """
        _, request, reply = self._request(is_many=False)
        size = len(headers) + len(payload)
        self._write(b"HPUB %b %b %d %d\r\n" % (subject, reply, len(headers), size), headers, payload, b"\r\n")
        return request.future

    def _write(self, *parts: bytes) -> None:
        """Send with all else that is sent in this turn of the loop: a system call costs more than all before it."""
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent += parts

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        with contextlib.suppress(ConnectionError):  # with which all these requests have failed
            self._client.write(unsent)

    def _request(self, is_many: bool) -> tuple[bytes, _Request, bytes]:
        if not self._client.is_connected:
            raise ConnectionError(self._client.reason)
        number = b"%d" % next(self._numbers)
        future: asyncio.Future[Parts] = asyncio.get_running_loop().create_future()
        request = self._client.requests[number] = _Request(future, [] if is_many else None)
        return number, request, b"%b.%b" % (self._inbox, number)
