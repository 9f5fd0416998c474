"""Stream reading: what a GET of a stream is answered: what there is, what comes next, or all that comes, as events.

Source: the Durable Streams protocol, 5.5 to 5.8 and 10 (https://github.com/durable-streams/durable-streams); the
event stream of the HTML standard, 9.2.
"""

from __future__ import annotations

import asyncio
import base64
import codecs
import time
from typing import Final

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Send

from velocity_ws.asgi.stopping import OpenResponse, OpenResponses
from velocity_ws.asgi.stream_answers import NO_STORE, headers_of
from velocity_ws.asgi.stream_forms import JSON, cursor_after, etag_of, offset_of, tag_of
from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.stream_errors import StreamError
from velocity_ws.streams.items import End
from velocity_ws.streams.notes import normal_type
from velocity_ws.streams.requests import Found
from velocity_ws.streams.tail import Chunk, Tail
from velocity_ws.streams.tails import Tails

__all__ = ["Reading", "watch"]

LONG_POLL: Final = 20.0
"""Seconds that a request waits for something to come."""
COMMENT: Final = 15.0
"""Seconds of silence after which a comment is sent, so that no proxy takes the connection for dead."""
LIFE: Final = 60.0
"""Seconds after which a stream of events ends, to be asked for again: who may read is asked again with it."""
PRIVATE: Final = "private, no-cache"


