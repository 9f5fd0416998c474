"""Events: what an ASGI application receives from a connection and sends to it. Knows no transport.

ASGI: https://asgi.readthedocs.io/en/latest/specs/www.html#websocket
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Protocol

from starlette.types import Message
from uvicorn.protocols.utils import ClientDisconnected

from velocity_ws.close import Close
from velocity_ws.messages.frames import TEXT
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.websocket.request import RawHeaders

__all__ = ["ASGIConnection", "ASGIEvents"]

READ_AHEAD = 64 * 1024
"""Bytes of messages that may wait for the application."""


_ABANDONED = Close(1000, "", "server")


class ASGIConnection(Protocol):
    """The connection, as the application's events use it. What it raises goes to the application."""

    @property
    def is_accepted(self) -> bool:
        """Whether the handshake has been accepted."""

    @property
    def is_sendable(self) -> bool:
        """Whether messages can be sent: open, on both sides."""

    async def writable(self) -> None:
        """Wait until the transport has room."""

    def write_message(self, message: PreparedMessage) -> None:
        """Write a message to the transport."""

    def accept_handshake(self, subprotocol: str | None, headers: RawHeaders) -> None:
        """Answer the handshake with 101."""

    def refuse_handshake(self, status: int, headers: RawHeaders, body: bytes) -> None:
        """Answer the handshake with a response that refuses it."""

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake, and let the application receive no more."""

    def resume_reading(self) -> None:
        """Go on reading: there is room for more messages."""

    def say_last_words(self) -> None:
        """Write what was held back until the application had read everything."""


class _EndedConnection:
    """Stands for a connection that has ended, while its application still holds ``receive`` or ``send``."""

    is_accepted = True
    is_sendable = False

    async def writable(self) -> None:
        """Nothing is to be waited for."""

    def write_message(self, message: PreparedMessage) -> None:
        """Drop the message, as no client is there."""

    def accept_handshake(self, subprotocol: str | None, headers: RawHeaders) -> None:
        """There is nothing to accept."""

    def refuse_handshake(self, status: int, headers: RawHeaders, body: bytes) -> None:
        """There is nothing to refuse."""

    def close(self, code: int, reason: str) -> None:
        """There is nothing to close."""

    def resume_reading(self) -> None:
        """There is nothing to read."""

    def say_last_words(self) -> None:
        """Nothing is held back."""


_ENDED = _EndedConnection()


class ASGIEvents:
    """What an application receives and sends.

    Attributes:
        has_last_words: whether what it sends is still written, although the connection is to be failed: it is answering
            what came before the error.
    """

    __slots__ = (
        "_bytes",
        "_connection",
        "_denial",
        "_end",
        "_is_connected",
        "_loop",
        "_queue",
        "_reader",
        "has_last_words",
    )

    def __init__(self, connection: ASGIConnection, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._loop = loop
        self._is_connected = False
        self._queue: deque[Message] | None = None
        self._bytes = 0
        self._end: Close | None = None
        self._reader: asyncio.Future[None] | None = None
        self._denial: tuple[int, RawHeaders, list[bytes]] | None = None
        self.has_last_words = False

    def hold_end(self) -> bool:
        """Whether the application has messages to read, and so may answer.

        `ASGIConnection.say_last_words` is called once it has read them.
        """
        self.has_last_words = bool(self._queue)
        return self.has_last_words

    def put(self, opcode: int, content: str | bytes) -> bool:
        """Queue a message; return whether no more may come for now."""
        if self._end is not None:
            return False
        if self._queue is None:
            self._queue = deque()
        self._queue.append({"type": "websocket.receive", "text" if opcode == TEXT else "bytes": content})
        self._bytes += _cost(content)
        self._wake()
        return self._bytes > READ_AHEAD

    def end(self, close: Close) -> None:
        """Queue the end; only the first call counts."""
        if self._end is None:
            self._end = close
            self._wake()

    def abandon(self) -> None:
        """The application has ended, and reads nothing more."""
        if self._end is None:
            self.end(_ABANDONED)
        self._queue = None
        self._bytes = 0
        self.has_last_words = False

    def detach(self) -> None:
        """Break the cycle with the connection, which has ended too; ``receive`` and ``send`` say so from now on."""
        self.abandon()
        self._connection = _ENDED

    async def receive(self) -> Message:
        """ASGI's ``receive``."""
        if not self._is_connected:
            self._is_connected = True
            return {"type": "websocket.connect"}
        while not self._queue and self._end is None:
            if self._reader is None or self._reader.done():
                self._reader = self._loop.create_future()
            await asyncio.shield(self._reader)  # which several may wait for
        if self._queue:
            event = self._queue.popleft()
            was_full = self._bytes > READ_AHEAD
            self._bytes -= _cost(event["text"] if "text" in event else event["bytes"])
            if was_full and self._bytes <= READ_AHEAD:
                self._connection.resume_reading()
            return event
        if self.has_last_words:
            self.has_last_words = False
            self._connection.say_last_words()
        end = self._end or Close(1006, "", "network")
        return {"type": "websocket.disconnect", "code": int(end.code), "reason": end.reason}

    async def send(self, message: Message) -> None:
        """ASGI's ``send``.

        Raises:
            OSError: the client has gone.
            RuntimeError: the message does not fit the state of the connection.
        """
        connection, kind = self._connection, message["type"]
        if connection is _ENDED:
            raise ClientDisconnected
        if self._denial is not None:
            self._send_denial(message)
        elif not connection.is_accepted:
            self._send_handshake(kind, message)
        elif kind == "websocket.send":
            await connection.writable()
            if not connection.is_sendable and not self.has_last_words:
                raise ClientDisconnected
            text = message.get("text")
            data = message["bytes"] if text is None else text.encode()
            connection.write_message(PreparedMessage(data, is_text=text is not None))
        elif kind == "websocket.close":
            if not connection.is_sendable:
                raise ClientDisconnected
            connection.close(message.get("code") or 1000, message.get("reason") or "")
        else:
            raise RuntimeError(f"Expected ASGI message 'websocket.send' or 'websocket.close', but got '{kind}'.")

    def _send_handshake(self, kind: str, message: Message) -> None:
        if self._end is not None:
            raise ClientDisconnected
        headers: Any = message.get("headers") or ()
        if kind == "websocket.accept":
            self._connection.accept_handshake(message.get("subprotocol"), list(headers))
        elif kind == "websocket.close":
            self._connection.refuse_handshake(403, [], b"")
        elif kind == "websocket.http.response.start":
            self._denial = (message["status"], list(headers), [])
        else:
            raise RuntimeError(f"Expected the handshake to be accepted or refused, but got '{kind}'.")

    def _send_denial(self, message: Message) -> None:
        if message["type"] != "websocket.http.response.body" or self._denial is None:
            raise RuntimeError(f"Expected 'websocket.http.response.body', but got '{message['type']}'.")
        status, headers, body = self._denial
        body.append(message.get("body", b""))
        if not message.get("more_body", False):
            self._connection.refuse_handshake(status, headers, b"".join(body))

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


def _cost(content: str | bytes) -> int:
    """Bytes that a message counts for: its characters or bytes, and one for itself."""
    return len(content) + 1
