"""Asking: what is done with streams by their ids, on whatever node they are written: begun, looked at, read, ended.

Knows the engine, and no client.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.history.items import Refused
from velocity_ws.stream_errors import StreamError, StreamGone, StreamNotFound
from velocity_ws.streams.items import (
    BY_REQUESTS,
    WRITER_SIZE,
    Append,
    Began,
    Begin,
    End,
    Ending,
    Query,
    Summary,
    Times,
)
from velocity_ws.streams.link import StreamLink
from velocity_ws.streams.pieces import HEADER_SIZE, InvalidPiece, Piece, pack, unpack
from velocity_ws.streams.values import StreamState, state_of
from velocity_ws.streams.wire import Heads

__all__ = ["Asking"]

TRIES = 3
"""Times that something is asked of an engine that did not say whether it was done."""
AGAIN = 0.2
"""Seconds between them."""
MOST_UNSURE = 1000
"""Begins of which it is not known whether they were done, and which are done again in the same way."""


class Asking:
    """The streams of an engine. On the broker's loop only."""

    def __init__(
        self,
        link: StreamLink,
        node_id: str,
        times: Times,
        topic_of: Callable[[str], str],
        ended: Callable[[Summary], None] = lambda _: None,
    ) -> None:
        """
        Args:
            link: the way to the engine.
            node_id: this node's.
            times: how long things last.
            topic_of: the topic of a room.
            ended: told of a stream that was ended here, as its end is not heard by who publishes it.
        """
        self._link = link
        self._node_id = node_id
        self._times = times
        self._topic_of = topic_of
        self._ended = ended
        self._unsure: dict[str, bytes] = {}

    async def begin(self, id_: str, room: str) -> tuple[Begin | None, Summary, bool]:
        """Begin a stream, or find the one that is there.

        Returns:
            What it was begun with, where it is this call's to write; the stream; and whether it was forbidden before.

        Raises:
            StreamGone: it ended so long ago that nothing is kept of it.
            StreamError: it is of another room, or written over HTTP.
            BackplaneUnavailable: the engine did not answer.
        """
        token = self._unsure.pop(id_, None) or secrets.token_bytes(WRITER_SIZE)
        begin = Begin(id_, self._topic_of(room), room, token, self._times)
        try:
            began = await self._try(begin)
        except (BackplaneUnavailable, asyncio.CancelledError):
            self._unsure[id_] = token  # a start of it here is by the writer that may be there by now
            if len(self._unsure) > MOST_UNSURE:
                del self._unsure[next(iter(self._unsure))]  # the oldest, whose lease is over
            raise
        stream = began.stream
        if stream.is_gone:
            raise StreamGone(id_)
        if stream.room != room:
            raise StreamError(id_, f"is one of room {stream.room!r:.80}: an id has one room, so take another id")
        if stream.writer.startswith(BY_REQUESTS):
            raise StreamError(id_, "is written over HTTP, by programs with a key, so take another id")
        if stream.writer != token:
            return None, await self._settled(stream), False
        return begin, stream, began.is_forbidden

    async def _try(self, begin: Begin) -> Began:
        for left in reversed(range(TRIES)):
            try:
                return await self._link.begin(begin)
            except BackplaneUnavailable as error:
                if error.outcome != "unknown" or not left:
                    raise
                await asyncio.sleep(AGAIN)
        raise AssertionError("it was tried")

    async def look(self, id_: str) -> Summary:
        """A stream that is kept.

        Raises:
            StreamGone: it ended so long ago that nothing is kept of it.
            StreamNotFound: there is none.
            BackplaneUnavailable: the engine did not answer.
        """
        stream = await self._link.look(id_)
        if stream is None:
            raise StreamNotFound(id_)
        if stream.is_gone:
            raise StreamGone(id_)
        return await self._settled(stream)

    async def read(self, id_: str) -> StreamState:
        """A stream with all that it has said so far. Raises what `look` does."""
        stream = await self.look(id_)
        pieces: list[Piece] = []
        length = 0
        while True:
            part = await self._link.read(Query(id_, stream.topic, length))
            if part is None:
                raise StreamNotFound(id_)
            if part.stream.is_gone:
                raise StreamGone(id_)
            found = _new(part.payloads, length)
            pieces += found
            if not found or found[-1].stop >= part.stream.length:
                return state_of(part.stream, pieces)
            length = found[-1].stop

    async def listed(self, room: str) -> list[Summary]:
        """The streams of a room that are kept, the newest first.

        Raises:
            BackplaneUnavailable: the engine did not answer.
        """
        found = await self._link.listed(self._topic_of(room))
        return await asyncio.gather(*[self._settled(stream) for stream in found])

    async def cancel(self, id_: str, room: str | None = None) -> bool:
        """End a stream as ``cancelled``, or forbid that it begins; whether it is cancelled, or will be.

        Args:
            id_: the stream's.
            room: the only one of which the stream may be; ``None`` for any.

        Raises:
            StreamNotFound: it is one of another room.
            StreamGone: it is of the room that was named, and nothing is kept of it.
            BackplaneUnavailable: it is not known whether it was done.
        """
        stream = await self._link.look(id_)
        if stream is None:
            await self._link.forbid(id_, self._times.ttl + self._times.memory)
            stream = await self._link.look(id_)  # it may have begun meanwhile
            if stream is None:
                return True
        if room is not None:
            _check(stream, room)
        if not stream.end and not stream.is_gone:
            stream = await self.end(stream, "cancelled") or stream
        return stream.end == "cancelled"

    async def end(self, stream: Summary, end: End, *, is_of_dead: bool = False) -> Summary | None:
        """End a stream of another writer; the stream as it is then.

        Raises:
            BackplaneUnavailable: it is not known whether it was done.
        """
        if stream.writer.startswith(BY_REQUESTS):
            return await self._end_with_note(stream.id, end, is_of_dead=is_of_dead)
        head = Heads(self._node_id, stream.room, stream.id).of(HEADER_SIZE)
        ended = await self._link.end(Ending(stream.id, stream.topic, end, head, is_of_dead))
        if ended is not None and ended.end:
            self._ended(ended)
        return ended

    async def _end_with_note(self, id_: str, end: End, *, is_of_dead: bool) -> Summary | None:
        """The same of a stream that requests write, of which any node may say the next piece: its note stays."""
        while True:
            stream = await self._link.look(id_)
            if stream is None or stream.end or stream.is_gone or (is_of_dead and stream.left):
                return stream
            payload = pack(Piece(stream.pieces, stream.length, 0, "", end, b"", stream.note))
            head = Heads(self._node_id, stream.room or None, id_).of(len(payload))
            (written,) = await self._link.append([Append(id_, stream.topic, stream.writer, payload, head)])
            if isinstance(written, Refused):
                raise BackplaneUnavailable(str(written))
            if written.is_taken:
                ended = stream._replace(pieces=stream.pieces + 1, end=end, left=0)
                self._ended(ended)
                return ended

    async def _settled(self, stream: Summary) -> Summary:
        """A stream whose end is known, if its writer is dead."""
        if stream.end or stream.left or stream.is_gone or not self._link.is_steady:
            return stream
        return await self.end(stream, "lost", is_of_dead=True) or stream


def _check(stream: Summary, room: str) -> None:
    if stream.room != room:
        raise StreamNotFound(stream.id)
    if stream.is_gone:
        raise StreamGone(stream.id)


def _new(payloads: list[bytes], length: int) -> list[Piece]:
    """The pieces that follow a number of characters, or items; up to one that cannot be read."""
    found: list[Piece] = []
    for payload in payloads:
        try:
            piece = unpack(payload).after(length)
        except InvalidPiece:
            break
        if piece.length and piece.start == length:
            found.append(piece)
            length = piece.stop
    return found