class Reading:
    """A request for a stream that was found, and may be read.

    Attributes:
        content_type: of the stream.
        tag: of its offsets.
    """

    def __init__(self, tails: Tails, found: Found, content_type: str, position: int, cursor: str | None) -> None:
        """
        Args:
            tails: the streams that are read here as they are said.
            found: the stream.
            content_type: of it.
            position: where the request begins.
            cursor: the ``cursor`` of the request.
        """
        self._tails = tails
        self._found = found
        self._position = position
        self._cursor = cursor
        self.content_type = content_type
        self.tag = tag_of(found)
        self._is_json = normal_type(content_type) == JSON
        self._is_plain = self._is_json or normal_type(content_type).startswith("text/")

    # --- what there is

    def answer(self, chunk: Chunk, *, if_none_match: str, is_live: bool = False, is_now: bool = False) -> Response:
        """The answer that has a part of the stream.

        Args:
            chunk: the part.
            if_none_match: of the request.
            is_live: whether it was waited for.
            is_now: whether it was asked for what comes from now on.
        """
        is_closed = chunk.is_all and bool(chunk.end)
        headers = self._headers(chunk.stop, is_all=chunk.is_all, end=chunk.end if chunk.is_all else "")
        headers["cache-control"] = NO_STORE if is_live or is_now else PRIVATE
        if is_live:
            if not chunk.data:
                return self._nothing(headers, is_closed=is_closed)
            headers["stream-cursor"] = cursor_after(self._cursor, time.time())
        etag = headers["etag"] = etag_of(chunk.start, chunk.stop, self.tag, is_closed=is_closed)
        if not is_live and etag in [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]:
            return Response(status_code=304, headers=headers)
        is_json = self._is_json or chunk.kind == "items"  # the application's may have had nothing as it was found
        content_type = JSON if is_json and not self._is_json else self.content_type
        body = b"[%b]" % chunk.data if is_json else chunk.data
        return Response(body, headers={**headers, "content-type": content_type})

    def _nothing(self, headers: dict[str, str], *, is_closed: bool) -> Response:
        if not is_closed:
            headers["stream-cursor"] = cursor_after(self._cursor, time.time())
        return Response(status_code=204, headers=headers)

    def _headers(self, stop: int, *, is_all: bool, end: End) -> dict[str, str]:
        headers = {"stream-next-offset": offset_of(stop, self.tag)}
        if is_all:
            headers["stream-up-to-date"] = "true"
        return headers | headers_of(end)

    # --- what comes next

    async def wait(self, response: OpenResponse) -> Response:
        """The answer to a long poll: what comes, as soon as it does, or nothing, after a while."""
        try:
            stream = self._found.stream
            chunk = await self._tails.read(stream.id, self._position, LONG_POLL, writer=stream.writer)
        except asyncio.CancelledError:
            if not response.take_back():
                raise
            chunk = Chunk("", self._position, self._position, b"", True, "")
        return self.answer(chunk, if_none_match="", is_live=True)

    # --- all that comes

    async def send_events(self, responses: OpenResponses, extra: dict[str, str], receive: Receive, send: Send) -> None:
        """Answer with a stream of events, until the stream or the time for it ends, or the client goes."""
        headers = {
            **extra,
            "content-type": "text/event-stream",
            "cache-control": "no-cache, no-store",
            "x-accel-buffering": "no",  # of nginx, which would keep events back
        }
        if not self._is_plain:
            headers["stream-sse-data-encoding"] = "base64"
        async with responses.opened() as response:
            watching = asyncio.create_task(watch(receive, response), name="velocity-ws stream reader")
            try:
                raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
                await send({"type": "http.response.start", "status": 200, "headers": raw})
                await self._send_all(send)
            except asyncio.CancelledError:
                if not response.take_back():
                    raise
            except (StreamError, BackplaneUnavailable):
                pass  # it was deleted, or cannot be had now: who asks again is told which
            finally:
                watching.cancel()
            if response.why != "gone":
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_all(self, send: Send) -> None:
        id_, writer, position = self._found.stream.id, self._found.stream.writer, self._position
        until = time.monotonic() + LIFE
        tail = await self._tails.open(id_, writer)
        if tail.length < self._found.stream.length:  # what was found is newer than what was heard
            self._tails.look_soon(id_)
        is_first, seen = True, 0
        while True:
            wait = min(COMMENT, until - time.monotonic())
            if wait <= 0:
                return
            is_behind = position < self._found.stream.length
            patience = 0 if is_first and not is_behind else wait
            chunk = await self._tails.read(id_, position, patience, seen=seen, writer=writer)
            events, position = self._events(tail, chunk, position, is_first=is_first)
            await send({"type": "http.response.body", "body": events or b":\n\n", "more_body": True})
            is_first, seen = False, chunk.stop  # what was seen is not looked at again, be it half a character
            if chunk.end and chunk.is_all:
                return

    def _events(self, tail: Tail, chunk: Chunk, position: int, *, is_first: bool) -> tuple[bytes, int]:
        """The events that say a part of the stream, and where it ends; none where there is nothing to say."""
        if not chunk.data and not is_first and not chunk.end:
            return b"", position
        interval = cursor_after(self._cursor, time.time()) if self._cursor is not None else ""
        key = "events", position, chunk.stop, chunk.end, is_first, interval or int(time.time() // 20)
        made: tuple[bytes, int] | None = tail.made.get(key)
        if made is not None:
            return made
        data, stop = chunk.data, chunk.stop
        if self._is_plain and chunk.kind == "bytes":
            data = _whole(data, is_end=bool(chunk.end))
            stop = position + len(data)
        if not data and not is_first and not (chunk.end and chunk.is_all):
            return b"", position
        said = b""
        if data:
            said = b"event: data\n%b\n" % self._lines(data, is_json=self._is_json or chunk.kind == "items")
        is_all = chunk.is_all and stop == chunk.stop
        control: dict[str, object] = {"streamNextOffset": offset_of(stop, self.tag)}
        if not (is_all and chunk.end):
            control["streamCursor"] = interval or cursor_after(None, time.time())
        if is_all or (chunk.is_all and not chunk.end):
            control["upToDate"] = True
        if is_all and chunk.end:
            control |= {"streamClosed": True, "streamEnd": chunk.end}
        # The id is for an EventSource, which comes back by itself and says it.
        id_ = offset_of(stop, self.tag).encode()
        made = said + b"id: %b\nevent: control\ndata:%b\n\n" % (id_, msgspec.json.encode(control)), stop
        tail.remember(key, made)
        return made

    def _lines(self, data: bytes, *, is_json: bool) -> bytes:
        if is_json:
            data = b"[%b]" % data
        elif not self._is_plain:
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


async def watch(receive: Receive, response: OpenResponse) -> None:
    """End a response when its client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    response.end("gone")
