"""Forks: streams that begin with what another one has, and streams that are deleted while others began with theirs.

A fork gets a copy, piece by piece, so that it needs the other one no more. What is kept of who was forked from whom is
kept in a *book*, a stream of its own for each that was forked, which has notes and nothing else.

Source: the Durable Streams protocol, 4.2 (https://github.com/durable-streams/durable-streams).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, Literal

import msgspec

from velocity_ws.cluster.topics import Topics
from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.history.items import Refused
from velocity_ws.streams.durable import TRIES, Durable
from velocity_ws.streams.items import WRITER_SIZE, Append, Begin, Deletion, Query, Times
from velocity_ws.streams.kept_streams import FOR_EVER, KeptStreams
from velocity_ws.streams.link import StreamLink
from velocity_ws.streams.notes import Meta, Note
from velocity_ws.streams.pieces import Piece, pack
from velocity_ws.streams.requests import Appended, Found, Post, Problem, Said, readable, readable_from
from velocity_ws.streams.wire import Heads

__all__ = ["BOOK", "Forks"]

BOOK: Final = "\0f"
"""What the id of a book begins with, before that of the stream; no request has an id that begins so."""
PAGE: Final = 256 * 1024
MOST: Final = 1000
"""Forks that a stream may have at a time."""
AT_ONCE: Final = 100
"""Forks that are looked at together, which costs the engine one call."""
MOST_LOOKED: Final = 10 * MOST
"""Forks that are looked at, and forks of forks, to find one that is there."""
TIMES: Final = Times(FOR_EVER, 1000, 1000)


class Book(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of a stream that was forked.

    Attributes:
        forks: the ids of those that began with what it has, and perhaps of some that are gone.
        is_deleted: whether it was deleted since.
        source: the id of the one that it was forked from itself, once it is deleted; empty for none.
    """

    forks: tuple[str, ...] = ()
    is_deleted: bool = False
    source: str = ""


