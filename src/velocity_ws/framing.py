"""WebSocket frames as bytes: outbound ones built once for everyone, common inbound ones cut out of what was read.

Pure: no connection, no event loop. What is uncommon, or wrong, is left to the ``websockets`` library to judge.
"""

from __future__ import annotations

import zlib
from typing import Final

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without the library's C extension
    from websockets.utils import apply_mask

__all__ = ["BINARY", "TEXT", "Cut", "cut", "deflate", "header"]

TEXT: Final = 0x1
BINARY: Final = 0x2
_FIN = 0x80
_RSV1 = 0x40
_MASKED = 0x80
_EMPTY_BLOCK = b"\x00\x00\xff\xff"


def header(opcode: int, size: int, *, compressed: bool = False) -> bytes:
    """The header of a server's unfragmented frame (RFC 6455, section 5.2).

    Args:
        opcode: `TEXT` or `BINARY`.
        size: bytes of payload.
        compressed: whether the payload is deflated (RFC 7692, section 6).
    """
    first = _FIN | opcode | (_RSV1 if compressed else 0)
    if size < 126:
        return bytes((first, size))
    if size < 65536:
        return bytes((first, 126)) + size.to_bytes(2, "big")
    return bytes((first, 127)) + size.to_bytes(8, "big")


def deflate(payload: bytes, window_bits: int) -> bytes:
    """A payload compressed by itself, with no context before it (RFC 7692, section 7.2.1)."""
    compressor = zlib.compressobj(wbits=-window_bits, memLevel=5)
    data = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return data.removesuffix(_EMPTY_BLOCK)


class Cut:
    """What `cut` found: a plain message, or a whole frame for the library.

    Attributes:
        end: where in the data it ends.
        opcode: `TEXT` or `BINARY` of a whole, unfragmented, uncompressed message; 0 for any other frame.
        payload: of such a message, unmasked; empty for any other frame.
    """

    __slots__ = ("end", "opcode", "payload")

    def __init__(self, end: int, opcode: int, payload: bytes) -> None:
        self.end = end
        self.opcode = opcode
        self.payload = payload


def cut(data: bytes, start: int, max_size: int) -> Cut | int:
    """The frame that begins at a place in the data, or the least number of bytes it still lacks.

    A frame that must be refused whatever follows (not masked, or too long) ends where the data does.

    Args:
        data: what was read; it begins at a frame.
        start: where this frame begins.
        max_size: bytes of the longest payload.
    """
    have = len(data) - start
    if have < 2:
        return 2 - have
    first, second = data[start], data[start + 1]
    size = second & 0x7F
    at = start + 2
    if size == 126:
        if have < 4:
            return 4 - have
        size = (data[at] << 8) | data[at + 1]
        at += 2
    elif size == 127:
        if have < 10:
            return 10 - have
        size = int.from_bytes(data[at : at + 8], "big")
        at += 8
    if not second & _MASKED or size > max_size or (first & 0x8 and size > 125):
        return Cut(len(data), 0, b"")
    body = at + 4
    end = body + size
    if end > len(data):
        return end - len(data)
    if first == _FIN | TEXT or first == _FIN | BINARY:
        return Cut(end, first & 0xF, apply_mask(data[body:end], data[at:body]))
    return Cut(end, 0, b"")
