"""Durable: streams that clients write over HTTP, by any node: created, appended to, closed, deleted. Knows no HTTP.

Nobody holds such a stream: a request that appends says which piece it is, and the engine takes one of that number. What
says whether a request may append at all (`notes`) is kept in one step with the piece, as of the piece before.

Source: the Durable Streams protocol, 4 and 5 (https://github.com/durable-streams/durable-streams).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec

from velocity_ws.cluster.topics import Topics
from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.history.items import Refused
from velocity_ws.streams.items import (
    BY_REQUESTS,
    WRITER_SIZE,
    Append,
    Begin,
    Deletion,
    End,
    Query,
    Summary,
)
from velocity_ws.streams.kept_streams import KeptStreams
from velocity_ws.streams.link import StreamLink
from velocity_ws.streams.notes import Meta, Note, read_note
from velocity_ws.streams.pieces import Piece, pack
from velocity_ws.streams.requests import Appended, Found, Post, Problem, Said, judge, readable
from velocity_ws.streams.turns import Turns
from velocity_ws.streams.wire import Heads

__all__ = ["TRIES", "Durable"]

TRIES: Final = 100
"""Times that an append is tried anew, as others were first each time."""
AGAIN: Final = 3
"""Times that the engine is asked where it did not say whether it was done."""
PAUSE: Final = 0.2
CACHED: Final = 1000
"""Streams of which it is known, from the last append here, how they are."""


class Durable:
    """The streams of an engine, for requests. On the broker's loop only."""

    def __init__(
        self,
        kept: KeptStreams,
        link: StreamLink,
        topics: Topics,
        node_id: str,
        limit: int,
        took: Callable[[str | None, str, bytes], None],
        wall: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            kept: the streams as they are found.
            link: the way to the engine.
            topics: of the cluster.
            node_id: this node's.
            limit: bytes that the pieces of a stream may have, with what is kept with each.
            took: told of the room, the id and the payload of each piece that the engine has taken here.
            wall: seconds since 1970.
        """
        self._kept = kept
        self._link = link
        self._topics = topics
        self._node_id = node_id
        self._limit = limit
        self._took = took
        self._wall = wall
        self._cache: OrderedDict[str, Found] = OrderedDict()
        self._turns = Turns()

    async def create(self, id_: str, room: str | None, meta: Meta, said: Said, *, is_closed: bool) -> Appended:
        """Create a stream, or find that it is there as it is asked for.

        Args:
            id_: the stream's.
            room: whose members read it; ``None`` for none.
            meta: what it is like.
            said: what it begins with.
            is_closed: whether that is all.

        Raises:
            Problem: there is another one of that id.
            BackplaneUnavailable: the engine did not answer; it may be there.
        """
        begun = _grown(Note(meta, _nonce(), is_filling=bool(meta.source)), said)
        self._check_size(id_, room, begun, said)
        topic = self._topics.stream(id_) if room is None else self._topics.room(room)
        async with self._turns.alone(id_):
            for _ in range(TRIES):
                begin = Begin(id_, topic, room or "", _writer(), self._kept.times_of(meta))
                stream = (await self._link.begin(begin)).stream
                if stream.writer != begin.writer:
                    stream = await self._link.look(id_) or stream  # with its note
                found = self._kept.judged(stream)
                if found is not None and not _is_half_of_another(found, meta):
                    return self.same(found, room, meta, is_closed=is_closed)
                if (
                    found is not None
                    or stream.pieces
                    or stream.end
                    or stream.is_gone
                    or (stream.topic, stream.room) != begin[1:3]
                ):
                    await self._delete(stream)  # it has outlived its limit, or nobody could read it
                    continue
                if room is not None and await self._kept.was_read(id_):
                    await self._link.delete(Deletion(id_, topic, begin.writer))
                    text = "a stream of a room had this id, and was deleted: members have some of it; take another id"
                    raise Problem("conflict", text)
                taken = await self._append(stream, begun, said, "done" if is_closed and not meta.source else "")
                if taken is not None:
                    return Appended(taken, is_new=True)
        raise BackplaneUnavailable("others create and delete this stream at the same time")

    def same(self, found: Found, room: str | None, meta: Meta, *, is_closed: bool) -> Appended:
        """A stream that is there, where it is as it is asked for.

        Raises:
            Problem: it is another one.
        """
        stream, note = found
        if note is None or stream.is_gone:
            raise Problem("conflict", "there is, or was, a stream of this id that is not to be written so", found)
        what = note.meta.differs(meta)
        if self._kept.room_of(found) != room:
            what = "is of another room"
        elif not what and not note.is_filling and found.is_closed != is_closed:
            what = "is closed" if found.is_closed else "is not closed"
        if what:
            raise Problem("conflict", f"there is a stream of this id, which {what}", found)
        return Appended(found, is_new=False)

    async def append(
        self,
        id_: str,
        post: Post,
        parse: Callable[[Note, str], Said],
    ) -> Appended:
        """Append to a stream, or close it, or both in one step.

        Args:
            id_: the stream's.
            post: what is asked for.
            parse: what is appended, for what the stream is like, and its room; raises `Problem`.

        Raises:
            Problem: it is not done.
            BackplaneUnavailable: it may be done, or not.
        """
        async with self._turns.alone(id_):
            known = self._cache.pop(id_, None)
            if known is not None:
                # It may be old, as other nodes write, too: what it says is sure only where the engine takes the piece.
                with contextlib.suppress(Problem):
                    if (done := await self._attempt(known, post, parse)) is not None and done.is_new:
                        return done
            for _ in range(TRIES):
                done = await self._attempt(await self._kept.find(id_), post, parse)
                if done is not None:
                    return done
        raise BackplaneUnavailable("others write this stream at the same time, each time before this one")

    async def _attempt(self, found: Found, post: Post, parse: Callable[[Note, str], Said]) -> Appended | None:
        """Append to a stream as it was found; ``None`` where it was otherwise by then. Raises what `append` does."""
        now = self._wall()
        done = judge(found, post, now)
        if done is not None:
            return done
        stream, note = found
        content_type, seq, producer, is_closing = post
        if note is None:
            raise AssertionError("the last line has looked at it")
        said = parse(note, stream.room) if content_type is not None else Said("", 0, b"")
        after = msgspec.structs.replace(
            note,
            nonce=_nonce(),
            seq=note.seq if seq is None else seq,
            closed_by=producer if is_closing else None,
        )
        if producer is not None:
            after = after.with_producer(producer, now)
        after = _grown(after, said)
        self._check_size(stream.id, self._kept.room_of(found), after, said)
        taken = await self._append(stream, after, said, "done" if is_closing else "")
        if taken is None:
            return None
        if not is_closing:
            self._keep(taken)
            with contextlib.suppress(BackplaneUnavailable):  # it is written, and is not to be sent again
                await self._kept.touch(taken, is_write=True)
        return Appended(taken, is_new=True, producer=producer)

    async def fill(self, found: Found, said: Said, *, is_all: bool, is_closed: bool = False) -> Found | None:
        """Append what a stream has of the one it was forked from; the stream then, ``None`` where others were first."""
        stream, note = found
        if note is None:
            return None
        after = _grown(Note(note.meta, _nonce(), size=note.size, is_filling=not is_all), said)
        return await self._append(stream, after, said, "done" if is_closed else "")

    async def delete(self, id_: str) -> Found:
        """Delete a stream; what it was.

        Raises:
            Problem: there is none, or it is the application's.
            BackplaneUnavailable: it may be done, or not.
        """
        async with self._turns.alone(id_):
            found = await self._kept.find(id_, is_filling=True)
            if found.note is None:
                raise Problem("fixed", "this stream is the application's, which ends it", found)
            await self._delete(found.stream)
            return found

    async def _delete(self, stream: Summary) -> None:
        """Those who read it are told of an end first."""
        self._cache.pop(stream.id, None)
        if stream.length and self._kept.is_of_room(stream):
            await self._kept.remember(stream.id)
        if not stream.end and not stream.is_gone:
            note = read_note(stream.note)
            if note is not None:
                await self._append(stream, Note(note.meta, _nonce()), Said("", 0, b""), "cancelled")
        await self._link.delete(Deletion(stream.id, stream.topic, stream.writer))

    async def _append(self, stream: Summary, note: Note, said: Said, end: End) -> Found | None:
        """Append one piece; the stream with it, or ``None`` where the engine has another one of its number, or an end.

        Raises:
            Problem: the engine takes no such piece.
            BackplaneUnavailable: it may be done, or not.
        """
        data = note.data  # never the same twice
        piece = Piece(stream.pieces, stream.length, said.length, said.kind if said.data else "", end, said.data, data)
        payload = pack(piece)
        room = self._kept.room_of(Found(stream, note))
        head = Heads(self._node_id, room, stream.id).of(len(payload))
        if not await self._store(Append(stream.id, stream.topic, stream.writer, payload, head), piece):
            return None
        self._took(room, stream.id, payload)
        after = stream._replace(pieces=stream.pieces + 1, length=piece.stop, end=end, note=data)
        return Found(after, note)

    async def _store(self, append: Append, piece: Piece) -> bool:
        """Whether the engine has a piece."""
        unsure: BackplaneUnavailable | None = None
        for left in reversed(range(AGAIN)):
            try:
                (written,) = await self._link.append([append])
            except BackplaneUnavailable as error:
                unsure = error if error.outcome == "unknown" else unsure
                if unsure is None:
                    raise
                if not left:
                    raise unsure from None  # be it that the engine was not even asked again
                await asyncio.sleep(PAUSE)
                continue
            if isinstance(written, Refused):
                raise BackplaneUnavailable(str(written))
            # Where it was taken before, and others have written since, the engine has another one in the end.
            return written.is_taken or (unsure is not None and await self._has(append, piece, unsure))
        raise AssertionError("it was tried")

    async def _has(self, append: Append, piece: Piece, unsure: BackplaneUnavailable) -> bool:
        """Whether the engine has a piece, of which it did not say whether it has taken it, before others."""
        part = await self._link.read(Query(append.id, append.topic, piece.start))
        if part is None or part.stream.writer != append.writer:
            raise unsure  # it was deleted since
        return any(each.number == piece.number and each.note == piece.note for each in readable(part))

    def check_fork(self, id_: str, room: str | None, meta: Meta, copied: int, pieces: int, said: Said) -> None:
        """Look whether a stream would be too large that begins with what another one has.

        Args:
            id_: of the new one.
            room: of the new one.
            meta: what it is like.
            copied: bytes that it has from there.
            pieces: in how many pieces.
            said: what comes behind that.

        Raises:
            Problem: it would be.
        """
        begun = Note(meta, _nonce(), is_filling=True, size=self._limit)
        note = Note(meta, _nonce(), is_filling=True, size=copied + (pieces + 1) * _size_of(begun, Said("", 0, b"")))
        self._check_size(id_, room, _grown(note, said), said, is_fork=True)

    def _check_size(self, id_: str, room: str | None, note: Note, said: Said, *, is_fork: bool = False) -> None:
        """Look whether a stream, or the piece that it ends with, would be too large; what says nothing never is.

        Raises:
            Problem: it is.
        """
        most = self._link.max_payload
        most -= len(Heads(self._node_id, room, id_).of(most)) + _size_of(note, Said("", 0, b""))
        if len(said.data) > most:
            raise Problem("large", f"one request may have {max(0, most)} bytes on this engine, for this stream")
        if note.size > self._limit and (said.data or is_fork):
            text = f"the stream would have more than {self._limit} bytes, with what is kept of each request"
            raise Problem("large", f"{text} (WS_STREAM_MAX_SIZE)")

    def _keep(self, found: Found) -> None:
        """Know how a stream is, so that the next append needs not ask; not of one that may be gone by then."""
        meta = None if found.note is None else found.note.meta
        if meta is None or meta.ttl is not None or meta.expires is not None:
            return
        self._cache[found.stream.id] = found
        if len(self._cache) > CACHED:
            self._cache.popitem(last=False)


def _is_half_of_another(found: Found, meta: Meta) -> bool:
    """Whether a stream was to begin with another one, which it has not all of, and is not what is asked for now."""
    note = found.note
    return note is not None and note.is_filling and (note.meta.tag != meta.tag or note.meta.differs(meta) != "")


def _size_of(note: Note, said: Said) -> int:
    """Bytes of a piece, as the engine keeps it."""
    return len(pack(Piece(0, 0, 0, "", "", b"", note.data))) + len(said.data)


def _grown(note: Note, said: Said) -> Note:
    """A note that counts the piece that has it, to a few bytes, as the number is a part of it."""
    about = msgspec.structs.replace(note, size=note.size + _size_of(note, said))
    return msgspec.structs.replace(note, size=note.size + _size_of(about, said))


def _writer() -> bytes:
    return BY_REQUESTS + secrets.token_bytes(WRITER_SIZE - len(BY_REQUESTS))


def _nonce() -> bytes:
    return secrets.token_bytes(6)