class Forks:
    """The streams of an engine, for requests, with those that were forked. On the broker's loop only."""

    def __init__(self, kept: KeptStreams, durable: Durable, link: StreamLink, topics: Topics, node_id: str) -> None:
        """
        Args:
            kept: the streams as they are found.
            durable: changes them, each by itself.
            link: the way to the engine.
            topics: of the cluster.
            node_id: this node's.
        """
        self._kept = kept
        self._durable = durable
        self._link = link
        self._topics = topics
        self._node_id = node_id

    async def find(self, id_: str) -> Found:
        """As `KeptStreams.find`; what was deleted while others had begun with it is gone, and not missing."""
        async with self._told_gone(id_):
            return await self._kept.find(id_)
        raise AssertionError("it returns, or raises")

    async def append(self, id_: str, post: Post, parse: Callable[[Note, str], Said]) -> Appended:
        """As `Durable.append`, and as `find` of what is not there."""
        async with self._told_gone(id_):
            return await self._durable.append(id_, post, parse)
        raise AssertionError("it returns, or raises")

    @asynccontextmanager
    async def _told_gone(self, id_: str) -> AsyncIterator[None]:
        try:
            yield
        except Problem as problem:
            if problem.why == "missing" and await self.is_kept(id_):
                raise Problem("gone", "the stream was deleted, and others that began with it are there") from None
            raise

    async def is_kept(self, id_: str) -> bool:
        """Whether a stream was deleted, and one that began with it is there.

        Raises:
            BackplaneUnavailable: the engine did not answer.
        """
        book = await self._book(id_)
        if book is None or not book.is_deleted:
            return False
        if await self._has_living(id_, book):
            return True
        await self._close_book(id_, book)
        return False

    async def fork(
        self, id_: str, room: str | None, meta: Meta, source: Found, said: Said, *, is_closed: bool
    ) -> Appended:
        """Create a stream that begins with what another one has, or find that it is there.

        Args:
            id_: of the new one.
            room: whose members read it.
            meta: what it is like, with where it begins.
            source: the other one.
            said: what comes behind that.
            is_closed: whether that is all.

        Raises:
            Problem: there is another one of that id, or the other one has too many forks, or it would be too large.
            BackplaneUnavailable: the engine did not answer; it may be there.
        """
        await self._check_size(id_, room, meta, source, said)
        await self._make_space(source, id_)
        await self._change_book(source.stream.id, lambda book: _with(book, id_))
        created = await self._durable.create(id_, room, meta, Said("", 0, b""), is_closed=is_closed)
        found = created.found
        for _ in range(TRIES):
            if found.note is None or found.note.meta.differs(meta):
                raise Problem("conflict", "others have created another stream of this id", found)
            if not found.note.is_filling:
                return Appended(found, is_new=created.is_new)
            filled = await self._fill(found, source, said, is_closed=is_closed)
            found = filled if filled is not None else await self._kept.find(id_, is_filling=True)
        raise BackplaneUnavailable("others create this stream at the same time")

    async def delete(self, id_: str) -> None:
        """Delete a stream; where others began with it, its id stays taken until they are gone.

        Raises:
            Problem: there is none, or it is the application's.
            BackplaneUnavailable: it may be done, or not.
        """
        async with self._told_gone(id_):
            found = await self._kept.find(id_, is_filling=True)  # one that is half made is in nobody's way then
        source = "" if found.note is None else found.note.meta.source
        book = await self._book(id_)
        living = () if book is None else await self._living(id_, book)
        if living:
            gone = {fork for fork in ([] if book is None else book.forks) if fork not in living}
            await self._change_book(id_, lambda book: Book(_without(book, gone), True, source))
        await self._durable.delete(id_)
        if not living:
            await self._close_book(id_, Book(source=source))

    async def next_stop(self, found: Found, position: int) -> int:
        """Where the piece of a stream ends that has what follows a position.

        Raises:
            BackplaneUnavailable: the engine did not answer.
        """
        part = await self._link.read(Query(found.stream.id, found.stream.topic, position, 1))
        return next((piece.stop for piece in readable(part) if piece.start <= position < piece.stop), position)

    # --- copies

    async def _check_size(self, id_: str, room: str | None, meta: Meta, source: Found, said: Said) -> None:
        """Look whether a fork would be too large: by how many characters it has, and by its bytes where that is close.

        Raises:
            Problem: it would be.
            BackplaneUnavailable: the engine did not answer.
        """
        stream, until = source.stream, meta.forked_at
        self._durable.check_fork(id_, room, meta, until, 1 if until else 0, said)
        most = until if source.note is None else source.note.size
        with contextlib.suppress(Problem):
            self._durable.check_fork(id_, room, meta, most, stream.pieces, said)
            return
        at = copied = pieces = 0
        while at < until:
            part = await self._link.read(Query(stream.id, stream.topic, at, PAGE))
            found = readable_from(part, at, until)
            if not found:
                break  # it was deleted just now
            at, copied, pieces = found[-1].stop, copied + sum(len(each.data) for each in found), pieces + len(found)
        self._durable.check_fork(id_, room, meta, copied, pieces, said)

    async def _fill(self, found: Found, source: Found, said: Said, *, is_closed: bool) -> Found | None:
        """Copy what follows; the fork then, ``None`` where somebody else did so at the same time."""
        until = 0 if found.note is None else found.note.meta.forked_at
        at = found.stream.length
        if at >= until:
            return await self._durable.fill(found, said, is_all=True, is_closed=is_closed)
        part = await self._link.read(Query(source.stream.id, source.stream.topic, at, PAGE))
        pieces = readable_from(part, at, until)
        if not pieces or part is None or part.stream.writer != source.stream.writer:
            raise Problem("missing", "the stream that this one begins with was deleted just now")
        filled: Found | None = found
        for piece in pieces:
            if filled is not None:
                filled = await self._durable.fill(filled, Said(piece.kind, piece.length, piece.data), is_all=False)
        return filled

    # --- books

    async def _book(self, id_: str) -> Book | None:
        stream = await self._link.look(BOOK + id_)
        return None if stream is None or not stream.note else msgspec.msgpack.decode(stream.note, type=Book)

    async def _living(self, id_: str, book: Book) -> tuple[str, ...]:
        """Those of its forks that are there, be it that they were deleted and have forks themselves."""
        living: list[str] = []
        for start in range(0, len(book.forks), AT_ONCE):
            batch = book.forks[start : start + AT_ONCE]
            found = await asyncio.gather(*[self._state(id_, fork) for fork in batch])
            for fork, state in zip(batch, found, strict=True):
                if state is True or (state is not None and await self._has_living(fork, state)):
                    living.append(fork)
        return tuple(living)

    async def _has_living(self, id_: str, book: Book) -> bool:
        """Whether one of its forks is there, or one of those of a fork that was deleted, and so on."""
        waiting = deque((id_, fork) for fork in reversed(book.forks))  # the newest is there most likely
        known = {id_}
        count, left = 1, MOST_LOOKED
        while waiting:
            batch = [waiting.popleft() for _ in range(min(count, len(waiting)))]
            left -= len(batch)
            if left < 0:
                return True  # for all that is known; what ends the last of them ends those above
            found = await asyncio.gather(*[self._state(source, fork) for source, fork in batch])
            if True in found:
                return True
            for (_, fork), state in zip(batch, found, strict=True):
                if isinstance(state, Book) and fork not in known:
                    known.add(fork)
                    waiting.extendleft((fork, other) for other in state.forks)
            count = min(count * 8, AT_ONCE)
        return False

    async def _state(self, id_: str, fork: str) -> Literal[True] | Book | None:
        """What is there of a fork: itself (``True``), its book where it was deleted while it had forks, or nothing."""
        try:
            note = (await self._kept.find(fork, is_filling=True)).note
        except Problem:
            book = await self._book(fork)
            return book if book is not None and book.is_deleted and book.source == id_ else None
        return True if note is not None and note.meta.source == id_ else None

    async def _make_space(self, source: Found, fork: str) -> None:
        """A book that is full loses those that are gone.

        Raises:
            Problem: all of them are there.
        """
        id_ = source.stream.id
        book = await self._book(id_)
        if book is None or len(book.forks) < MOST or fork in book.forks:
            return
        living = await self._living(id_, book)
        gone = set(book.forks).difference(living)
        if not gone:
            raise Problem("conflict", f"a stream may have {MOST} forks at a time, and this one has", source)
        await self._change_book(id_, lambda book: msgspec.structs.replace(book, forks=_without(book, gone)))

    async def _change_book(self, id_: str, change: Callable[[Book], Book]) -> None:
        topic = self._topics.stream(BOOK + id_)
        begin = Begin(BOOK + id_, topic, "", secrets.token_bytes(WRITER_SIZE), TIMES)
        for _ in range(TRIES):
            stream = (await self._link.begin(begin)).stream
            if stream.pieces:
                stream = await self._link.look(BOOK + id_) or stream
            old = msgspec.msgpack.decode(stream.note, type=Book) if stream.note else Book()
            note = msgspec.msgpack.encode(change(old))
            payload = pack(Piece(stream.pieces, 0, 0, "", "", b"", note))
            head = Heads(self._node_id, None, BOOK).of(len(payload))
            (written,) = await self._link.append([Append(BOOK + id_, topic, stream.writer, payload, head)])
            if isinstance(written, Refused):
                raise BackplaneUnavailable(str(written))
            if written.is_taken:
                return
        raise BackplaneUnavailable("others fork this stream at the same time")

    async def _close_book(self, id_: str, book: Book) -> None:
        """A stream is deleted, and has no forks any more: so is what is kept of it, and of those it was forked from."""
        while True:
            stream = await self._link.look(BOOK + id_)
            if stream is not None:
                await self._link.delete(Deletion(stream.id, stream.topic, stream.writer))
            if not book.source:
                return
            above = await self._book(book.source)
            if above is None or not above.is_deleted or await self._has_living(book.source, above):
                return
            id_, book = book.source, above


def _without(book: Book, gone: set[str]) -> tuple[str, ...]:
    return tuple(fork for fork in book.forks if fork not in gone)


def _with(book: Book, fork: str) -> Book:
    return msgspec.structs.replace(book, forks=(*[each for each in book.forks if each != fork], fork))
