"""JetStream: requests to the store of a NATS server, many at once on one connection. Knows no log."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import msgspec

from velocity_ws.backplane.nats_client import NatsClient
from velocity_ws.history.items import Refused

__all__ = ["JetStream", "Message", "Stored", "WrongSequence"]

PAGE = 1000
"""Subjects of one request; the server answers at most 1,024."""
MOST_BYTES = 8 * 1024 * 1024
"""Bytes of one answer, about; a server cuts connections for which it has much more waiting."""
_WRONG_SEQUENCE = (10071, 10164)
"""Codes of errors: the subject's last sequence is another; or a message of it is under way."""
_GONE = b"503"
_NOT_FOUND = b"404"
_END = b"204"


class WrongSequence(Exception):
    """A message was not stored, as the last one of the subjects that guard it is another than expected."""


class Message(NamedTuple):
    """What shall be stored.

    Attributes:
        subject: where.
        payload: any bytes.
        ttl: milliseconds for which it is kept at least; 0 for ever.
        headers: more of them, as text.
        guard: a subject, which may have ``*``, and the sequence of its last message, or 0; ``None`` for no guard.
    """

    subject: str
    payload: bytes
    ttl: int = 0
    headers: bytes = b""
    guard: tuple[str, int] | None = None


class Stored(NamedTuple):
    """What is stored.

    Attributes:
        sequence: its number in the stream.
        payload: its bytes.
        headers: those it was stored with, and the server's.
    """

    sequence: int
    payload: bytes
    headers: bytes

    def header(self, name: bytes) -> bytes:
        """The value of a header; empty where there is none."""
        return header_of(self.headers, name)


def header_of(headers: bytes, name: bytes) -> bytes:
    """The value of a header; empty where there is none."""
    return headers.partition(b"\r\n" + name + b": ")[2].partition(b"\r\n")[0]


class _Error(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Ack(msgspec.Struct):
    seq: int = 0
    error: _Error | None = None


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


class JetStream:
    """One connection, and one stream. On one loop only; ends with `close`."""

    def __init__(self, stream: str) -> None:
        """
        Args:
            stream: its name.
        """
        self._stream = stream
        self._client = _InboxClient()
        self._inbox = b"_INBOX." + secrets.token_hex(11).encode()
        self._numbers = itertools.count(1)
        self._left: set[asyncio.Future[Parts]] = set()

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

    async def api(self, name: str, body: object = None) -> dict[str, Any]:
        """Ask the server about streams; the answer may have an ``error``.

        Raises:
            ConnectionError: there is no JetStream, or the connection has ended.
        """
        data = b"" if body is None else msgspec.json.encode(body)
        (headers, answer), *_ = await self._ask(f"$JS.API.{name}".encode(), data)
        if _status(headers) == _GONE:
            raise ConnectionError("no server answers for JetStream")
        found: dict[str, Any] = msgspec.json.decode(answer)
        return found

    async def store(self, messages: Sequence[Message]) -> int:
        """Store messages, one after the other and each by itself, in one round trip.

        Returns:
            The sequence of the last one.

        Raises:
            WrongSequence: the guard of the last one has refused it.
            Refused: the last one is not stored, as the server cannot.
            ConnectionError: it may be stored, or not.
        """
        await self._settle()
        asked = [self._send(message) for message in messages]
        try:
            await asyncio.wait(asked)
        finally:
            self._left.update(future for future in asked if not future.done())
        ((headers, answer),) = [future.result() for future in asked][-1]
        if _status(headers) == _GONE:
            raise ConnectionError("the stream of the logs is gone")
        ack = msgspec.json.decode(answer, type=_Ack)
        if ack.error is None:
            return ack.seq
        if ack.error.err_code in _WRONG_SEQUENCE:
            raise WrongSequence
        raise Refused("engine", f"the engine does not store it: {ack.error.description}")

    async def last(self, subjects: Sequence[str]) -> dict[str, Stored]:
        """The last message of each of these subjects that has one, as of one moment for each `PAGE` of them.

        Raises:
            ConnectionError: the connection has ended, or the stream is gone.
        """
        await self._settle()
        pages = [subjects[first : first + PAGE] for first in range(0, len(subjects), PAGE)]
        found: dict[str, Stored] = {}
        for each in await asyncio.gather(*map(self._last, pages)):
            found |= each
        return found

    async def _settle(self) -> None:
        """Wait for what was sent by calls that were cancelled: a server may read before it stores what came first."""
        while self._left:
            await asyncio.wait(self._left)
            self._left = {future for future in self._left if not future.done()}

    async def _last(self, subjects: Sequence[str]) -> dict[str, Stored]:
        found: dict[str, Stored] = {}
        while True:
            wanted = [subject for subject in subjects if subject not in found]
            body = msgspec.json.encode({"multi_last": wanted, "max_bytes": MOST_BYTES})
            *parts, (end, _) = await self._ask(b"$JS.API.DIRECT.GET." + self._stream.encode(), body, is_many=True)
            for headers, payload in parts:
                subject = header_of(headers, b"Nats-Subject").decode()
                found[subject] = Stored(int(header_of(headers, b"Nats-Sequence")), payload, headers)
            status = _status(end)
            if status == _GONE:
                raise ConnectionError("the stream of the logs is gone")
            if status == _NOT_FOUND and b"No Results" in end:
                return found
            if status == _END:
                if header_of(end, b"Nats-Num-Pending") in (b"", b"0"):
                    return found
            elif status != _NOT_FOUND:  # one that was there has gone meanwhile: ask again
                raise ConnectionError(f"the engine does not read: {end[9:80]!r}")

    async def _ask(self, subject: bytes, data: bytes, *, is_many: bool = False) -> Parts:
        number, request, reply = self._request(is_many)
        self._client.write([b"PUB %b %b %d\r\n" % (subject, reply, len(data)), data, b"\r\n"])
        try:
            return await request.future
        finally:
            self._client.requests.pop(number, None)

    def _send(self, message: Message) -> asyncio.Future[Parts]:
        headers = b"NATS/1.0\r\n" + message.headers
        if message.ttl:
            headers += b"Nats-TTL: %ds\r\n" % (-(-message.ttl // 1000))
        if message.guard is not None:
            subject, sequence = message.guard
            headers += b"Nats-Expected-Last-Subject-Sequence: %d\r\n" % sequence
            headers += b"Nats-Expected-Last-Subject-Sequence-Subject: %b\r\n" % subject.encode()
        headers += b"\r\n"
        number, request, reply = self._request(is_many=False)
        size = len(headers) + len(message.payload)
        command = b"HPUB %b %b %d %d\r\n" % (message.subject.encode(), reply, len(headers), size)
        try:
            self._client.write([command, headers, message.payload, b"\r\n"])
        except ConnectionError:
            del self._client.requests[number]
            raise
        return request.future

    def _request(self, is_many: bool) -> tuple[bytes, _Request, bytes]:
        number = b"%d" % next(self._numbers)
        future: asyncio.Future[Parts] = asyncio.get_running_loop().create_future()
        request = self._client.requests[number] = _Request(future, [] if is_many else None)
        return number, request, b"%b.%b" % (self._inbox, number)


def _status(headers: bytes) -> bytes:
    """The status of an answer that has no message; empty for others."""
    return headers[9:12] if headers.startswith(b"NATS/1.0 ") else b""
