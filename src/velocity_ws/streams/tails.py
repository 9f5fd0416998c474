"""Tails: streams that are read here as they are said, by those who wait for more: by their ids, and not by a room.

Knows the engine, and no client. All who read one stream at its end share what is heard of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.logs import get_logger
from velocity_ws.stream_errors import StreamGone, StreamNotFound
from velocity_ws.streams.items import Query, Summary
from velocity_ws.streams.link import StreamLink
from velocity_ws.streams.pieces import InvalidPiece, Piece, join, unpack
from velocity_ws.streams.requests import readable_from
from velocity_ws.streams.tail import Chunk, Tail

__all__ = ["PAGE", "Tails"]

log = get_logger("velocity_ws.streams")

PAGE = 256 * 1024
"""Bytes that are read at once, about."""
LINGER = 5.0
"""Seconds for which a stream is followed that nobody reads any more: who asks again and again finds it as it was."""
LOOK = 1.0
"""Seconds between two looks whether something was missed, or the writer has died."""


class Hears(Protocol):
    """Hears what other nodes publish. On the broker's loop only."""

    def hold(self, topic: str) -> None:
        """Need a topic, be it needed by others or not."""

    def let_go(self, topic: str) -> None:
        """Need it no more."""

    async def wait_held(self, topic: str) -> None:
        """Wait until it is heard, for a while."""


class Renews(Protocol):
    """Renews streams that are gone some time after they were read last. On the broker's loop only."""

    def pause_of(self, stream: Summary) -> float:
        """Seconds between two renewals; infinite for a stream without such a time."""

    async def renew(self, stream: Summary) -> None:
        """A stream is being read; raises `BackplaneUnavailable`."""


