"""Gathering: what a writer has said and has not been stored yet, until it is taken as a piece. Pure.

Text is code points, never half a character: a high surrogate waits for its low half, and one that gets none is U+FFFD.
Where a writer does not come to its end, half a character at the end is left out: there is the beginning of its text.
"""

from __future__ import annotations

import codecs
import contextlib
import re
from typing import Any

from velocity_ws.messages.outbound import encode_data
from velocity_ws.streams.items import End
from velocity_ws.streams.pieces import Kind, Piece, pack

__all__ = ["Gathering", "LargeItem"]

_PAIR = re.compile("([\ud800-\udbff])([\udc00-\udfff])")
_PART = 8 * 1024
"""Characters that are one part, of which pieces are made."""
_MOST_PARTS = 1024
"""Parts that wait, until small ones become larger ones: one of a character costs as much as 64 bytes beside it."""
_HALF = re.compile("[\ud800-\udfff]")


class LargeItem(ValueError):
    """An item that is larger than one may be."""


class Gathering:
    """What waits of one stream. On one loop only.

    Attributes:
        kind: what it is; settled by what is said first.
        size: bytes of all that was ever said.
        waiting: bytes that wait.
        length: characters, or items, that were taken.
        number: pieces that were taken.
        has_ended: whether the end was taken.
    """

    __slots__ = (
        "_decoder", "_half", "_limit", "_most", "_parts", "has_ended", "kind", "length", "number", "size", "waiting",
    )  # fmt: skip

    def __init__(self, limit: int, most: int) -> None:
        """
        Args:
            limit: bytes that all of it may have.
            most: bytes that one item may have, as it is never cut.
        """
        self._limit = limit
        self._most = most
        self.has_ended = False
        self.kind: Kind = ""
        self.size = self.waiting = 0
        self.number = self.length = 0
        self._parts: list[tuple[bytes, int]] = []
        self._half = ""
        self._decoder: codecs.IncrementalDecoder | None = None

    def add(self, said: Any) -> int:
        """Take what a writer says; how many bytes wait then.

        Args:
            said: text, or UTF-8 text as bytes, which may be cut anywhere; anything else is an item. Behind an item,
                text is one, too; before one, ``None`` is nothing.

        Raises:
            TypeError: it is an item, and there is text, or it is bytes, and there are items.
            EncodeError: the item has no JSON form.
            LargeItem: the item is too large; it is not taken.
            OverflowError: with it, there would be more than there may be; it is not taken.
        """
        if said.__class__ is str and self.kind == "text" and not self._half and self._decoder is None:
            # The same in fewer steps, as this is what most tokens are.
            length = len(said)
            if said.isascii() and 0 < length <= _PART and self.size + length <= self._limit:
                self._parts.append((said.encode(), length))
                self.size += length
                self.waiting += length
                if len(self._parts) > _MOST_PARTS:
                    self._put_together()
                return self.waiting
        if said is None and self.kind != "items":  # as the first and the last delta of most models
            return self.waiting
        if isinstance(said, str) and self.kind != "items":
            self._say(b"", said)
        elif isinstance(said, bytes | bytearray | memoryview):
            self._check("text")
            self._say(bytes(said), "")
        else:
            self._check("items")
            data = encode_data("stream", said)
            if len(data) > self._most:
                raise LargeItem
            self._put(data, 1)
            self.kind = "items"
        return self.waiting

    def finish(self, *, is_all: bool = True) -> None:
        """Nothing more is said: half a character at the end is none.

        Args:
            is_all: whether its writer has said all. Where not, the other half may only not have come.
        """
        with contextlib.suppress(OverflowError):
            if is_all and self._decoder is not None:
                self._add_text(self._decoder.decode(b"", final=True))
            if is_all and self._half:
                self._put("\ufffd".encode(), 1)
        self._decoder, self._half = None, ""

    def take(self, most: int, end: End = "") -> bytes:
        """The payload of a piece, with what waits, up to some bytes.

        Args:
            most: bytes that it may have; one part that is larger comes alone.
            end: how the stream ends with it; where not all can be taken, it does not end yet.
        """
        size, count, length = 0, 0, 0
        for data, characters in self._parts:
            if count and size + len(data) >= most:
                break
            size += len(data) + (self.kind == "items")
            count += 1
            length += characters
        parts, self._parts = self._parts[:count], self._parts[count:]
        data = (b"," if self.kind == "items" else b"").join([part for part, _ in parts])
        self.waiting -= sum([len(part) for part, _ in parts])
        is_end = bool(end) and not self._parts
        piece = Piece(self.number, self.length, length, self.kind if data else "", end if is_end else "", data)
        self.number += 1
        self.length += length
        self.has_ended = is_end
        return pack(piece)

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits to be taken."""
        return not self._parts

    def _check(self, kind: Kind) -> None:
        if self.kind not in ("", kind):
            raise TypeError(
                f"a stream is either text or items, as what is said first: this one has {self.kind}. Send what is of "
                "another kind in a stream of its own"
            )

    def _say(self, data: bytes, text: str) -> None:
        """Take bytes of text, or text, before which bytes that lack the rest of their character are none."""
        if data and self._decoder is None:
            self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        decoder = self._decoder
        if decoder is None:
            self._add_text(text)
        else:
            before = decoder.getstate()
            try:
                self._add_text(decoder.decode(data, final=bool(text)) + text)
            except OverflowError:
                decoder.setstate(before)
                raise
        self.kind = "text"

    def _add_text(self, text: str) -> None:
        text, half = _whole(self._half + text)
        left = self._limit - self.size
        if 4 * len(text) > left and len(text.encode()) > left:
            raise OverflowError
        self._half = half
        for start in range(0, len(text), _PART):
            part = text[start : start + _PART]
            self._put(part.encode(), len(part))

    def _put(self, data: bytes, length: int) -> None:
        if self.size + len(data) > self._limit:
            raise OverflowError
        self._parts.append((data, length))
        self.size += len(data)
        self.waiting += len(data)
        if len(self._parts) > _MOST_PARTS:
            self._put_together()

    def _put_together(self) -> None:
        """Make few parts of many."""
        between = b"," if self.kind == "items" else b""
        groups: list[list[tuple[bytes, int]]] = []
        size = _PART
        for part in self._parts:
            if size + len(part[0]) > _PART:
                groups.append([])
                size = 0
            groups[-1].append(part)
            size += len(part[0])
        self._parts = [(between.join([data for data, _ in group]), sum([n for _, n in group])) for group in groups]
        self.waiting = sum([len(data) for data, _ in self._parts])


def _whole(text: str) -> tuple[str, str]:
    """Text without halves of characters; and a half that may get its other one."""
    half = ""
    if text.isascii():
        return text, half
    if "\ud800" <= text[-1] <= "\udbff":
        text, half = text[:-1], text[-1]
    try:
        text.encode()
    except UnicodeEncodeError:
        text = _HALF.sub("\ufffd", _PAIR.sub(_joined, text))
    return text, half


def _joined(pair: re.Match[str]) -> str:
    return pair.group().encode("utf-16", "surrogatepass").decode("utf-16")
