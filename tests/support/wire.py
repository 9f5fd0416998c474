"""Frames as a client puts them on the wire, right and wrong ones (RFC 6455, section 5.2; RFC 7692). Knows no socket."""

from __future__ import annotations

import functools
import zlib

__all__ = ["DEFLATE", "CloseFinder", "bomb", "deflated", "frame", "handshake"]

DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; server_no_context_takeover\r\n"


def handshake(headers: str = "") -> bytes:
    """A request that opens a WebSocket, with more header lines."""
    return (
        "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
    ).encode()


def frame(first: int, payload: bytes = b"", mask: bytes = bytes(4)) -> bytes:
    """A masked frame; by default with a mask that changes nothing.

    Args:
        first: its first byte: 0x80 for the last one, 0x40 for compressed, and the opcode.
    """
    size = len(payload)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 65536:
        head = bytes((first, 0xFE)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, 0xFF)) + size.to_bytes(8, "big")
    if any(mask):
        payload = bytes(byte ^ mask[at & 3] for at, byte in enumerate(payload))
    return head + mask + payload


def deflated(payload: bytes) -> bytes:
    """A payload as permessage-deflate sends it, within the smallest window that servers agree to here."""
    compressor = zlib.compressobj(9, wbits=-12)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


@functools.cache
def bomb(mebibytes: int) -> bytes:
    """So many zeros, a multiple of 16 MiB of them, deflated to a thousandth of that."""
    compressor = zlib.compressobj(9, wbits=-12)
    block = compressor.compress(bytes(1 << 24)) + compressor.flush(zlib.Z_FULL_FLUSH)
    return (block * (mebibytes // 16)).removesuffix(b"\x00\x00\xff\xff")


class CloseFinder:
    """Finds the close frame in what a server sends.

    Attributes:
        code: its code, once it has come.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._skip = 0
        self.code: int | None = None

    def feed(self, data: bytes) -> None:
        """Take more of what the server sent after its handshake response."""
        if self._skip >= len(data):
            self._skip -= len(data)
            return
        self._data += data[self._skip :]
        self._skip = 0
        at = 0
        while self.code is None and len(self._data) - at >= 2:
            size, body = self._data[at + 1] & 0x7F, at + 2
            if size >= 126:
                body += 2 if size == 126 else 8
                if len(self._data) < body:
                    break
                size = int.from_bytes(self._data[at + 2 : body], "big")
            if self._data[at] & 0x0F == 8:
                if len(self._data) < body + 2:
                    break
                self.code = int.from_bytes(self._data[body : body + 2], "big")
            at = body + size
        if at > len(self._data):
            self._skip = at - len(self._data)
        del self._data[:at]
