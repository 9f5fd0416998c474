"""NatsParser: what a NATS server sends, cut into messages as it arrives. Knows no connection. Pure.

Source: https://docs.nats.io/reference/reference-protocols/nats-protocol
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ["NatsParser"]

MAX_LINE: Final = 1024 * 1024
"""Bytes of a line without an end: a server tells of all others in one."""
_MESSAGES: Final = b"MH"
_M, _P, _O = b"MPO"

Message = Callable[[bytes, bytes, bytes, bytes], object]


class NatsParser:
    """Cuts what arrives. Its callbacks are called in the order in which that was sent."""

    __slots__ = ("_message", "_missing", "_other", "_parts", "_pong", "_rest")

    def __init__(self, message: Message, pong: Callable[[], object], other: Callable[[bytes], object]) -> None:
        """
        Args:
            message: called with the number of the subscription, the subject, headers and payload of each message.
            pong: called for each ``PONG``.
            other: called with each other line, its end included.
        """
        self._message = message
        self._pong = pong
        self._other = other
        self._rest = b""
        self._parts: list[bytes] = []
        self._missing = 0

    def feed(self, data: bytes) -> None:
        """Take bytes that have come.

        Raises:
            ValueError: this is not what a NATS server sends.
        """
        if self._parts:  # a message that is larger than a read: its parts are put together once
            self._parts.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return
            data, self._parts = b"".join(self._parts), []
        elif self._rest:
            data = self._rest + data
        self._rest = b""
        at, size = 0, len(data)
        while at < size:
            end = data.find(b"\r\n", at)
            if end < 0:
                if size - at > MAX_LINE:
                    raise ValueError(f"a line of more than {MAX_LINE} bytes: {data[at : at + 40]!r}")
                self._rest = data[at:]
                return
            if data[at] in _MESSAGES:
                at = self._cut(data, at, end)
                continue
            if data[at] == _P and data[at + 1] == _O:
                self._pong()
            else:
                self._other(data[at : end + 2])
            at = end + 2

    def _cut(self, data: bytes, at: int, end: int) -> int:
        """Cut out a message whose line is from ``at`` to ``end``, or keep what there is of it; where it ends."""
        fields = data[at:end].split()
        start, stop = end + 2, end + 2 + _size(fields[-1])
        body = start if data[at] == _M else start + _size(fields[-2])
        if body > stop:
            raise ValueError(f"headers larger than their message: {data[at:end]!r}")
        if stop + 2 > len(data):
            self._parts, self._missing = [data[at:]], stop + 2 - len(data)
        elif not data.startswith(b"\r\n", stop):
            raise ValueError(f"a message that is larger than its line says: {data[at:end]!r}")
        else:
            self._message(fields[2], fields[1], data[start:body], data[body:stop])
        return stop + 2


def _size(text: bytes) -> int:
    """A number of bytes. `int` takes signs besides, and who goes back by one would cut the same message for ever."""
    if not text.isdigit():
        raise ValueError(f"not a number of bytes: {text!r}")
    return int(text)
