"""KeptStreams: streams as requests find them: whether one is there, has outlived its limit, and what it has. No HTTP.

Source: the Durable Streams protocol, 4 and 5.1 (https://github.com/durable-streams/durable-streams).
"""

from __future__ import annotations

import math
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from velocity_ws.cluster.topics import Topics
from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.streams.items import BY_REQUESTS, WRITER_SIZE, Begin, Query, Renewal, Summary, Times
from velocity_ws.streams.link import StreamLink
from velocity_ws.streams.notes import Meta, Note, read_note
from velocity_ws.streams.pieces import Kind, join
from velocity_ws.streams.requests import Found, Problem, readable, readable_from
from velocity_ws.streams.tail import Chunk

__all__ = ["FOR_EVER", "KeptStreams"]

ANSWER: Final = 1024 * 1024
"""Bytes of one answer, about."""
FOR_EVER: Final = 365 * 86400 * 1000
"""Milliseconds from its creation on after which a stream that was given no limit counts as dead while it is open."""
READ: Final = "\0r"
"""What the id begins with of a mark that says that a stream was there; no request has an id that begins so."""
LONGEST: Final = 50 * FOR_EVER
"""Milliseconds of the longest time that every engine counts; what is to last for longer is gone before."""
KNOWN: Final = 1000
"""Streams of which it is known when they were renewed last."""
RENEW: Final = 0.5
"""Seconds between two renewals of one stream, which reading causes."""
PARTS: Final = 4
"""Times that a stream is renewed in its time while somebody waits for more of it."""
PAUSE: Final = 5.0
"""Seconds between two such renewals at most."""


