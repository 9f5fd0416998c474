"""Wire: a stream's pieces as nodes publish them, and as clients get them. Pure."""

from __future__ import annotations

import json

import msgspec

from velocity_ws.cluster.envelopes import StreamPiece, encode_body, encode_header
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.streams.pieces import Piece

__all__ = ["Frames", "Heads"]

_text = msgspec.json.Encoder().encode
_name = json.JSONEncoder().encode  # takes half a surrogate pair too, which msgspec does not
_NO_BYTES = 2
"""Bytes of an empty field of bytes, as MessagePack."""


class Heads:
    """What is published before the payloads of one stream."""

    __slots__ = ("_start",)

    def __init__(self, node_id: str, room: str | None, id_: str) -> None:
        """
        Args:
            node_id: the id of the node that publishes them.
            room: the stream's; ``None`` where it is of none.
            id_: the stream's.
        """
        self._start = encode_header(node_id, 1) + encode_body(StreamPiece(room, id_, b""))[:-_NO_BYTES]

    def of(self, size: int) -> bytes:
        """What goes before a payload of some size."""
        if size < 2**8:
            return b"%b\xc4%c" % (self._start, size)
        if size < 2**16:
            return b"%b\xc5%b" % (self._start, size.to_bytes(2, "big"))
        return b"%b\xc6%b" % (self._start, size.to_bytes(4, "big"))


class Frames:
    """The messages by which clients get one stream."""

    __slots__ = ("_head", "_tail")

    def __init__(self, room: str, id_: str) -> None:
        """
        Args:
            room: the stream's.
            id_: the stream's.
        """
        self._head = b'{"event":"stream","data":{"id":%b,"from":' % _name(id_).encode()
        self._tail = b'},"room":%b}' % _name(room).encode()

    def of(self, piece: Piece) -> PreparedMessage:
        """The message of a piece, or of several as one."""
        start = b"%d" % piece.start
        if piece.kind == "items":
            parts = [self._head, start, b',"items":[', piece.data, b"]"]
        else:
            parts = [self._head, start, b',"text":', _text(piece.data.decode())]
        if piece.end:
            parts.append(b',"end":"%b"' % piece.end.encode())
        parts.append(self._tail)
        return PreparedMessage(b"".join(parts))

    def lost(self, length: int) -> PreparedMessage:
        """The end for a reader that has a number of characters, or items, where nothing follows any more."""
        return self.of(Piece(0, length, 0, "", "lost", b""))
