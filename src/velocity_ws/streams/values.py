"""Values: what an application is told of streams. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from velocity_ws.streams.items import Summary
from velocity_ws.streams.pieces import Piece, join

__all__ = ["StreamInfo", "StreamState", "item_of", "state_of"]

Ended = Literal["done", "cancelled", "error", "lost"]


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """A stream of a room, without what it says.

    Attributes:
        id: the stream's.
        room: its room.
        length: the characters, or items, that it has so far.
        end: how it has ended: ``done``, ``cancelled``, ``error``, or ``lost`` where its writer died or was stopped;
            ``None`` while it has not.
    """

    id: str
    room: str
    length: int
    end: Ended | None

    @classmethod
    def of(cls, stream: Summary) -> StreamInfo:
        """What is told of a stream."""
        return cls(stream.id, stream.room, stream.length, stream.end or None)


@dataclass(frozen=True, slots=True)
class StreamState:
    """A stream, as it was in one moment.

    Attributes:
        id: the stream's.
        room: its room.
        text: all that it has said; ``None`` where it has items, or bytes.
        items: the same, as JSON values; ``None`` where it has text, or nothing.
        end: as in `StreamInfo`.
        content: all of it, where it has bytes, as a client may have written by HTTP; ``None`` for others.
    """

    id: str
    room: str
    text: str | None
    items: list[Any] | None
    end: Ended | None
    content: bytes | None = None


def state_of(stream: Summary, pieces: Sequence[Piece]) -> StreamState:
    """A stream with its pieces, which are all of it."""
    end = stream.end or None
    if not pieces:
        return StreamState(stream.id, stream.room, "", None, end)
    whole = join(pieces)
    if whole.kind == "items":
        return StreamState(stream.id, stream.room, None, item_of(b"[%b]" % whole.data), end)
    if whole.kind == "bytes":
        return StreamState(stream.id, stream.room, None, None, end, whole.data)
    return StreamState(stream.id, stream.room, whole.data.decode(), None, end)


def item_of(data: bytes | msgspec.Raw) -> Any:
    """The value of a JSON text that was stored: a number that none can be has the nearest, which may be infinite."""
    try:
        return msgspec.json.decode(data)
    except msgspec.ValidationError:  # it is JSON, of which a number is out of range
        return json.loads(bytes(data), parse_int=_number)


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:  # it has more digits than Python reads
        return float(text)
