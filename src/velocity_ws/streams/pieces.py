"""Pieces: what is stored of a stream, and put together again: text by characters, JSON values, or bytes. Pure.

A payload is 22 bytes, in network order, and what was said: its number (8), how many characters or items came before it
(8) and how many it has (4), what kind it is of (1) and whether it is the end (1). Text is UTF-8; items are JSON values
with a comma between two. Characters are code points. Where the byte of the kind has its highest bit, the size of a note
(4) and the note come before what was said.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Final, Literal, NamedTuple, get_args

import msgspec

from velocity_ws.streams.items import End

__all__ = [
    "HEADER_SIZE",
    "NOTED",
    "InvalidPiece",
    "Kind",
    "Piece",
    "join",
    "note_of",
    "pack",
    "pack_end",
    "peek",
    "split_items",
    "unpack",
]

Kind = Literal["", "text", "items", "bytes"]
"""What a stream has; empty as long as it has nothing. Bytes are of streams without a room."""
NOTED: Final = 0x80
"""What is added to the byte of the kind where there is a note."""

_header = Struct(">QQIBB")
_size = Struct(">I")
HEADER_SIZE: Final = _header.size
_KINDS: Final = get_args(Kind)
_ENDS: Final = get_args(End)
_MAX: Final = 2**53


class InvalidPiece(ValueError):
    """Bytes that are no payload; the text says why."""


class Piece(NamedTuple):
    """A piece of a stream, or several of them that follow each other.

    Attributes:
        number: how many pieces came before it.
        start: how many characters, items, or bytes, came before it.
        length: how many it has.
        kind: of its data.
        end: how the stream ends with it; empty where it does not.
        data: UTF-8 text, JSON values with a comma between two, or bytes.
        note: what its writer keeps with the stream as of this piece, in place of what it kept before.
    """

    number: int
    start: int
    length: int
    kind: Kind
    end: End
    data: bytes
    note: bytes = b""

    @property
    def stop(self) -> int:
        """How many characters, or items, there are up to its end."""
        return self.start + self.length

    def after(self, read: int) -> Piece:
        """What is left of it for a reader that has so much of the stream: itself, where that is all of it."""
        skip = read - self.start
        if skip <= 0:
            return self
        if skip >= self.length:
            return self._replace(start=self.stop, length=0, data=b"")
        return self._replace(start=read, length=self.length - skip, data=_rest(self.kind, self.data, skip))

    def until(self, stop: int) -> Piece:
        """What is of it up to a number of characters, or items: itself, where that is all of it."""
        if stop >= self.stop:
            return self
        return self._replace(length=stop - self.start, end="", data=_first(self.kind, self.data, stop - self.start))


def pack(piece: Piece) -> bytes:
    """The payload of a piece."""
    number, start, length, kind, end, data, note = piece
    code = _KINDS.index(kind)
    if note:
        head = _header.pack(number, start, length, code | NOTED, _ENDS.index(end))
        return b"%b%b%b%b" % (head, _size.pack(len(note)), note, data)
    return _header.pack(number, start, length, code, _ENDS.index(end)) + data


def pack_end(number: int, start: int, end: End) -> bytes:
    """The payload of an end that is not the writer's: a piece of nothing."""
    return _header.pack(number, start, 0, 0, _ENDS.index(end))


def unpack(payload: bytes) -> Piece:
    """Read a payload, which may come from an engine: nothing of it is taken on trust.

    Raises:
        InvalidPiece: it is none.
    """
    if len(payload) < HEADER_SIZE:
        raise InvalidPiece("it is too short")
    number, start, length, kind, end = _header.unpack_from(payload)
    note, data = b"", payload[HEADER_SIZE:]
    if kind & NOTED:
        kind -= NOTED
        note = note_of(payload)
        if not note:
            raise InvalidPiece("its note is cut off")
        data = payload[HEADER_SIZE + _size.size + len(note) :]
    if kind >= len(_KINDS) or end >= len(_ENDS) or number > _MAX or start > _MAX or bool(length) is not bool(data):
        raise InvalidPiece("its header has what none has")
    if not kind and data:
        raise InvalidPiece("it has data of no kind")
    piece = Piece(number, start, length, _KINDS[kind], _ENDS[end], data, note)
    _check(piece)
    return piece


def peek(payload: bytes) -> tuple[int, int, int, End]:
    """Number, start, length and end of a piece, of a payload of ours. Its data is not looked at."""
    number, start, length, _, end = _header.unpack_from(payload)
    return number, start, length, _ENDS[end]


def note_of(payload: bytes) -> bytes:
    """The note of a piece; empty where it has none, or is cut off."""
    if len(payload) < HEADER_SIZE + _size.size or not payload[HEADER_SIZE - 2] & NOTED:
        return b""
    (size,) = _size.unpack_from(payload, HEADER_SIZE)
    note = payload[HEADER_SIZE + _size.size : HEADER_SIZE + _size.size + size]
    return note if len(note) == size else b""


def join(pieces: Iterable[Piece]) -> Piece:
    """Several pieces that follow each other as one, which has the number of the first. There is one at least."""
    found = list(pieces)
    first, last = found[0], found[-1]
    if len(found) == 1:
        return first
    kind = next((piece.kind for piece in found if piece.kind), first.kind)
    filled = [piece.data for piece in found if piece.data]
    data = (b"," if kind == "items" else b"").join(filled)
    return Piece(first.number, first.start, last.stop - first.start, kind, last.end, data)


def split_items(data: bytes) -> list[msgspec.Raw]:
    """The items of a piece."""
    return _decode_items(b"[%b]" % data)


def _check(piece: Piece) -> None:
    if piece.kind == "bytes":
        if len(piece.data) != piece.length:
            raise InvalidPiece(f"it has {len(piece.data)} and not {piece.length} bytes")
        return
    try:
        found = len(piece.data.decode()) if piece.kind == "text" else len(split_items(piece.data))
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise InvalidPiece(f"its data is not {piece.kind}: {error}") from None
    if found != piece.length:
        raise InvalidPiece(f"it has {found} and not {piece.length} characters or items")


_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode


def _first(kind: Kind, data: bytes, length: int) -> bytes:
    if kind == "bytes":
        return data[:length]
    if kind == "items":
        return b",".join(map(bytes, split_items(data)[:length]))
    return data.decode()[:length].encode()


def _rest(kind: Kind, data: bytes, skip: int) -> bytes:
    if kind == "bytes":
        return data[skip:]
    if kind == "items":
        return b",".join(map(bytes, split_items(data)[skip:]))
    return data.decode()[skip:].encode()
