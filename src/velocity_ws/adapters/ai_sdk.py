"""AI SDK: streams as the UI messages of Vercel's AI SDK, in and out: ``useChat`` reads them, and resumes.

Out: `UIMessageStreamResponse` and `resume`, what the AI SDK's ``DefaultChatTransport`` asks for by HTTP. In: `chunks`,
from a backend that speaks it. Tested with ``ai`` 5.0, 6.0 and 7.0 of npm.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, Final, Protocol

import msgspec
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from velocity_ws.adapters.halves import Halves
from velocity_ws.adapters.message import Chunk
from velocity_ws.adapters.stopping import last_moment
from velocity_ws.adapters.ui_events import DONE, events_of
from velocity_ws.adapters.ui_telling import Telling
from velocity_ws.adapters.upstream import Upstream, opened
from velocity_ws.broker.broker import Broker
from velocity_ws.broker.stream_handles import StreamReader
from velocity_ws.broker.streams_api import StreamsAPI
from velocity_ws.errors import BackplaneUnavailable, UpstreamError
from velocity_ws.settings import Settings
from velocity_ws.stream_errors import StreamGone, StreamNotFound

__all__ = ["UIMessageStreamResponse", "chunks", "resume"]

ERROR_TEXTS: Final[Mapping[str, str]] = {
    "error": "The answer has failed.",
    "lost": "The answer was interrupted.",
}
HEADERS: Final = {
    "cache-control": "no-cache",
    "x-accel-buffering": "no",  # which nginx reads
    "x-vercel-ai-ui-message-stream": "v1",
}
KEEP_ALIVE: Final = 15.0
"""Seconds of silence after which a comment is sent, so that proxies keep the connection."""
FIRST: Final = 1.0
"""Seconds that the engine has to say that there is no such stream, before the response begins."""
OVER: Final = object()
DELTAS: Final = ("delta", "inputTextDelta")
"""What has more of a text in a chunk, which may be cut in the middle of a character."""
AGAIN: Final = 1.0
"""Seconds after which an engine that did not answer is asked again."""


class HasStreams(Protocol):
    """A `Broker`, or an `Emitter`."""

    @property
    def streams(self) -> StreamsAPI:
        """What is done with the streams that it reaches."""


class UIMessageStreamResponse(StreamingResponse):
    """A stream as a UI message of the AI SDK, from its beginning, then live.

    ``return UIMessageStreamResponse(broker, stream_id)``, in a route. A text is one part of text. Items are the chunks
    of the protocol, as `chunks` and the other adapters make them; another item is a part ``data-item``. An id that the
    engine does not know (any more) is answered 204. The end is told:

    * ``done``: ``finish``
    * ``error``: an ``error`` part
    * ``cancelled``: an ``abort`` part
    * ``lost``: both of these, as ``useChat`` passes over an ``abort``

    A client that goes changes nothing for the stream. Who may read it is decided by the route. Where the server stops
    first it ends as for ``lost``, ``WS_DRAIN_TIMEOUT`` after that was asked for. From any loop.
    """

    def __init__(
        self,
        broker: HasStreams,
        stream_id: str,
        *,
        message_id: str | None = None,
        error_texts: Mapping[str, str] = ERROR_TEXTS,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            broker: the broker, or an emitter.
            stream_id: the stream's.
            message_id: the message's; by default that of the stream. It has to be the same each time: by it a page
                knows that it has the message already. Who goes on with a message of the page, as after the result of a
                tool that ran there, gives the id of that.
            error_texts: what is told of the ends ``error`` and ``lost``.
            headers: more headers.

        Raises:
            InvalidNameError: the id is no string of 1 to 256 characters.
        """
        self._reader = broker.streams.follow(stream_id)
        self._telling = Telling(message_id or stream_id, error_texts)
        self._seconds = broker.settings.drain_timeout if isinstance(broker, Broker) else _drain_timeout()
        super().__init__(self._body(), headers={**HEADERS, **(headers or {})}, media_type="text/event-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        self._next = self._ask()
        try:
            await asyncio.wait([self._next], timeout=FIRST)
            if self._next.done() and self._is_missing():
                await Response(status_code=204)(scope, receive, send)
            else:
                await super().__call__(scope, receive, send)
        finally:
            self._next.cancel()
            await asyncio.wait([self._next])
            if not self._next.cancelled():
                self._next.exception()  # which nobody waits for any more

    def _ask(self) -> asyncio.Task[Any]:
        return asyncio.create_task(_read(self._reader), name="velocity-ws ui message")

    def _is_missing(self) -> bool:
        """Whether what was first said of the stream is that there is none.

        Raises:
            BrokerError, SettingsError: it cannot be asked for.
        """
        return self._next.result() is OVER and self._reader.end is None

    async def _body(self) -> AsyncIterator[bytes]:
        telling = self._telling
        yield _event(telling.start())
        with last_moment(self._seconds) as moment:
            while True:
                while not (await asyncio.wait([self._next, moment], timeout=KEEP_ALIVE, return_when="FIRST_COMPLETED"))[
                    0
                ]:
                    yield b": keep-alive\n\n"
                if not self._next.done():  # the server waits for this response before it stops
                    break
                said = self._next.result()
                if said is OVER:
                    break
                self._next = self._ask()
                yield b"".join([_event(chunk) for chunk in telling.take(said)])
        end = self._reader.end or "lost"  # where the engine has it no more
        yield b"".join([*(_event(chunk) for chunk in telling.end(end)), b"data: %b\n\n" % DONE.encode()])


@functools.cache
def _drain_timeout() -> float:
    """That of the environment, for an emitter, which has no settings; read once, and not for each response."""
    return Settings().drain_timeout


async def resume(broker: HasStreams, room: str, **options: Any) -> Response:
    """Answer ``GET /api/chat/{id}/stream``, with which ``useChat({ resume: true })`` comes back: what runs in a room.

    From any loop, in a coroutine.

    Args:
        broker: the broker, or an emitter.
        room: the room of the chat; the newest of its streams that has not ended is given.
        options: those of `UIMessageStreamResponse`.

    Returns:
        A `UIMessageStreamResponse`, or status 204 where nothing runs.

    Raises:
        BackplaneUnavailable: the engine did not answer.
        InvalidNameError: the room is no string of at most 256 characters.
    """
    for stream in await broker.streams.list(room):
        if stream.end is None:
            return UIMessageStreamResponse(broker, stream.id, **options)
    return Response(status_code=204)


async def chunks(upstream: Upstream) -> AsyncGenerator[Chunk, None]:
    """The chunks that a backend says, for ``source=``: ``ai_sdk.chunks(response.aiter_text())``.

    From any loop, in a coroutine.

    Args:
        upstream: chunks, or the text or bytes of a response of the protocol, cut anywhere. It is closed in the end.

    Raises:
        UpstreamError: the backend has said that it has failed, in an ``error`` part, which is given before; or its
            response has ended without ``[DONE]``; or what it says is no JSON.
    """
    async with opened(upstream) as said, aclosing(events_of(said)) as events:
        halves = Halves()
        async for chunk in events:
            for name in DELTAS:
                if isinstance(delta := chunk.get(name), str):
                    chunk[name] = halves.join(f"{chunk.get('type')} {chunk.get('id', chunk.get('toolCallId'))}", delta)
            yield chunk
            if chunk.get("type") == "error":
                raise UpstreamError(f"the backend has failed: {chunk.get('errorText')}")


async def _read(reader: StreamReader) -> Any:
    """What a stream says next; `OVER` where that is nothing. An engine that is away is waited for.

    Raises:
        BrokerError: the broker has stopped.
    """
    while True:
        try:
            return await anext(reader, OVER)
        except BackplaneUnavailable:
            await asyncio.sleep(AGAIN)
        except (StreamNotFound, StreamGone):
            return OVER


def _event(chunk: Chunk) -> bytes:
    return b"data: %b\n\n" % msgspec.json.encode(chunk)
