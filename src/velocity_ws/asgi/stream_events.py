"""Stream events: what a part of a stream is as server-sent events. Pure.

Source: the Durable Streams protocol, 5.8 (https://github.com/durable-streams/durable-streams); the event stream of the
HTML standard, 9.2.
"""

from __future__ import annotations

import base64
import codecs

import msgspec

from velocity_ws.asgi.stream_forms import JSON, offset_of
from velocity_ws.streams.notes import normal_type
from velocity_ws.streams.tail import Chunk

__all__ = ["EventForm", "Events"]


class Events:
    """What is said of a part of a stream: the same to all readers, but for the cursor."""

    __slots__ = ("_before", "_cursor", "_data", "_said")

    def __init__(self, data: bytes, before: bytes = b"") -> None:
        """
        Args:
            data: what comes first; all of it where no cursor is said.
            before: what comes then, up to the cursor; empty where none is said.
        """
        self._data = data
        self._before = before
        self._cursor: int | None = None
        self._said = data

    @property
    def size(self) -> int:
        """How many bytes they take, about, once they were sent."""
        return 2 * len(self._data) + len(self._before)

    def at(self, cursor: int) -> bytes:
        """All of it, for a reader that is told a cursor; the same bytes for those of one cursor that follow it."""
        if self._before and cursor != self._cursor:
            self._said = b'%b%b%d"}\n\n' % (self._data, self._before, cursor)
            self._cursor = cursor
        return self._said


class EventForm:
    """What the events of one stream look like.

    Attributes:
        tag: of its offsets.
        is_json: whether it has items.
        is_plain: whether its data are in them as they are; else they are base64.
    """

    __slots__ = ("is_json", "is_plain", "tag")

    def __init__(self, content_type: str, tag: str) -> None:
        """
        Args:
            content_type: of the stream.
            tag: of its offsets.
        """
        self.tag = tag
        self.is_json = normal_type(content_type) == JSON
        self.is_plain = self.is_json or normal_type(content_type).startswith("text/")

    def events(self, chunk: Chunk, position: int, *, is_first: bool) -> tuple[Events | None, int]:
        """The events that say a part of the stream, and where they end; none where there is nothing to say.

        Args:
            chunk: what follows the position.
            position: where the reader is.
            is_first: whether it has had none yet, and is to be told where it is.
        """
        data, stop = chunk.data, chunk.stop
        if self.is_plain and chunk.kind == "bytes":
            data = _whole(data, is_end=bool(chunk.end))
            stop = position + len(data)
        if not data and not is_first and not (chunk.end and chunk.is_all):
            return None, position
        said = b"event: data\n%b\n" % self._lines(data, is_json=self.is_json or chunk.kind == "items") if data else b""
        is_all = chunk.is_all and stop == chunk.stop
        offset = offset_of(stop, self.tag)
        control: dict[str, object] = {"streamNextOffset": offset}
        if is_all or (chunk.is_all and not chunk.end):
            control["upToDate"] = True
        if is_all and chunk.end:
            control |= {"streamClosed": True, "streamEnd": chunk.end}
        # The id is for an EventSource, which comes back by itself and says it.
        before = b"id: %b\nevent: control\ndata:%b" % (offset.encode(), msgspec.json.encode(control)[:-1])
        if is_all and chunk.end:
            return Events(said + before + b"}\n\n"), stop
        return Events(said, before + b',"streamCursor":"'), stop

    def _lines(self, data: bytes, *, is_json: bool) -> bytes:
        if is_json:  # the application's may have had nothing as it was found
            data = b"[%b]" % data
        elif not self.is_plain:
            data = base64.b64encode(data)
        # Each of the three ends of a line ends one here, too: none of them may begin an event.
        lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        # One space behind the colon is taken off by who reads it.
        return b"".join([b"data:%b%b\n" % (b" " if line[:1] == b" " else b"", line) for line in lines])


def _whole(data: bytes, *, is_end: bool) -> bytes:
    """Text up to its last whole character, as an event has no half one; all of it at the end."""
    if is_end:
        return data
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(data)
    return data[: len(data) - len(decoder.getstate()[0])]
