"""Stream reading: what a GET of a stream is answered: what there is, what comes next, or all that comes, as events.

Source: the Durable Streams protocol, 5.5 to 5.8 and 10 (https://github.com/durable-streams/durable-streams).
"""

from __future__ import annotations

import time
from typing import Final

from starlette.responses import Response
from starlette.types import Send

from velocity_ws.asgi.stopping import OpenResponse
from velocity_ws.asgi.stream_answers import NO_STORE, headers_of
from velocity_ws.asgi.stream_events import EventForm
from velocity_ws.asgi.stream_feeds import EventReader, Feeds
from velocity_ws.asgi.stream_forms import JSON, cursor_after, etag_of, offset_of, tag_of
from velocity_ws.streams.items import End
from velocity_ws.streams.requests import Found
from velocity_ws.streams.tail import Chunk
from velocity_ws.streams.tails import Tails

__all__ = ["LIFE", "LONG_POLL", "Reading"]

LONG_POLL: Final = 20.0
"""Seconds that a request waits for something to come."""
LIFE: Final = 60.0
"""Seconds after which a stream of events ends, to be asked for again: who may read is asked again with it."""
PRIVATE: Final = "private, no-cache"


class Reading:
    """A request for a stream that was found, and may be read.

    Attributes:
        content_type: of the stream.
        tag: of its offsets.
    """

    __slots__ = ("_cursor", "_form", "_id", "_length", "_position", "_tails", "_writer", "content_type", "tag")

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
        self._id = found.stream.id
        self._writer = found.stream.writer
        self._length = found.stream.length
        self._position = position
        self._cursor = cursor
        self.content_type = content_type
        self.tag = tag_of(found)
        self._form = EventForm(content_type, self.tag)

    # --- what there is

    def answer(self, chunk: Chunk, *, if_none_match: str, is_live: bool = False, is_now: bool = False) -> Response:
        """The answer that has a part of the stream.

        Args:
            chunk: the part.
            if_none_match: of the request.
            is_live: whether it was waited for.
            is_now: whether it was asked for what comes from now on.
        """
        end: End = chunk.end if chunk.is_all else ""
        headers = self._headers(chunk.stop, is_all=chunk.is_all, end=end)
        headers["cache-control"] = NO_STORE if is_live or is_now else PRIVATE
        if is_live:
            if not chunk.data:
                return self._nothing(headers, is_closed=bool(end))
            headers["stream-cursor"] = cursor_after(self._cursor, time.time())
        if not is_now:  # which the protocol has no tag for: 8
            etag = headers["etag"] = etag_of(chunk.start, chunk.stop, self.tag, is_all=chunk.is_all, end=end)
            if not is_live and etag in [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]:
                return Response(status_code=304, headers=headers)
        is_json = self._form.is_json or chunk.kind == "items"  # the application's may have had nothing as it was found
        content_type = JSON if is_json and not self._form.is_json else self.content_type
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

    async def wait(self, feeds: Feeds, response: OpenResponse) -> Response | None:
        """The answer to a long poll: what comes, as soon as it does, or nothing, after a while; ``None`` for nobody.

        Raises:
            StreamNotFound, StreamGone: it was deleted, or ended long ago.
            BackplaneUnavailable: the engine did not answer.
        """
        id_, position = self._id, self._position
        feed = feeds.of(self._tails, id_, self._writer, self._form)
        try:
            if await feed.poll(response, position) and not await response.wait():
                return None
        finally:
            feed.poll_no_more(response)
        if response.error is not None:
            raise response.error
        chunk = Chunk("", position, position, b"", True, "")
        if response.why in ("", "over"):  # "": it was there already
            chunk = await self._tails.read(id_, position, 0, writer=self._writer)
        return self.answer(chunk, if_none_match="", is_live=True)

    # --- all that comes

    async def send_events(self, feeds: Feeds, response: OpenResponse, extra: dict[str, str], send: Send) -> None:
        """Answer with a stream of events, until the stream or the time for it ends, or the client goes."""
        headers = {
            **extra,
            "content-type": "text/event-stream",
            "cache-control": "no-cache, no-store",
            "x-accel-buffering": "no",  # of nginx, which would read ahead
        }
        if not self._form.is_plain:
            headers["stream-sse-data-encoding"] = "base64"
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        del headers, raw, extra  # which would be kept for as long as it takes
        feed = feeds.of(self._tails, self._id, self._writer, self._form)
        cursor = int(cursor_after(self._cursor, time.time()))
        reader = EventReader(send, response, self._position, cursor)
        try:
            feed.add(reader, self._length)
            is_there = await response.wait()
        finally:
            feed.remove(reader)
        if is_there:
            await response.finish(send({"type": "http.response.body", "body": b"", "more_body": False}))
