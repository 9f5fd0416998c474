"""Gathering: what a writer has said and has not been stored yet, until it is taken as a piece. Pure.

Text is code points, never half a character: a high surrogate waits for its low half, and one that gets none is U+FFFD.
Where a writer does not come to its end, half a character at the end is left out: there is the beginning of its text.
"""

from __future__ import annotations

import codecs
import contextlib
import re
from typing import Any, Literal

from velocity_ws.messages.outbound import encode_data
from velocity_ws.streams.items import End
from velocity_ws.streams.pieces import Kind, Piece, pack

__all__ = ["Gathering", "ItemTooLarge"]

_PAIR = re.compile("([\ud800-\udbff])([\udc00-\udfff])")
_PART = 8 * 1024
"""Characters that are one part, of which pieces are made."""
MAX_ITEM = 2**32 - 1
"""Bytes of an item, where nothing else bounds it."""
_HALF = re.compile("[\ud800-\udfff]")


class ItemTooLarge(OverflowError):
    """An item is larger than what is stored in one."""


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

    __slots__ = ("_decoder", "_half", "_limit", "_parts", "has_ended", "kind", "length", "number", "size", "waiting")

    def __init__(self, limit: int) -> None:
        """
        Args:
            limit: bytes that all of it may have.
        """
        self._limit = limit
        self.has_ended = False
        self.kind: Kind = ""
        self.size = self.waiting = 0
        self.number = self.length = 0
        self._parts: list[tuple[bytes, int]] = []
        self._half = ""
        self._decoder: codecs.IncrementalDecoder | None = None

    def add(self, said: Any, largest: int = MAX_ITEM) -> int:
        """Take what a writer says; how many bytes wait then.

        Args:
            said: text, or UTF-8 text as bytes, which may be cut anywhere; anything else is an item. Behind an item,
                text is one, too.
            largest: bytes that one item may have, as it is stored in one.

        Raises:
            TypeError: it is an item, and there is text, or it is bytes, and there are items.
            EncodeError: the item has no JSON form.
            OverflowError: with it, there would be more than there may be; it is not taken.
            ItemTooLarge: the same, of an item.
        """
        if isinstance(said, str) and self.kind != "items":
            self._be("text")
            self._add_text(said)
        elif isinstance(said, bytes | bytearray | memoryview):
            self._be("text")
            if self._decoder is None:
                self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
            self._add_text(self._decoder.decode(bytes(said)))
        else:
            data = encode_data("stream", said)
            if len(data) > largest:
                raise ItemTooLarge
            self._be("items")
            self._put(data, 1)
        return self.waiting

    def finish(self, *, is_all: bool) -> None:
        """Nothing more is said: half a character at the end is none.

        Args:
            is_all: whether its writer has said all. Where not, the other half may only not have come.
        """
        decoder, self._decoder = self._decoder, None
        if not is_all:
            self._half = ""
            return
        if decoder is not None:
            self._add_text(decoder.decode(b"", final=True))
        if self._half:
            self._half = ""
            with contextlib.suppress(OverflowError):
                self._put("\ufffd".encode(), 1)

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

    def _be(self, kind: Literal["text", "items"]) -> None:
        if self.kind not in ("", kind):
            raise TypeError(f"a stream is text or items, and this one has {self.kind}")
        self.kind = kind

    def _add_text(self, text: str) -> None:
        left = self._limit - self.size
        if 4 * len(text) > left and len(text.encode(errors="surrogatepass")) > left:
            raise OverflowError
        for start in range(0, len(text), _PART):
            self._add_part(text[start : start + _PART])

    def _add_part(self, text: str) -> None:
        if self._half:  # of the part before
            text, self._half = self._half + text, ""
        if not text.isascii():
            if "\ud800" <= text[-1] <= "\udbff":
                text, self._half = text[:-1], text[-1]
            try:
                data = text.encode()
            except UnicodeEncodeError:
                text = _HALF.sub("\ufffd", _PAIR.sub(_joined, text))
                data = text.encode()
        else:
            data = text.encode()
        if data:
            self._put(data, len(text))

    def _put(self, data: bytes, length: int) -> None:
        if self.size + len(data) > self._limit:
            raise OverflowError
        self._parts.append((data, length))
        self.size += len(data)
        self.waiting += len(data)


def _joined(pair: re.Match[str]) -> str:
    return pair.group().encode("utf-16", "surrogatepass").decode("utf-16")