class Tails:
    """The streams that are read on one node as they are said. On the broker's loop only."""

    def __init__(
        self,
        link: StreamLink,
        settled: Callable[[str], Awaitable[Summary]],
        hears: Hears | None,
        clock: Callable[[], float],
        renews: Renews | None = None,
    ) -> None:
        """
        Args:
            link: the way to the engine.
            settled: a stream by its id, once it has ended if its writer is dead; see `Asking.look`.
            hears: hears what other nodes publish; ``None`` where there are never any.
            clock: seconds, never going back.
            renews: renews those that are read; ``None`` where none has a time without reads.
        """
        self._link = link
        self._settled = settled
        self._hears = hears
        self._clock = clock
        self._renews = renews
        self._tails: dict[str, Tail] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._reads: dict[tuple[Tail, int], asyncio.Task[list[Piece]]] = {}

    async def stop(self) -> None:
        """Follow nothing any more; who waits is told that the broker is stopping."""
        for tail in self._tails.values():
            self._fail(tail, BackplaneUnavailable("the broker is stopping"))
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def heard(self, id_: str, payload: bytes) -> None:
        """Take a piece of a stream that was published, here or elsewhere."""
        tail = self._tails.get(id_)
        if tail is None:
            return
        try:
            piece = unpack(payload)
        except InvalidPiece:  # of which the log says by `Following`, or the next look finds what it was
            return
        if not tail.is_known or not tail.take(piece):
            tail.stale.set()

    def look_soon(self, id_: str | None = None) -> None:
        """Something of a stream, or of all of them, may have been missed."""
        for tail in self._tails.values():
            if id_ is None or tail.id == id_:
                tail.stale.set()

    # --- reading

    async def open(self, id_: str, writer: bytes = b"") -> Tail:
        """The tail of a stream, from now on heard here.

        Args:
            id_: the stream's.
            writer: of the stream that is meant; empty for any of the id.

        Raises:
            StreamNotFound: there is no such stream, or it was removed.
            StreamGone: it ended so long ago that nothing is kept of it.
            BackplaneUnavailable: the engine did not answer.
        """
        tail = self._tails.get(id_)
        if tail is None:
            tail = self._tails[id_] = Tail(id_)
            tail.used_at = self._clock()
            self._run(self._follow(tail))
        tail.used_at = self._clock()
        tail.users += 1
        try:
            while not tail.is_known and tail.error is None:
                await tail.wait()
        finally:
            tail.users -= 1
        if tail.error is not None:
            raise tail.error
        if writer and tail.writer != writer:
            stream = await self._settled(id_)
            if stream.writer != writer:
                raise StreamNotFound(id_)
            self._fail(tail, StreamNotFound(id_))  # of the stream that was there before
            if self._tails.get(id_) is tail:
                del self._tails[id_]
            tail.stale.set()
            return await self.open(id_, writer)
        return tail

    async def read(self, id_: str, cursor: int, timeout: float | None, *, seen: int = 0, writer: bytes = b"") -> Chunk:
        """What follows a position, as soon as there is something, or the end.

        Args:
            id_: the stream's.
            cursor: characters, items, or bytes, that are not needed; not more than there are.
            timeout: seconds to wait at most, 0 for not at all; after them the chunk has nothing. ``None`` for no bound.
            seen: how many of those that are needed were seen, and need more behind them before they are of use.
            writer: of the stream that is meant; empty for any of the id.

        Raises:
            StreamNotFound: there is no such stream, or it was removed.
            StreamGone: it ended so long ago that nothing is kept of it.
            BackplaneUnavailable: the engine did not answer.
        """
        tail = await self.wait(id_, max(cursor, seen), timeout, writer)
        return await self.part(tail, cursor)

    async def wait(self, id_: str, length: int, timeout: float | None, writer: bytes = b"") -> Tail:
        """Wait until a stream has more than so much, or has ended; `read` says how long, and what is raised."""
        tail = await self.open(id_, writer)
        tail.users += 1
        try:
            if length >= tail.length and not tail.end and timeout != 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout):
                        while length >= tail.length and not tail.end and tail.error is None:
                            await tail.wait()
            if tail.error is not None:
                raise tail.error
            return tail
        finally:
            tail.users -= 1
            tail.used_at = self._clock()

    async def part(self, tail: Tail, cursor: int) -> Chunk:
        """What there is after a position of a stream that is open, without waiting for more; see `read`."""
        if tail.error is not None:
            raise tail.error
        tail.users += 1
        try:
            return await self._chunk(tail, cursor)
        finally:
            tail.users -= 1
            tail.used_at = self._clock()

    async def _chunk(self, tail: Tail, cursor: int) -> Chunk:
        if cursor >= tail.length:
            return Chunk("", cursor, cursor, b"", True, tail.end, tail.writer)
        made: Chunk | None = tail.made.get(cursor)
        if made is not None:
            return made
        pieces = tail.kept(cursor)
        if pieces is None:
            pieces = await self._pieces(tail, cursor)
        whole = join(pieces)
        is_all = whole.stop >= tail.length
        end = tail.end if is_all else ""
        made = Chunk(whole.kind, whole.start, whole.stop, whole.data, is_all, end, tail.writer)
        tail.remember(cursor, made, len(made.data))
        return made

    async def _pieces(self, tail: Tail, cursor: int) -> list[Piece]:
        """What follows a position, read once for all who ask for it at the same time."""
        key = tail, cursor
        task = self._reads.get(key)
        if task is None:
            task = self._reads[key] = self._run(self._read(tail, cursor))
            task.add_done_callback(lambda _: self._reads.pop(key, None))
        await asyncio.wait([task])
        if task.cancelled():
            raise BackplaneUnavailable("the broker is stopping")
        return task.result()

    async def _read(self, tail: Tail, cursor: int) -> list[Piece]:
        part = await self._link.read(Query(tail.id, tail.topic, cursor, PAGE))
        if part is None or part.stream.writer != tail.writer:
            raise StreamNotFound(tail.id)
        found = readable_from(part, cursor)
        if not found:
            raise StreamGone(tail.id)
        return found

    # --- following

    async def _follow(self, tail: Tail) -> None:
        """Hear a stream for as long as somebody reads it."""
        topic = ""
        try:
            stream = await self._settled(tail.id)
            topic = stream.topic
            if self._hears is not None:
                self._hears.hold(topic)
                await self._hears.wait_held(topic)
                stream = await self._settled(tail.id)  # once it is heard
            tail.topic, tail.writer, tail.is_known = topic, stream.writer, True
            tail.learn(stream)
            pause = math.inf if self._renews is None else self._renews.pause_of(stream)
            renew_at = self._clock() if pause < math.inf else math.inf
            while tail.users or self._clock() < tail.used_at + LINGER:
                is_due = bool(tail.users) and not tail.end
                if is_due and self._clock() >= renew_at:
                    renew_at = self._clock() + pause
                    await self._renew(stream)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(LOOK, pause)):
                        await tail.stale.wait()
                        is_due = True
                if is_due:
                    tail.stale.clear()
                    await self._catch_up(tail)
        except (StreamNotFound, StreamGone, BackplaneUnavailable) as error:
            self._fail(tail, error)
        except Exception:  # else those who wait would do so for ever
            log.exception("a stream that is read here cannot be followed")
            self._fail(tail, BackplaneUnavailable("the stream cannot be followed now: the log of the node says why"))
        finally:
            if self._tails.get(tail.id) is tail:
                del self._tails[tail.id]
            if topic and self._hears is not None:
                self._hears.let_go(topic)

    async def _renew(self, stream: Summary) -> None:
        """Say that a stream is read: one for all who wait for more of it."""
        if self._renews is not None:
            with contextlib.suppress(BackplaneUnavailable):  # it is said again soon
                await self._renews.renew(stream)

    async def _catch_up(self, tail: Tail) -> None:
        """Take what was not heard, if there is such."""
        try:
            stream = await self._settled(tail.id)
        except BackplaneUnavailable:
            await asyncio.sleep(LOOK)  # those who wait do so on
            tail.stale.set()
            return
        if stream.writer != tail.writer:
            raise StreamNotFound(tail.id)  # it was removed, and begun anew
        if stream.pieces > tail.number or (stream.end and not tail.end):
            tail.learn(stream)

    def _fail(self, tail: Tail, error: Exception) -> None:
        if tail.error is None:
            tail.error = error
            tail.tell()

    def _run(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work, name="velocity-ws streams")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved: who waits for it has it