class KeptStreams:
    """The streams of an engine, as requests find them. On the broker's loop only."""

    def __init__(
        self, link: StreamLink, topics: Topics, times: Times, clock: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        """
        Args:
            link: the way to the engine.
            topics: of the cluster.
            times: how long things last that are not told otherwise.
            clock: seconds, never going back.
            wall: seconds since 1970.
        """
        self._link = link
        self._topics = topics
        self._times = times
        self._clock = clock
        self._wall = wall
        self._renewed: OrderedDict[str, float] = OrderedDict()

    async def find(self, id_: str, *, is_filling: bool = False) -> Found:
        """A stream as it is now.

        Args:
            id_: the stream's.
            is_filling: whether it may be one that does not have all yet of the one that it was forked from.

        Raises:
            Problem: there is none, or it is gone.
            BackplaneUnavailable: the engine did not answer.
        """
        found = await self._look(id_)
        if found is None or (not is_filling and found.note is not None and found.note.is_filling):
            raise Problem("missing", "there is no such stream")
        if found.stream.is_gone:
            raise Problem("gone", "what this stream said is kept no more", found)
        return found

    async def _look(self, id_: str) -> Found | None:
        """A stream that is there, be it that it is gone; one that has outlived its limit, or is to begin anew, is not.

        Raises:
            BackplaneUnavailable: the engine did not answer.
        """
        stream = await self._link.look(id_)
        return None if stream is None else self.judged(stream)

    def judged(self, stream: Summary) -> Found | None:
        """The same of what the engine has said."""
        note = read_note(stream.note) if stream.note else None
        is_own = stream.writer.startswith(BY_REQUESTS)
        if is_own and (stream.is_gone or note is None):  # gone, or begun and never filled
            return None
        if note is not None and self._is_over(stream, note):
            return None
        return Found(stream, note)

    def _is_over(self, stream: Summary, note: Note) -> bool:
        """Whether a stream has outlived its limit."""
        meta = note.meta
        if meta.expires is not None and self._wall() >= meta.expires:
            return True
        return meta.ttl is not None and ((not stream.end and not stream.left) or stream.end == "lost")

    def room_of(self, found: Found) -> str | None:
        """The room whose members read a stream; ``None`` for none."""
        return found.stream.room if self.is_of_room(found.stream) else None

    def is_of_room(self, stream: Summary) -> bool:
        """Whether members of a room read a stream."""
        return stream.topic != self._topics.stream(stream.id)

    async def remember(self, id_: str) -> None:
        """A stream of a room will be deleted. Its members go on where they were, by its id and how much they have: for
        a while nothing else may have it.

        Raises:
            BackplaneUnavailable: the engine did not answer; it may be done.
        """
        name, times = READ + id_, Times(self._times.memory, 1000, 1000)
        await self._link.begin(Begin(name, self._topics.stream(name), "", secrets.token_bytes(WRITER_SIZE), times))

    async def was_read(self, id_: str) -> bool:
        """Whether a stream of that id, of which members have some, was deleted not long ago.

        Raises:
            BackplaneUnavailable: the engine did not answer.
        """
        stream = await self._link.look(READ + id_)
        return stream is not None and bool(stream.left)

    async def kind_of(self, found: Found) -> Kind:
        """What a stream has; empty where it has nothing yet.

        Raises:
            BackplaneUnavailable: the engine did not answer.
        """
        part = await self._link.read(Query(found.stream.id, found.stream.topic, 0, 1))
        return next((piece.kind for piece in readable(part) if piece.kind), "")

    async def part(self, found: Found, position: int) -> Chunk:
        """What follows a position of a stream that was found, as far as one answer goes.

        Raises:
            Problem: it was deleted, or is gone.
            BackplaneUnavailable: the engine did not answer.
        """
        stream = found.stream
        if position >= stream.length:
            return Chunk("", position, position, b"", True, stream.end)
        part = await self._link.read(Query(stream.id, stream.topic, position, ANSWER))
        if part is None or part.stream.writer != stream.writer:
            raise Problem("missing", "the stream was deleted just now")
        if part.stream.is_gone:
            raise Problem("gone", "what this stream said is kept no more")
        pieces = readable_from(part, position)
        if not pieces:
            raise BackplaneUnavailable("the engine does not have what it said it has")
        whole = join(pieces)
        is_all = whole.stop >= part.stream.length
        return Chunk(whole.kind, position, whole.stop, whole.data, is_all, part.stream.end if is_all else "")

    async def touch(self, found: Found, *, is_write: bool = False) -> None:
        """A stream is read, or written: where it has a limit without either, that begins anew.

        Raises:
            BackplaneUnavailable: the engine did not answer.
        """
        stream, note = found
        if note is None or note.meta.ttl is None or stream.end:
            return
        now = self._clock()
        if not is_write and now < self._renewed.get(stream.id, now - RENEW) + RENEW:
            return
        self._renewed[stream.id] = now
        self._renewed.move_to_end(stream.id)
        if len(self._renewed) > KNOWN:
            self._renewed.popitem(last=False)
        await self._renew(stream, note.meta)

    def pause_of(self, stream: Summary) -> float:
        """Seconds between two renewals of a stream while somebody waits for more of it; infinite for none."""
        note = read_note(stream.note) if stream.note else None
        if note is None or note.meta.ttl is None:
            return math.inf
        return min(self.times_of(note.meta).lease / 1000 / PARTS, PAUSE)

    async def renew(self, stream: Summary) -> None:
        """Somebody waits for more of a stream, which is as good as that it is read now.

        Raises:
            BackplaneUnavailable: the engine did not answer.
        """
        note = read_note(stream.note)
        if note is not None:
            await self._renew(stream, note.meta)

    async def _renew(self, stream: Summary, meta: Meta) -> None:
        await self._link.renew([Renewal(stream.id, stream.topic, stream.writer, self.times_of(meta))])

    def times_of(self, meta: Meta) -> Times:
        """How long a stream lasts."""
        if meta.ttl is not None:
            ttl = max(1, meta.ttl) * 1000
            return Times(ttl, ttl, self._times.memory)
        if meta.expires is not None:
            left = min(max(1000, round((meta.expires - self._wall()) * 1000)), LONGEST)
            return Times(left, left, self._times.memory)
        return Times(FOR_EVER, self._times.ttl, self._times.memory)
