"""Parser: frames that clients sent, cut out of what was read (RFC 6455, section 5). Pure: knows no connection, no loop.

What is uncommon, or wrong, is left to the ``websockets`` library to judge.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Final

from velocity_ws.close import SENDABLE, CloseCode
from velocity_ws.messages.frames import BINARY, COMPRESSED, EMPTY_BLOCK, FIN, TEXT

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without the library's C extension
    from websockets.utils import apply_mask

__all__ = [
    "CLOSE_FRAME",
    "MASKED",
    "Cut",
    "TooLong",
    "apply_mask",
    "close_in",
    "cut",
    "inflate",
    "is_too_long",
    "longest_deflated",
    "problem_of",
]

CLOSE_FRAME: Final = 0x88
"""The first byte of a close frame."""

MASKED: Final = 0x80
"""The bit of a frame's second byte that says it is masked, as what clients send must be."""
_CONTROL = 0x8
_OPCODES = frozenset((0x0, TEXT, BINARY, 0x8, 0x9, 0xA))
_PIECE = 64 * 1024
"""Bytes that are decompressed at once."""


class TooLong(Exception):
    """A message is longer than allowed."""


def inflate(payload: bytes, window_bits: int, max_size: int) -> bytes | None:
    """A message decompressed by itself, with no context before it (RFC 7692, section 7.2.2).

    Args:
        payload: of a whole message.
        window_bits: negotiated for the sender.
        max_size: bytes of the longest message.

    Returns:
        ``None`` where it is no deflated data.

    Raises:
        TooLong: it is longer than that.
    """
    try:
        if len(payload) > _PIECE:
            with memoryview(payload) as view:
                _measure(_pieces(view), _inflater(window_bits), max_size)
        decompressor = _inflater(window_bits)
        data = decompressor.decompress(payload + EMPTY_BLOCK, max_size + 1)
    except zlib.error:
        return None
    if len(data) > max_size or decompressor.unconsumed_tail:
        raise TooLong
    return data


def _inflater(window_bits: int) -> zlib._Decompress:
    return zlib.decompressobj(wbits=-window_bits)


def _pieces(view: memoryview) -> Iterator[memoryview]:
    return (view[at : at + _PIECE] for at in range(0, len(view), _PIECE))


def _measure(pieces: Iterable[bytes | memoryview], decompressor: zlib._Decompress, max_size: int) -> None:
    """Decompress a long message without keeping any of it, so that what is too long takes no memory."""
    for piece in pieces:
        rest = piece
        while len(rest):
            max_size -= len(decompressor.decompress(rest, _PIECE))
            rest = decompressor.unconsumed_tail
            if max_size < 0:
                raise TooLong
            if decompressor.eof:  # what follows a last block stays in `unconsumed_tail` for ever, and is no content
                return


def is_too_long(data: bytes | bytearray, start: int, end: int, decompressor: zlib._Decompress, max_size: int) -> bool:
    """Whether a compressed message is too long already by a part of one of its frames.

    Half a MiB can hold 512: this finds it before that half is there, and takes no memory for it.

    Args:
        data: what was read.
        start: where the frame begins; its header must be there.
        end: where it ends, or what there is of it.
        decompressor: of the message, up to this frame; it is used up.
        max_size: bytes that the message may get from here on.
    """
    at = start + {126: 4, 127: 10}.get(data[start + 1] & 0x7F, 2)
    mask = bytes(data[at : at + 4])
    try:
        with memoryview(data)[at + 4 : end] as view:
            _measure((apply_mask(piece, mask) for piece in _pieces(view)), decompressor, max_size)
    except TooLong:
        return True
    except zlib.error:
        return False  # the library says so when it has all of it
    return False


Cut = tuple[int, int, bytes]
"""What `cut` found: where it ends, what it is (`TEXT` or `BINARY`, with `COMPRESSED`, or 0), and its unmasked payload.

0 is any frame but a whole, unfragmented message: a whole frame for the library, given without its payload.
"""


def longest_deflated(max_size: int) -> int:
    """Return the bytes of the longest compressed payload that may hold a message of ``max_size`` bytes.

    What cannot be compressed gets longer: by 0.2 % with zlib's defaults, by 4 % to 5 % with the least memory or window.
    """
    return max_size + max_size // 8 + 64


def problem_of(first: int, second: int, *, deflate: bool, goes_on: bool) -> str | None:
    """Why a frame must be refused by its first two bytes (RFC 6455, section 5), if it must.

    Args:
        first: its first byte.
        second: its second.
        deflate: whether permessage-deflate was negotiated.
        goes_on: whether it comes between the fragments of a message.
    """
    opcode = first & 0xF
    is_control = opcode >= _CONTROL
    reserved = 0x70 if is_control or not opcode or not deflate else 0x30
    if opcode not in _OPCODES:
        return "invalid opcode"
    if not second & MASKED:
        return "incorrect masking"
    if first & reserved:
        return "reserved bits must be 0"
    if is_control:
        if second & 0x7F > 125:
            return "control frame too long"
        return None if first & FIN else "fragmented control frame"
    if goes_on:
        return "expected a continuation frame" if opcode else None
    return None if opcode else "unexpected continuation frame"


def cut(data: bytes | bytearray, start: int, max_size: int) -> Cut | int:
    """The frame that begins at a place in the data, or the least number of bytes it still lacks.

    A frame that must be refused whatever follows (not masked, too long, or of no known kind) ends where the data does.

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
    if (
        not second & MASKED
        or size > (longest_deflated(max_size) if first & COMPRESSED else max_size)
        or first & 0x7 > 2
    ):
        return len(data), 0, b""
    body = at + 4
    end = body + size
    if end > len(data):
        return end - len(data)
    kind = first & (0xFF - FIN)
    if first & FIN and kind & (0xFF - COMPRESSED) in (TEXT, BINARY):
        if size > _PIECE:  # without another copy of it
            return end, kind, apply_mask(memoryview(data)[body:end], data[at:body])
        return end, kind, apply_mask(data[body:end], data[at:body])
    return end, 0, b""


def close_in(frame: bytes | bytearray) -> tuple[int, str, bytes] | None:
    """The code and the reason of a close frame, and the frame that answers it (RFC 6455, section 5.5.1).

    ``None`` for any other frame, and for a close frame that must be refused.

    Args:
        frame: as `cut` found it; one that must be refused, as it is longer than allowed, may not be whole.
    """
    size = frame[1] & 0x7F
    if frame[0] != CLOSE_FRAME or not frame[1] & MASKED or size > 125 or size == 1 or len(frame) != 6 + size:
        return None
    payload = apply_mask(frame[6:], frame[2:6])
    code, reason = int(CloseCode.NO_STATUS), ""
    if size:
        code = (payload[0] << 8) | payload[1]
        try:
            reason = payload[2:].decode()
        except UnicodeDecodeError:
            return None
        if code not in SENDABLE:
            return None
    return code, reason, bytes((CLOSE_FRAME, size)) + payload
